package event

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

// Bounds of a Directory.
const (
	MaxKnown   = 1 << 16         // certificates remembered
	maxUnknown = 1 << 12         // ids remembered as not found
	unknownFor = 2 * time.Second // how long an id is not looked up again
)

// Judge decodes canonical bytes of a certificate and checks its account signature against the
// operator's key set, and that it is not revoked. It does not look at the clock: the Verifier
// holds a certificate's time against the time of each event. An error that wraps
// ErrCertificateInvalid is final; any other may pass.
type Judge func(ctx context.Context, raw []byte) (cert.Certificate, cert.ID, error)

// JudgeBy returns a Judge that is v without its clock.
func JudgeBy(v cert.Verifier) Judge {
	return func(ctx context.Context, raw []byte) (cert.Certificate, cert.ID, error) {
		c, _, err := cert.Decode(raw)
		if err != nil {
			return cert.Certificate{}, cert.ID{}, fmt.Errorf("%w: %w", ErrCertificateInvalid, err)
		}
		timeless := v
		timeless.Now = func() time.Time { return c.NotBefore }
		c, named, err := timeless.Verify(ctx, raw)
		for _, reason := range []error{
			cert.ErrMalformed, cert.ErrClaims, cert.ErrChain, cert.ErrRevoked, cert.ErrSignature,
		} {
			if errors.Is(err, reason) {
				err = fmt.Errorf("%w: %w", ErrCertificateInvalid, err)
				break
			}
		}
		return c, named, err
	}
}

// Source finds the canonical bytes of the certificate that an instance announced, outside the
// directory's memory. An error that wraps ErrCertificateUnknown says that it has none.
type Source func(ctx context.Context, from subject.Address) ([]byte, error)

// Directory remembers judged certificates and looks unknown ones up. It is safe for concurrent
// use. It forgets everything when it holds MaxKnown: they are found again.
type Directory struct {
	judge   Judge
	sources []Source
	clock   func() time.Time

	mu      sync.Mutex // guards the maps; held for map work only
	known   map[cert.ID]judged
	unknown map[cert.ID]time.Time
}

var _ Certificates = (*Directory)(nil)

// judged is a certificate that was found good, and its canonical bytes.
type judged struct {
	cert.Certificate
	raw []byte
}

// NewDirectory returns an empty directory; sources are asked in their order. clock may be nil.
func NewDirectory(judge Judge, clock func() time.Time, sources ...Source) *Directory {
	if clock == nil {
		clock = time.Now
	}
	return &Directory{
		judge: judge, clock: clock, sources: sources,
		known:   map[cert.ID]judged{},
		unknown: map[cert.ID]time.Time{},
	}
}

// Learn judges a certificate and remembers it if it is good.
func (d *Directory) Learn(ctx context.Context, raw []byte) {
	if _, named, err := cert.Decode(raw); err == nil {
		_, _ = d.admit(ctx, named, raw) // a bad one is simply not known
	}
}

// Certificate returns a judged certificate.
func (d *Directory) Certificate(
	ctx context.Context, named cert.ID, from subject.Address,
) (cert.Certificate, error) {
	c, known, missed := d.recall(named)
	if known {
		return c, nil
	}
	if missed {
		return cert.Certificate{}, ErrCertificateUnknown
	}
	for _, source := range d.sources {
		raw, err := source(ctx, from)
		if errors.Is(err, ErrCertificateUnknown) {
			continue
		}
		if err != nil {
			return cert.Certificate{}, fmt.Errorf("look up certificate: %w", err)
		}
		if _, is, err := cert.Decode(raw); err == nil && is == named {
			return d.admit(ctx, named, raw)
		}
	}
	d.miss(named)
	return cert.Certificate{}, ErrCertificateUnknown
}

// admit judges a certificate unless it is known, and remembers it.
func (d *Directory) admit(
	ctx context.Context, named cert.ID, raw []byte,
) (cert.Certificate, error) {
	if c, known, _ := d.recall(named); known {
		return c, nil
	}
	c, is, err := d.judge(ctx, raw)
	if err != nil {
		return cert.Certificate{}, fmt.Errorf("judge certificate: %w", err)
	}
	if is != named {
		return cert.Certificate{}, ErrCertificateInvalid
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.known) >= MaxKnown {
		clear(d.known)
	}
	d.known[named] = judged{c, raw}
	delete(d.unknown, named)
	return c, nil
}

func (d *Directory) recall(named cert.ID) (c cert.Certificate, known, missed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j, known := d.known[named]
	until, missed := d.unknown[named]
	return j.Certificate, known, missed && d.clock().Before(until)
}

// Bytes returns the canonical bytes of a certificate that is remembered, else nil.
func (d *Directory) Bytes(named cert.ID) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known[named].raw
}

func (d *Directory) miss(named cert.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.unknown) >= maxUnknown {
		clear(d.unknown)
	}
	d.unknown[named] = d.clock().Add(unknownFor)
}

// Announced returns a Source that reads the newest certificate.issued of an instance from the
// streams of js. The envelope around it proves nothing and is not checked: the certificate itself
// is judged.
func Announced(js jetstream.JetStream) Source {
	return func(ctx context.Context, from subject.Address) ([]byte, error) {
		stream, err := js.Stream(ctx, StreamName(from.Service))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, ErrCertificateUnknown
		}
		if err != nil {
			return nil, fmt.Errorf("open stream of %s: %w", from.Service, err)
		}
		on := from.Event(string(TopicOperator), TypeCertificateIssued)
		m, err := stream.GetLastMsgForSubject(ctx, on)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, ErrCertificateUnknown
		}
		if err != nil {
			return nil, fmt.Errorf("read announcement of an instance: %w", err)
		}
		return noticed(m.Data)
	}
}

func noticed(raw []byte) ([]byte, error) {
	e, err := Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificateUnknown, err)
	}
	return certificateIn(e)
}

// certificateIn returns the canonical bytes of the certificate in an announcement.
func certificateIn(e *Envelope) ([]byte, error) {
	notice := new(eventv1.CertificateNotice)
	if err := e.Payload(notice); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificateUnknown, err)
	}
	raw, err := canon.Marshal(notice.GetCertificate())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificateUnknown, err)
	}
	return raw, nil
}
