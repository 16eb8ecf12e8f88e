package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/event"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/kit/event/refetch"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/registry"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/space"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fetch"
	"github.com/united-containers/ucn/services/executor/journal"
	"github.com/united-containers/ucn/services/executor/ledgerclient"
	"github.com/united-containers/ucn/services/executor/server"
)

const (
	service    = "executor"
	journalDir = "journal" // in Dir
	inputDir   = "inputs"  // likewise
	engineDir  = "engine"  // likewise
	spareCalls = 256       // on the bus, besides four streams for each attempt
	dirMode    = 0o711     // inputs below must be reachable for the containers' users
	privateDir = 0o700
)

// Main runs an executor in a process of its own and returns the exit code.
func Main(args []string) int {
	file := &File{Config: Default()}
	return instance.Main(service, args, file,
		func(ctx context.Context, i *instance.Instance) (instance.Service, error) {
			return New(ctx, file.Config, i)
		})
}

// Executor is an executor that holds its files and is ready to run.
type Executor struct {
	agent     *executor.Agent
	server    *server.Server
	bus       *bus.Server
	publisher *event.Publisher
	closers   []func() error
}

var _ instance.Service = (*Executor)(nil)

// New opens journal and engine and prepares everything; Run lets go of it.
func New(ctx context.Context, c Config, i *instance.Instance) (_ *Executor, err error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("executor: %w", err)
	}
	e := &Executor{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("executor: %w", err), e.Close())
		}
	}()
	if err := os.MkdirAll(c.Dir, dirMode); err != nil {
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	conn, err := i.Connect(service)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	e.closers = append(e.closers, func() error { conn.Close(); return nil })
	store, outbox, err := e.openJournal(c, i)
	if err != nil {
		return nil, err
	}
	if e.publisher, err = publisher(i, outbox, conn); err != nil {
		return nil, err
	}
	return e, e.build(ctx, c, i, parts{conn: conn, journal: store, said: outbox})
}

// parts are what build puts together.
type parts struct {
	conn    *nats.Conn
	journal *journal.Journal
	said    event.History
}

func (e *Executor) build(ctx context.Context, c Config, i *instance.Instance, p parts) error {
	driver, err := e.openDriver(c, i)
	if err != nil {
		return err
	}
	ledger, files, err := e.dial(ctx, c, i)
	if err != nil {
		return err
	}
	encoder, err := server.NewEncoder(i.Identity.Certificate)
	if err != nil {
		return err
	}
	who, err := c.identity(i)
	if err != nil {
		return err
	}
	e.agent, err = executor.New(c.agent(i), who, executor.Deps{
		Driver: driver, Journal: p.journal, Ledger: ledger, Files: files, Encoder: encoder,
		Log: i.Telemetry.Log, Tracers: i.Telemetry.Tracers, Meters: i.Telemetry.Meters,
		Now: i.Clock(),
	})
	if err != nil {
		return err
	}
	e.server = server.New(server.Deps{
		Agent: e.agent, Encoder: encoder, Operator: i.Operator(),
		Instance: i.Identity.Key.Public(),
	})
	e.bus, err = bus.NewServer(p.conn, i.Identity, i.Authenticator(), bus.Options{
		Concurrent: 4*c.Agent.MaxAttempts + spareCalls, Log: i.Telemetry.Log, Clock: i.Now,
		Tracer: i.Telemetry.Tracers.Tracer("github.com/united-containers/ucn/kit/bus"),
	})
	if err != nil {
		return err
	}
	server.RegisterBus(e.bus, e.agent, ledger, i.Operator())
	server.RegisterOperator(e.bus, e.server)
	refetch.Serve(e.bus, i.Certificate, p.said)
	return nil
}

// agent fills in what the instance knows.
func (c Config) agent(i *instance.Instance) executor.Config {
	a := c.Agent
	if a.Host == "" {
		a.Host = c.Name
	}
	a.Chains = []string{i.Chain}
	return a
}

func (c Config) identity(i *instance.Instance) (executor.Identity, error) {
	payee := i.Operator()
	if c.Payee != "" {
		account, err := id.ParseBech32(id.Account, c.Payee)
		if err != nil {
			return executor.Identity{}, fmt.Errorf("payee: %w", err)
		}
		payee = account
	}
	return executor.Identity{
		Key: i.Identity.Key, Operator: i.Operator(), Payee: payee,
		Anchors: map[string]sig.Anchor{i.Chain: i.Anchor},
	}, nil
}

func (e *Executor) openJournal(c Config, i *instance.Instance) (
	*journal.Journal, *events.Outbox, error,
) {
	dir := filepath.Join(c.Dir, journalDir)
	if err := os.MkdirAll(dir, privateDir); err != nil {
		return nil, nil, fmt.Errorf("make the journal's folder: %w", err)
	}
	room := space.Guard{Dir: dir}.Check
	var outbox *events.Outbox
	j, err := journal.Open(dir, journal.Options{Log: i.Telemetry.Log, Room: room},
		func(db *pebble.DB) (_ journal.Outbox, err error) {
			if outbox, err = events.NewOutbox(db, "out/"); err == nil {
				outbox.KeepRoom(room)
			}
			return outbox, err
		})
	if err != nil {
		return nil, nil, err
	}
	e.closers = append(e.closers, j.Close)
	return j, outbox, nil
}

func publisher(
	i *instance.Instance, outbox *events.Outbox, conn *nats.Conn,
) (*event.Publisher, error) {
	signer, err := i.EventSigner()
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("use the broker's streams: %w", err)
	}
	return event.NewPublisher(event.PublisherConfig{
		Queue: outbox, Signer: signer, JetStream: js, Clock: i.Now, Log: i.Telemetry.Log,
		Epoch: i.Epoch,
	})
}

func (e *Executor) openDriver(c Config, i *instance.Instance) (executor.Driver, error) {
	open := c.Driver
	if open == nil {
		if c.Engine.Dir == "" {
			c.Engine.Dir = filepath.Join(c.Dir, engineDir)
		}
		c.Engine.MaxUnpacked = int64(c.Registries.MaxUnpacked)
		engine, err := OpenEngine(c.Engine, i.Telemetry.Log)
		if err != nil {
			return nil, err
		}
		e.closers = append(e.closers, engine.Close)
		open = func(name string) (executor.Driver, error) { return engine.Driver(name) }
	}
	driver, err := open(c.Name)
	if err != nil {
		return nil, fmt.Errorf("open the driver: %w", err)
	}
	e.closers = append(e.closers, driver.Close)
	return driver, nil
}

func (e *Executor) dial(ctx context.Context, c Config, i *instance.Instance) (
	*ledgerclient.Client, *fetch.Files, error,
) {
	ledger, err := i.Dialer.Dial(ctx, "ledger")
	if err != nil {
		return nil, nil, fmt.Errorf("dial the ledger: %w", err)
	}
	e.closers = append(e.closers, ledger.Close)
	storage, err := i.Dialer.Dial(ctx, "storage")
	if err != nil {
		return nil, nil, fmt.Errorf("dial the storage: %w", err)
	}
	e.closers = append(e.closers, storage.Close)
	registries := registry.New(registry.Options{
		Private: c.Registries.Private, Insecure: c.Registries.Insecure,
		MaxPacked: int64(c.Registries.MaxImage),
	})
	e.closers = append(e.closers, registries.Close)
	files, err := fetch.New(storagev1.NewStorageServiceClient(storage), registries,
		filepath.Join(c.Dir, inputDir))
	if err != nil {
		return nil, nil, err
	}
	client := ledgerclient.New(ledgerv1.NewLedgerServiceClient(ledger), i.Identity.Key,
		ledgerclient.Clock{Now: i.Clock(), HeadTime: i.HeadTime})
	e.closers = append(e.closers, client.Close)
	return client, files, nil
}

// Register adds the operator's view to a gRPC server.
func (e *Executor) Register(r grpc.ServiceRegistrar) { e.server.Register(r) }

// PublicMethods implements instance.Service: every call needs the operator's token.
func (e *Executor) PublicMethods() []string { return nil }

// Agent returns the agent, for tests of whoever builds several services.
func (e *Executor) Agent() *executor.Agent { return e.agent }

// Run works until ctx ends, then lets go of everything. Containers go on: the next life adopts
// them.
func (e *Executor) Run(ctx context.Context, ready func()) error {
	var group run.Group
	group.Add("publisher", e.publisher)
	group.Add("agent", e.agent, "publisher")
	group.Add("bus", e.bus, "agent")
	return errors.Join(group.Run(ctx, ready), e.Close())
}

// Close lets go of files and connections. It may be called again; not while Run goes on.
func (e *Executor) Close() error {
	var all []error
	for _, end := range slices.Backward(e.closers) {
		all = append(all, end())
	}
	e.closers = nil
	return errors.Join(all...)
}
