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

// Bounds of a Source.
const (
	SourceLifetime = time.Hour        // of the tokens it makes
	MaxOperators   = 1024             // whose tokens it keeps
	sourceRenew    = 10 * time.Minute // before a token's end
)

// ReasonNotMade says that a client has no valid claims to make a token of.
const ReasonNotMade fault.Reason = "TOKEN_NOT_MADE"

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
func (s *Source) Token(ctx context.Context, service string) (string, error) {
	audience, known := s.Audience[service]
	if !known {
		audience = s.AnyService
	}
	if audience.IsZero() {
		return "", nil
	}
	return s.TokenFor(ctx, audience)
}

// TokenFor returns a token for an operator, where one service name stands for the instances of
// several. Errors are those of Token.
func (s *Source) TokenFor(_ context.Context, operator sig.AccountID) (string, error) {
	now := time.Now()
	if s.Now != nil {
		now = s.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.ready[operator]; t.text != "" && now.Before(t.renew) {
		return t.text, nil
	}
	// Valid from a little earlier, so that a server whose clock is behind takes it.
	text, err := Issue(s.Signer, Claims{
		Chain: s.Chain, Audience: operator, Scopes: s.Scopes,
		NotBefore: now.Add(-Skew), NotAfter: now.Add(SourceLifetime),
	})
	if err != nil {
		return "", fault.New(fault.InvalidArgument, ReasonNotMade,
			"no token can be made: check account, chain, operator and scopes").Because(err)
	}
	if s.ready == nil || len(s.ready) >= MaxOperators {
		s.ready = map[sig.AccountID]issued{}
	}
	s.ready[operator] = issued{text, now.Add(SourceLifetime - sourceRenew)}
	return text, nil
}
