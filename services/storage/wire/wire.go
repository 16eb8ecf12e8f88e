// Package wire builds a storage service from its configuration: blobs on a local disk and the gRPC
// service. It is used by storage's own main and by whoever runs several services in one process.
package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/event"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/run"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/server"
)

// Bounds of event_rate, per second. The upper one is what a broker takes of an operator.
const (
	minEventRate = 0.001
	maxEventRate = 1000.0
)

// Config is the configuration of a storage service.
type Config struct {
	// Instance is what all services have. Needed when it runs alone.
	Instance instance.Config `yaml:"instance"`
	// Dir holds blobs, uploads under way and the index, all on one file system. One process at a
	// time. Needed.
	Dir string `yaml:"dir"`
	// Quota is how many bytes the blobs one account refers to may have together. A blob two
	// accounts refer to counts for both. Default 64GiB.
	Quota config.Size `yaml:"quota"`
	// QuotaBlobs is how many blobs one account may refer to. Default 1000000.
	QuotaBlobs int64 `yaml:"quota_blobs"`
	// MaxBlob is the largest blob. Putting one takes 32 bytes of memory per 16 KiB. Default 16GiB.
	MaxBlob config.Size `yaml:"max_blob"`
	// Reserve is how much of the file system stays free: what would take it is refused, so that
	// removing still works. At least 16MiB. Default 256MiB.
	Reserve config.Size `yaml:"reserve"`
	// Uploads is how many uploads one account may be sending at once. Default 16.
	Uploads int `yaml:"uploads"`
	// OpenUploads is how many resumable uploads one account may have begun. Default 32.
	OpenUploads int `yaml:"open_uploads"`
	// UploadIdle is after how long without progress a resumable upload is given up. Default 24h.
	UploadIdle time.Duration `yaml:"upload_idle"`
	// CollectEvery is how often expired references, abandoned uploads and bytes that nobody refers
	// to are collected. Default 10m.
	CollectEvery time.Duration `yaml:"collect_every"`
	// Grace is how old a file that nobody refers to must be to be collected. Default 1h.
	Grace time.Duration `yaml:"grace"`
	// EventRate is how many changes of files one account may make per second over time, 0.001 to
	// 1000; each is told in a signed event. The hosts of its jobs put eight times as many beside it.
	// The last 1048576 events are kept: the faster one account may be, the sooner it pushes those of
	// the others out. Default 1.
	EventRate float64 `yaml:"event_rate"`
	// EventBurst is how many of them it may make at once, 1 to 1048576, and so may the hosts of its
	// jobs. Default 65536.
	EventBurst int `yaml:"event_burst"`
	// AnyAccount lets accounts put that are not on the chain. Keys cost nothing, so each fresh key
	// then brings a quota of its own. Default false.
	AnyAccount bool `yaml:"any_account"`
}

// Default returns the defaults; dir is still needed.
func Default() Config {
	l := storage.DefaultLimits()
	return Config{
		Instance: instance.Default(), Quota: config.Size(l.Bytes), QuotaBlobs: l.Blobs,
		MaxBlob: config.Size(l.Blob), Reserve: config.Size(disk.Default("").Reserve),
		Uploads: server.DefaultUploads, OpenUploads: storage.DefaultOpenUploads,
		UploadIdle: disk.DefaultUploadIdle, Grace: disk.DefaultGrace,
		CollectEvery: server.DefaultCollectEvery,
		EventRate:    disk.DefaultEventRate, EventBurst: disk.DefaultEventBurst,
	}
}

// Validate names the field that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return config.Invalid("dir", "say where the blobs are kept")
	case c.Quota <= 0:
		return config.Invalid("quota", "%s is not positive", c.Quota)
	case c.QuotaBlobs <= 0:
		return config.Invalid("quota_blobs", "%d is not positive", c.QuotaBlobs)
	case c.MaxBlob <= 0:
		return config.Invalid("max_blob", "%s is not positive", c.MaxBlob)
	case c.Reserve < disk.MinReserve:
		return config.Invalid("reserve", "%s is less than %s", c.Reserve,
			config.Size(disk.MinReserve))
	case c.Uploads < 1:
		return config.Invalid("uploads", "must be at least 1")
	case c.OpenUploads < 1:
		return config.Invalid("open_uploads", "must be at least 1")
	case c.UploadIdle <= 0:
		return config.Invalid("upload_idle", "%s is not positive", c.UploadIdle)
	case c.CollectEvery <= 0:
		return config.Invalid("collect_every", "%s is not positive", c.CollectEvery)
	case c.Grace <= 0:
		return config.Invalid("grace", "%s is not positive", c.Grace)
	case !(c.EventRate >= minEventRate && c.EventRate <= maxEventRate):
		return config.Invalid("event_rate", "%g is not between %g and %g", c.EventRate,
			minEventRate, maxEventRate)
	case c.EventBurst < 1 || c.EventBurst > disk.EventsKept:
		return config.Invalid("event_burst", "%d is not between 1 and %d", c.EventBurst,
			disk.EventsKept)
	}
	return nil
}

func (c Config) limits() storage.Limits {
	return storage.Limits{Blob: int64(c.MaxBlob), Bytes: int64(c.Quota), Blobs: c.QuotaBlobs,
		Uploads: c.OpenUploads}
}

// File is the configuration of a storage service in a process of its own.
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
	if f.Instance.Broker == "" {
		return config.Invalid("instance.broker", "name a broker: peers hear there what is kept")
	}
	if _, has := f.Instance.Client.Peers["ledger"]; !has {
		return config.Invalid("instance.client.peers.ledger",
			"name a ledger: it says which keys of an account are in force")
	}
	return f.Config.Validate()
}

// Storage is a storage service that holds its directory and is ready to run.
type Storage struct {
	server    *server.Server
	disk      *disk.Disk
	ledger    *grpc.ClientConn // nil when every account may put
	outbox    *events.Outbox
	conn      *nats.Conn // these three are nil without a broker
	publisher *event.Publisher
	bus       *bus.Server
}

var _ instance.Service = (*Storage)(nil)

// Main runs a storage service in a process of its own and returns the exit code.
func Main(args []string) int {
	file := &File{Config: Default()}
	return instance.Main("storage", args, file,
		func(ctx context.Context, i *instance.Instance) (instance.Service, error) {
			return New(ctx, file.Config, i)
		})
}

// New opens the directory, which removes what a crash left there, and connects to the ledger, which
// says whose accounts are on the chain. Run lets go of both; call Close if Run is never called.
func New(ctx context.Context, c Config, i *instance.Instance) (_ *Storage, err error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	s := &Storage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	deps := server.Deps{Limits: c.limits(), Operator: storage.Account(i.Operator()), Now: i.Clock(),
		Meter: i.Telemetry.Meters, Log: i.Telemetry.Log}
	if !c.AnyAccount {
		if s.ledger, err = i.Dialer.Dial(ctx, "ledger"); err != nil {
			return nil, fmt.Errorf("storage: dial the ledger: %w", err)
		}
		deps.Accounts = accounts{ledgerv1.NewLedgerServiceClient(s.ledger), i.Chain}
	}
	s.disk, err = disk.Open(disk.Config{Dir: c.Dir, Limits: c.limits(), Reserve: int64(c.Reserve),
		UploadIdle: c.UploadIdle, Grace: c.Grace, EventRate: c.EventRate, EventBurst: c.EventBurst,
		Now: i.Clock(), Log: i.Telemetry.Log,
		Outbox: s.openOutbox(i.Chain)})
	if err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	if err := s.speak(i); err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	deps.Store = s.disk
	deps.Told = &server.Told{History: s.outbox, Key: s.disk.BlindKey,
		Certificate: i.Identity.Certificate}
	s.server, err = server.New(server.Config{Uploads: c.Uploads, CollectEvery: c.CollectEvery}, deps)
	return s, err
}

// accounts asks a ledger whether an account is on the chain.
type accounts struct {
	ledger ledgerv1.LedgerServiceClient
	chain  string
}

// Exists implements server.Accounts.
func (a accounts) Exists(ctx context.Context, account storage.Account) (bool, error) {
	r, err := a.ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{Chain: a.chain,
		Account: account[:]})
	if err != nil {
		return false, fmt.Errorf("ask the ledger for an account: %w", err)
	}
	return r.GetAccount() != nil, nil
}

// Register adds the service to a gRPC server.
func (s *Storage) Register(r grpc.ServiceRegistrar) { s.server.Register(r) }

// PublicMethods implements instance.Service: every call needs a token.
func (s *Storage) PublicMethods() []string { return nil }

// Run serves until ctx ends, then waits for calls under way and closes the directory. The gRPC
// server must have drained by then.
func (s *Storage) Run(ctx context.Context, ready func()) error {
	var group run.Group
	group.Add("storage", run.Func(s.server.Run))
	if s.publisher != nil {
		group.Add("publisher", s.publisher, "storage")
		group.Add("events", s.bus, "storage")
	}
	return errors.Join(group.Run(ctx, ready), s.Close())
}

// Close lets go of the directory, the broker and the ledger. It may be called again.
func (s *Storage) Close() error {
	var all error
	if s.conn != nil {
		s.conn.Close()
	}
	if s.disk != nil {
		all = s.disk.Close()
	}
	if s.ledger != nil {
		all = errors.Join(all, s.ledger.Close())
		s.ledger = nil
	}
	return all
}
