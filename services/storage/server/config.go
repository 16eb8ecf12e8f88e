package server

import (
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"

	"github.com/united-containers/ucn/services/storage"
)

const (
	// MaxChunk is the largest chunk a writer may send, in bytes.
	MaxChunk = 1 << 20
	// FrameSize is the size of the chunks a reader gets, in bytes; the last one is smaller.
	FrameSize = 256 << 10
	// DefaultStall is how long an upload may go without progress. A gateway sends what a slow client
	// gives it in pieces of 256 KiB, so this is longer than its own patience with four of 64 KiB.
	DefaultStall = 5 * time.Minute
	// DefaultDirectoryTime is how long a directory may take to come.
	DefaultDirectoryTime = 2 * time.Minute
	// DefaultUploads is how many uploads one account may have under way at once.
	DefaultUploads = 16
	// DefaultAllUploads is how many uploads all accounts may have under way at once.
	DefaultAllUploads = 1024
	// DefaultCollectEvery is how often garbage is collected.
	DefaultCollectEvery = 10 * time.Minute

	defaultPage = 100
)

// Config is what an operator sets for the gRPC side. The zero value is the default.
type Config struct {
	// Uploads bounds the uploads one account may have under way at once. 0 is DefaultUploads.
	Uploads int
	// AllUploads bounds those of all accounts together; each holds some 64 KiB and up to two chunks.
	// Beyond it the newest of the account with most gives way to who has fewer. 0 is
	// DefaultAllUploads.
	AllUploads int
	// Stall is how long a writer may take to send 64 KiB before its upload is given up; the time
	// this side takes does not count. 0 is DefaultStall.
	Stall time.Duration
	// DirectoryTime is how long all of a directory may take to come from when 64 KiB of it are there.
	// 0 is DefaultDirectoryTime.
	DirectoryTime time.Duration
	// CollectEvery is how often garbage is collected. 0 is DefaultCollectEvery.
	CollectEvery time.Duration
}

// Validate refuses negative bounds.
func (c Config) Validate() error {
	if c.Uploads < 0 || c.AllUploads < 0 {
		return errors.New("uploads per account and of all must not be negative")
	}
	if c.Stall < 0 || c.DirectoryTime < 0 {
		return errors.New("stall and directory time must not be negative")
	}
	if c.CollectEvery < 0 {
		return errors.New("collect_every must not be negative")
	}
	return nil
}

// Deps is what the server needs from its builder.
type Deps struct {
	// Store keeps the blobs. Required. The builder closes it after Run returned.
	Store storage.Store
	// Limits are the store's own, told to callers. Required.
	Limits storage.Limits
	// Operator is whose account may start collections; zero: nobody's.
	Operator storage.Account
	// Accounts says who may put; nil lets every account.
	Accounts Accounts
	// Told is what the service says to peers; nil says nothing.
	Told *Told
	// Now is the clock, time.Now when nil.
	Now func() time.Time
	// Meter makes the metrics; nil makes none.
	Meter metric.MeterProvider
	// Log gets what is kept and removed, at debug level; nil logs nothing.
	Log *slog.Logger
}

func (d Deps) withDefaults() (Deps, error) {
	if d.Store == nil {
		return Deps{}, errors.New("no store")
	}
	if err := d.Limits.Validate(); err != nil {
		return Deps{}, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Meter == nil {
		d.Meter = metricnoop.NewMeterProvider()
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return d, nil
}
