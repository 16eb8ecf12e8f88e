package podman

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
	"github.com/united-containers/ucn/services/executor/podman/cgroup"
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
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := Wipe(ctx, cfg)
	if groups, found := cgroup.Detect(cgroup.DefaultMount); found == nil {
		err = errors.Join(err, groups.Kill(ctx, cfg.Cgroup), groups.Remove(cfg.Cgroup))
	}
	return errors.Join(err, os.RemoveAll(cfg.Dir))
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
