package event

import (
	"fmt"
	"slices"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

// Signer gives events the signature of an instance. It is immutable.
type Signer struct {
	key         sig.PrivateKey
	certificate []byte
	named       cert.ID
	address     subject.Address
}

// NewSigner returns the signer of one service of an instance, from the canonical bytes of its
// certificate. It fails when the certificate is not for the key or does not name the service; it
// does not judge the operator's signature.
func NewSigner(key sig.PrivateKey, certificate []byte, service string) (*Signer, error) {
	c, named, err := cert.Decode(certificate)
	switch {
	case err != nil:
		return nil, fmt.Errorf("new event signer: %w", err)
	case c.InstanceKey != key.Public():
		return nil, fmt.Errorf("new event signer: %w", ErrInstance)
	case !c.Covers(service):
		return nil, fmt.Errorf("new event signer for %s: %w", service, ErrService)
	}
	return &Signer{
		key: key, certificate: slices.Clone(certificate), named: named,
		address: subject.Address{
			Operator: c.Operator, Service: service, Instance: c.InstanceKey,
		},
	}, nil
}

// Address returns where the instance is found.
func (s *Signer) Address() subject.Address { return s.address }

// Certificate returns the canonical bytes of the certificate that envelopes cite.
func (s *Signer) Certificate() []byte { return slices.Clone(s.certificate) }

// Head is the last place taken in a line. The zero value is a line without envelopes.
type Head struct {
	Epoch uint64
	Seq   uint64
	Hash  [32]byte
}

// Sign gives e the place behind head. The caller must have the returned envelope on disk before
// anyone else sees it: signing another event for the same place is a provable fork.
func (s *Signer) Sign(e Event, head Head) (*Envelope, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	public := s.key.Public()
	body := &eventv1.EnvelopeBody{
		Version: Version, InstanceKey: public[:], CertificateId: s.named[:],
		Topic: string(e.Topic), Epoch: max(head.Epoch, FirstEpoch), Seq: head.Seq + 1,
		Type: e.Type, Time: uint64(e.Time.UnixMilli()), Chain: e.Chain,
		Payload: e.Payload, Traceparent: e.Traceparent,
	}
	if head.Seq > 0 || body.Epoch > FirstEpoch {
		body.Prev = head.Hash[:]
	}
	raw, err := canon.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode envelope body: %w", err)
	}
	signature := s.key.Sign(sig.Preimage(sig.DomainEvent, nil, raw))
	raw, err = canon.Marshal(&eventv1.Envelope{Body: body, Signature: signature[:]})
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	return Decode(raw)
}

// Subject returns the subject that the envelope is published on.
func (s *Signer) Subject(e *Envelope) string {
	return s.address.Event(e.Body.Topic, e.Body.Type)
}
