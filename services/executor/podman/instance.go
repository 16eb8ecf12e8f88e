package podman

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/podman/cgroup"
)

// Instance is a podman of our own in one directory. Drivers of several executors of one process
// may share it.
type Instance struct {
	cfg     Config
	tools   tools
	bootID  string
	name    string // of its control group, and of what else needs a name per directory
	socket  string
	groups  *cgroup.Root
	ids     *ids
	api     *client
	service *service
	watch   *watcher
	unlock  func()
	room    *room

	loadLimit time.Duration // for one image

	loading singleflight.Group
	loads   sync.WaitGroup  // running loads, and what else ends with the instance
	closing context.Context // ends with Close; for work that is bound to no caller
	cancel  context.CancelFunc

	metered atomic.Int64 // containers whose counters are open

	mu      sync.Mutex                          // guards what follows
	held    map[executor.ImageID]executor.Image // what the engine was found to hold
	drivers map[string]*Driver
	closed  bool
}

// Open opens the instance in cfg.Dir and makes it if there is none. It starts nothing.
//
// It fails with executor.ErrUnavailable, saying what to install or to run, when this host cannot
// run containers, and when another process has the directory open.
func Open(cfg Config) (*Instance, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	found, err := findTools(&cfg)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o711); err != nil {
		return nil, fmt.Errorf("making the podman instance: %w", err)
	}
	unlock, err := lockFile(filepath.Join(cfg.Dir, "lock"), false)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s is in use by another process; stop it, or choose another "+
			"data directory", executor.ErrUnavailable, cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the podman instance: %w", err)
	}
	i, err := open(cfg, found)
	if err != nil {
		unlock()
		return nil, err
	}
	i.unlock = unlock
	return i, nil
}

func open(cfg Config, found tools) (*Instance, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("reading the boot id: %w", err)
	}
	groups, err := cgroup.Detect(cgroup.DefaultMount)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: mount them (mount -t cgroup2 none /sys/fs/cgroup)",
			executor.ErrUnavailable, err)
	}
	ranges, err := openIDs(&cfg)
	if err != nil {
		return nil, err
	}
	if !ranges.mapped() {
		return nil, fmt.Errorf("%w: user ids from %d on are not mapped in this user namespace; run the "+
			"executor as root of the host", executor.ErrUnavailable, cfg.FirstID)
	}
	i := &Instance{
		cfg: cfg, tools: found, bootID: strings.TrimSpace(string(boot)), groups: groups, ids: ranges,
		name: fmt.Sprintf("%x", sha256.Sum256([]byte(cfg.Dir)))[:12],
		room: newRoom(cfg.Dir), loadLimit: loadLimit,
		held: make(map[executor.ImageID]executor.Image), drivers: make(map[string]*Driver),
	}
	i.closing, i.cancel = context.WithCancel(context.Background())
	i.socket = i.runPath("api.sock")
	if err := i.prepare(); err != nil {
		return nil, err
	}
	if i.watch, err = newWatcher(); err != nil {
		return nil, err
	}
	i.api = newClient(i.socket)
	i.service = newService(i)
	i.api.ensure, i.api.abort = i.service.ensure, i.service.unhang
	i.loads.Go(i.service.keepWords)
	return i, nil
}

// runPath names a file of the instance's run state.
func (i *Instance) runPath(elem ...string) string {
	return filepath.Join(append([]string{i.cfg.RunDir, i.name}, elem...)...)
}

// path names a file of the instance.
func (i *Instance) path(elem ...string) string {
	return filepath.Join(append([]string{i.cfg.Dir}, elem...)...)
}

// group names the control group of an attempt of an executor.
func (i *Instance) group(elem ...string) string {
	return filepath.Join(append([]string{i.cfg.Cgroup, i.name}, elem...)...)
}

// prepare writes the configuration and, after a reboot, forgets what ran before: the engine would
// otherwise believe its own state of the last boot.
func (i *Instance) prepare() error {
	old, err := os.ReadFile(i.path("boot"))
	if err == nil && string(old) != i.bootID {
		err := errors.Join(os.RemoveAll(i.runPath()), os.RemoveAll(i.path("scratch")))
		if err != nil {
			return fmt.Errorf("clearing the state of the last boot: %w", err)
		}
	}
	for _, d := range []string{
		i.path("root"), i.path("attempts"), i.path("images"), i.path("scratch"), i.path("networks"),
		i.path("home/.config/containers"), i.runPath("run"), i.runPath("tmp/exits"),
	} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return fmt.Errorf("making the podman instance: %w", err)
		}
	}
	files, err := i.configFiles()
	if err != nil {
		return err
	}
	files["boot"] = i.bootID
	for name, text := range files {
		if err := writeWhole(i.path(name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("writing the podman instance's configuration: %w", err)
		}
	}
	return nil
}

// Driver returns the driver of the executor with this name (like an AttemptID). Calls with one name
// return the same driver until it is closed.
func (i *Instance) Driver(name string) (*Driver, error) {
	if err := executor.AttemptID(name).Validate(); err != nil {
		return nil, fmt.Errorf("executor name: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, executor.ErrClosed
	}
	if d, ok := i.drivers[name]; ok {
		return d, nil
	}
	d, err := newDriver(i, name)
	if err != nil {
		return nil, err
	}
	i.drivers[name] = d
	return d, nil
}

// forget drops a driver that was closed, so that its name can be opened again.
func (i *Instance) forget(d *Driver) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.drivers[d.name] == d {
		delete(i.drivers, d.name)
	}
}

// Close closes the instance's drivers and ends the API service. Containers go on.
func (i *Instance) Close() error {
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.closed = true
	drivers := slices.Collect(maps.Values(i.drivers))
	i.mu.Unlock()
	i.cancel()
	i.loads.Wait()
	var errs []error
	for _, d := range drivers {
		errs = append(errs, d.Close())
	}
	i.api.close()
	errs = append(errs, i.service.stop(), i.watch.close())
	i.unlock()
	return errors.Join(errs...)
}

// ready starts the service if it is not up.
func (i *Instance) ready(ctx context.Context) error {
	err := i.api.call(ctx, get("/_ping"), nil, nil)
	if err != nil {
		return fmt.Errorf("reaching podman: %w", err)
	}
	return nil
}

// writeWhole replaces the file at path so that a reader, or a crash, sees the old or the new one.
func writeWhole(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
