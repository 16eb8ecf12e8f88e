// Package wire builds a scheduler from its configuration: jobs and queue in Pebble, the chain
// through a ledger, hosts over the bus, the gRPC service. It is used by the scheduler's own main
// and by whoever runs several services in one process.
package wire

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/event"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/kit/event/refetch"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/space"
	room "github.com/united-containers/ucn/kit/space/pebble"
	"github.com/united-containers/ucn/kit/submit"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/hostbus"
	"github.com/united-containers/ucn/services/scheduler/ledgerrpc"
	"github.com/united-containers/ucn/services/scheduler/pebble"
	"github.com/united-containers/ucn/services/scheduler/server"
)

// Config is the configuration of a scheduler.
type Config struct {
	// Instance is what all services have. Needed when it runs alone.
	Instance instance.Config `yaml:"instance"`
	// Dir holds the jobs and the queue. One process at a time. Needed.
	Dir string `yaml:"dir"`
	// Market are the market's numbers.
	Market server.Config `yaml:"market"`
}

// Default returns the defaults; dir is still needed.
func Default() Config {
	return Config{Instance: instance.Default(), Market: server.Default()}
}

// Validate names the field that is wrong.
func (c Config) Validate() error {
	if c.Dir == "" {
		return config.Invalid("dir", "say where jobs are kept")
	}
	return config.Under("market", c.Market.Validate())
}

// File is the configuration of a scheduler in a process of its own.
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
	return f.Config.Validate()
}

// Main runs a scheduler in a process of its own and returns the exit code.
func Main(args []string) int {
	file := &File{Config: Default()}
	return instance.Main("scheduler", args, file,
		func(ctx context.Context, i *instance.Instance) (instance.Service, error) {
			return New(ctx, file.Config, i)
		})
}

// Scheduler is a scheduler that holds its files and is ready to run.
type Scheduler struct {
	server *server.Server
	store  *db.DB
	room   space.Guard
	dir    string
	bus    *bus.Server
	conns  []func() error
}

var _ instance.Service = (*Scheduler)(nil)

// memoryOfStore bounds what the store keeps in memory besides its write buffer.
const memoryOfStore = 8 << 20

// New opens the store and prepares everything; Run lets go of it.
func New(_ context.Context, c Config, i *instance.Instance) (_ *Scheduler, err error) {
	s := &Scheduler{dir: c.Dir}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("scheduler: %w", err), s.Close())
		}
	}()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil { // it will hold its owners' tokens
		return nil, fmt.Errorf("make the store's folder: %w", err)
	}
	s.room = space.Guard{Dir: c.Dir}
	if err := s.room.Check(); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	cache := db.NewCache(memoryOfStore)
	defer cache.Unref()
	jobs, options := filepath.Join(c.Dir, "jobs"), &db.Options{
		Cache: cache, Logger: quiet{i}, FormatMajorVersion: db.FormatTableFormatV6,
	}
	room.Patient(options, jobs, i.Telemetry.Log)
	s.store, err = db.Open(jobs, options)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	conn, err := i.Connect("scheduler")
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	s.conns = append(s.conns, func() error { conn.Close(); return nil })
	deps, err := s.deps(i, conn)
	if err != nil {
		return nil, err
	}
	s.server, err = server.New(c.Market, deps)
	return s, err
}

func (s *Scheduler) deps(i *instance.Instance, conn *nats.Conn) (server.Deps, error) {
	var out server.Deps
	outbox, err := events.NewOutbox(s.store, "out/")
	if err != nil {
		return out, fmt.Errorf("open the outbox: %w", err)
	}
	outbox.KeepRoom(s.room.Check)
	store := pebble.New(s.store, appendTo(outbox, i.Chain))
	store.KeepRoom(s.room.Check)
	ledger, err := s.ledger(i)
	if err != nil {
		return out, err
	}
	client, err := i.BusClient(conn)
	if err != nil {
		return out, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return out, fmt.Errorf("use the broker's streams: %w", err)
	}
	certificate := &identityv1.Certificate{}
	if err := canon.Unmarshal(i.Identity.Certificate, certificate); err != nil {
		return out, fmt.Errorf("decode certificate: %w", err)
	}
	publisher, err := s.publisher(i, outbox, js)
	if err != nil {
		return out, err
	}
	return server.Deps{
		Engine: scheduler.Deps{
			Store: store, Ledger: ledger,
			Hosts: hostbus.New(client), Assigner: i.Account(), VerifyLease: ledger.VerifyLease,
			Now: i.Clock(), Random: rand.Reader, Log: i.Telemetry.Log,
		},
		Chain: i.Chain, Certificate: certificate, KeySets: i.Sets, Publish: publisher,
		Tracers: i.Telemetry.Tracers,
		Follow: func(handle func(context.Context, event.Incoming) error) (run.Component, error) {
			return s.follow(i, js, follower{client, outbox, handle})
		},
	}, s.serveEvents(i, conn, outbox)
}

// serveEvents answers peers who missed what this scheduler said.
func (s *Scheduler) serveEvents(
	i *instance.Instance, conn *nats.Conn, outbox *events.Outbox,
) (err error) {
	s.bus, err = bus.NewServer(conn, i.Identity, i.Authenticator(), bus.Options{
		Log: i.Telemetry.Log, Clock: i.Now,
	})
	if err == nil {
		refetch.Serve(s.bus, i.Certificate, outbox)
	}
	return err
}

func appendTo(outbox *events.Outbox, chain string) pebble.AppendEvent {
	return func(b *db.Batch, e *scheduler.Event) error {
		out, err := server.EventOf(e, chain)
		if err != nil {
			return err
		}
		return outbox.Append(b, out)
	}
}

func (s *Scheduler) ledger(i *instance.Instance) (*ledgerrpc.Ledger, error) {
	conn, err := i.Dialer.Dial(context.Background(), "ledger")
	if err != nil {
		return nil, fmt.Errorf("dial the ledger: %w", err)
	}
	s.conns = append(s.conns, conn.Close)
	client := ledgerv1.NewLedgerServiceClient(conn)
	sender := submit.New(submit.Config{
		Ledger: client, Key: i.Identity.Key, Chain: i.Chain, Anchor: i.Anchor, Now: i.Clock(),
		HeadTime: i.HeadTime,
	})
	s.conns = append(s.conns, func() error { sender.Close(); return nil })
	return ledgerrpc.New(client, sender, i.Chain, i.Anchor), nil
}

func (s *Scheduler) publisher(
	i *instance.Instance, outbox *events.Outbox, js jetstream.JetStream,
) (run.Component, error) {
	signer, err := i.EventSigner()
	if err != nil {
		return nil, err
	}
	return event.NewPublisher(event.PublisherConfig{
		Queue: outbox, Signer: signer, JetStream: js, Clock: i.Now, Log: i.Telemetry.Log,
		Epoch: i.Epoch,
	})
}

// follower is what reads the executors' events.
type follower struct {
	client *bus.Client
	outbox *events.Outbox
	handle func(context.Context, event.Incoming) error
}

// follow reads what executors say of offers and attempts. What is missed is fetched from the
// executor itself. What even that one does not keep any more needs no more than a word in the log:
// an offer is only worth its newest, and an attempt's next report says all that the lost ones said.
func (s *Scheduler) follow(
	i *instance.Instance, js jetstream.JetStream, f follower,
) (run.Component, error) {
	cursors, err := events.NewCursors(s.store, "in/", s.transact)
	if err != nil {
		return nil, fmt.Errorf("open the cursors: %w", err)
	}
	directory := event.NewDirectory(event.JudgeBy(i.Judge()), i.Now, event.Announced(js))
	return event.NewConsumer(event.ConsumerConfig[*db.Batch]{
		JetStream: js, Service: "executor", Topics: server.Topics(),
		Durable: event.DurableName(i.Service, i.Identity.Key.Public()),
		Verifier: event.NewVerifier(event.VerifierConfig{
			Certificates: directory, Clock: i.Now, Sets: i.Sets,
		}),
		Cursors: cursors,
		Handle: func(ctx context.Context, _ *db.Batch, in event.Incoming) error {
			return f.handle(ctx, in)
		},
		OnGap: refetch.NewClient(f.client).Fill, Outbox: f.outbox,
		OnFork: func(ctx context.Context, fork *event.ForkError) { s.keepProof(ctx, i, fork) },
		Tracer: i.Telemetry.Tracers.Tracer("github.com/united-containers/ucn/kit/event"),
		Log:    i.Telemetry.Log,
	})
}

// keepProof puts the proof of a fork where the operator finds it to show it around.
func (s *Scheduler) keepProof(ctx context.Context, i *instance.Instance, fork *event.ForkError) {
	path, err := event.WriteProof(filepath.Join(s.dir, "forks"), fork)
	if err != nil {
		i.Telemetry.Log.ErrorContext(ctx, "the proof of a fork is in the store only",
			"line", fork.Line, "error", err)
		return
	}
	i.Telemetry.Log.ErrorContext(ctx, "the proof of a fork is kept", "line", fork.Line,
		"file", path)
}

// transact writes a batch of cursors while there is room.
func (s *Scheduler) transact(_ context.Context, f func(*db.Batch) error) error {
	if err := s.room.Check(); err != nil {
		return err
	}
	b := s.store.NewBatch()
	defer b.Close()
	if err := f(b); err != nil {
		return err
	}
	if err := b.Commit(db.Sync); err != nil {
		return fmt.Errorf("commit cursors: %w", err)
	}
	return nil
}

// Register adds the scheduler's service to a gRPC server.
func (s *Scheduler) Register(r grpc.ServiceRegistrar) { s.server.Register(r) }

// PublicMethods need no token.
func (s *Scheduler) PublicMethods() []string { return server.PublicMethods() }

// Run places runs until ctx ends, then closes the store.
func (s *Scheduler) Run(ctx context.Context, ready func()) error {
	var group run.Group
	group.Add("scheduler", run.Func(s.server.Run))
	group.Add("events", s.bus, "scheduler")
	return errors.Join(group.Run(ctx, ready), s.Close())
}

// Close lets go of the store and the connections; for a Scheduler that was never run.
func (s *Scheduler) Close() error {
	var all []error
	for _, end := range slices.Backward(s.conns) {
		all = append(all, end())
	}
	s.conns = nil
	if s.store != nil {
		all = append(all, s.store.Close())
		s.store = nil
	}
	return errors.Join(all...)
}

// quiet lets only the store's errors through: its chatter is no operator's business.
type quiet struct{ i *instance.Instance }

// Infof implements the store's logger.
func (quiet) Infof(string, ...any) {}

// Errorf implements the store's logger.
func (q quiet) Errorf(format string, args ...any) {
	q.i.Telemetry.Log.Error("store", "error", fmt.Sprintf(format, args...))
}

// Fatalf implements the store's logger: the store cannot go on.
func (q quiet) Fatalf(format string, args ...any) {
	q.Errorf(format, args...)
	panic(fmt.Sprintf(format, args...))
}
