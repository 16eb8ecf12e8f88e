package executor

import (
	"fmt"
	"time"
)

// Bounds of an executor that no configuration moves.
const (
	MaxStopAsk     = 5 * time.Minute     // grace that a StopRequest may ask for
	MaxPlaceBy     = 10 * time.Minute    // how far ahead a lease may be placed
	MaxOfferNotice = time.Minute         // that an owner may agree to pay for
	minClaimWindow = 24 * time.Hour      // of a lease, by the rules of the chain
	maxClaimWindow = 30 * 24 * time.Hour // likewise
	maxAckKeys     = 4
	defaultTrust   = 60 * time.Second // of rate, above what is due at once
	placeSlack     = 15 * time.Second // clocks differ, and blocks take time
	maxOver        = 4096             // closed leases whose late countersignatures are known
	closeEvery     = 64               // closed attempts between two clean-ups of the journal
)

// Config is what an operator decides about an executor.
type Config struct {
	// Host is the name of this machine that owners see in offers.
	Host string `yaml:"host"`
	// Chains whose money this host takes.
	Chains []string `yaml:"chains"`
	// Prices in grains; see DOMAIN of prices in the README.
	Prices Prices `yaml:"prices"`
	// Capacity that is sold. A zero cpu, memory or disk is all that the host has.
	Capacity Resources `yaml:"capacity"`
	// Labels for placement, at most 64.
	Labels map[string]string `yaml:"labels"`
	// MaxAttempts run or wait here at once, beside those that only wait for their payee's account.
	MaxAttempts int `yaml:"max_attempts"`
	// MaxUnplaced promises to one scheduler, and twice as many to all of one operator, may wait to
	// be placed on the chain: they hold capacity that nobody pays yet.
	MaxUnplaced int `yaml:"max_unplaced"`
	// MaxHoldbackPercent of a budget may wait for the owner's acceptance.
	MaxHoldbackPercent uint64 `yaml:"max_holdback_percent"`
	// MinTrust is how much running time beyond the last countersigned note an owner must trust this
	// host for; a shorter one would stop the job at the first lost message.
	MinTrust time.Duration `yaml:"min_trust"`
	// Notice is the time whose rate is asked for when a lease is ended early by its owner, at most a
	// minute. Only owners who say that they pay so much (payment.max_notice) get a lease here.
	Notice time.Duration `yaml:"notice"`
	// Tick is how often running programs are measured.
	Tick time.Duration `yaml:"tick"`
	// NoteEvery is how often usage is signed and sent for countersigning.
	NoteEvery time.Duration `yaml:"note_every"`
	// ChargeEvery is how often what is countersigned is charged.
	ChargeEvery time.Duration `yaml:"charge_every"`
	// AckWait is how long the last charge waits for the last note to be countersigned.
	AckWait time.Duration `yaml:"ack_wait"`
	// TaskWait is how long a placed lease may wait for its task before it is given back.
	TaskWait time.Duration `yaml:"task_wait"`
	// StartWait is how long fetching and starting may take, retries included.
	StartWait time.Duration `yaml:"start_wait"`
	// CollectWait is how long storing outputs and log is retried. It begins anew, at most for twelve
	// times as long, when storage says when to come again.
	CollectWait time.Duration `yaml:"collect_wait"`
	// HoldSuperseded is how long a program goes on unpaid when another host's lease has taken its lane
	// and the owner wants the original kept: a lease that continues it may come meanwhile. It is never
	// longer than the old lease, and in all a program's life no longer than this, twice charge_every
	// and a tenth of the time that was paid for. 0 = never, else 1 min to 1 h: whoever returned has
	// 30 s of it to go on with the original before a scheduler turns back to this host, up to 90 s if
	// it is longer.
	HoldSuperseded time.Duration `yaml:"hold_superseded"`
	// StopGrace is the time between SIGTERM and SIGKILL when this host ends a program.
	StopGrace time.Duration `yaml:"stop_grace"`
	// OfferLife is how long an offer holds; it is posted again at half of it. At most 10 min.
	OfferLife time.Duration `yaml:"offer_life"`
	// LogBytes of an attempt's output are kept; beyond it the oldest is dropped.
	LogBytes uint64 `yaml:"log_bytes"`
	// ImageBytes of disk hold images for later jobs; beyond it the longest unused go. Zero is a
	// quarter of the disk.
	ImageBytes uint64 `yaml:"image_bytes"`
	// ImageBytesLow is what is left of them then. Zero is half of ImageBytes.
	ImageBytesLow uint64 `yaml:"image_bytes_low"`
	// MaxPulls images are fetched at once, of registries and of the network's storage, half of them
	// (at least one) for one owner; others wait for their turn. Each may take 128 MiB of memory for
	// its packed layers. 1 to 64.
	MaxPulls int `yaml:"max_pulls"`
	// PIDs is the most processes and threads of one program.
	PIDs uint64 `yaml:"pids"`
	// Policy is whom and what this host does not want.
	Policy Policy `yaml:"policy"`
	// KeepClosed is how many finished attempts the journal remembers.
	KeepClosed int `yaml:"keep_closed"`
}

// DefaultConfig returns what an executor does when nobody says otherwise. Its prices are those of
// the first operator of the local network.
func DefaultConfig() Config {
	return Config{
		Chains: []string{"main"},
		Prices: Prices{
			Model: PriceLinear, CoreHour: 1_000_000_000, MemoryGiBHour: 100_000_000,
			GiBIn: 10_000_000, GiBOut: 10_000_000,
		},
		MaxAttempts: 256, MaxUnplaced: 64, MaxHoldbackPercent: 20, MinTrust: 5 * time.Second,
		Notice: 0, Tick: time.Second, NoteEvery: 5 * time.Second, ChargeEvery: time.Minute,
		AckWait: 3 * time.Second, TaskWait: 2 * time.Minute, StartWait: 10 * time.Minute,
		CollectWait: 10 * time.Minute, HoldSuperseded: 5 * time.Minute,
		StopGrace: 10 * time.Second, OfferLife: 2 * time.Minute,
		LogBytes: 64 << 20, MaxPulls: 4, PIDs: 1024, KeepClosed: 1000,
	}
}

// Validate tells the first field that makes no sense.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name     string
		is       time.Duration
		min, max time.Duration
	}{
		{"tick", c.Tick, 10 * time.Millisecond, time.Minute},
		{"note_every", c.NoteEvery, 100 * time.Millisecond, time.Hour},
		{"charge_every", c.ChargeEvery, time.Second, 24 * time.Hour},
		{"ack_wait", c.AckWait, 0, time.Hour}, {"min_trust", c.MinTrust, 0, time.Hour},
		{"notice", c.Notice, 0, MaxOfferNotice}, {"task_wait", c.TaskWait, time.Second, time.Hour},
		{"start_wait", c.StartWait, time.Second, 24 * time.Hour},
		{"collect_wait", c.CollectWait, time.Second, 24 * time.Hour},
		{"stop_grace", c.StopGrace, 0, MaxStopGrace}, {"hold_superseded", c.HoldSuperseded, 0, MaxHold},
		{"offer_life", c.OfferLife, time.Second, 10 * time.Minute},
	} {
		if f.is < f.min || f.is > f.max {
			return fmt.Errorf("%s is %v, allowed %v to %v", f.name, f.is, f.min, f.max)
		}
	}
	if err := c.Prices.Rules().Validate(); err != nil {
		return fmt.Errorf("prices: %w", err)
	}
	if _, err := c.Policy.rules(); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	switch {
	case c.HoldSuperseded != 0 && c.HoldSuperseded < MinHold:
		return fmt.Errorf("hold_superseded is %v, allowed 0 (never) or %v to %v", c.HoldSuperseded,
			MinHold, MaxHold)
	case len(c.Chains) == 0 || len(c.Chains) > 16:
		return fmt.Errorf("chains: %d named, allowed 1 to 16", len(c.Chains))
	case len(c.Labels) > 64:
		return fmt.Errorf("labels: %d, at most 64", len(c.Labels))
	case c.MaxAttempts < 1 || c.MaxAttempts > 1<<16:
		return fmt.Errorf("max_attempts is %d, allowed 1 to 65536", c.MaxAttempts)
	case c.MaxUnplaced < 1 || c.MaxUnplaced > 1<<16:
		return fmt.Errorf("max_unplaced is %d, allowed 1 to 65536", c.MaxUnplaced)
	case c.MaxHoldbackPercent > 100:
		return fmt.Errorf("max_holdback_percent is %d, at most 100", c.MaxHoldbackPercent)
	case c.LogBytes < 64<<10:
		return fmt.Errorf("log_bytes is %d, at least 64 KiB", c.LogBytes)
	case c.ImageBytes != 0 && c.ImageBytesLow > c.ImageBytes:
		return fmt.Errorf("image_bytes_low is %d, more than image_bytes", c.ImageBytesLow)
	case c.MaxPulls < 1 || c.MaxPulls > 64:
		return fmt.Errorf("max_pulls is %d, allowed 1 to 64", c.MaxPulls)
	case c.PIDs < 1:
		return fmt.Errorf("pids is 0, at least 1")
	case c.KeepClosed < 0:
		return fmt.Errorf("keep_closed is %d, at least 0", c.KeepClosed)
	}
	return nil
}
