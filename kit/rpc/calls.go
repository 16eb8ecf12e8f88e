package rpc

import (
	"context"
	"errors"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	alphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/tap"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/share"
)

const (
	// firstMessage is how long a stream may keep its handler waiting for its first message.
	firstMessage = 30 * time.Second
	// callsRetry is when a call that found no place, or lost its own, may be made again.
	callsRetry = 5 * time.Second
	// keptCalls of a network are what it gives up to nobody.
	keptCalls = 1
	// probeTime is how long a probe may last.
	probeTime = time.Minute
	// maxProbesOfOne bounds the open probes of one address.
	maxProbesOfOne = 4
)

// calls are the places of open calls of other processes, apart for those whom strangers must not
// keep out.
type calls struct {
	proven  *share.Places // of whose token is proven
	proving *share.Places // while it is judged
	public  *share.Places // of those that need no token
	probes  *share.Places // health watches and reflection, which need none and might never end
}

// The parts of all places, 1 in so many. What is public has what is left.
const (
	provenPart  = 2
	provingPart = 8
	probesPart  = 8
)

func newCalls(cfg ServerConfig) calls {
	part := func(most, each int) *share.Places {
		return share.New(share.Bounds{Most: max(most, 1), Each: each, Keep: keptCalls})
	}
	all, each := cfg.MaxCalls, cfg.MaxCallsOfOne
	return calls{
		proven:  part(all/provenPart, each),
		proving: part(all/provingPart, each),
		public:  part(all-all/provenPart-all/provingPart-all/probesPart, each),
		probes:  part(all/probesPart, min(each, maxProbesOfOne)),
	}
}

// isProbe reports whether a method is there for probes, and lasts as long as its client likes.
func isProbe(method string) bool {
	switch method {
	case healthpb.Health_Watch_FullMethodName,
		reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName,
		alphapb.ServerReflection_ServerReflectionInfo_FullMethodName:
		return true
	}
	return false
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
func enter(ctx context.Context, places *share.Places) (give func(), err error) {
	who := CallOrigin(ctx)
	if who == "" {
		return func() {}, nil
	}
	place, err := places.TakeIn(Network(who), who, func() { leave(ctx, callGaveWay()) })
	switch {
	case errors.Is(err, share.ErrEach):
		return nil, fault.New(fault.ResourceExhausted, ReasonTooManyCalls,
			"all calls of this kind that one address may have open are: end some").
			WithRetry(callsRetry).Because(err)
	case err != nil:
		return nil, fault.New(fault.ResourceExhausted, ReasonTooManyCalls,
			"all calls of this kind that this server has places for are open: try again later").
			WithRetry(callsRetry).Because(err)
	}
	return place.Give, nil
}

// enterProbe is enter for a probe, which ends when its time is over.
func (s *Server) enterProbe(ctx context.Context) (give func(), err error) {
	place, err := enter(ctx, s.calls.probes)
	if err != nil || CallOrigin(ctx) == "" {
		return place, err
	}
	late := time.AfterFunc(probeTime, func() { leave(ctx, probeOver()) })
	return func() {
		late.Stop()
		place()
	}, nil
}

// enterPublic is enter for a call that needs no token. One that has a good one all the same finds a
// place where strangers have taken theirs.
func (s *Server) enterPublic(ctx context.Context) (give func(), err error) {
	give, err = enter(ctx, s.calls.public)
	if !errors.Is(err, share.ErrFull) || s.deps.Auth == nil {
		return give, err
	}
	if _, unproven := s.prove(ctx); unproven != nil {
		return nil, err
	}
	return enter(ctx, s.calls.proven)
}

func probeOver() error {
	return fault.New(fault.Unavailable, ReasonCallGaveWay,
		"a health watch or reflection ends after %s: open it again", probeTime)
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
