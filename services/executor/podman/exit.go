package podman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
)

// exitRecheck is how often Wait looks at the engine although nothing rang: for exits that conmon
// could not report, because it was killed.
const exitRecheck = 2 * time.Second

// Wait implements executor.Container.
//
// Conmon writes <tmpdir>/exits/<id> when the program has ended and its output is in the log. The
// engine takes the file away within a tenth of a second, so an exit that was missed is asked for.
func (c *container) Wait(ctx context.Context) (executor.Exit, error) {
	if _, err := c.known(); err != nil {
		return executor.Exit{}, err
	}
	exits, err := c.i.watch.subscribe(c.i.runPath("tmp", "exits"), c.exitName(ctx))
	if err != nil {
		return executor.Exit{}, c.closedOr(err)
	}
	defer exits.cancel()
	notes, err := c.i.watch.subscribe(string(c.dir), "exit.json")
	if err != nil {
		return executor.Exit{}, c.closedOr(err)
	}
	defer notes.cancel()
	tick := time.NewTicker(exitRecheck)
	defer tick.Stop()
	for {
		e, over, err := c.exit(ctx)
		if over || err != nil && !passing(ctx, err) {
			return e, err
		}
		select {
		case <-ctx.Done():
			return executor.Exit{}, ctx.Err()
		case <-c.d.done:
			return executor.Exit{}, executor.ErrClosed
		case <-exits.C:
		case <-notes.C:
		case <-tick.C:
		}
		if _, err := c.known(); err != nil {
			return executor.Exit{}, err
		}
	}
}

// passing tells errors of an engine that does not work: the program may run on, and its exit is
// asked for again. The engine's silence is not its exit.
func passing(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, executor.ErrNotFound) &&
		!errors.Is(err, executor.ErrClosed)
}

// closedOr turns the failure of a watcher that was closed into executor.ErrClosed, and that of a
// directory which is gone into executor.ErrNotFound.
func (c *container) closedOr(err error) error {
	switch {
	case errors.Is(err, os.ErrClosed):
		return executor.ErrClosed
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s", executor.ErrNotFound, c.id)
	}
	return err
}

// exitName is the name of the container's exit file, or "" (any) if the engine is not to be asked.
func (c *container) exitName(ctx context.Context) string {
	c.mu.Lock()
	id := c.engineID
	c.mu.Unlock()
	if id != "" {
		return id
	}
	in, err := c.inspect(ctx)
	if err != nil {
		return ""
	}
	return in.ID
}

// exit tells whether the container has exited and how. The first answer is written down, and then
// stands.
func (c *container) exit(ctx context.Context) (executor.Exit, bool, error) {
	if e, ok, err := c.dir.exit(); ok || err != nil {
		return e, ok, err
	}
	if !c.dir.marked("started") {
		return executor.Exit{}, false, nil
	}
	e, over, err := c.findExit(ctx)
	if err != nil || !over {
		return executor.Exit{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removing || c.record == nil {
		return executor.Exit{}, false, fmt.Errorf("%w: %s", executor.ErrNotFound, c.id)
	}
	return e, true, c.dir.write("exit.json", e)
}

// findExit looks at the exit file first, which is quick, and then at the engine.
func (c *container) findExit(ctx context.Context) (executor.Exit, bool, error) {
	var boot string
	if _, err := c.dir.read("started", &boot); err != nil {
		return executor.Exit{}, false, err
	}
	stopped := c.dir.marked("stop")
	if boot != c.i.bootID {
		return lost(stopped, "the host went down while it ran"), true, nil
	}
	kills := c.oomKills()
	if code, at, ok := c.readExitFile(ctx); ok {
		return c.judge(code, at, c.startedAt(), stopped, kills > 0), true, nil
	}
	in, err := c.inspect(ctx)
	if errors.Is(err, executor.ErrNotFound) {
		if _, ok := c.recorded(); ok {
			return lost(stopped, "the engine does not know it any more"), true, nil
		}
	}
	if err != nil && c.empty(brokenPatience) {
		return lost(stopped, "it ended while the engine did not work"), true, nil
	}
	if err != nil {
		return executor.Exit{}, false, err
	}
	switch in.State.Status {
	case "running":
		if c.empty(emptyPatience) {
			return lost(stopped, "the engine lost sight of it"), true, nil
		}
	case "exited", "stopped", "dead":
		oom := in.State.OOMKilled || kills > 0
		return c.judge(in.State.ExitCode, in.State.Finished, c.startedAt(), stopped, oom), true, nil
	}
	return executor.Exit{}, false, nil
}

func lost(stopped bool, detail string) executor.Exit {
	return executor.Exit{
		Kind: executor.ExitLost, Code: -1, Stopped: stopped, Ended: time.Now().UTC(), Detail: detail,
	}
}

// emptyPatience is how long a container may be without processes before conmon, which tells the
// exit after the last of the log, is taken for dead.
const emptyPatience = 4 * time.Second

// brokenPatience is the same while the engine does not answer, which may be mended.
const brokenPatience = time.Minute

// empty tells whether a container that the engine believes to run has had no process for long.
func (c *container) empty(patience time.Duration) bool {
	pids, err := c.i.groups.Procs(c.group)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || len(pids) > 0 {
		c.emptyAt = time.Time{}
		return false
	}
	if c.emptyAt.IsZero() {
		c.emptyAt = time.Now()
	}
	return time.Since(c.emptyAt) > patience
}

// startedAt is when Start was called: the engine's own time is often later than the end of a short
// program.
func (c *container) startedAt() time.Time {
	info, err := os.Stat(c.dir.path("started"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime().UTC()
}

func (c *container) readExitFile(ctx context.Context) (code int, at time.Time, ok bool) {
	id := c.exitName(ctx)
	if id == "" {
		return 0, time.Time{}, false
	}
	f, err := os.Open(c.i.runPath("tmp", "exits", id))
	if err != nil {
		return 0, time.Time{}, false
	}
	defer func() { _ = f.Close() }() // read only
	var b [32]byte
	n, err := f.Read(b[:])
	if err != nil {
		return 0, time.Time{}, false // made, not yet written
	}
	code, err = strconv.Atoi(strings.TrimSpace(string(b[:n])))
	info, statErr := f.Stat()
	if err != nil || statErr != nil {
		return 0, time.Time{}, false
	}
	return code, info.ModTime().UTC(), true
}

// killedCode is the exit code of a program that SIGKILL ended.
const killedCode = 128 + int(unix.SIGKILL)

// judge tells what kind of end it was. A program that dies of SIGKILL which we did not send, at its
// memory limit, was killed for memory, even if nobody saw the kernel count it.
func (c *container) judge(code int, at, started time.Time, stopped, oom bool) executor.Exit {
	e := executor.Exit{
		Kind: executor.ExitCompleted, Code: code, Stopped: stopped, OOM: oom,
		Started: started, Ended: at,
	}
	if e.Ended.Before(e.Started) {
		e.Ended = e.Started
	}
	if code == killedCode && !stopped && !oom {
		e.OOM = c.atMemoryLimit()
	}
	switch {
	case e.OOM && code == killedCode && !stopped:
		e.Kind, e.Detail = executor.ExitOOM, "killed by the kernel at its memory limit"
	case stopped:
		e.Kind = executor.ExitStopped
	}
	return e
}

// oomKills counts processes that the kernel killed for memory. In version 1 the count is the
// runtime's group's own and goes with it, so it is looked at as soon as the exit rings.
func (c *container) oomKills() uint64 {
	c.mu.Lock()
	id := c.engineID
	c.mu.Unlock()
	paths := []string{c.group}
	if id != "" {
		paths = append(paths, c.group+"/libpod-"+id)
	}
	var sum uint64
	for _, p := range paths {
		m, err := c.i.groups.Meter(p, "")
		if err != nil {
			continue
		}
		if s, err := m.Read(); err == nil {
			sum = max(sum, s.OOMKills)
		}
		_ = m.Close() // read only
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kills = max(c.kills, sum)
	return c.kills
}

// limitSlack is how far below its limit a group's highest use stays when the kernel, which counts
// in batches, finds that the limit is reached.
const limitSlack = 512 << 10

func (c *container) atMemoryLimit() bool {
	r, ok := c.recorded()
	if !ok {
		return false
	}
	m, err := c.i.groups.Meter(c.group, "")
	if err != nil {
		return false
	}
	defer func() { _ = m.Close() }() // read only
	s, err := m.Read()
	return err == nil && s.Has.MemoryPeak && s.MemoryPeak+limitSlack >= r.Spec.Limits.MemoryBytes
}
