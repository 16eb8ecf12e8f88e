// Package server is the scheduler on the wire: its gRPC service, and the events of hosts that it
// follows. The rules are in the package above; this one translates.
package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/telemetry"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// Deps are what the server stands on.
type Deps struct {
	// Engine are the engine's own needs; Trace is filled in here.
	Engine scheduler.Deps
	// Chain whose escrows pay.
	Chain string
	// Certificate of this instance, as it is told to clients.
	Certificate *identityv1.Certificate
	// KeySets answers which key set is in force for an owner. nil believes first sets.
	KeySets keys.Sets
	// Follow makes the component that reads the hosts' events and gives them to handle.
	Follow func(handle func(context.Context, event.Incoming) error) (run.Component, error)
	// Publish drains the outbox; nil publishes nothing.
	Publish run.Component
	Tracers trace.TracerProvider
}

// Server is one scheduler. Make it with New, Register it, Run it.
type Server struct {
	schedulerv1.UnsafeSchedulerServiceServer

	engine *scheduler.Engine
	deps   Deps
	tracer trace.Tracer
	log    *slog.Logger
	now    func() time.Time
	follow run.Component
	// leaseFee is what a lease costs its escrow, grains.
	leaseFee uint64
}

var _ schedulerv1.SchedulerServiceServer = (*Server)(nil)

const instrument = "github.com/united-containers/ucn/services/scheduler"

// New puts the server together; it starts nothing.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		deps: deps, tracer: deps.Tracers.Tracer(instrument),
		log: deps.Engine.Log, now: deps.Engine.Now, leaseFee: cfg.LeaseFee,
	}
	deps.Engine.Trace = s.trace
	s.engine = scheduler.New(cfg.policy(), deps.Engine)
	if deps.Follow != nil {
		follow, err := deps.Follow(s.handle)
		if err != nil {
			return nil, err
		}
		s.follow = follow
	}
	return s, nil
}

// Register adds the gRPC service.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	schedulerv1.RegisterSchedulerServiceServer(r, s)
}

// PublicMethods need no token.
func PublicMethods() []string {
	return []string{
		schedulerv1.SchedulerService_GetScheduler_FullMethodName,
		schedulerv1.SchedulerService_ListOffers_FullMethodName,
		schedulerv1.SchedulerService_GetMarket_FullMethodName,
	}
}

// Run places runs until ctx ends.
func (s *Server) Run(ctx context.Context, ready func()) error {
	group := run.Group{Log: s.log}
	group.Add("engine", s.engine)
	if s.follow != nil {
		group.Add("events in", s.follow, "engine")
	}
	if s.deps.Publish != nil {
		group.Add("events out", s.deps.Publish)
	}
	return group.Run(ctx, ready)
}

// trace continues the trace of a job's submission.
func (s *Server) trace(
	ctx context.Context, traceparent, step string,
) (context.Context, func(error)) {
	ctx = telemetry.Extract(ctx, traceparent)
	ctx, span := s.tracer.Start(ctx, step)
	return ctx, func(err error) {
		if err != nil && !errors.Is(err, context.Canceled) {
			span.RecordError(err)
			span.SetStatus(codes.Error, step)
		}
		span.End()
	}
}

func ownerAttribute(owner sig.AccountID) attribute.KeyValue {
	return attribute.String("ucn.owner", accountText(owner))
}
