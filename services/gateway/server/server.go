// Package server is the gateway over HTTP: the calls of the generated stubs, files as raw bytes,
// logs as server-sent events, health, the OpenAPI document and a page that lists it all.
//
// Every call goes out over a connection and carries exactly the token that the user sent, or none.
// What a client may cost is bounded: bytes, time, silence, streams, transfers, connections. Errors
// have one shape whoever made them.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/share"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// Peer is a service that the gateway stands in front of.
type Peer struct {
	// Name is "ledger", "scheduler" or "storage"; Service its full gRPC name, for health.
	Name, Service string
	// Conn leads to it. Calls carry only the token of rpc.WithToken.
	Conn *grpc.ClientConn
	// Register adds the generated stubs.
	Register func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error
}

// Deps are what a gateway needs from outside.
type Deps struct {
	// Ledger, Scheduler and Storage are needed.
	Ledger, Scheduler, Storage Peer
	// Bus leads to executors, for logs. Own asks those of Operator, whose gateway this is, in the
	// gateway's name: they see no token.
	Bus      *nats.Conn
	Own      *bus.Client
	Operator sig.AccountID
	// Hosts adds the generated stubs of the calls that operators make to their hosts.
	Hosts func(context.Context, *runtime.ServeMux, executorv1.ExecutorServiceClient) error
	// Events adds those of what instances said.
	Events func(context.Context, *runtime.ServeMux, eventv1.EventServiceClient) error
	// Executors judges the certificates that the scheduler names.
	Executors bus.Instances
	// OpenAPI is the generated document.
	OpenAPI []byte
	// Metrics is served under /metrics; nil serves none.
	Metrics http.Handler
	// Callers proves whose a token is, for rates, remembered answers and logs; nil goes by addresses
	// and reads no log from hosts of Operator.
	Callers rpc.Authenticator
	// Limiter decides per client; nil takes the rate of the Config, if it has one.
	Limiter rpc.Limiter
	Tracers trace.TracerProvider
	Meters  metric.MeterProvider
	Now     func() time.Time
	Log     *slog.Logger
}

// Server is a gateway. Make one with New, then call Run once.
type Server struct {
	cfg       Config
	deps      Deps
	log       *slog.Logger
	limit     rpc.Limiter // nil without limit
	rates     rates
	answers   *answers
	ready     ready
	calls     *runtime.ServeMux
	openAPI   []byte
	docsPage  []byte
	takes     *parameters
	ledger    ledgerv1.LedgerServiceClient
	scheduler schedulerv1.SchedulerServiceClient
	storage   storagev1.StorageServiceClient
	blobs     *blob.Client
	streams   *share.Places
	blocks    *share.Places // those of streams that watch blocks
	transfers *shares
	walks     chan struct{}
	bodies    *shares // bytes
	unread    *unread
	http      *http.Server

	draining context.Context // ends when streams must end
	drain    context.CancelCauseFunc
	alive    context.Context // ends when whatever is still under way is cut off
	cutOff   context.CancelFunc

	mu   sync.Mutex // guards addr
	addr net.Addr
}

// New checks the configuration and builds a gateway. It opens and starts nothing.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	s := &Server{
		cfg: cfg, deps: deps, log: deps.Log, limit: deps.Limiter,
		ledger:    ledgerv1.NewLedgerServiceClient(deps.Ledger.Conn),
		scheduler: schedulerv1.NewSchedulerServiceClient(deps.Scheduler.Conn),
		storage:   storagev1.NewStorageServiceClient(deps.Storage.Conn),
		rates:     newRates(cfg.Rates), answers: newAnswers(), ready: ready{check: health},
		streams:   newStreams(cfg.MaxStreams),
		blocks:    newBlockStreams(),
		transfers: newShares(cfg.MaxTransfers),
		bodies:    newShares(int(cfg.MaxBodies)),
		walks:     make(chan struct{}, maxWalks),
		unread:    newUnread(int(cfg.MaxAnswers), deps.Now),
	}
	s.blobs = blob.New(s.storage)
	if s.limit == nil && cfg.RatePerSecond > 0 {
		s.limit = rpc.NewRateLimiter(cfg.RatePerSecond, cfg.RateBurst)
	}
	s.draining, s.drain = context.WithCancelCause(context.Background())
	s.alive, s.cutOff = context.WithCancel(context.Background())
	var err error
	if s.openAPI, err = mergeOpenAPI(deps.OpenAPI); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if s.docsPage, err = docsOf(s.openAPI); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if s.takes, err = parametersOf(s.openAPI); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	s.calls = newCalls(s)
	for _, p := range s.peers() {
		if err := p.Register(s.draining, s.calls, p.Conn); err != nil {
			return nil, fmt.Errorf("gateway: routes of %s: %w", p.Name, err)
		}
	}
	if err := deps.Hosts(s.draining, s.calls, hosts{s}); err != nil {
		return nil, fmt.Errorf("gateway: routes of hosts: %w", err)
	}
	if err := deps.Events(s.draining, s.calls, history{s}); err != nil {
		return nil, fmt.Errorf("gateway: routes of events: %w", err)
	}
	return s, s.newHTTP()
}

func (s *Server) peers() []Peer {
	return []Peer{s.deps.Ledger, s.deps.Scheduler, s.deps.Storage}
}

func (s *Server) newHTTP() error {
	s.http = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: s.cfg.HeaderTime, IdleTimeout: s.cfg.IdleTime,
		MaxHeaderBytes: maxHeaders, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxPerClient},
	}
	if s.cfg.TLSCert == "" {
		return nil
	}
	pair := &certificate{certFile: s.cfg.TLSCert, keyFile: string(s.cfg.TLSKey)}
	if _, err := pair.get(nil); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	s.http.TLSConfig = &tls.Config{GetCertificate: pair.get, MinVersion: tls.VersionTLS12}
	return nil
}

// URL returns where the gateway is, such as "http://127.0.0.1:7680", and "" before Run called
// ready.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr == nil {
		return ""
	}
	if s.cfg.TLSCert != "" {
		return "https://" + s.addr.String()
	}
	return "http://" + s.addr.String()
}

// Run listens, calls ready, serves until ctx ends, and drains: /readyz says no, streams end with
// SERVER_DRAINING, calls and files may finish within the drain time, and what is left is cut off.
// It returns nil after a drain.
func (s *Server) Run(ctx context.Context, ready func()) error {
	defer s.cutOff()
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("gateway: listen on %s: %w", s.cfg.Addr, err)
	}
	s.mu.Lock()
	s.addr = listener.Addr()
	s.mu.Unlock()
	listener = rpc.Bound(listener, s.cfg.MaxConnections, s.cfg.MaxPerAddress, s.log)
	served := make(chan error, 1)
	go func() { served <- s.serve(listener) }()
	s.log.InfoContext(ctx, "serving", "url", s.URL())
	ready()
	select {
	case err := <-served:
		s.drain(errDraining())
		return errors.Join(fmt.Errorf("gateway: serve: %w", err), s.http.Close())
	case <-ctx.Done():
	}
	err = s.stop(context.WithoutCancel(ctx))
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("gateway: serve: %w", served))
	}
	return err
}

func (s *Server) serve(l net.Listener) error {
	if s.http.TLSConfig != nil {
		return s.http.ServeTLS(l, "", "")
	}
	return s.http.Serve(l)
}

func (s *Server) stop(ctx context.Context) error {
	s.drain(errDraining())
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Drain)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.WarnContext(ctx, "drain time is over, cutting off the requests that are left")
		return s.http.Close()
	}
	return err
}

func errDraining() error {
	return fault.New(fault.Unavailable, rpc.ReasonDraining,
		"the gateway is stopping: connect again")
}

// shares bounds how many of something are under way, and how many of them one client's: one that
// takes all it can keeps nobody else out.
type shares struct {
	most int
	each int // the most of one client

	mu    sync.Mutex // guards both
	taken int
	by    map[string]int
}

const shareOfOne = 2 // one client may have half

func newShares(most int) *shares {
	return &shares{most: most, each: max(most/shareOfOne, 1), by: map[string]int{}}
}

// take takes a place for the client of r, or says that none is free. It never waits.
func (s *shares) take(r *http.Request, what string) (give func(), err error) {
	return s.takeMany(r, 1, what)
}

// takeMany takes n places at once.
func (s *shares) takeMany(r *http.Request, n int, what string) (give func(), err error) {
	who := addressOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken+n > s.most || s.by[who]+n > s.each {
		return nil, busy(what)
	}
	s.taken += n
	s.by[who] += n
	return func() { s.give(who, n) }, nil
}

func (s *shares) give(who string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken -= n
	if s.by[who] -= n; s.by[who] == 0 {
		delete(s.by, who)
	}
}
