package fake

import (
	"context"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/united-containers/ucn/services/executor"
)

// Call is one call of a driver's or container's method, as a hook sees it.
type Call struct {
	Executor string
	Method   string // "Create", "Start", ...
	Attempt  executor.AttemptID
}

// Fault is what a hook wants of a call. The zero Fault lets it be.
type Fault struct {
	Err   error // what the call answers
	After bool  // do what was asked, and then answer Err
}

// Options say how a host behaves.
type Options struct {
	// Programs are what can be run, by command. Nil is Guest as "/guest", which is also what an
	// image runs when the spec has no command.
	Programs map[string]Program
	// Abilities is what Probe answers. Zero is a host that can do everything.
	Abilities executor.Abilities
	// AnyImage makes every image held without being loaded.
	AnyImage bool
	// Hook sees every call before it is done. It may be called from any goroutine.
	Hook func(Call) Fault
}

// Host is a machine. Its methods may be called from any goroutine.
type Host struct {
	opts Options

	mu         sync.Mutex // guards everything below, containers included
	images     map[executor.ImageID]executor.Image
	containers map[key]*container
	programs   sync.WaitGroup
	loading    singleflight.Group // one load of an image from a source at a time
}

// key tells containers of several executors apart.
type key struct {
	executor string
	attempt  executor.AttemptID
}

// NewHost makes a host without images and containers.
func NewHost(opts Options) *Host {
	if opts.Programs == nil {
		opts.Programs = map[string]Program{entrypoint: Guest}
	}
	if opts.Hook == nil {
		opts.Hook = func(Call) Fault { return Fault{} }
	}
	if opts.Abilities.Engine == "" {
		opts.Abilities = everything()
	}
	return &Host{
		opts: opts, images: make(map[executor.ImageID]executor.Image),
		containers: make(map[key]*container),
	}
}

// entrypoint is what every image runs.
const entrypoint = "/guest"

func everything() executor.Abilities {
	return executor.Abilities{
		Engine: "fake", Runtime: "fake", Platform: "linux/amd64", CgroupVersion: 2,
		CPUMilli: 8000, MemoryBytes: 16 << 30, DiskBytes: 100 << 30,
		Isolation: []executor.Isolation{executor.IsolationStandard, executor.IsolationStrict},
		Networks:  []executor.Network{executor.NetworkNone},
		Meters:    allMeters,
		CPULimit:  true, MemoryLimit: true, PIDsLimit: true, Freeze: true, RootQuota: true,
		VolumeQuota: "memory",
	}
}

const allMeters = executor.MeterCPU | executor.MeterMemory | executor.MeterMemoryPeak |
	executor.MeterNetwork | executor.MeterDisk

// Driver opens a driver for the executor with this name: a new life.
func (h *Host) Driver(name string) *Driver {
	return &Driver{h: h, name: name, done: make(chan struct{})}
}

// Wait returns when no program runs any more.
func (h *Host) Wait() { h.programs.Wait() }

// Shutdown takes the power away: every program is gone, and told as executor.ExitLost.
func (h *Host) Shutdown() {
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.containers))
	for _, c := range all {
		if c.running() {
			c.end(executor.Exit{Kind: executor.ExitLost, Code: -1, Detail: "the host went down"})
		}
	}
	h.mu.Unlock()
	h.programs.Wait()
}

// call runs do as the hook wants it.
func (h *Host) call(ctx context.Context, c Call, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f := h.opts.Hook(c)
	if f.Err != nil && !f.After {
		return f.Err
	}
	if err := do(); err != nil {
		return err
	}
	return f.Err
}
