package event

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/durable"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// TypeForkFound, on TopicOperator, carries a ForkNotice. A Consumer with an outbox says it.
const TypeForkFound = "fork.found"

// MaxForkProof bounds the canonical bytes of a ForkProof.
const MaxForkProof = 2*MaxEnvelope + cert.MaxSize + 64

// Fork is what a ForkProof proves.
type Fork struct {
	Line        Line
	First       *Envelope
	Second      *Envelope
	Certificate cert.Certificate
}

// Proof returns the canonical bytes of a ForkProof that anybody can verify with VerifyFork.
// certificate is that of the instance, in canonical bytes. Errors: those of Decode, or ErrProof.
func (e *ForkError) Proof(certificate []byte) ([]byte, error) {
	m := &eventv1.ForkProof{
		First: new(eventv1.Envelope), Second: new(eventv1.Envelope),
		Certificate: new(identityv1.Certificate),
	}
	if err := canon.Unmarshal(e.Have, m.First); err != nil {
		return nil, fmt.Errorf("%w: first envelope: %w", ErrProof, err)
	}
	if err := canon.Unmarshal(e.Got, m.Second); err != nil {
		return nil, fmt.Errorf("%w: second envelope: %w", ErrProof, err)
	}
	if err := canon.Unmarshal(certificate, m.Certificate); err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrProof, err)
	}
	raw, err := canon.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode proof of a fork: %w", err)
	}
	return raw, nil
}

// VerifyFork checks the canonical bytes of a ForkProof: both envelopes are signed by the instance
// of the certificate and contradict each other, and an operator signed the certificate. It needs no
// network if judge's key sets need none; its Now and Revoked do not count: a fork stays one.
// Errors wrap ErrProof, or keys.ErrLookup when the operator's keys cannot be known now.
func VerifyFork(ctx context.Context, raw []byte, judge cert.Verifier) (*Fork, error) {
	f, certificate, err := readFork(raw)
	if err != nil {
		return nil, err
	}
	for _, e := range []*Envelope{f.First, f.Second} {
		if !sig.Verify(f.Line.Instance, e.preimage, e.signature) {
			return nil, fmt.Errorf("%w: %w", ErrProof, ErrSignature)
		}
	}
	judge.Revoked = nil
	if c, _, err := cert.Decode(certificate); err == nil {
		judge.Now = func() time.Time { return c.NotBefore }
	}
	c, named, err := judge.Verify(ctx, certificate)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	case c.InstanceKey != f.Line.Instance:
		return nil, fmt.Errorf("%w: %w", ErrProof, ErrInstance)
	case !bytes.Equal(named[:], f.First.Body.CertificateId) &&
		!bytes.Equal(named[:], f.Second.Body.CertificateId):
		return nil, fmt.Errorf("%w: no envelope cites the certificate", ErrProof)
	}
	f.Certificate = c
	return f, nil
}

// readFork decodes a proof and holds that its envelopes contradict each other; no signature is
// looked at.
func readFork(raw []byte) (*Fork, []byte, error) {
	if len(raw) > MaxForkProof {
		return nil, nil, fmt.Errorf("%w: %d bytes: %w", ErrProof, len(raw), ErrOversized)
	}
	m := new(eventv1.ForkProof)
	if err := canon.Unmarshal(raw, m); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	var both [2]*Envelope
	for i, part := range []*eventv1.Envelope{m.GetFirst(), m.GetSecond()} {
		e, err := recode(part)
		if err != nil {
			return nil, nil, err
		}
		both[i] = e
	}
	f := &Fork{Line: both[0].Line(), First: both[0], Second: both[1]}
	if !contradict(f.First, f.Second) {
		return nil, nil, fmt.Errorf("%w: the envelopes do not contradict each other", ErrProof)
	}
	certificate, err := canon.Marshal(m.GetCertificate())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: certificate: %w", ErrProof, err)
	}
	return f, certificate, nil
}

func recode(m *eventv1.Envelope) (*Envelope, error) {
	raw, err := canon.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	e, err := Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	return e, nil
}

// contradict tells whether no honest instance signs both: one place with two hashes, or a second
// right behind the first that names another one before it.
func contradict(first, second *Envelope) bool {
	a, b := first.Body, second.Body
	if first.Line() != second.Line() || a.Epoch != b.Epoch {
		return false
	}
	return a.Seq == b.Seq && first.Hash != second.Hash ||
		b.Seq-1 == a.Seq && !bytes.Equal(b.Prev, first.Hash[:])
}

// WriteProof writes the evidence of a fork into a folder, which it makes, and returns the file's
// path. The name tells line and epoch, so that one fork has one file.
func WriteProof(dir string, fork *ForkError) (string, error) {
	if len(fork.Evidence) == 0 {
		return "", fmt.Errorf("write proof of a fork: %w: no evidence", ErrProof)
	}
	got, err := Decode(fork.Got)
	if err != nil {
		return "", fmt.Errorf("write proof of a fork: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("write proof of a fork: %w", err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%s-%d.fork",
		subject.Instance(fork.Line.Instance), fork.Line.Topic, got.Body.Epoch))
	if err := durable.Replace(path, fork.Evidence, durable.Private); err != nil {
		return "", fmt.Errorf("write proof of a fork: %w", err)
	}
	return path, nil
}

// noticeOf returns the event that tells of a proven fork; the proof is left out if it does not fit.
func noticeOf(e *ForkError, proof []byte, now time.Time) (Event, error) {
	got, err := Decode(e.Got)
	if err != nil {
		return Event{}, err
	}
	m := &eventv1.ForkNotice{
		InstanceKey: e.Line.Instance[:], Topic: string(e.Line.Topic),
		Epoch: got.Body.Epoch, Seq: got.Body.Seq,
	}
	if len(proof) > 0 && len(proof) < MaxPayload-256 {
		m.Proof = new(eventv1.ForkProof)
		if err := canon.Unmarshal(proof, m.Proof); err != nil {
			return Event{}, fmt.Errorf("decode proof of a fork: %w", err)
		}
	}
	return New(context.Background(), now, TopicOperator, TypeForkFound, m)
}
