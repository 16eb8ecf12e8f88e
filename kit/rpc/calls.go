package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/tap"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/share"
)

const (
	// firstMessage is how long a stream may keep its handler waiting for its first message.
	firstMessage = 30 * time.Second
	// callsRetry is when a call that found no place, or lost its own, may be made again.
	callsRetry = 5 * time.Second
	// keptCalls of all open calls (1 in so many) are whose nobody gives way: it takes that many
	// addresses to keep another one out.
	keptCalls = 128
)

func newCalls(cfg ServerConfig) *share.Places {
	return share.New(share.Bounds{
		Most: cfg.MaxCalls, Each: cfg.MaxCallsOfOne, Keep: max(cfg.MaxCalls/keptCalls, 1),
	})
}

type leaveKey struct{}

// tap lets a call be ended from here while its request is awaited, and bounds the time of a unary
// one, its request included, which a client may announce and never send. It refuses nothing: gRPC
// would keep the timer of a refused call until its grpc-timeout.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	ctx, leave := context.WithCancelCause(ctx)
	ctx = context.WithValue(ctx, leaveKey{}, leave)
	if !s.unaries[info.FullMethodName] {
		return ctx, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.MaxTime)
	_ = cancel // the end of the stream, whose context is the parent, does the same
	return ctx, nil
}

// leave ends a call. Its handler ends of that, and says why (told); one that waits for a message
// does not get to: gRPC tells the client by itself then that the call is cancelled.
func leave(ctx context.Context, why error) {
	if end, ok := ctx.Value(leaveKey{}).(context.CancelCauseFunc); ok {
		end(why)
	}
}

// enter takes a place for a call, until it is given back. Calls of this process need none. Fault:
// ReasonTooManyCalls.
func (s *Server) enter(ctx context.Context) (give func(), err error) {
	who := CallOrigin(ctx)
	if who == "" {
		return func() {}, nil
	}
	place, err := s.calls.Take(who, func() { leave(ctx, callGaveWay()) })
	switch {
	case errors.Is(err, share.ErrEach):
		return nil, fault.New(fault.ResourceExhausted, ReasonTooManyCalls,
			"%d calls of this address are open, no more are served: end some",
			s.cfg.MaxCallsOfOne).WithRetry(callsRetry)
	case err != nil:
		return nil, fault.New(fault.ResourceExhausted, ReasonTooManyCalls,
			"%d calls are open, no more are served: try again later", s.cfg.MaxCalls).
			WithRetry(callsRetry)
	}
	return place.Give, nil
}

func callGaveWay() error {
	return fault.New(fault.ResourceExhausted, ReasonCallGaveWay,
		"all calls that this server has places for were open, and this address had most of them: "+
			"the newest ended for another's; try again, with fewer").WithRetry(callsRetry)
}

// told is err, or why the call was ended from here, which is what its handler failed of.
func told(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || fault.From(err) != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if cause := fault.From(context.Cause(ctx)); cause != nil {
		return cause
	}
	return err
}

// RecvMsg implements grpc.ServerStream. It waits for the first message only so long. Those of who
// needs no token have a place like a request, which what an account sends in a stream has not: its
// service counts that.
func (s *streamWithContext) RecvMsg(m any) error {
	if !s.heard || s.public {
		defer s.server.await(s.ctx)()
	}
	if !s.heard {
		s.heard = true
		late := time.AfterFunc(firstMessage, func() { leave(s.ctx, context.DeadlineExceeded) })
		defer late.Stop()
	}
	return s.ServerStream.RecvMsg(m)
}
