package server

import (
	"time"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/services/scheduler"
)

// Config is the operator's manual of a scheduler's market.
type Config struct {
	// AskTimeout bounds one question to a host. Default 5s.
	AskTimeout time.Duration `yaml:"ask_timeout"`
	// ParallelAsks is how many hosts are asked at the same time. Default 256, at most 4096.
	ParallelAsks int `yaml:"parallel_asks"`
	// DeliverGrace is how long a client has to deliver its task before the scheduler does.
	// Default 5s.
	DeliverGrace time.Duration `yaml:"deliver_grace"`
	// StartWithin is how long a host may take from lease to its first report. Default 2m.
	StartWithin time.Duration `yaml:"start_within"`
	// LostAfter is how long a host may be silent before its attempts count as lost. Default 5m.
	LostAfter time.Duration `yaml:"lost_after"`
	// HostRetries bounds attempts per run that fail for reasons of hosts, once none is there of an
	// operator that did not; 0 bounds them in any case. Default 8.
	HostRetries uint32 `yaml:"host_retries"`
	// MaxPending bounds the runs that wait; further submissions are refused. Default 2,000,000.
	MaxPending int `yaml:"max_pending"`
	// MaxPendingOfOwner bounds the runs of one owner that wait. Default 1,000,000.
	MaxPendingOfOwner int `yaml:"max_pending_of_owner"`
	// LeaseFee is what this scheduler takes from a job's escrow for each lease that it places, grains;
	// clients are told before they sign. It pays for the chain's fees of placing, ending and settling
	// the lease, at most 38,060 grains at the lowest prices of a local network: raise it where the
	// chain's prices stay higher, or the scheduler's account runs dry. 0 = none: then whoever has many
	// tasks lives on that account. Default 50,000 (0.00005 UCN), at most 1,000,000,000.
	LeaseFee uint64 `yaml:"lease_fee"`
}

// Default returns the configuration of a local network.
func Default() Config {
	p := scheduler.DefaultPolicy()
	return Config{
		AskTimeout: p.AskTimeout, ParallelAsks: p.Asks, DeliverGrace: p.DeliverGrace,
		StartWithin: p.StartWithin, LostAfter: p.LostAfter, HostRetries: p.HostRetries,
		MaxPending: p.MaxPending, MaxPendingOfOwner: p.MaxPendingOfOwner, LeaseFee: p.LeaseFee,
	}
}

// Validate names the field that is wrong.
func (c Config) Validate() error {
	switch {
	case c.AskTimeout < 100*time.Millisecond || c.AskTimeout > time.Minute:
		return config.Invalid("ask_timeout", "must be 100ms to 1m")
	case c.ParallelAsks < 1 || c.ParallelAsks > 4096:
		return config.Invalid("parallel_asks", "must be 1 to 4096")
	case c.DeliverGrace < 0 || c.DeliverGrace > c.StartWithin:
		return config.Invalid("deliver_grace", "must be 0 to start_within")
	case c.StartWithin < time.Second || c.StartWithin > time.Hour:
		return config.Invalid("start_within", "must be 1s to 1h")
	case c.LostAfter < 30*time.Second || c.LostAfter > 24*time.Hour:
		return config.Invalid("lost_after", "must be 30s to 24h")
	case c.HostRetries > scheduler.MaxAttempts:
		return config.Invalid("host_retries", "must be at most 100")
	case c.MaxPending < 1 || c.MaxPending > maxPending:
		return config.Invalid("max_pending", "must be 1 to 100,000,000")
	case c.MaxPendingOfOwner < 1 || c.MaxPendingOfOwner > c.MaxPending:
		return config.Invalid("max_pending_of_owner", "must be 1 to max_pending")
	case c.LeaseFee > maxLeaseFee:
		return config.Invalid("lease_fee", "must be at most 1,000,000,000 grains")
	}
	return nil
}

// maxPending bounds what an operator may allow to wait: some 200 GB on disk.
const maxPending = 100_000_000

// maxLeaseFee is a UCN: more is a slip of the pen.
const maxLeaseFee = 1_000_000_000

func (c Config) policy() scheduler.Policy {
	p := scheduler.DefaultPolicy()
	p.AskTimeout, p.Asks, p.DeliverGrace = c.AskTimeout, c.ParallelAsks, c.DeliverGrace
	p.MaxPending, p.MaxPendingOfOwner = c.MaxPending, c.MaxPendingOfOwner
	p.LeaseFee = c.LeaseFee
	p.StartWithin, p.LostAfter, p.HostRetries = c.StartWithin, c.LostAfter, c.HostRetries
	return p
}
