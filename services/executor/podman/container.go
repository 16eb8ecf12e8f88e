package podman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/podman/cgroup"
)

var _ executor.Container = (*container)(nil)

// container is the handle on one attempt.
type container struct {
	d     *Driver
	i     *Instance
	id    executor.AttemptID
	name  string // in the engine
	dir   attempt
	group string // control group, ours; the runtime's is below it

	life    sync.Mutex // held while the container is made, started, signalled or removed
	dropped bool       // removed, and no longer the attempt's handle; guarded by life

	mu       sync.Mutex // guards what follows
	record   *record
	engineID string
	seen     *inspection // the engine's last answer
	upper    string      // where root's own writes are; "" until asked
	meter    *cgroup.Meter
	diskAt   time.Time
	disk     uint64
	diskTook time.Duration // to measure it
	kills    uint64        // OOM kills seen
	emptyAt  time.Time     // since when it has no process although the engine says that it runs
	removing bool          // from the first deletion on: nothing is written to dir any more
}

// load reads the record, if it was not read yet, and tells whether there is one.
func (c *container) load() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record != nil {
		return true, nil
	}
	var r record
	ok, err := c.dir.read("attempt.json", &r)
	if ok {
		c.record = &r
	}
	return ok, err
}

func (c *container) setRecord(r *record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record = r
}

// recorded returns the record if the container was made and not removed.
func (c *container) recorded() (*record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record, c.record != nil
}

func (c *container) setEngineID(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engineID = id
}

// inspection is what we read of the engine's view.
type inspection struct {
	ID    string `json:"Id"`
	State struct {
		Status    string
		ExitCode  int
		OOMKilled bool
		StartedAt time.Time
		Finished  time.Time `json:"FinishedAt"`
	}
	PidFile     string
	GraphDriver struct{ Data struct{ UpperDir string } }
	Config      struct{ StopSignal int }
}

// inspect asks the engine. A container that it does not know is executor.ErrNotFound.
func (c *container) inspect(ctx context.Context) (*inspection, error) {
	var in inspection
	err := c.i.api.call(ctx, get("/containers/"+c.name+"/json"), nil, &in)
	if noContainer(err) {
		return nil, fmt.Errorf("%w: %s", executor.ErrNotFound, c.id)
	}
	if err != nil {
		return nil, fmt.Errorf("inspecting %s: %w", c.id, err)
	}
	c.mu.Lock()
	c.engineID, c.upper, c.seen = in.ID, in.GraphDriver.Data.UpperDir, &in
	c.mu.Unlock()
	return &in, nil
}

// noContainer tells that the engine does not know a container. It says so with 500 while another
// request is removing it.
func noContainer(err error) bool {
	var e *apiError
	return errors.As(err, &e) &&
		(e.Status == http.StatusNotFound || e.Cause == "no such container")
}

// exists asks whether the engine has the container. It answers even while it hangs over it.
func (c *container) exists(ctx context.Context) (bool, error) {
	err := c.i.api.call(ctx, get("/containers/"+c.name+"/exists"), nil, nil)
	if noContainer(err) {
		return false, nil
	}
	return err == nil, err
}

// known fails with executor.ErrNotFound for a container that was removed, and with
// executor.ErrClosed once the driver is closed.
func (c *container) known() (*record, error) {
	select {
	case <-c.d.done:
		return nil, executor.ErrClosed
	default:
	}
	r, ok := c.recorded()
	if !ok {
		return nil, fmt.Errorf("%w: %s", executor.ErrNotFound, c.id)
	}
	return r, nil
}

// Info implements executor.Container.
func (c *container) Info() executor.Info {
	info := executor.Info{Attempt: c.id}
	if r, ok := c.recorded(); ok {
		info.Image, info.Labels, info.Created = r.Spec.Image, r.Spec.Labels, r.Created
	}
	return info
}

// State implements executor.Container.
func (c *container) State(ctx context.Context) (executor.State, error) {
	if _, err := c.known(); err != nil {
		return "", err
	}
	_, over, err := c.exit(ctx)
	if err != nil {
		return "", err
	}
	if over {
		return executor.StateExited, nil
	}
	if !c.dir.marked("started") {
		return executor.StateCreated, nil
	}
	frozen, err := c.i.groups.Frozen(c.group)
	if err != nil {
		return "", err
	}
	if frozen {
		return executor.StateFrozen, nil
	}
	in, err := c.inspect(ctx)
	if err != nil {
		return "", err
	}
	if notStarted(in.State.Status) {
		return executor.StateCreated, nil
	}
	return executor.StateRunning, nil
}

func notStarted(status string) bool {
	return status == "created" || status == "configured" || status == "initialized"
}

// Stop implements executor.Container.
func (c *container) Stop(ctx context.Context, grace time.Duration) error {
	if grace < 0 || grace > executor.MaxStopGrace {
		return fmt.Errorf("%w: grace %s, at most %s", executor.ErrInvalid, grace, executor.MaxStopGrace)
	}
	running, err := c.askToStop(ctx)
	if err != nil || !running {
		return err
	}
	if grace > 0 {
		if err := c.terminate(ctx); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, grace)
		_, err := c.Wait(wait)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	if err := c.i.groups.Kill(ctx, c.group); err != nil {
		return fmt.Errorf("killing %s: %w", c.id, err)
	}
	_, err = c.Wait(ctx)
	return err
}

// Kill implements executor.Container.
func (c *container) Kill(ctx context.Context) error { return c.Stop(ctx, 0) }

// askToStop writes down that the container is to stop, and tells whether there is something to
// signal. A container that was never started is ended here.
func (c *container) askToStop(ctx context.Context) (running bool, err error) {
	c.life.Lock()
	defer c.life.Unlock()
	if _, err := c.known(); err != nil {
		return false, err
	}
	within, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	_, over, err := c.exit(within)
	if over || err != nil && !c.alive(err) {
		return false, err
	}
	if err := c.dir.mark("stop"); err != nil {
		return false, err
	}
	in, err := c.inspect(within)
	if err != nil && c.alive(err) {
		return true, c.i.groups.Thaw(c.group)
	}
	if err != nil {
		return false, err
	}
	if notStarted(in.State.Status) {
		return false, c.dir.write("exit.json", executor.Exit{
			Kind: executor.ExitStopped, Code: -1, Stopped: true, Ended: time.Now().UTC(),
			Detail: "stopped before it was started",
		})
	}
	return true, c.i.groups.Thaw(c.group)
}

// engineWait is how long a stop waits for the engine. A program can be stopped without it.
const engineWait = 10 * time.Second

// alive tells that an error of the engine says nothing of a program that runs all the same.
func (c *container) alive(err error) bool {
	if errors.Is(err, executor.ErrNotFound) || errors.Is(err, executor.ErrClosed) {
		return false
	}
	pids, err := c.i.groups.Procs(c.group)
	return err == nil && len(pids) > 0
}

// terminate sends the stop signal to the container's first process. Without the engine, and its
// answer of an earlier time, nobody knows which that is: then only the end of the grace kills.
func (c *container) terminate(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	in, err := c.inspect(within)
	if err != nil && c.alive(err) {
		c.mu.Lock()
		in = c.seen
		c.mu.Unlock()
		if in == nil {
			return nil
		}
	} else if err != nil {
		return err
	}
	b, err := os.ReadFile(in.PidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has ended
	}
	if err != nil {
		return fmt.Errorf("stopping %s: %w", c.id, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("stopping %s: %w", c.id, err)
	}
	sig := unix.Signal(in.Config.StopSignal)
	if sig <= 0 || sig > 64 {
		sig = unix.SIGTERM
	}
	if _, err := c.i.groups.Signal(c.group, pid, sig); err != nil {
		return fmt.Errorf("stopping %s: %w", c.id, err)
	}
	return nil
}

// Freeze implements executor.Container.
func (c *container) Freeze(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	state, err := c.State(ctx)
	switch {
	case err != nil:
		return err
	case state == executor.StateFrozen:
		return nil
	case state != executor.StateRunning:
		return fmt.Errorf("%w: %s is %s", executor.ErrNotRunning, c.id, state)
	}
	return c.i.groups.Freeze(ctx, c.group)
}

// Thaw implements executor.Container.
func (c *container) Thaw(context.Context) error {
	if _, err := c.known(); err != nil {
		return err
	}
	return c.i.groups.Thaw(c.group)
}

// Remove implements executor.Container.
func (c *container) Remove(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	if _, err := c.known(); errors.Is(err, executor.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if err := c.clear(ctx); err != nil {
		return fmt.Errorf("removing %s: %w", c.id, err)
	}
	return nil
}

// clear deletes everything of the container, in an order that a crash anywhere leaves repeatable:
// the record goes last.
func (c *container) clear(ctx context.Context) error {
	c.setRemoving(true)
	defer c.setRemoving(false)
	if err := c.dir.markIfThere("stop"); err != nil {
		return err
	}
	if err := c.i.groups.Thaw(c.group); err != nil {
		return err
	}
	if err := c.i.groups.Kill(ctx, c.group); err != nil {
		return err
	}
	if err := c.delete(ctx); err != nil {
		return err
	}
	if err := c.dir.dropVolumes(); err != nil {
		return err
	}
	if err := errors.Join(c.closeMeter(), c.i.groups.Remove(c.group)); err != nil {
		return err
	}
	if r, ok := c.recorded(); ok {
		if err := c.i.ids.release(string(c.dir), r.FirstID); err != nil {
			return err
		}
	}
	if err := os.Remove(c.dir.path("attempt.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.setRecord(nil)
	c.d.forget(c)
	return os.RemoveAll(string(c.dir))
}

// Conmon's own cleaning and ours may be in each other's way for a moment.
const (
	deleteTries = 20
	deletePause = 25 * time.Millisecond
)

// delete makes the engine forget the container.
func (c *container) delete(ctx context.Context) error {
	q := url.Values{"force": {"true"}, "timeout": {"0"}, "v": {"true"}}
	tick := time.NewTicker(deletePause)
	defer tick.Stop()
	for try := 1; ; try++ {
		err := c.i.api.call(ctx, remove("/containers/"+c.name).with(q), nil, nil)
		switch {
		case err == nil || noContainer(err):
			return nil
		case try == deleteTries || status(err) == 0:
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

func (c *container) setRemoving(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removing = on
}

// Output implements executor.Container.
func (c *container) Output(ctx context.Context, path string) (fs.FS, error) {
	r, err := c.known()
	if err != nil {
		return nil, err
	}
	for n := range r.Spec.Mounts {
		m := &r.Spec.Mounts[n]
		if m.Path != path || m.Kind == executor.MountInput {
			continue
		}
		if _, over, err := c.exit(ctx); err != nil {
			return nil, err
		} else if !over {
			return nil, fmt.Errorf("%w: %s", executor.ErrRunning, c.id)
		}
		if err := c.dir.remount(n); err != nil {
			return nil, fmt.Errorf("opening %s of %s: %w", path, c.id, err)
		}
		return openOutput(c.dir.volume(n))
	}
	return nil, fmt.Errorf("%w: %s has no writable mount at %q", executor.ErrInvalid, c.id, path)
}
