package podman

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// hangLimit is what calls have in these tests: enough for a slow machine, and for the test to end.
const hangLimit = 6 * time.Second

// hanging makes a container that podman hangs over when it starts it, with its lock held.
func hanging(t *testing.T, d *Driver, img *executortest.Image) *container {
	t.Helper()
	made, err := d.Create(t.Context(), executortest.Spec(img.ID, "hangs", "exit", "3"))
	if err != nil {
		t.Fatal(err)
	}
	c := made.(*container)
	if _, err := c.inspect(t.Context()); err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(c.upper, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(etc, "passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// running starts a container that goes on.
func running(t *testing.T, d *Driver, img *executortest.Image, name string) executor.Container {
	t.Helper()
	c, err := d.Create(t.Context(), executortest.Spec(img.ID, name, "deaf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// until waits for something that nobody tells.
func until(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("it never came")
		}
	}
}

// quick runs what must not wait for the engine's limit.
func quick(t *testing.T, name string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangLimit)
	defer cancel()
	began := time.Now()
	if err := f(ctx); err != nil {
		t.Errorf("%s: %v after %v", name, err, time.Since(began))
	}
}

// An engine that hangs over one container is ended. Meanwhile the others can be listed, made,
// started and stopped, and what hung can be removed.
func TestEngineHangs(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	other := running(t, d, img, "other")
	c := hanging(t, d, img)
	d.i.api.limit = hangLimit
	started := make(chan error, 1)
	go func() { started <- c.Start(t.Context()) }()
	until(t, func() bool { return c.dir.marked("started") })
	quick(t, "list", func(ctx context.Context) error {
		list, err := d.List(ctx)
		if len(list) != 2 {
			t.Errorf("listed %d, want 2", len(list))
		}
		return err
	})
	if err := <-started; err != nil {
		t.Errorf("start: %v", err)
	}
	if e, err := c.Wait(t.Context()); err != nil || e.Kind != executor.ExitRefused {
		t.Errorf("exit %+v, %v; want it refused", e, err)
	}
	if state, err := other.State(t.Context()); err != nil || state != executor.StateRunning {
		t.Errorf("the other one: %s, %v", state, err)
	}
	quick(t, "stop", func(ctx context.Context) error { return c.Stop(ctx, time.Second) })
	quick(t, "remove", c.Remove)
	quick(t, "make another", func(context.Context) error {
		running(t, d, img, "another")
		return nil
	})
}

// An executor that was killed while podman hung comes up again, lists what runs, and ends that
// podman, which is not its child.
func TestEngineHangsSinceAnEarlierLife(t *testing.T) {
	img := executortest.GuestImage(t)
	cfg := newConfig(t)
	old, err := New(cfg, "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.LoadImage(t.Context(), img.ID, "", img.Open); err != nil {
		t.Fatal(err)
	}
	running(t, old, img, "other")
	stuck := hanging(t, old, img)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan error, 1)
	go func() { started <- stuck.Start(ctx) }()
	until(t, func() bool { return stuck.dir.marked("started") })
	until(t, func() bool { // podman has the lock
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := stuck.inspect(ctx)
		return err != nil
	})
	cancel()
	<-started
	old.i.api.close()
	old.i.unlock() // as kill -9 does; the service goes on

	d, err := New(cfg, "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	d.i.api.limit = hangLimit
	var list []executor.Container
	quick(t, "list", func(ctx context.Context) error {
		list, err = d.List(ctx)
		return err
	})
	quick(t, "probe", func(ctx context.Context) error {
		_, err := d.Probe(ctx)
		return err
	})
	want := map[executor.AttemptID]executor.State{
		"other": executor.StateRunning, "hangs": executor.StateCreated,
	}
	for _, c := range list {
		quick(t, "state", func(ctx context.Context) error {
			state, err := c.State(ctx)
			if id := c.Info().Attempt; state != want[id] {
				t.Errorf("%s is %s, want %s", id, state, want[id])
			}
			return err
		})
		quick(t, "remove", c.Remove)
	}
	if len(list) != len(want) {
		t.Errorf("listed %d, want %d", len(list), len(want))
	}
	if err := old.i.watch.close(); err != nil {
		t.Error(err)
	}
}

// An engine that hangs over an image keeps nobody waiting for ever: the load fails, and the next is
// another service's.
func TestEngineHangsOverAnImage(t *testing.T) {
	img := executortest.GuestImage(t)
	d, err := New(newConfig(t), "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	d.i.loadLimit = time.Second
	_, err = d.LoadImage(t.Context(), img.ID, "", func(ctx context.Context) (io.ReadCloser, error) {
		engine, _ := d.i.service.process()
		if err := engine.Process.Signal(unix.SIGSTOP); err != nil {
			return nil, err
		}
		return img.Open(ctx)
	})
	if !errors.Is(err, errHung) {
		t.Errorf("loading: %v, want %v", err, errHung)
	}
	d.i.loadLimit = loadLimit
	if _, err := d.LoadImage(t.Context(), img.ID, "", img.Open); err != nil {
		t.Errorf("loading again: %v", err)
	}
}
