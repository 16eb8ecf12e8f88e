package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/united-containers/ucn/kit/rpc"
)

// Bounds and defaults of a server.
const (
	MaxAhead          = 2 * time.Minute  // how far not_after may be ahead
	DefaultSkew       = 5 * time.Second  // that clocks of callers may differ
	DefaultConcurrent = 256              // calls handled at once
	DefaultRequests   = 1 << 18          // request ids remembered per MaxAhead
	DefaultKeepEvery  = 5 * time.Second  // silence after which a stream says that it lives
	DefaultPatience   = 30 * time.Second // silence after which the other end is taken for dead
	DefaultGrace      = 5 * time.Second  // for calls in flight when the server stops
	Window            = 256              // replies of a stream on their way at once
	WindowBytes       = 4 << 20          // and their bytes
	flushTimeout      = 2 * time.Second  // of one try to reach the broker
	authTimeout       = 10 * time.Second // for one proof, look-up of key sets included
	slotShare         = 2                // one caller may have a half of the calls at once
	callerShare       = 8                // and an eighth of the request ids
	maxOpening        = 32               // requests opened and authenticated at once
	maxWaiting        = 1024             // requests that wait for that in memory
	maxWaitingBytes   = 64 << 20         // and their bytes; beyond, requests are dropped
)

// Options bound a server. The zero value means the defaults.
type Options struct {
	// Concurrent is how many calls are handled at once, at most half of them one caller's; further
	// ones get INSTANCE_BUSY.
	Concurrent int
	// Requests is how many request ids are remembered per MaxAhead, at most an eighth of them one
	// caller's; further ones get INSTANCE_BUSY.
	Requests int
	// Skew that clocks of callers may differ.
	Skew time.Duration
	// KeepEvery is the silence after which a stream sends a keep-alive.
	KeepEvery time.Duration
	// Patience is the silence of a stream's client after which its handler is stopped.
	Patience time.Duration
	// Grace is how long calls in flight may take when the server stops. Streams end at once.
	Grace time.Duration
	// Limiter is asked once per call, after authentication. nil allows all.
	Limiter rpc.Limiter
	// Tracer makes a span per call; nil makes none.
	Tracer trace.Tracer
	Log    *slog.Logger // nil logs nothing
	// Clock; nil means time.Now.
	Clock func() time.Time
}

func (o Options) withDefaults() Options {
	o.Concurrent = or(o.Concurrent, DefaultConcurrent)
	o.Requests = or(o.Requests, DefaultRequests)
	o.Skew = or(o.Skew, DefaultSkew)
	o.KeepEvery = or(o.KeepEvery, DefaultKeepEvery)
	o.Patience = or(o.Patience, DefaultPatience)
	o.Grace = or(o.Grace, DefaultGrace)
	if o.Tracer == nil {
		o.Tracer = noop.NewTracerProvider().Tracer("")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o
}

func or[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Handler answers one call. Its error crosses the wire as kit/rpc.Status makes it: faults with
// their text, anything else as an id. ctx holds who asks (rpc.CallerFrom, InstanceFrom) and the
// span; it ends when the client leaves or falls silent, and when the server stops.
type Handler func(ctx context.Context, c *Call) error

// Server answers the requests to one instance. Register handlers, then Run.
type Server struct {
	conn     *nats.Conn
	id       Identity
	target   Target
	auth     Authenticator
	opt      Options
	handlers map[string]method // not changed once Run has begun
	replays  *replays
	opening  chan struct{} // one token per request being opened

	mu       sync.Mutex // guards what follows
	taken    int        // slots: calls being handled, or about to be
	takenBy  map[string]int
	calls    map[requestID]*Call
	stopping bool
	running  sync.WaitGroup // every goroutine of the server
}

// NewServer returns a server for the instance; nothing runs yet. It fails when the identity's
// parts do not belong together.
func NewServer(
	conn *nats.Conn, id Identity, auth Authenticator, opt Options,
) (*Server, error) {
	target, err := id.Target()
	if err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	return &Server{
		conn: conn, id: id, target: target, auth: auth, opt: opt,
		handlers: map[string]method{},
		replays:  newReplays(opt.Requests, MaxAhead+2*opt.Skew),
		opening:  make(chan struct{}, maxOpening),
		takenBy:  map[string]int{},
		calls:    map[requestID]*Call{},
	}, nil
}

// Target returns where this server is asked.
func (s *Server) Target() Target { return s.target }

// method is a registered handler. A unary one ends at not_after and is not kept alive.
type method struct {
	handle Handler
	unary  bool
}

// Handle registers the handler of a streaming method such as "executor.v1/Task", before Run. Unary
// and ServerStream are easier to use. A name that is empty, too long or taken panics: it is
// written by a programmer.
func (s *Server) Handle(name string, h Handler) { s.register(name, method{handle: h}) }

func (s *Server) register(name string, m method) {
	_, taken := s.handlers[name]
	if name == "" || len(name) > MaxMethod || taken || isControl(name) {
		panic(fmt.Sprintf("bus: method %q is registered twice or has no good name", name))
	}
	s.handlers[name] = m
}

// Run answers requests until ctx ends, then lets calls in flight finish within Grace; it
// implements kit/run.Component. It calls ready when the broker knows the subscription. It returns
// an error when the connection is closed under it.
func (s *Server) Run(ctx context.Context, ready func()) error {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	sub, err := s.conn.Subscribe(s.target.RPC(), func(m *nats.Msg) { s.take(work, m.Data) })
	if err != nil {
		return fmt.Errorf("listen for requests: %w", err)
	}
	if err := sub.SetPendingLimits(maxWaiting, maxWaitingBytes); err != nil {
		return fmt.Errorf("listen for requests: %w", err)
	}
	closed := s.conn.StatusChanged(nats.CLOSED) // before looking whether it is closed already
	if s.heardOf(ctx) {
		ready()
	}
	if !s.conn.IsClosed() {
		select {
		case <-ctx.Done():
		case <-closed:
		}
	}
	var lost error
	if ctx.Err() == nil {
		lost = errors.New("the connection to the broker was closed under the server")
	}
	if lost == nil {
		if err := sub.Unsubscribe(); err != nil {
			s.opt.Log.WarnContext(ctx, "requests cannot be turned away", "error", err)
		}
		// The broker must know it before we are gone: only then callers hear at once that nobody is
		// here, instead of waiting for an answer.
		_ = s.conn.FlushTimeout(flushTimeout)
	}
	s.drain(cancel)
	return lost
}

// heardOf waits until the broker has taken the subscription, however long it is away. It returns
// false if ctx or the connection ends first.
func (s *Server) heardOf(ctx context.Context) bool {
	for ctx.Err() == nil && !s.conn.IsClosed() {
		within, cancel := context.WithTimeout(ctx, flushTimeout)
		err := s.conn.FlushWithContext(within)
		cancel()
		if err == nil {
			return true
		}
	}
	return false
}

// take opens a request in a goroutine of its own. It blocks the subscription while maxOpening are
// being opened, so that a flood waits in the bounded queue of the connection.
func (s *Server) take(ctx context.Context, sealed []byte) {
	s.opening <- struct{}{}
	if !s.begin() {
		<-s.opening
		return
	}
	go func() {
		defer s.running.Done()
		c := s.open(ctx, sealed)
		<-s.opening
		if c != nil {
			s.serve(ctx, c)
		}
	}()
}

// begin counts one more goroutine unless the server stops.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.running.Add(1)
	return true
}

// drain takes no more, ends the streams, and waits for everything to return.
func (s *Server) drain(cancel context.CancelCauseFunc) {
	s.mu.Lock()
	s.stopping = true
	for _, c := range s.calls {
		if !c.method.unary {
			c.stop(draining())
		}
	}
	s.mu.Unlock()
	timer := time.AfterFunc(s.opt.Grace, func() { cancel(draining()) })
	defer timer.Stop()
	s.running.Wait()
}
