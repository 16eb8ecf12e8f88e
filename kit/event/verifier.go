package event

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/keys"
)

// Defaults of a Verifier.
const (
	DefaultSkew   = 2 * time.Minute    // how far an instance's clock may run ahead of ours
	DefaultLinger = 8 * 24 * time.Hour // how long after its end a certificate's events are taken
	verifierKeys  = 1 << 12            // expanded keys cached, about 1.6 KiB each
)

// Certificates finds certificates by id.
//
// Certificate returns the named one, whose account signature was found good; from says where the
// envelope claims to come from. It returns an error wrapping ErrCertificateUnknown or
// ErrCertificateInvalid when there is none, any other error when it cannot tell now. Learn hands
// over the certificate that an instance announced, in canonical bytes; the implementation judges it
// itself. Bytes returns the canonical bytes of one that was returned lately, or nil. All are safe
// for concurrent use.
type Certificates interface {
	Certificate(
		ctx context.Context, named cert.ID, from subject.Address,
	) (cert.Certificate, error)
	Learn(ctx context.Context, raw []byte)
	Bytes(named cert.ID) []byte
}

// VerifierConfig says what a Verifier believes.
type VerifierConfig struct {
	// Certificates is where certificates are found. Required.
	Certificates Certificates
	// Accept says whose events are taken; nil takes those of every operator.
	Accept func(operator [32]byte) bool
	// Clock; nil means time.Now.
	Clock func() time.Time
	// Skew is how far a time may be ahead of Clock; 0 means DefaultSkew.
	Skew time.Duration
	// Linger is how long after not_after the events of a certificate are still taken, if they say
	// that they are older; 0 means DefaultLinger. Later a stolen old key can invent nothing.
	Linger time.Duration
	// Sets answers for key sets of operators who open a new epoch; nil believes their first ones.
	Sets keys.Sets
}

// Received is a message as the broker delivered it.
type Received struct {
	Subject string
	Data    []byte
}

// Verdict is what a Verifier found. Envelope is nil only if the bytes are no envelope.
type Verdict struct {
	Envelope *Envelope
	Operator [32]byte
	Err      error
	// Certificate is the sender's, set when Err is nil.
	Certificate cert.Certificate
}

// Verifier tells whether envelopes come from whom they say. It knows no order: that is the
// Consumer's. It is safe for concurrent use.
type Verifier struct {
	cfg  VerifierConfig
	sigs *sig.Verifier
}

// NewVerifier returns a Verifier.
func NewVerifier(cfg VerifierConfig) *Verifier {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Skew == 0 {
		cfg.Skew = DefaultSkew
	}
	if cfg.Linger == 0 {
		cfg.Linger = DefaultLinger
	}
	return &Verifier{cfg: cfg, sigs: sig.NewVerifier(verifierKeys)}
}

// Verify judges the messages together, which is faster than one by one; a verdict never depends
// on its neighbours. Errors of a verdict: those named in errors.go from ErrOversized to ErrFuture,
// or an error of Certificates, after which the message may be tried again.
func (v *Verifier) Verify(ctx context.Context, messages []Received) []Verdict {
	verdicts := make([]Verdict, len(messages))
	batch := v.sigs.NewBatch(len(messages))
	at := make([]int, 0, len(messages))
	for i, m := range messages {
		e, from, err := open(m)
		verdicts[i] = Verdict{Envelope: e, Operator: from.Operator, Err: err}
		if err != nil {
			continue
		}
		batch.Add(sig.PublicKey(e.Body.InstanceKey), e.preimage, e.signature)
		at = append(at, i)
	}
	for j, good := range batch.Verify() {
		verdict := &verdicts[at[j]]
		if !good {
			verdict.Err = fmt.Errorf("%s: %w", verdict.Envelope.Line(), ErrSignature)
			continue
		}
		verdict.Certificate, verdict.Err = v.judge(
			ctx, verdict.Envelope, messages[at[j]].Subject)
	}
	return verdicts
}

// open decodes a message and holds it against its subject.
func open(m Received) (*Envelope, subject.Address, error) {
	e, err := Decode(m.Data)
	if err != nil {
		return nil, subject.Address{}, err
	}
	to, err := subject.ParseEvent(m.Subject)
	if err != nil {
		return e, subject.Address{}, fmt.Errorf("%w: %w", ErrSubject, err)
	}
	if to.Topic != e.Body.Topic || to.Type != e.Body.Type ||
		!bytes.Equal(to.Instance[:], e.Body.InstanceKey) {
		return e, to.Address, fmt.Errorf("%s: %w", e.Line(), ErrSubject)
	}
	return e, to.Address, nil
}

// judge checks who may sign. The signature is good already, so strangers cannot make us look for
// certificates of instances that never spoke.
func (v *Verifier) judge(
	ctx context.Context, e *Envelope, on string,
) (cert.Certificate, error) {
	to, err := subject.ParseEvent(on)
	if err != nil {
		return cert.Certificate{}, fmt.Errorf("%w: %w", ErrSubject, err)
	}
	if v.cfg.Accept != nil && !v.cfg.Accept(to.Operator) {
		return cert.Certificate{}, fmt.Errorf("%s: %w", e.Line(), ErrOperatorRefused)
	}
	v.learn(ctx, e)
	c, err := v.cfg.Certificates.Certificate(ctx, cert.ID(e.Body.CertificateId), to.Address)
	if err != nil {
		return cert.Certificate{}, fmt.Errorf("%s: %w", e.Line(), err)
	}
	if err := checkCertificate(c, to.Address); err != nil {
		return cert.Certificate{}, fmt.Errorf("%s: %w", e.Line(), err)
	}
	return c, v.checkTime(c, e)
}

// learn takes the certificate out of an announcement; its payload is judged by Certificates.
func (v *Verifier) learn(ctx context.Context, e *Envelope) {
	if e.Topic() != TopicOperator || e.Type() != TypeCertificateIssued {
		return
	}
	if raw, err := certificateIn(e); err == nil {
		v.cfg.Certificates.Learn(ctx, raw)
	}
}

func checkCertificate(c cert.Certificate, from subject.Address) error {
	switch {
	case c.InstanceKey != from.Instance:
		return ErrInstance
	case c.Operator != from.Operator:
		return ErrOperator
	case !c.Covers(from.Service):
		return ErrService
	}
	return nil
}

// checkTime holds that the event lies within the certificate's time, not ahead of our clock, and
// that the certificate did not end so long ago that its key may have become anybody's.
func (v *Verifier) checkTime(c cert.Certificate, e *Envelope) error {
	now, at := v.cfg.Clock(), e.Time()
	switch {
	case at.After(now.Add(v.cfg.Skew)):
		return fmt.Errorf("%s: %w by %s", e.Line(), ErrFuture, at.Sub(now))
	case at.Before(c.NotBefore) || at.After(c.NotAfter):
		return fmt.Errorf("%s: %w", e.Line(), ErrCertificateExpired)
	case now.After(c.NotAfter.Add(v.cfg.Linger)):
		return fmt.Errorf("%s: %w: it ended too long ago", e.Line(), ErrCertificateExpired)
	}
	return nil
}
