package event

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

// Version of envelopes.
const Version = 1

// FirstEpoch is the epoch of an instance that never was restored from a backup.
const FirstEpoch = 1

// Line names one hash-linked line of envelopes.
type Line struct {
	Instance sig.PublicKey
	Topic    Topic
}

// String returns the topic and the first characters of the instance's name.
func (l Line) String() string {
	return string(l.Topic) + " of " + subject.Instance(l.Instance)[:16]
}

// Envelope is a decoded envelope. Its fields are read-only. Decode checks form alone; only the
// Verifier says who sent it.
type Envelope struct {
	Body *eventv1.EnvelopeBody
	Hash [32]byte // SHA-256 of the signed preimage
	Raw  []byte   // canonical bytes

	preimage  []byte
	signature sig.Signature
}

// Line returns the line that the envelope stands in.
func (e *Envelope) Line() Line {
	return Line{Instance: sig.PublicKey(e.Body.InstanceKey), Topic: Topic(e.Body.Topic)}
}

// Topic returns the envelope's topic.
func (e *Envelope) Topic() Topic { return Topic(e.Body.Topic) }

// Type returns the event's type.
func (e *Envelope) Type() string { return e.Body.Type }

// Time returns the instance's time of the event.
func (e *Envelope) Time() time.Time { return time.UnixMilli(int64(e.Body.Time)) }

// Payload decodes the payload into m, strictly. Its error wraps ErrRefused, so that a handler may
// return it as it is.
func (e *Envelope) Payload(m proto.Message) error {
	if err := canon.Unmarshal(e.Body.Payload, m); err != nil {
		return fmt.Errorf("payload of %s: %w: %w", e.Body.Type, ErrRefused, err)
	}
	return nil
}

// Decode reads the canonical bytes of an envelope and checks its form, not its signature. It keeps
// raw. Errors: ErrOversized, ErrNotCanonical, ErrMalformed.
func Decode(raw []byte) (*Envelope, error) {
	if len(raw) > MaxEnvelope {
		return nil, fmt.Errorf("envelope of %d bytes, at most %d: %w",
			len(raw), MaxEnvelope, ErrOversized)
	}
	m := new(eventv1.Envelope)
	if err := canon.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotCanonical, err)
	}
	if err := checkForm(m); err != nil {
		return nil, err
	}
	body, err := firstField(raw)
	if err != nil {
		return nil, err
	}
	return &Envelope{
		Body: m.Body, Raw: raw,
		Hash:      sig.Hash(sig.DomainEvent, nil, body),
		preimage:  sig.Preimage(sig.DomainEvent, nil, body),
		signature: sig.Signature(m.Signature),
	}, nil
}

// firstField returns the bytes of field 1 of canonical bytes, which is the first by their order.
func firstField(raw []byte) ([]byte, error) {
	number, kind, n := protowire.ConsumeTag(raw)
	if n < 0 || number != 1 || kind != protowire.BytesType {
		return nil, fmt.Errorf("no body: %w", ErrMalformed)
	}
	body, m := protowire.ConsumeBytes(raw[n:])
	if m < 0 {
		return nil, fmt.Errorf("no body: %w", ErrMalformed)
	}
	return body, nil
}

func checkForm(m *eventv1.Envelope) error {
	b := m.GetBody()
	switch {
	case b == nil:
		return fmt.Errorf("no body: %w", ErrMalformed)
	case len(m.Signature) != sig.SignatureSize:
		return fmt.Errorf("signature of %d bytes: %w", len(m.Signature), ErrMalformed)
	case b.Version != Version:
		return fmt.Errorf("version %d: %w", b.Version, ErrMalformed)
	case len(b.InstanceKey) != sig.PublicKeySize || len(b.CertificateId) != sig.HashSize:
		return fmt.Errorf("instance key or certificate id: %w", ErrMalformed)
	case b.Epoch == 0 || b.Seq == 0 || b.Time >= 1<<53:
		return fmt.Errorf("epoch, seq or time: %w", ErrMalformed)
	}
	if err := checkPrev(b); err != nil {
		return err
	}
	return eventOf(b).Validate()
}

// checkPrev holds that exactly the first envelope of the first epoch has none before it.
func checkPrev(b *eventv1.EnvelopeBody) error {
	want := sig.HashSize
	if b.Epoch == FirstEpoch && b.Seq == 1 {
		want = 0
	}
	if len(b.Prev) != want {
		return fmt.Errorf("prev of %d bytes, want %d: %w", len(b.Prev), want, ErrMalformed)
	}
	return nil
}

func eventOf(b *eventv1.EnvelopeBody) Event {
	return Event{
		Topic: Topic(b.Topic), Type: b.Type, Time: time.UnixMilli(int64(b.Time)), Chain: b.Chain,
		Payload: b.Payload, Traceparent: b.Traceparent,
	}
}

// EncodeEvent returns bytes from which DecodeEvent restores an event; stores keep drafts so.
func EncodeEvent(e Event) ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	raw, err := canon.Marshal(&eventv1.EnvelopeBody{
		Topic: string(e.Topic), Type: e.Type, Time: uint64(e.Time.UnixMilli()), Chain: e.Chain,
		Payload: e.Payload, Traceparent: e.Traceparent,
	})
	if err != nil {
		return nil, fmt.Errorf("encode draft: %w", err)
	}
	return raw, nil
}

// DecodeEvent reads what EncodeEvent wrote. An error means that the store lost or changed bytes.
func DecodeEvent(raw []byte) (Event, error) {
	b := new(eventv1.EnvelopeBody)
	if err := canon.Unmarshal(raw, b); err != nil {
		return Event{}, fmt.Errorf("decode draft: %w", err)
	}
	if b.Seq != 0 || b.Epoch != 0 {
		return Event{}, errors.New("decode draft: it has a place already")
	}
	e := eventOf(b)
	return e, e.Validate()
}
