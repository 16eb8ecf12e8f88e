// Package wire builds a gateway from its configuration: HTTP in front, connections to ledger,
// scheduler and storage behind, the bus to executors. It is used by the gateway's own main and by
// whoever runs several services in one process.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/token"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/gateway/gen/openapi"
	eventgw "github.com/united-containers/ucn/services/gateway/gen/ucn/event/v1"
	executorgw "github.com/united-containers/ucn/services/gateway/gen/ucn/executor/v1"
	ledgergw "github.com/united-containers/ucn/services/gateway/gen/ucn/ledger/v1"
	schedulergw "github.com/united-containers/ucn/services/gateway/gen/ucn/scheduler/v1"
	storagegw "github.com/united-containers/ucn/services/gateway/gen/ucn/storage/v1"
	"github.com/united-containers/ucn/services/gateway/server"
)

// Config is the configuration of a gateway.
type Config struct {
	// Instance is what all services have. Needed when it runs alone; its client.peers name ledger,
	// scheduler and storage.
	Instance instance.Config `yaml:"instance"`
	// HTTP says where it listens and what it bears.
	HTTP server.Config `yaml:"http"`
	// Metrics is served under /metrics to whoever reaches the gateway; nil, the default, serves
	// none. Set by programs.
	Metrics http.Handler `yaml:"-"`
}

// Default returns the defaults.
func Default() Config {
	return Config{Instance: instance.Default(), HTTP: server.Default()}
}

// Validate names the field that is wrong.
func (c Config) Validate() error { return config.Under("http", c.HTTP.Validate()) }

// File is the configuration of a gateway in a process of its own.
type File struct {
	Config `yaml:",inline"`
}

// Common implements instance.FileConfig.
func (f *File) Common() instance.Config { return f.Instance }

// Validate also checks what only a process of its own needs.
func (f *File) Validate() error {
	if err := f.Instance.Validate(); err != nil {
		return config.Under("instance", err)
	}
	for _, peer := range []string{ledger, scheduler, storage} {
		if _, named := f.Instance.Client.Peers[peer]; !named {
			return config.Invalid("instance.client.peers."+peer, "say where it is")
		}
	}
	if f.Instance.Broker == "" {
		return config.Invalid("instance.broker", "say where it is: logs come over it")
	}
	return f.Config.Validate()
}

// The services behind, by the names that dialers know.
const (
	ledger    = "ledger"
	scheduler = "scheduler"
	storage   = "storage"
)

// Main runs a gateway in a process of its own and returns the exit code.
func Main(args []string) int {
	file := &File{Config: Default()}
	return instance.Main("gateway", args, file,
		func(ctx context.Context, i *instance.Instance) (instance.Service, error) {
			return New(ctx, file.Config, i)
		})
}

// Gateway is a gateway that is ready to run.
type Gateway struct {
	server *server.Server
	ends   []func() error
}

var _ instance.Service = (*Gateway)(nil)

// New prepares everything and listens nowhere yet. Run lets go of it; call Close if Run is never
// called.
func New(ctx context.Context, c Config, i *instance.Instance) (_ *Gateway, err error) {
	g := &Gateway{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("gateway: %w", err), g.Close())
		}
	}()
	conn, err := i.Connect("gateway")
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	g.ends = append(g.ends, func() error { conn.Close(); return nil })
	own, err := i.BusClient(conn)
	if err != nil {
		return nil, err
	}
	deps := server.Deps{
		Bus: conn, Own: own, Operator: i.Operator(), Executors: i.Judge(),
		OpenAPI: openapi.Document, Metrics: c.Metrics,
		Tracers: i.Telemetry.Tracers, Meters: i.Telemetry.Meters, Now: i.Now,
		Log: i.Telemetry.Log,
		Callers: &token.Verifier{
			Audience: i.Certificate.Operator, Chains: []string{i.Chain}, Sets: i.Sets, Now: i.Now,
		},
		Hosts:  executorgw.RegisterExecutorServiceHandlerClient,
		Events: eventgw.RegisterEventServiceHandlerClient,
		Ledger: server.Peer{Name: ledger, Service: ledgerv1.LedgerService_ServiceDesc.ServiceName,
			Register: ledgergw.RegisterLedgerServiceHandler},
		Scheduler: server.Peer{Name: scheduler,
			Service:  schedulerv1.SchedulerService_ServiceDesc.ServiceName,
			Register: schedulergw.RegisterSchedulerServiceHandler},
		Storage: server.Peer{Name: storage,
			Service:  storagev1.StorageService_ServiceDesc.ServiceName,
			Register: storagegw.RegisterStorageServiceHandler},
	}
	for _, peer := range []*server.Peer{&deps.Ledger, &deps.Scheduler, &deps.Storage} {
		if peer.Conn, err = i.Dialer.Dial(ctx, peer.Name); err != nil {
			return nil, fmt.Errorf("dial the %s: %w", peer.Name, err)
		}
		g.ends = append(g.ends, peer.Conn.Close)
	}
	g.server, err = server.New(c.HTTP, deps)
	return g, err
}

// URL returns where the gateway is, "" before Run called ready.
func (g *Gateway) URL() string { return g.server.URL() }

// Register implements instance.Service: the gateway has no gRPC service.
func (g *Gateway) Register(grpc.ServiceRegistrar) {}

// PublicMethods implements instance.Service.
func (g *Gateway) PublicMethods() []string { return nil }

// Run serves until ctx ends, drains, and lets go of the connections.
func (g *Gateway) Run(ctx context.Context, ready func()) error {
	return errors.Join(g.server.Run(ctx, ready), g.Close())
}

// Close lets go of the connections. It may be called again.
func (g *Gateway) Close() error {
	var all []error
	for _, end := range g.ends {
		all = append(all, end())
	}
	g.ends = nil
	return errors.Join(all...)
}
