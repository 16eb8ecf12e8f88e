package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"

	"github.com/united-containers/ucn/kit/share"
	"github.com/united-containers/ucn/kit/telemetry"
)

// ServerDeps are what a server needs from outside.
type ServerDeps struct {
	// Log gets internal errors, panics and, at debug, every call. nil logs nothing.
	Log *slog.Logger
	// Tracers and Meters may be nil: nothing is recorded then.
	Tracers trace.TracerProvider
	Meters  metric.MeterProvider
	// Auth proves tokens. nil refuses every method that is not public.
	Auth Authenticator
	// Origins judges where gateways say that their callers come from. nil believes nobody.
	Origins OriginJudge
	// Public names methods that need no token: "/pkg.Service/Method", or "/pkg.Service/" for all
	// of a service. Health and reflection are always public. On a public method a token is not
	// looked at.
	Public []string
	// Limiter replaces the rate limit of the configuration when set.
	Limiter Limiter
	// Listener replaces the configured address when set, e.g. by Pipe.Listen. The server closes it.
	Listener net.Listener
}

// Server is a gRPC server. Make it with NewServer, register services, then call Run once.
type Server struct {
	cfg     ServerConfig
	deps    ServerDeps
	log     *slog.Logger
	public  publicMethods
	limit   Limiter // nil without limit
	grpc    *grpc.Server
	health  *health.Server
	answers *answers
	calls   calls           // of other processes
	slow    *share.Places   // of messages that take long
	unaries map[string]bool // full names of methods; written before serving

	draining context.Context // ends when streams must end
	drain    context.CancelCauseFunc

	mu   sync.Mutex // guards addr
	addr net.Addr
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// NewServer checks the configuration and builds a server. It opens and starts nothing.
func NewServer(cfg ServerConfig, deps ServerDeps) (*Server, error) {
	if deps.Listener != nil {
		cfg.Addr = "127.0.0.1:0" // not used, and must not be refused
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("rpc server: %w", err)
	}
	s := &Server{
		cfg: cfg, deps: deps, log: deps.Log, public: newPublicMethods(deps.Public),
		limit: deps.Limiter, health: health.NewServer(), answers: newAnswers(cfg),
		calls: newCalls(cfg), slow: newSlow(cfg), unaries: map[string]bool{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.limit == nil && cfg.RatePerSecond > 0 {
		s.limit = NewRateLimiter(cfg.RatePerSecond, cfg.RateBurst)
	}
	creds, err := serverCredentials(cfg)
	if err != nil {
		return nil, fmt.Errorf("rpc server: %w", err)
	}
	s.draining, s.drain = context.WithCancelCause(context.Background())
	s.grpc = grpc.NewServer(append(s.options(), grpc.Creds(creds))...)
	healthpb.RegisterHealthServer(s, s.health)
	reflection.Register(s.grpc)
	s.health.Shutdown() // not serving until Run is ready
	return s, nil
}

// RegisterService implements grpc.ServiceRegistrar. Call it before Run.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	guarded := *desc
	guarded.Methods = slices.Clone(desc.Methods)
	for i, m := range desc.Methods {
		name := "/" + desc.ServiceName + "/" + m.MethodName
		s.unaries[name] = true
		guarded.Methods[i].Handler = s.guard(name, m.Handler)
	}
	s.grpc.RegisterService(&guarded, impl)
}

// Addr returns where the server listens, nil before Run called ready.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// SetServing tells health checks of one service whether it serves. A service that cannot go on
// says so here while others on the same server do.
func (s *Server) SetServing(service string, serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(service, status)
}

// Run listens, calls ready, serves until ctx ends, and drains: health says NOT_SERVING, no new
// calls are taken, streams are ended with SERVER_DRAINING after a third of the drain time, and
// whatever is left after all of it is cut off. It returns nil after a drain.
func (s *Server) Run(ctx context.Context, ready func()) error {
	listener, err := s.listen(ctx)
	if err != nil {
		s.grpc.Stop()
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(listener) }()
	s.health.Resume()
	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
	}
	s.log.InfoContext(ctx, "serving", "addr", listener.Addr().String())
	ready()
	select {
	case err := <-served:
		s.drain(errDraining())
		s.grpc.Stop()
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.stop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	}
	return nil
}

// listen opens the server's listener, after checking what Public names against what was
// registered: a typing error there would close a method that should be open.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	listener := s.deps.Listener
	if unknown := s.public.unknown(s.grpc.GetServiceInfo()); unknown != "" {
		err := fmt.Errorf("rpc server: public method %s is not registered", unknown)
		if listener != nil {
			err = errors.Join(err, listener.Close())
		}
		return nil, err
	}
	if listener == nil {
		var err error
		if listener, err = listen(ctx, s.cfg.Addr); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", s.cfg.Addr, err)
		}
		listener = Bound(listener, s.cfg.MaxConnections, s.cfg.MaxPerAddress, s.log)
		listener = track{listener, s.answers}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = listener.Addr()
	return listener, nil
}

// stop drains for at most the configured time.
func (s *Server) stop() {
	s.health.Shutdown()
	const streamShare = 3 // streams get a third of the time
	endStreams := time.AfterFunc(s.cfg.Drain/streamShare, func() { s.drain(errDraining()) })
	defer endStreams.Stop()
	cutOff := time.AfterFunc(s.cfg.Drain, func() {
		s.log.Warn("drain time is over, cutting off the calls that are left")
		s.grpc.Stop()
	})
	defer cutOff.Stop()
	s.grpc.GracefulStop()
	s.drain(errDraining())
}

func (s *Server) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(s.cfg.MaxMessage)), grpc.MaxSendMsgSize(int(s.cfg.MaxMessage)),
		grpc.MaxConcurrentStreams(s.cfg.MaxStreams), grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(handshakeTimeout), grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: minClientPing, PermitWithoutStream: true,
		}),
		grpc.StatsHandler(otelgrpc.NewServerHandler(s.traceOptions()...)),
		grpc.ForceServerCodecV2(answerCodec{encoding.GetCodecV2(proto.Name)}),
		grpc.InTapHandle(s.tap), grpc.ChainStreamInterceptor(s.stream),
	}
}

func (s *Server) traceOptions() []otelgrpc.Option {
	return traceOptions(s.deps.Tracers, s.deps.Meters)
}

// traceOptions never leaves a provider unset, which would mean OpenTelemetry's global one.
func traceOptions(tracers trace.TracerProvider, meters metric.MeterProvider) []otelgrpc.Option {
	if tracers == nil {
		tracers = tracenoop.NewTracerProvider()
	}
	if meters == nil {
		meters = metricnoop.NewMeterProvider()
	}
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(tracers), otelgrpc.WithMeterProvider(meters),
		otelgrpc.WithPropagators(telemetry.Propagator()),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool {
			return info.FullMethodName != healthpb.Health_Check_FullMethodName &&
				info.FullMethodName != healthpb.Health_Watch_FullMethodName
		}),
	}
}

func serverCredentials(cfg ServerConfig) (credentials.TransportCredentials, error) {
	if cfg.TLSCert == "" {
		return insecure.NewCredentials(), nil
	}
	pair := &certificate{certFile: cfg.TLSCert, keyFile: string(cfg.TLSKey)}
	if _, err := pair.get(nil); err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{
		GetCertificate: pair.get, MinVersion: tls.VersionTLS12,
	}), nil
}
