package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing/fstest"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// container is what the host knows of a container. The host's mu guards its fields.
type container struct {
	h       *Host
	key     key
	spec    executor.ContainerSpec
	created time.Time

	state   executor.State
	exit    executor.Exit
	stopped bool // asked to
	gone    bool // removed
	changed chan struct{}

	kill context.CancelFunc
	term chan struct{}
	once sync.Once // closes term

	usage   executor.Usage
	rate    uint64    // CPU use, milli cores
	since   time.Time // until when rate is in usage; zero while nothing runs
	files   map[string]fstest.MapFS
	logs    []executor.LogEntry
	dropped int // entries before logs[0]
	size    uint64
}

func newContainer(h *Host, k key, spec *executor.ContainerSpec) *container {
	c := &container{
		h: h, key: k, spec: *spec, created: time.Now().UTC(), state: executor.StateCreated,
		changed: make(chan struct{}), term: make(chan struct{}), kill: func() {},
		files: make(map[string]fstest.MapFS),
	}
	c.usage = executor.Usage{Epoch: "fake", Measured: h.opts.Abilities.Meters}
	for _, m := range spec.Mounts {
		if m.Kind != executor.MountInput {
			c.files[m.Path] = make(fstest.MapFS)
		}
	}
	return c
}

// tell wakes everybody who waits for a change.
func (c *container) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *container) running() bool {
	return c.state == executor.StateRunning || c.state == executor.StateFrozen
}

// start runs the program. The spec's command is looked up, the arguments are passed.
func (c *container) start() {
	if c.state != executor.StateCreated {
		return
	}
	command, args := entrypoint, c.spec.Args
	if len(c.spec.Command) > 0 {
		command = c.spec.Command[0]
		args = slices.Concat(c.spec.Command[1:], c.spec.Args)
	}
	program, ok := c.h.opts.Programs[command]
	if !ok {
		c.end(executor.Exit{
			Kind: executor.ExitRefused, Code: -1, Detail: command + ": no such file or directory",
		})
		return
	}
	ctx, kill := context.WithCancel(context.Background())
	c.state, c.kill = executor.StateRunning, kill
	c.since = time.Now()
	c.exit.Started = c.since.UTC()
	c.tell()
	p := &Process{Args: args, Env: c.spec.Env, c: c, ctx: ctx}
	c.h.programs.Go(func() { p.run(program) })
}

// end records how it ended; the first end stands.
func (c *container) end(e executor.Exit) {
	if c.state == executor.StateExited {
		return
	}
	c.settle()
	c.since = time.Time{}
	e.Started, e.Ended, e.Stopped = c.exit.Started, time.Now().UTC(), c.stopped
	if e.Stopped && e.Kind != executor.ExitLost && e.Kind != executor.ExitRefused {
		e.Kind = executor.ExitStopped
	}
	c.exit, c.state = e, executor.StateExited
	c.usage.Memory = 0
	c.kill()
	c.tell()
}

// settle brings the CPU use up to date.
func (c *container) settle() {
	if c.since.IsZero() || c.state != executor.StateRunning {
		return
	}
	now := time.Now()
	c.usage.CPU += now.Sub(c.since) * time.Duration(c.rate) / 1000
	c.since = now
}

// log appends an entry and drops the oldest beyond the limit.
func (c *container) log(stream executor.Stream, line string) {
	n := c.dropped + len(c.logs) + 1
	c.logs = append(c.logs, executor.LogEntry{
		Stream: stream, Time: time.Now().UTC(), Data: []byte(line),
		Next: executor.LogPos{Offset: int64(n)},
	})
	c.size += uint64(len(line)) + 1
	for c.size > c.spec.Limits.LogBytes && len(c.logs) > 1 {
		c.size -= uint64(len(c.logs[0].Data)) + 1
		c.logs = c.logs[1:]
		c.dropped++
	}
	c.tell()
}

// entry returns the entry at pos, if there is one yet.
func (c *container) entry(pos executor.LogPos) (e executor.LogEntry, ok bool, err error) {
	if pos.File != 0 || pos.Offset < 0 || pos.Offset > int64(c.dropped+len(c.logs)) {
		return e, false, fmt.Errorf("%w: no log position %+v", executor.ErrInvalid, pos)
	}
	gap := pos.Offset < int64(c.dropped)
	at := max(0, int(pos.Offset)-c.dropped)
	if at >= len(c.logs) {
		return e, false, nil
	}
	e = c.logs[at]
	e.Gap = gap
	return e, true, nil
}
