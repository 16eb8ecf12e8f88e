package stage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor/podman"
	"github.com/united-containers/ucn/services/executor/podman/cgroup"
)

// cleanWithin bounds the removal of what one engine left.
const cleanWithin = time.Minute

// Wipe removes the containers, processes, mounts and run state of an engine that nobody uses.
func Wipe(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanWithin)
	defer cancel()
	err := removeContainers(ctx, dir)
	name := fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))[:12]
	if groups, e := cgroup.Detect(cgroup.DefaultMount); e == nil {
		group := "/ucn/" + name
		err = errors.Join(err, groups.Kill(ctx, group), groups.Remove(group))
	}
	run := filepath.Join("/run/ucn", name)
	return errors.Join(err, unmountBelow(dir), unmountBelow(run), os.RemoveAll(run),
		os.RemoveAll(dir))
}

func removeContainers(ctx context.Context, dir string) (err error) {
	engine, err := podman.Open(podman.Config{Dir: dir})
	if err != nil {
		return fmt.Errorf("open the engine to clean up: %w", err)
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	names, err := os.ReadDir(filepath.Join(dir, "attempts"))
	if err != nil {
		return fmt.Errorf("list executors to clean up: %w", err)
	}
	for _, name := range names {
		driver, err := engine.Driver(name.Name())
		if err != nil {
			return fmt.Errorf("open a driver to clean up: %w", err)
		}
		list, err := driver.List(ctx)
		if err != nil {
			return fmt.Errorf("list containers to clean up: %w", err)
		}
		for _, c := range list {
			if err := c.Remove(ctx); err != nil {
				return fmt.Errorf("clean up: %w", err)
			}
		}
	}
	return nil
}

// unmountBelow unmounts what an engine keeps mounted below a folder.
func unmountBelow(dir string) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	var points []string
	const pointAt = 4
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > pointAt && strings.HasPrefix(f[pointAt], dir+"/") {
			points = append(points, f[pointAt])
		}
	}
	var all []error
	for i := len(points) - 1; i >= 0; i-- {
		err := unix.Unmount(points[i], unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, fmt.Errorf("unmount %s: %w", points[i], err))
		}
	}
	return errors.Join(all...)
}
