package broker_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/kit/broker"
)

// TestEarlyOnesAreNotTurnedAway: services connect while the broker's server runs and is not open
// yet. The server turning them away cost up to 10 s of a start.
func TestEarlyOnesAreNotTurnedAway(t *testing.T) {
	var words lockedBuffer
	hook := &startHook{Handler: slog.NewTextHandler(&words,
		&slog.HandlerOptions{Level: slog.LevelDebug})}
	b, err := broker.New(config(t), broker.Deps{Log: slog.New(hook)})
	if err != nil {
		t.Fatal(err)
	}
	var connected <-chan nats.Status
	hook.started = func() {
		conn, err := b.Connect("early") // tries once before it returns
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(conn.Close)
		connected = conn.StatusChanged(nats.CONNECTED)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- b.Run(ctx, func() { close(ready) }) }()
	<-ready
	if connected == nil {
		t.Fatalf("nobody connected early; the log says\n%s", words.String())
	}
	<-connected
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text := words.String(); strings.Contains(text, "authentication error") {
		t.Errorf("turned away:\n%s", text)
	}
}

// startHook does something once the server says that it runs.
type startHook struct {
	slog.Handler
	once    sync.Once
	started func()
}

// Handle implements slog.Handler.
func (h *startHook) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.String() == "Server is ready" {
			h.once.Do(h.started)
		}
		return true
	})
	return err
}
