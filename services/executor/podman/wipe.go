package podman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Wipe removes an instance that no process has open with everything it holds: containers, running
// ones too, images, mounts, control groups, and its folder. What it could not remove it names; it
// may be called again. An instance that never was is no error.
func Wipe(ctx context.Context, cfg Config) error {
	if _, err := os.Stat(cfg.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	i, err := Open(cfg)
	if err != nil {
		return fmt.Errorf("open the engine to wipe it: %w", err)
	}
	errs := []error{i.removeContainers(ctx), i.Close()}
	errs = append(errs, i.groups.Kill(ctx, i.group()), i.groups.Remove(i.group()))
	errs = append(errs, unmountBelow(cfg.Dir), os.RemoveAll(cfg.Dir))
	return errors.Join(errs...)
}

func (i *Instance) removeContainers(ctx context.Context) error {
	names, err := os.ReadDir(i.path("attempts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, n := range names {
		d, err := i.Driver(n.Name())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list, err := d.List(ctx)
		errs = append(errs, err)
		for _, c := range list {
			errs = append(errs, c.Remove(ctx))
		}
	}
	return errors.Join(errs...)
}

// unmountBelow unmounts what the engine keeps mounted: overlay itself, shm of crashed containers.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	const point = 4 // the field of mountinfo (proc_pid_mountinfo(5)) that has the mount point
	var points []string
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > point && strings.HasPrefix(f[point], dir+"/") {
			points = append(points, f[point])
		}
	}
	for n := len(points) - 1; n >= 0; n-- {
		err := unix.Unmount(points[n], unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unmount %s: %w", points[n], err)
		}
	}
	return nil
}
