package wiring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/clock"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/origin"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/telemetry"
	"github.com/united-containers/ucn/kit/token"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Options are what tests and main functions set beside the Config.
type Options struct {
	// Logs is where logs go; nil drops them.
	Logs io.Writer
	// Spans replaces the OTLP exporter, for tests.
	Spans sdktrace.SpanExporter
	// Version of the program, for telemetry.
	Version string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Network is a local network that holds its data folder and is ready to run.
type Network struct {
	cfg     Config
	home    *home
	now     func() time.Time
	process *telemetry.Telemetry
	broker  *broker.Broker
	pipe    *rpc.Pipe
	// common is what all instances share.
	common instance.Instance
	// rooms are the services in the order they were added.
	rooms []room
	// front is what clients on this machine reach: all services of alpha on one listener.
	front *rpc.Server
	rest  restServer
	group run.Group
	ran   bool
	// closers let go of what several services share, in reverse order.
	closers []func() error
}

// room is one service with its own in-memory listener.
type room struct {
	name     string
	operator string // alpha or beta
	inst     *instance.Instance
	service  instance.Service
}

// restServer is the gateway as far as the network needs to know it.
type restServer interface {
	run.Component
	URL() string
}

// New opens the data folder, founding a network in it if there is none, and builds all services.
// Nothing listens yet. Run, or Close.
func New(ctx context.Context, cfg Config, o Options) (_ *Network, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logs == nil {
		o.Logs = io.Discard
	}
	n := &Network{cfg: cfg, now: o.Now, pipe: &rpc.Pipe{}}
	if n.home, err = openHome(cfg.Data, o.Now()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	n.process, err = telemetry.New(ctx, cfg.Telemetry, telemetry.Options{
		Spans: o.Spans, LogWriter: o.Logs, Version: o.Version,
	})
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	if err := n.build(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// build makes every service, in the order in which they start.
func (n *Network) build(ctx context.Context) error {
	if err := n.openBroker(); err != nil {
		return err
	}
	told, err := n.process.Service("clock")
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	n.common = instance.Instance{
		Now: n.now, Steady: clock.New(clock.Deps{Wall: n.now, Log: told.Log}),
	}
	n.common.Connect = func(name string) (*nats.Conn, error) { return n.broker.Connect(name) }
	n.group.Add("telemetry", n.process)
	n.group.Add("broker", n.broker, "telemetry")
	steps := []func(context.Context) error{
		n.addLedger, n.addFunding, n.addStorage, n.addScheduler, n.addExecutors, n.addFront,
		n.addGateway,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	n.group.Add("announce", run.Func(n.announce), "front", "gateway")
	return nil
}

func (n *Network) openBroker() error {
	told, err := n.process.Service("broker")
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	cfg := broker.Default()
	cfg.Dir, cfg.Listen = n.home.path("broker"), n.cfg.Bus
	n.broker, err = broker.New(cfg, broker.Deps{
		Tokens: n.tokens(Alpha), Instances: cert.Verifier{
			Chains: []string{n.home.genesis.Chain}, Sets: lateSets{n}, Now: n.now,
		},
		Operators: func(operator sig.AccountID) bool {
			return operator == n.home.operator(Alpha) || operator == n.home.operator(Beta)
		},
		Log: told.Log,
	})
	return err
}

// tokens judges tokens meant for an operator's services.
func (n *Network) tokens(operator string) rpc.Authenticator {
	return &token.Verifier{
		Audience: n.home.operator(operator), Chains: []string{n.home.genesis.Chain},
		Sets: lateSets{n}, Now: n.now,
	}
}

// lateSets asks the ledger once it is there: broker and ledger need each other's answers.
type lateSets struct{ n *Network }

// KeySet implements keys.Sets.
func (l lateSets) KeySet(
	ctx context.Context, chain string, account sig.AccountID,
) (sig.KeySet, error) {
	if l.n.common.Sets == nil {
		return sig.KeySet{}, errors.New("the ledger is not up yet")
	}
	return l.n.common.Sets.KeySet(ctx, chain, account)
}

// open makes the Instance of a service: its identity, its connections, its telemetry.
func (n *Network) open(
	ctx context.Context, name, service, operator string,
) (*instance.Instance, error) {
	i, err := n.home.open(ctx, name, service, operator, &n.common)
	if err != nil {
		return nil, err
	}
	if i.Telemetry, err = n.process.Service(service); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	alpha := n.home.operator(Alpha)
	i.Dialer = rpc.NewPipeDialer(n.pipe, rpc.ClientDeps{
		Tracers: i.Telemetry.Tracers, Meters: i.Telemetry.Meters,
		Tokens:  instance.NewTokens(i.Identity.Key, i.Chain, alpha, nil),
		Origins: instance.NewOrigins(i.Identity, alpha, nil, n.now),
	})
	return i, nil
}

// add puts a service into the group and gives it a listener in memory under its room's name.
func (n *Network) add(r room, after ...string) error {
	server, err := n.serve(r.name, r.inst, r.service)
	if err != nil {
		return err
	}
	n.rooms = append(n.rooms, r)
	n.group.Add(r.name, r.service, after...)
	n.group.Add(r.name+" rpc", server, r.name)
	return nil
}

func (n *Network) serve(
	name string, i *instance.Instance, s instance.Service,
) (*rpc.Server, error) {
	listener, err := n.pipe.Listen(name)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	server, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{
		Log: i.Telemetry.Log, Tracers: i.Telemetry.Tracers, Meters: i.Telemetry.Meters,
		Auth: i.Tokens(), Origins: i.Origins(), Public: s.PublicMethods(), Listener: listener,
	})
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", name, err)
	}
	s.Register(server)
	return server, nil
}

// addFront puts alpha's services on one TCP listener for clients of this machine.
func (n *Network) addFront(context.Context) error {
	told, err := n.process.Service("front")
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	cfg := rpc.DefaultServer()
	cfg.Addr = n.cfg.API
	var public []string
	var services []instance.Service
	after := []string{}
	for _, r := range n.rooms {
		if r.inst.Service != "executor" {
			public = append(public, r.service.PublicMethods()...)
			services = append(services, r.service)
		}
		after = append(after, r.name)
	}
	n.front, err = rpc.NewServer(cfg, rpc.ServerDeps{
		Log: told.Log, Tracers: told.Tracers, Meters: told.Meters, Auth: n.tokens(Alpha),
		Origins: &origin.Judge{Operator: n.home.operator(Alpha), Certificates: cert.Verifier{
			Chains: []string{n.home.genesis.Chain}, Sets: lateSets{n}, Now: n.now,
		}, Now: n.now},
		Public: public,
	})
	if err != nil {
		return fmt.Errorf("serve clients: %w", err)
	}
	for _, s := range services {
		s.Register(registrar{n.front})
	}
	n.group.Add("front", n.front, after...)
	return nil
}

// registrar narrows a server to what services register with.
type registrar struct{ grpc.ServiceRegistrar }

// ledgerClient speaks to the ledger in an instance's name.
func ledgerClient(ctx context.Context, i *instance.Instance) (
	ledgerv1.LedgerServiceClient, func() error, error,
) {
	conn, err := i.Dialer.Dial(ctx, "ledger")
	if err != nil {
		return nil, nil, fmt.Errorf("dial the ledger: %w", err)
	}
	return ledgerv1.NewLedgerServiceClient(conn), conn.Close, nil
}

// Run runs the network until ctx ends. ready is called when clients may come.
func (n *Network) Run(ctx context.Context, ready func()) error {
	n.ran = true // services let go of what they hold when their own Run ends
	return errors.Join(n.group.Run(ctx, ready), n.Close())
}

// Close lets go of everything that New opened. It must not be called while Run goes on.
func (n *Network) Close() error {
	var all []error
	for _, r := range slices.Backward(n.rooms) {
		if c, ok := r.service.(io.Closer); ok && !n.ran {
			all = append(all, c.Close())
		}
	}
	n.rooms = nil
	for _, end := range slices.Backward(n.closers) {
		all = append(all, end())
	}
	n.closers = nil
	if n.home != nil {
		all = append(all, n.home.close())
		n.home = nil
	}
	return errors.Join(all...)
}
