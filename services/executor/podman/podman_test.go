package podman

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/cgroup"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// newConfig is an instance in a directory of its own. Nothing of it outlives the test: neither
// containers nor processes nor mounts nor control groups.
func newConfig(t testing.TB) Config {
	t.Helper()
	return newConfigBeside(t, nil)
}

// newConfigBeside is another instance of the same machine as neighbour, if there is one.
func newConfigBeside(t testing.TB, neighbour *Config) Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "ucnp")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: dir, RunDir: filepath.Join(dir, "r"), Cgroup: "/" + filepath.Base(dir)}
	if neighbour != nil {
		cfg.RunDir = neighbour.RunDir
	}
	t.Cleanup(func() {
		if err := wipe(cfg); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return cfg
}

// wipe removes every trace of an instance that is closed.
func wipe(cfg Config) error {
	i, err := Open(cfg)
	if err != nil {
		return errors.Join(err, os.RemoveAll(cfg.Dir))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	names, err := os.ReadDir(i.path("attempts"))
	errs = append(errs, err)
	for _, n := range names {
		d, err := i.Driver(n.Name())
		if err != nil {
			return errors.Join(err, i.Close())
		}
		list, err := d.List(ctx)
		errs = append(errs, err)
		for _, c := range list {
			errs = append(errs, c.Remove(ctx))
		}
	}
	errs = append(errs, i.Close(), i.groups.Kill(ctx, cfg.Cgroup), i.groups.Remove(cfg.Cgroup))
	errs = append(errs, unmountBelow(cfg.Dir), os.RemoveAll(cfg.Dir))
	return errors.Join(errs...)
}

// unmountBelow unmounts what the engine keeps mounted: overlay itself, shm of crashed containers.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	for n := len(points) - 1; n >= 0; n-- {
		err := unix.Unmount(points[n], unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// host is an instance over several lives of its executor.
type host struct{ cfg Config }

func (h *host) Open(t *testing.T) executor.Driver {
	t.Helper()
	d, err := New(h.cfg, "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Idle waits for the end of every process in the instance's control groups: containers, conmons
// and what conmons run to clean up.
func (h *host) Idle(t *testing.T) {
	t.Helper()
	groups, err := cgroup.Detect(cgroup.DefaultMount)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := groups.Procs(h.cfg.Cgroup)
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 0 {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("processes %v go on", pids)
		case <-tick.C:
		}
	}
}

func TestDriver(t *testing.T) {
	executortest.TestDriver(t, &host{newConfig(t)}, executortest.GuestImage(t))
}
