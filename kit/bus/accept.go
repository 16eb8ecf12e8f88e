package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/telemetry"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
)

// What the context of a stream's handler ends with; its client hears no answer then.
var (
	errLeft   = errors.New("the client left the stream")
	errSilent = errors.New("the client of the stream fell silent")
)

func draining() error {
	return fault.New(fault.Unavailable, rpc.ReasonDraining,
		"the instance is being stopped: ask again later")
}

// open decrypts, checks and authenticates a request. It returns the call if it is to be served.
// What cannot be read, is late or was seen before is never answered.
func (s *Server) open(ctx context.Context, sealed []byte) *Call {
	raw, err := unseal(s.id.Seal, sealRequest, sealed)
	if err != nil {
		return s.ignore(ctx, err)
	}
	r, err := decodeRequest(raw, s.id.Key.Public())
	if err != nil {
		return s.ignore(ctx, err)
	}
	now, until := s.opt.Clock(), notAfter(r.Body)
	if now.After(until.Add(s.opt.Skew)) {
		return s.ignore(ctx, errors.New("the request came too late"))
	}
	if until.After(now.Add(MaxAhead + s.opt.Skew)) {
		return s.refuse(ctx, r.Body, fault.New(fault.InvalidArgument, ReasonNotAfter,
			"not_after is more than %s ahead of the instance's clock: check both clocks", MaxAhead))
	}
	body, err := canon.Marshal(r.Body)
	if err != nil {
		return s.ignore(ctx, err)
	}
	within, cancel := context.WithTimeout(ctx, min(until.Sub(now)+s.opt.Skew, authTimeout))
	defer cancel()
	who, err := s.auth.authenticate(within, r, body)
	if err != nil {
		return s.refuse(ctx, r.Body, err)
	}
	if isControl(r.Body.Method) {
		s.control(now, r.Body, who)
		return nil
	}
	return s.admit(ctx, r.Body, who, now)
}

func notAfter(b *busv1.RequestBody) time.Time {
	return time.UnixMilli(int64(min(b.NotAfter, 1<<53)))
}

// admit decides whether a proven call is served; it then holds one of the slots.
func (s *Server) admit(
	ctx context.Context, b *busv1.RequestBody, who proven, now time.Time,
) *Call {
	if s.opt.Limiter != nil {
		if err := s.opt.Limiter.Allow(who.mark(ctx), b.Method); err != nil {
			return s.refuse(ctx, b, err)
		}
	}
	fresh, full := s.replays.add(requestID(b.Id), who.name, now)
	if full {
		return s.refuse(ctx, b, busy())
	}
	if !fresh {
		return s.ignore(ctx, errors.New("the request was answered before"))
	}
	m, ok := s.handlers[b.Method]
	if !ok {
		return s.refuse(ctx, b, fault.New(fault.Unimplemented, rpc.ReasonUnimplemented,
			"the instance does not have method %q: it may be older than the client", b.Method))
	}
	if !s.takeSlot(who.name) {
		return s.refuse(ctx, b, busy())
	}
	c := s.newCall(b)
	c.method, c.who = m, who
	return c
}

// takeSlot takes one of the slots, unless all are taken or the caller has its share of them.
func (s *Server) takeSlot(who string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.opt.Concurrent || s.takenBy[who] >= max(s.opt.Concurrent/slotShare, 1) {
		return false
	}
	s.taken++
	s.takenBy[who]++
	return true
}

func (s *Server) giveSlot(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.takenBy[who]--; s.takenBy[who] == 0 {
		delete(s.takenBy, who)
	}
}

func busy() error {
	return fault.New(fault.ResourceExhausted, ReasonBusy,
		"the instance has as many calls as it takes: try again soon").WithRetry(time.Second)
}

func (s *Server) ignore(ctx context.Context, why error) *Call {
	s.opt.Log.DebugContext(ctx, "a request is not answered", "error", why)
	return nil
}

// refuse answers with a fault at once.
func (s *Server) refuse(ctx context.Context, b *busv1.RequestBody, err error) *Call {
	if !isControl(b.Method) {
		s.newCall(b).finish(ctx, err)
	}
	return nil
}

// control does what the client of a stream asks about it. An id that is cancelled before its
// request came is taken for seen, since messages are opened side by side.
func (s *Server) control(now time.Time, b *busv1.RequestBody, who proven) {
	about, err := decodeControl(b.Payload)
	if err != nil {
		return
	}
	s.mu.Lock()
	c := s.calls[about.stream]
	s.mu.Unlock()
	switch {
	case c == nil && b.Method == methodCancel:
		_, _ = s.replays.add(about.stream, who.name, now)
	case c == nil || c.who.name != who.name:
	case b.Method == methodCancel:
		c.stop(errLeft)
	default:
		c.heard(about.read)
	}
}

// serve runs the handler and sends the last reply.
func (s *Server) serve(ctx context.Context, c *Call) {
	defer s.giveSlot(c.who.name)
	ctx = telemetry.Extract(c.who.mark(ctx), c.traceparent)
	ctx, span := s.opt.Tracer.Start(ctx, "bus "+c.name,
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("rpc.system", "ucn.bus"),
			attribute.String("rpc.method", c.name)))
	defer span.End()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if c.method.unary {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.notAfter.Sub(s.opt.Clock())+s.opt.Skew)
		defer cancel()
	}
	c.ctx, c.stop = ctx, stop
	if !s.enter(c) {
		c.finish(ctx, draining())
		return
	}
	defer s.leave(c)
	err := s.run(ctx, c)
	if cause := context.Cause(ctx); err != nil && fault.From(cause) != nil {
		err = cause
	}
	if err != nil {
		span.SetStatus(codes.Error, string(fault.ReasonOf(err)))
	}
	c.finish(ctx, err)
}

// run calls the handler, for a stream with a watch on both ends, and turns a panic into an error.
func (s *Server) run(ctx context.Context, c *Call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in %s: %v", c.name, p)
		}
	}()
	if !c.method.unary {
		watched := make(chan struct{})
		watching, done := context.WithCancel(ctx)
		defer func() { done(); <-watched }()
		go func() { defer close(watched); c.watch(watching) }()
	}
	return c.method.handle(ctx, c)
}

func (s *Server) enter(c *Call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.calls[c.id] = c
	return true
}

func (s *Server) leave(c *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, c.id)
}
