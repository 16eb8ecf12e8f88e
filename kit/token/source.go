package token

import (
	"context"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
)

// Lifetimes of the tokens a Source makes.
const (
	SourceLifetime = time.Hour
	sourceRenew    = 10 * time.Minute // before the end
)

// Source makes tokens for a client that holds its account's keys, and renews them in time. Fields
// are set before first use. Safe for concurrent use.
type Source struct {
	// Signer of the account that calls.
	Signer keys.Signer
	// Chain that judges the account's key set.
	Chain string
	// Scopes of every token.
	Scopes []string
	// Audience names the operator of each service; a service that is missing gets no token
	// unless AnyService is set.
	Audience map[string]sig.AccountID
	// AnyService is the operator of all services that Audience does not name; zero for none.
	AnyService sig.AccountID
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu    sync.Mutex // guards ready
	ready map[sig.AccountID]issued
}

var _ rpc.TokenSource = (*Source)(nil)

type issued struct {
	text  string
	renew time.Time
}

// Token implements rpc.TokenSource. It returns "" for a service without an operator. The error is
// a fault when no token can be made from the fields.
func (s *Source) Token(_ context.Context, service string) (string, error) {
	audience, known := s.Audience[service]
	if !known {
		audience = s.AnyService
	}
	if audience.IsZero() {
		return "", nil
	}
	now := time.Now()
	if s.Now != nil {
		now = s.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.ready[audience]; t.text != "" && now.Before(t.renew) {
		return t.text, nil
	}
	// Valid from a little earlier, so that a server whose clock is behind takes it.
	text, err := Issue(s.Signer, Claims{
		Chain: s.Chain, Audience: audience, Scopes: s.Scopes,
		NotBefore: now.Add(-Skew), NotAfter: now.Add(SourceLifetime),
	})
	if err != nil {
		return "", fault.New(fault.InvalidArgument, "TOKEN_NOT_MADE",
			"no token can be made for %s: check account, chain and scopes", service).Because(err)
	}
	if s.ready == nil {
		s.ready = map[sig.AccountID]issued{}
	}
	s.ready[audience] = issued{text, now.Add(SourceLifetime - sourceRenew)}
	return text, nil
}
