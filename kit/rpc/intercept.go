package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"

	"github.com/united-containers/ucn/kit/fault"
)

// errPanic is the cause of the internal error that stands for a panic.
type errPanic struct {
	value any
	stack []byte
}

func (e *errPanic) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// errDraining ends the streams of a server that stops.
func errDraining() *fault.Error {
	return fault.New(fault.Unavailable, ReasonDraining,
		"this server is stopping: connect again, another may answer")
}

// errTokenExpired ends a stream that outlived its token, and refuses one that comes too late.
func errTokenExpired() *fault.Error {
	return fault.New(fault.Unauthenticated, ReasonTokenExpired,
		"the token has expired: make a new one, see ucn auth token")
}

// guard puts everything that is around a unary call before its request is read: who is refused
// makes this server keep nothing. An interceptor of gRPC comes only after that.
func (s *Server) guard(method string, next grpc.MethodHandler) grpc.MethodHandler {
	return func(impl any, ctx context.Context, receive func(any) error,
		_ grpc.UnaryServerInterceptor,
	) (any, error) {
		return s.unary(ctx, method, func(ctx context.Context) (any, error) {
			read := func(m any) error {
				defer s.await(ctx)()
				if err := receive(m); err != nil {
					return &unread{err}
				}
				return nil
			}
			return next(impl, ctx, read, direct)
		})
	}
}

// direct is an interceptor that does nothing.
func direct(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	return next(ctx, request)
}

// unread is gRPC's word of a request that did not come, or is none: it goes out as it is.
type unread struct{ error }

// unary is everything around a unary call, outermost first: log and redact, recover, prove the
// caller, limit the rate. tap has bounded its time.
func (s *Server) unary(ctx context.Context, method string,
	next func(context.Context) (any, error),
) (response any, err error) {
	began := time.Now()
	defer func() {
		if u, ok := err.(*unread); ok {
			err = u.error
		} else {
			err = s.finish(ctx, method, began, err)
		}
		if err != nil {
			response = nil
		}
	}()
	defer recovered(&err)
	if err := uncompressed(ctx); err != nil {
		return nil, err
	}
	ctx, done, err := s.admit(ctx, method)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, giveBack := s.answers.withReserve(ctx, false)
	defer giveBack()
	if response, err = next(ctx); err != nil {
		return nil, told(ctx, err)
	}
	return s.answers.count(ctx, response, false)
}

// stream is the same around a stream, which has no time cap but ends with its token and with the
// server.
func (s *Server) stream(impl any, stream grpc.ServerStream, info *grpc.StreamServerInfo,
	next grpc.StreamHandler,
) (err error) {
	began := time.Now()
	ctx := stream.Context()
	defer func() { err = s.finish(ctx, info.FullMethod, began, err) }()
	defer recovered(&err)
	if err := uncompressed(ctx); err != nil {
		return err
	}
	ctx, done, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.streamContext(ctx)
	defer cancel()
	ctx, giveBack := s.answers.withReserve(ctx, true)
	defer giveBack()
	return told(ctx, next(impl, &streamWithContext{
		ServerStream: stream, ctx: ctx, server: s, public: s.public.has(info.FullMethod),
	}))
}

// uncompressed answers in the clear whoever asked compressed: gRPC would answer compressed too, and
// give the message's own buffer, which is counted, back at once.
func uncompressed(ctx context.Context) error {
	return grpc.SetSendCompressor(ctx, encoding.Identity)
}

// streamContext ends with the stream, with the caller's token and with the server.
func (s *Server) streamContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.draining, func() { end(context.Cause(s.draining)) })
	release := func() {
		stop()
		end(nil)
	}
	c, ok := CallerFrom(ctx)
	if !ok || c.NotAfter.IsZero() {
		return ctx, release
	}
	ctx, cancel := context.WithDeadlineCause(ctx, c.NotAfter, errTokenExpired())
	return ctx, func() {
		cancel()
		release()
	}
}

// admit proves a call's caller, takes a place for it until it leaves, and asks the limiter.
func (s *Server) admit(ctx context.Context, method string) (_ context.Context, leave func(),
	err error,
) {
	ctx = s.from(ctx, method)
	switch {
	case isProbe(method):
		leave, err = s.enterProbe(ctx)
	case s.public.has(method):
		leave, err = s.enterPublic(ctx)
	default:
		var caller Caller
		if caller, err = s.prove(ctx); err == nil {
			ctx = WithCaller(ctx, caller)
			leave, err = enter(ctx, s.calls.proven)
		}
	}
	if err != nil {
		return ctx, nil, err
	}
	if s.limit != nil {
		if err = s.limit.Allow(ctx, method); err != nil {
			leave()
			return ctx, nil, err
		}
	}
	return ctx, leave, nil
}

// prove proves the caller by the call's token, in a place for that if it takes long.
func (s *Server) prove(ctx context.Context) (Caller, error) {
	token, err := bearerToken(ctx)
	if err != nil {
		return Caller{}, err
	}
	if s.deps.Auth == nil {
		return Caller{}, fault.New(fault.Unauthenticated, ReasonTokenMalformed,
			"this server is not set up to accept tokens")
	}
	if known, ok := s.deps.Auth.(Rememberer); ok {
		if caller, proven := known.Remembered(token); proven {
			return caller, nil
		}
	}
	give, err := enter(ctx, s.calls.proving)
	if err != nil {
		return Caller{}, err
	}
	defer give()
	caller, err := s.authenticate(ctx, token)
	return caller, told(ctx, err)
}

// authenticate is bounded in time, since a stream is not.
func (s *Server) authenticate(ctx context.Context, token string) (Caller, error) {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	return s.deps.Auth.Authenticate(ctx, token)
}

// finish logs the call and returns what may cross the wire.
func (s *Server) finish(ctx context.Context, method string, began time.Time, err error) error {
	if err == nil {
		s.log.DebugContext(ctx, "call", "method", method, "took", time.Since(began))
		return nil
	}
	f := toFault(err)
	if ownTokenRefused(err) {
		f = internal(err)
	}
	if f.Reason() != ReasonInternal {
		s.log.DebugContext(ctx, "call refused", "method", method, "took", time.Since(began),
			"reason", string(f.Reason()), "error", err)
		return Status(f).Err()
	}
	attrs := []any{"method", method, "id", f.Value("id"), "error", err}
	if p, isPanic := f.Unwrap().(*errPanic); isPanic {
		attrs = append(attrs, slog.String("stack", string(p.stack)))
	}
	s.log.ErrorContext(ctx, "call failed inside", attrs...)
	return Status(f).Err()
}

// ownTokenRefused reports whether a peer refused the token that this server showed it. Passed on,
// "make a new token" would send our caller after a token that is good.
func ownTokenRefused(err error) bool {
	var r *received
	return errors.As(err, &r) &&
		(r.fault.Kind() == fault.Unauthenticated || r.fault.Reason() == ReasonScopeMissing)
}

// recovered turns a panic of a handler into an error. It must be deferred itself.
func recovered(err *error) {
	if value := recover(); value != nil {
		*err = &errPanic{value: value, stack: debug.Stack()}
	}
}

// streamWithContext is a stream whose context is ours.
type streamWithContext struct {
	grpc.ServerStream
	ctx    context.Context
	server *Server
	public bool // it needs no token
	heard  bool // its first message came, or is awaited
}

func (s *streamWithContext) Context() context.Context { return s.ctx }

// SendMsg implements grpc.ServerStream.
func (s *streamWithContext) SendMsg(m any) error {
	counted, err := s.server.answers.count(s.ctx, m, true)
	if err != nil {
		return err
	}
	err = s.ServerStream.SendMsg(counted)
	if a, ok := counted.(*answer); ok && !a.encoded {
		a.held.give()
	}
	return err
}
