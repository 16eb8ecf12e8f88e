// Package origin has a gateway tell the services of its operator where its callers come from
// (ucn.identity.v1.Origin), so that what is bounded per address is bounded per caller and not for
// the gateway as a whole.
//
// The word of a gateway counts for services of its own operator alone: its certificate says whose
// it is. Anybody else's is ignored, as is one that is not signed, too old or of no address; then
// the call is of where its connection comes from. It gives no right to anything.
package origin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/rpc"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// Bounds.
const (
	// MaxLifetime is how far not_after may be ahead.
	MaxLifetime = 10 * time.Minute
	// lifetime is that of what a Source says; it is said anew for the last renew of it.
	lifetime = 5 * time.Minute
	renew    = time.Minute
	// maxKept is how many addresses a Source, and a Judge, remember. When more come, all are
	// forgotten, and signed or judged anew.
	maxKept = 1 << 16
	// judged is how long a gateway's certificate is not judged again, maxGateways of how many.
	judged      = time.Minute
	maxGateways = 256
	// service is what the certificate must name.
	service = "gateway"
)

// ErrNotBelieved is wrapped by what a Judge says of a word that does not count.
var ErrNotBelieved = errors.New("where the call comes from is not believed")

// Source is a gateway's. Fields are set before first use. Safe for concurrent use.
type Source struct {
	// Key and Certificate (canonical bytes) are the gateway's.
	Key         sig.PrivateKey
	Certificate []byte
	// Own tells which services are of the gateway's operator: callers' addresses are nobody else's
	// business. nil: all are.
	Own func(service string) bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu   sync.Mutex // guards kept
	kept map[string]word
}

// word is what is said of an address, or was heard, and until when.
type word struct {
	raw     []byte
	address string
	until   time.Time
}

var _ rpc.OriginSource = (*Source)(nil)

// Vouch implements rpc.OriginSource. It says nothing of what is no address.
func (s *Source) Vouch(service, address string) ([]byte, error) {
	if s.Own != nil && !s.Own(service) || !valid(address) {
		return nil, nil
	}
	now := clock(s.Now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.kept[address]; now.Before(w.until) {
		return w.raw, nil
	}
	until := now.Add(lifetime)
	raw, err := s.say(address, until)
	if err != nil {
		return nil, fmt.Errorf("vouch for where a call comes from: %w", err)
	}
	if s.kept == nil || len(s.kept) >= maxKept {
		s.kept = map[string]word{}
	}
	s.kept[address] = word{raw: raw, until: until.Add(-renew)}
	return raw, nil
}

func (s *Source) say(address string, until time.Time) ([]byte, error) {
	said := &identityv1.OriginBody{Address: address, NotAfter: uint64(until.UnixMilli())}
	body, err := canon.Marshal(said)
	if err != nil {
		return nil, err
	}
	signature := s.Key.Sign(sig.Preimage(sig.DomainOrigin, nil, body))
	return canon.Marshal(&identityv1.Origin{
		Body: said, Certificate: s.Certificate, Signature: signature[:],
	})
}

// Judge is of a service that gateways call. Fields are set before first use. Safe for concurrent
// use.
type Judge struct {
	// Operator is whose gateways are believed.
	Operator sig.AccountID
	// Certificates judges theirs.
	Certificates cert.Verifier
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu       sync.Mutex // guards both
	heard    map[[sha256.Size]byte]word
	gateways map[[sha256.Size]byte]gateway
}

// gateway is one whose certificate was good a moment ago.
type gateway struct {
	key   sig.PublicKey
	until time.Time
}

var _ rpc.OriginJudge = (*Judge)(nil)

// Origin implements rpc.OriginJudge. Errors wrap ErrNotBelieved, or are those of cert.Verifier.
func (j *Judge) Origin(ctx context.Context, raw []byte) (string, error) {
	now, named := clock(j.Now), sha256.Sum256(raw)
	j.mu.Lock()
	w := j.heard[named]
	j.mu.Unlock()
	if now.Before(w.until) {
		return w.address, nil
	}
	var m identityv1.Origin
	if err := canon.Unmarshal(raw, &m); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotBelieved, err)
	}
	until, err := check(m.GetBody(), now)
	if err != nil {
		return "", err
	}
	key, err := j.gateway(ctx, m.GetCertificate(), now)
	if err != nil {
		return "", err
	}
	body, err := canon.Marshal(m.GetBody())
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotBelieved, err)
	}
	if len(m.GetSignature()) != len(sig.Signature{}) || !sig.Verify(key,
		sig.Preimage(sig.DomainOrigin, nil, body), sig.Signature(m.GetSignature())) {
		return "", fmt.Errorf("%w: its signature is bad", ErrNotBelieved)
	}
	w = word{address: m.GetBody().GetAddress(), until: earlier(until, now.Add(judged))}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.heard == nil || len(j.heard) >= maxKept {
		j.heard = map[[sha256.Size]byte]word{}
	}
	j.heard[named] = w
	return w.address, nil
}

// check holds what is said to its bounds, and returns until when it is.
func check(m *identityv1.OriginBody, now time.Time) (time.Time, error) {
	until := time.UnixMilli(int64(min(m.GetNotAfter(), maxTime)))
	switch {
	case !valid(m.GetAddress()):
		return until, fmt.Errorf("%w: %.64q is no address", ErrNotBelieved, m.GetAddress())
	case now.After(until):
		return until, fmt.Errorf("%w: its time is over", ErrNotBelieved)
	case until.After(now.Add(MaxLifetime)):
		return until, fmt.Errorf("%w: it is for longer than %v", ErrNotBelieved, MaxLifetime)
	}
	return until, nil
}

// maxTime keeps times from overflowing, ms.
const maxTime = 1 << 48

// gateway returns the key of a gateway of the operator.
func (j *Judge) gateway(ctx context.Context, raw []byte, now time.Time) (sig.PublicKey, error) {
	named := sha256.Sum256(raw)
	j.mu.Lock()
	known := j.gateways[named]
	j.mu.Unlock()
	if now.Before(known.until) {
		return known.key, nil
	}
	// What needs no key first: nobody makes this look up keys of strangers.
	claimed, _, err := cert.Decode(raw)
	switch {
	case err != nil:
		return sig.PublicKey{}, fmt.Errorf("%w: %w", ErrNotBelieved, err)
	case claimed.Operator != j.Operator:
		return sig.PublicKey{}, fmt.Errorf("%w: it is another operator's gateway", ErrNotBelieved)
	case !claimed.Covers(service):
		return sig.PublicKey{}, fmt.Errorf("%w: it is no gateway", ErrNotBelieved)
	}
	if _, _, err = j.Certificates.Verify(ctx, raw); err != nil {
		return sig.PublicKey{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gateways == nil || len(j.gateways) >= maxGateways {
		j.gateways = map[[sha256.Size]byte]gateway{}
	}
	j.gateways[named] = gateway{claimed.InstanceKey, now.Add(judged)}
	return claimed.InstanceKey, nil
}

// valid tells whether an address is in the form of rpc.Origin.
func valid(address string) bool {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.Is4() && rpc.Origin(address) == address
	}
	prefix, err := netip.ParsePrefix(address)
	return err == nil && prefix.Addr().Is6() && prefix.Masked() == prefix &&
		rpc.Origin(prefix.Addr().String()) == address
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func clock(now func() time.Time) time.Time {
	if now == nil {
		return time.Now()
	}
	return now()
}
