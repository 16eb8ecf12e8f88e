// Package cert issues and verifies instance certificates (ucn.identity.v1.Certificate): an
// operator's account says, with its own keys, that a running instance with this key may act for it
// in these services for this time. The operator's keys may stay offline; only the instance's key
// is on the machine that runs it.
//
// A certificate is public. Whoever relies on one also checks that the peer holds the instance key,
// and that the certificate was not revoked (Verifier.Revoked).
package cert

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/keys"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// Bounds of a certificate.
const (
	MaxSize     = 4 << 10              // canonical bytes
	MaxText     = 8 << 10              // bytes of the PEM text
	MaxLifetime = 400 * 24 * time.Hour // from not_before to not_after
	MaxServices = 16                   // services in one certificate
	MaxService  = 32                   // bytes of a service's name
	MaxChain    = 64                   // bytes of a chain id
	Skew        = 30 * time.Second     // clocks may differ by this much
)

// What can be wrong with a certificate. Errors of this package wrap one of these.
var (
	ErrMalformed   = errors.New("not a certificate")
	ErrClaims      = errors.New("certificate says something impossible")
	ErrChain       = errors.New("certificate is judged by a chain that is not known here")
	ErrNotYetValid = errors.New("certificate is not valid yet")
	ErrExpired     = errors.New("certificate has expired")
	ErrRevoked     = errors.New("certificate was revoked")
	ErrSignature   = errors.New("certificate is not signed by its operator's keys")
)

// ID names a certificate: SHA-256 of the signed preimage.
type ID [sig.HashSize]byte

// Certificate is what an operator says about an instance.
type Certificate struct {
	Operator    sig.AccountID
	Chain       string // that judges the operator's key set
	InstanceKey sig.PublicKey
	SealKey     keys.SealPublic // requests and secrets are sealed to it
	Services    []string        // 1 to MaxServices names such as "executor"
	NotBefore   time.Time       // milliseconds count
	NotAfter    time.Time       // at most MaxLifetime later
	Serial      uint64          // unique per operator, not 0
}

// Covers reports whether the instance may act as the named service.
func (c Certificate) Covers(service string) bool { return slices.Contains(c.Services, service) }

// validate holds the certificate to the bounds; the time of day plays no part.
func (c Certificate) validate() error {
	switch lifetime := c.NotAfter.Sub(c.NotBefore); {
	case c.Operator.IsZero():
		return errors.New("operator must be set")
	case len(c.Chain) == 0 || len(c.Chain) > MaxChain:
		return fmt.Errorf("chain must have 1 to %d bytes", MaxChain)
	case len(c.Services) == 0 || len(c.Services) > MaxServices:
		return fmt.Errorf("1 to %d services are needed, not %d", MaxServices, len(c.Services))
	case c.SealKey == keys.SealPublic{}:
		return errors.New("seal key must be set")
	case c.Serial == 0:
		return errors.New("serial must be set")
	case c.NotBefore.UnixMilli() <= 0:
		return errors.New("not_before must be set")
	case lifetime <= 0 || lifetime > MaxLifetime:
		return fmt.Errorf("lifetime %s is not between 0 and %s", lifetime, MaxLifetime)
	}
	for i, service := range c.Services {
		if !validService(service) || slices.Contains(c.Services[:i], service) {
			return fmt.Errorf("%q is no service, or is named twice", service)
		}
	}
	if err := c.InstanceKey.Validate(); err != nil {
		return fmt.Errorf("instance key: %w", err)
	}
	return nil
}

func validService(name string) bool {
	return len(name) > 0 && len(name) <= MaxService && strings.IndexFunc(name, func(c rune) bool {
		return c < 'a' || c > 'z'
	}) < 0
}

func (c Certificate) body() *identityv1.CertificateBody {
	return &identityv1.CertificateBody{
		Operator: c.Operator[:], Chain: c.Chain, InstanceKey: c.InstanceKey[:],
		SealKey: c.SealKey[:], Services: c.Services,
		NotBefore: uint64(c.NotBefore.UnixMilli()), NotAfter: uint64(c.NotAfter.UnixMilli()),
		Serial: c.Serial,
	}
}

// Issue signs the certificate and returns its canonical bytes. Operator is set by the signer.
// Errors wrap ErrClaims, or are those of sig.SignAccount.
func Issue(signer keys.Signer, c Certificate) ([]byte, error) {
	c.Operator = signer.Account
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClaims, err)
	}
	body, err := canon.Marshal(c.body())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClaims, err)
	}
	signature, err := signer.Sign(sig.DomainCertificate, body)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	raw, err := canon.Marshal(&identityv1.Certificate{Body: c.body(), Signature: signature.PB()})
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrClaims, len(raw), MaxSize)
	}
	return raw, nil
}

// Decode reads canonical bytes without judging them: bounds and form only. Errors wrap
// ErrMalformed.
func Decode(raw []byte) (Certificate, ID, error) {
	c, signed, err := decode(raw)
	if err != nil {
		return Certificate{}, ID{}, err
	}
	return c, idOf(signed), nil
}

func idOf(signed keys.Signed) ID { return sig.Hash(sig.DomainCertificate, nil, signed.Body) }

func decode(raw []byte) (Certificate, keys.Signed, error) {
	c, signed, err := read(raw)
	if err != nil {
		return Certificate{}, keys.Signed{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return c, signed, nil
}

func read(raw []byte) (Certificate, keys.Signed, error) {
	if len(raw) > MaxSize {
		return Certificate{}, keys.Signed{}, fmt.Errorf("%d bytes, at most %d", len(raw), MaxSize)
	}
	var m identityv1.Certificate
	if err := canon.Unmarshal(raw, &m); err != nil {
		return Certificate{}, keys.Signed{}, err
	}
	c, err := certificateOf(m.GetBody())
	if err != nil {
		return Certificate{}, keys.Signed{}, err
	}
	signature, err := sig.ParseAccountSignature(m.GetSignature())
	if err != nil {
		return Certificate{}, keys.Signed{}, err
	}
	body, err := canon.Marshal(m.GetBody())
	if err != nil {
		return Certificate{}, keys.Signed{}, err
	}
	return c, keys.Signed{
		Chain: c.Chain, Account: c.Operator, Domain: sig.DomainCertificate,
		Body: body, Signature: signature,
	}, nil
}

func certificateOf(m *identityv1.CertificateBody) (Certificate, error) {
	for _, field := range [][]byte{m.GetOperator(), m.GetInstanceKey(), m.GetSealKey()} {
		if len(field) != 32 {
			return Certificate{}, errors.New("operator, instance key and seal key have 32 bytes")
		}
	}
	const maxTime = 1 << 48 // ms, so that nothing overflows
	if m.GetNotBefore() >= maxTime || m.GetNotAfter() >= maxTime {
		return Certificate{}, errors.New("time is out of bounds")
	}
	c := Certificate{
		Operator: sig.AccountID(m.GetOperator()), Chain: m.GetChain(),
		InstanceKey: sig.PublicKey(m.GetInstanceKey()), SealKey: keys.SealPublic(m.GetSealKey()),
		Services:  m.GetServices(),
		NotBefore: time.UnixMilli(int64(m.GetNotBefore())),
		NotAfter:  time.UnixMilli(int64(m.GetNotAfter())),
		Serial:    m.GetSerial(),
	}
	return c, c.validate()
}

// Verifier judges certificates. Safe for concurrent use; it keeps nothing.
type Verifier struct {
	// Chains whose operators are believed.
	Chains []string
	// Sets answers for key sets that were changed. nil believes every operator's first set.
	Sets keys.Sets
	// Revoked reports whether a certificate was revoked; nil for none.
	Revoked func(ID) bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Verify judges canonical bytes. Errors wrap those of this package, or keys.ErrLookup when
// the operator's keys cannot be known now.
func (v Verifier) Verify(ctx context.Context, raw []byte) (Certificate, ID, error) {
	c, signed, err := decode(raw)
	if err != nil {
		return Certificate{}, ID{}, err
	}
	named := idOf(signed)
	if err := v.judge(c, named); err != nil {
		return Certificate{}, ID{}, err
	}
	if err := signed.Verify(ctx, v.Sets); errors.Is(err, keys.ErrLookup) {
		return Certificate{}, ID{}, fmt.Errorf("verify certificate: %w", err)
	} else if err != nil {
		return Certificate{}, ID{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return c, named, nil
}

func (v Verifier) judge(c Certificate, named ID) error {
	now := time.Now()
	if v.Now != nil {
		now = v.Now()
	}
	switch {
	case !slices.Contains(v.Chains, c.Chain):
		return fmt.Errorf("%w: %q", ErrChain, c.Chain)
	case now.After(c.NotAfter.Add(Skew)):
		return fmt.Errorf("%w at %s", ErrExpired, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore.Add(-Skew)):
		return fmt.Errorf("%w: from %s", ErrNotYetValid, c.NotBefore.UTC().Format(time.RFC3339))
	case v.Revoked != nil && v.Revoked(named):
		return ErrRevoked
	}
	return nil
}

const pemType = "UCN CERTIFICATE"

// Text returns the PEM text of canonical bytes, for a file.
func Text(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: raw})
}

// ParseText returns the canonical bytes of a PEM text; they are not judged. Errors wrap
// ErrMalformed.
func ParseText(text []byte) ([]byte, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxText)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemType || strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("%w: want one block -----BEGIN %s-----", ErrMalformed, pemType)
	}
	return block.Bytes, nil
}
