package server

import (
	"context"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	"github.com/united-containers/ucn/services/gateway"
)

const (
	scopeReadJob = "job:read" // with ":<job id>": one job's
	// maxHostToken is how long a token that a host sees may be good from now on: clients make them
	// for an hour, and clocks differ.
	maxHostToken = time.Hour + 2*token.Skew
)

// asker is who asks a host, for how long, and in whose name where the host sees no token.
type asker struct {
	client  *bus.Client
	account []byte
	until   time.Time
}

// asker finds who asks a host for the log or the stats. Whoever runs a host could use a token it
// sees at the operator's other services, so a host of this gateway's operator sees none: the
// gateway proves whom it asks for and asks in its own name. A host of another operator gets the
// token made for it, which must open nothing but reading this job, and not for long. Either way a
// stream ends with the token.
func (a *hostAsk) asker(ctx context.Context, target bus.Target) (asker, error) {
	deps := &a.server.deps
	if target.Operator == deps.Operator && deps.Own != nil {
		caller, err := a.prove(ctx)
		return asker{deps.Own, caller.Account[:], caller.NotAfter}, err
	}
	until, err := a.meantFor(target.Operator)
	if err != nil {
		return asker{}, forOtherOperator(err, target)
	}
	client := bus.NewClient(deps.Bus, bus.TokenProof(
		func(context.Context, sig.AccountID) (string, error) { return a.other, nil },
	), bus.ClientOptions{Tracer: deps.Tracers.Tracer(
		"github.com/united-containers/ucn/kit/bus"), Clock: deps.Now})
	return asker{client: client, until: until}, nil
}

func tokenExpired() error {
	return fault.New(fault.Unauthenticated, rpc.ReasonTokenExpired,
		"the token has expired: make a new one, and connect again")
}

// prove returns whose token allows reading the job; that it is the job's owner is the host's to
// judge.
func (a *hostAsk) prove(ctx context.Context) (rpc.Caller, error) {
	if a.token == "" || a.server.deps.Callers == nil {
		return rpc.Caller{}, fault.New(fault.Unauthenticated, rpc.ReasonTokenMissing,
			"logs and stats are read with a token: see ucn auth token")
	}
	caller, err := a.server.deps.Callers.Authenticate(ctx, a.token)
	if err != nil {
		return rpc.Caller{}, err
	}
	return caller, rpc.RequireScope(rpc.WithCaller(ctx, caller), a.scope())
}

// scope is what reading this job needs.
func (a *hostAsk) scope() string { return scopeReadJob + ":" + id.Bech32(id.Job, a.job) }

// meantFor holds back a token that a host must not see: one for another operator, one that allows
// more than reading this job, one that is good for long.
func (a *hostAsk) meantFor(operator sig.AccountID) (until time.Time, err error) {
	if a.other == "" {
		return until, fault.New(fault.Unauthenticated, rpc.ReasonWrongAudience,
			"the host of this attempt is another operator's: send a token for %s as well",
			id.Bech32(id.Account, operator))
	}
	claims, err := token.Decode(a.other)
	if err != nil {
		return until, err
	}
	if claims.Audience != operator {
		return until, fault.New(fault.Unauthenticated, rpc.ReasonWrongAudience,
			"the host of this attempt is another operator's: send a token for %s",
			id.Bech32(id.Account, operator))
	}
	for _, scope := range claims.Scopes {
		if scope != scopeReadJob && scope != a.scope() {
			return until, tooWide("it allows %q", scope).With("scope", a.scope())
		}
	}
	if left := claims.NotAfter.Sub(a.server.deps.Now()); left > maxHostToken {
		return until, tooWide("it is good for %s, more than an hour", left.Round(time.Minute))
	}
	return claims.NotAfter, nil
}

func tooWide(format string, args ...any) *fault.Error {
	return fault.New(fault.PermissionDenied, gateway.ReasonTokenWide,
		"the token in "+executorTokenHeader+" would be shown to a host, and "+format+
			": make one with ucn auth token --scope job:read:<job> --expires 1h", args...)
}
