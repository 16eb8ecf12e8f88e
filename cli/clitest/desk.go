package clitest

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
)

// Desk is what the one executor tells its operator and the owners of what runs.
type Desk struct {
	n *Network

	mu       sync.Mutex // guards what follows
	host     *executorv1.GetHostResponse
	attempts []*executorv1.ListAttemptsResponse
	stats    *executorv1.StatsResponse
	heard    []proto.Message
	changed  int // SetPolicy calls that find another version in force
}

// Change makes the next n changes of the policy find that another version is in force.
func (d *Desk) Change(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = n
}

// Tell sets what the executor answers.
func (d *Desk) Tell(
	host *executorv1.GetHostResponse, stats *executorv1.StatsResponse,
	pages ...*executorv1.ListAttemptsResponse,
) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host, d.stats, d.attempts = host, stats, pages
}

// Heard returns what the operator and the owners asked.
func (d *Desk) Heard() []proto.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]proto.Message(nil), d.heard...)
}

func (d *Desk) serve(server *bus.Server) {
	bus.Unary(server, "executor.v1/Stats", d.askStats)
	bus.Unary(server, "executor.v1/GetHost", operated(d, d.getHost))
	bus.Unary(server, "executor.v1/ListAttempts", operated(d, d.listAttempts))
	bus.Unary(server, "executor.v1/Drain", operated(d, func(m *executorv1.DrainRequest) (
		*executorv1.DrainResponse, error,
	) {
		return &executorv1.DrainResponse{Attempts: 2, EvictAt: m.GetEvictAfterMs()}, nil
	}))
	bus.Unary(server, "executor.v1/Undrain", operated(d, func(*executorv1.UndrainRequest) (
		*executorv1.UndrainResponse, error,
	) {
		return &executorv1.UndrainResponse{}, nil
	}))
	bus.Unary(server, "executor.v1/Evict", operated(d, func(m *executorv1.EvictRequest) (
		*executorv1.EvictResponse, error,
	) {
		return &executorv1.EvictResponse{EvictAt: m.GetNoticeMs()}, nil
	}))
	bus.Unary(server, "executor.v1/SetPolicy", operated(d, d.setPolicy))
}

// setPolicy is called under mu.
func (d *Desk) setPolicy(m *executorv1.SetPolicyRequest) (*executorv1.SetPolicyResponse, error) {
	if d.changed > 0 {
		d.changed--
		return nil, fault.New(fault.FailedPrecondition, "POLICY_CHANGED", "version 9 is in force")
	}
	return &executorv1.SetPolicyResponse{Version: m.GetBase() + 1, Against: 3}, nil
}

// operated lets the operator alone through, and keeps what was asked.
func operated[In, Out proto.Message](
	d *Desk, answer func(In) (Out, error),
) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (out Out, err error) {
		c, _ := rpc.CallerFrom(ctx)
		here := token.AdminScope(d.n.executor.Key.Public(), "")
		if err := rpc.RequireScope(ctx, here); err != nil {
			return out, err
		}
		if c.HasScope(token.ScopeAdmin) {
			return out, fault.New(fault.PermissionDenied, "TOKEN_TOO_WIDE",
				"no host is shown a token that opens others")
		}
		if sig.AccountID(c.Account) != d.n.Operator() {
			return out, fault.New(fault.PermissionDenied, "NOT_OPERATOR", "not the operator")
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.heard = append(d.heard, in)
		return answer(in)
	}
}

func (d *Desk) getHost(*executorv1.GetHostRequest) (*executorv1.GetHostResponse, error) {
	if d.host == nil {
		return &executorv1.GetHostResponse{Offer: &marketv1.Offer{Host: Host}}, nil
	}
	return d.host, nil
}

func (d *Desk) listAttempts(m *executorv1.ListAttemptsRequest) (
	*executorv1.ListAttemptsResponse, error,
) {
	at := len(m.GetPageToken()) // a token is as long as its page's number
	if at >= len(d.attempts) {
		return &executorv1.ListAttemptsResponse{}, nil
	}
	return d.attempts[at], nil
}

func (d *Desk) askStats(ctx context.Context, m *executorv1.StatsRequest) (
	*executorv1.StatsResponse, error,
) {
	if err := rpc.RequireScope(ctx, "job:read"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = append(d.heard, m)
	if d.stats == nil {
		return nil, fault.New(fault.NotFound, "NO_ATTEMPT", "no such attempt")
	}
	return d.stats, nil
}
