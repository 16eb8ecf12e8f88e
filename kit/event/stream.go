package event

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/kit/bus/subject"
)

// Limits bounds the stream of one service kind. What is older, or beyond the size, goes; consumers
// that missed it see a gap.
type Limits struct {
	Age   time.Duration // 0 means DefaultAge
	Bytes int64         // 0 means DefaultBytes
}

// Defaults of a stream.
const (
	DefaultAge   = 7 * 24 * time.Hour
	DefaultBytes = 256 << 20
	dedupWindow  = 2 * time.Minute // how long the broker knows what it has taken
)

// StreamName returns the name of the JetStream stream that holds the events of a service kind.
func StreamName(service string) string { return "UCN_" + service }

// DurableName returns the name of the consumers of an instance at a broker. Each instance has its
// own: brokers let others not touch them, and two that shared one would each see half the events.
func DurableName(service string, instance [32]byte) string {
	return service + "-" + subject.Instance(instance)
}

// EnsureStream creates the stream of a service kind unless it exists. An existing one keeps its
// limits: they are the broker's owner's to change. One that could be purged, of an earlier release,
// no longer can be.
func EnsureStream(
	ctx context.Context, js jetstream.JetStream, service string, limits Limits,
) error {
	if !subject.ValidService(service) {
		return fmt.Errorf("stream of %q: %w", service, ErrMalformed)
	}
	if stream, err := js.Stream(ctx, StreamName(service)); err == nil {
		return seal(ctx, js, stream.CachedInfo().Config)
	}
	_, err := js.CreateStream(ctx, streamConfig(service, limits))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("create stream of %s: %w", service, err)
	}
	return nil
}

// seal makes a stream lose events by its limits only.
func seal(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	if cfg.DenyDelete && cfg.DenyPurge {
		return nil
	}
	cfg.DenyDelete, cfg.DenyPurge = true, true
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("update stream %s: %w", cfg.Name, err)
	}
	return nil
}

// streamConfig lists the subjects by topic, so that rpc and reply subjects are never captured.
func streamConfig(service string, limits Limits) jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name: StreamName(service), Description: "signed events of " + service + " instances",
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: limits.Age, MaxBytes: limits.Bytes, MaxMsgSize: MaxEnvelope + 4<<10,
		Storage: jetstream.FileStorage, Duplicates: dedupWindow, AllowDirect: true,
		DenyDelete: true, DenyPurge: true,
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = DefaultAge
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultBytes
	}
	if cfg.Duplicates > cfg.MaxAge {
		cfg.Duplicates = cfg.MaxAge
	}
	for _, topic := range Topics() {
		cfg.Subjects = append(cfg.Subjects, subject.Events(service, string(topic)))
	}
	return cfg
}
