package event

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/telemetry"
)

// Topic is one of the four lines of events that every instance has.
type Topic string

// The topics.
const (
	TopicMarket   Topic = "market"
	TopicMoney    Topic = "money"
	TopicJob      Topic = "job"
	TopicOperator Topic = "operator"
)

// TypeCertificateIssued, on TopicOperator, carries a CertificateNotice. The Publisher sends it.
const TypeCertificateIssued = "certificate.issued"

// Bounds of an event, in bytes.
const (
	MaxPayload     = 256 << 10
	MaxChain       = 64
	MaxTraceparent = 64
	MaxEnvelope    = MaxPayload + 1<<10
)

// Topics returns all topics.
func Topics() []Topic { return []Topic{TopicMarket, TopicMoney, TopicJob, TopicOperator} }

// Valid reports whether t is one of the topics.
func (t Topic) Valid() bool {
	return t == TopicMarket || t == TopicMoney || t == TopicJob || t == TopicOperator
}

// Event is what a service says, before it has a place and a signature.
type Event struct {
	Topic       Topic
	Type        string // dotted lower-case name such as "attempt.changed"
	Time        time.Time
	Chain       string // chain it speaks of; may be empty
	Payload     []byte // canonical bytes of the message that the type names
	Traceparent string // W3C; may be empty
}

// New returns an event with the canonical bytes of payload and the traceparent of ctx. Errors:
// those of Validate, and of canon.Marshal for a payload that has no canonical form.
func New(
	ctx context.Context, now time.Time, topic Topic, kind string, payload proto.Message,
) (Event, error) {
	raw, err := canon.Marshal(payload)
	if err != nil {
		return Event{}, fmt.Errorf("encode payload of event %s: %w", kind, err)
	}
	e := Event{
		Topic: topic, Type: kind, Time: now, Payload: raw, Traceparent: telemetry.Inject(ctx),
	}
	return e, e.Validate()
}

// Validate checks the bounds. Errors: ErrMalformed, ErrOversized.
func (e Event) Validate() error {
	switch {
	case !e.Topic.Valid():
		return fmt.Errorf("topic %q: %w", e.Topic, ErrMalformed)
	case !subject.ValidType(e.Type):
		return fmt.Errorf("type %q: %w", e.Type, ErrMalformed)
	case e.Time.UnixMilli() <= 0:
		return fmt.Errorf("event %s has no time: %w", e.Type, ErrMalformed)
	case len(e.Payload) > MaxPayload:
		return fmt.Errorf("payload of %d bytes, at most %d: %w",
			len(e.Payload), MaxPayload, ErrOversized)
	case len(e.Chain) > MaxChain || !utf8.ValidString(e.Chain):
		return fmt.Errorf("chain: %w", ErrMalformed)
	case len(e.Traceparent) > MaxTraceparent || !utf8.ValidString(e.Traceparent):
		return fmt.Errorf("traceparent: %w", ErrMalformed)
	}
	return nil
}
