// Package cgroup makes, reads, freezes and kills control groups, version 1 and 2.
//
// It reads counters through file descriptors that stay open (two microseconds a sample) and
// writes the freezer directly (a fifth of a millisecond). It does not set limits: the container
// runtime does that in the groups below ours.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// DefaultMount is where control groups are mounted on Linux.
const DefaultMount = "/sys/fs/cgroup"

// ErrMissing says that the host has no controller that is needed.
var ErrMissing = errors.New("cgroup controller missing")

// v1Controllers are those of version 1 that a group is made in. The last ones are for the
// runtime's sake, which makes its own group in every hierarchy.
var v1Controllers = []string{
	"memory", "cpuacct", "freezer", "pids", "cpu", "blkio", "cpuset", "devices", "systemd", "unified",
}

// Root is a mounted tree of control groups.
type Root struct {
	mount   string
	version int
}

// Detect looks at the tree mounted at mount (DefaultMount). It fails with ErrMissing when there is
// neither version 2 nor a version 1 memory controller.
func Detect(mount string) (*Root, error) {
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
		return &Root{mount: mount, version: 2}, nil
	}
	if _, err := os.Stat(filepath.Join(mount, "memory", "memory.stat")); err == nil {
		return &Root{mount: mount, version: 1}, nil
	}
	return nil, fmt.Errorf("%w: no control groups below %s", ErrMissing, mount)
}

// Version is 1 or 2.
func (r *Root) Version() int { return r.version }

// Controllers lists what the tree can measure and limit, by version 2 names.
func (r *Root) Controllers() []string {
	if r.version == 2 {
		b, err := os.ReadFile(filepath.Join(r.mount, "cgroup.controllers"))
		if err != nil {
			return nil
		}
		return append(strings.Fields(string(b)), "freezer") // version 2 always has one
	}
	var list []string
	for _, c := range v1Controllers {
		if _, err := os.Stat(filepath.Join(r.mount, c)); err == nil {
			list = append(list, c)
		}
	}
	return list
}

// dirs returns the directories that make up the group at path.
func (r *Root) dirs(path string) []string {
	if r.version == 2 {
		return []string{filepath.Join(r.mount, path)}
	}
	var list []string
	for _, c := range v1Controllers {
		if _, err := os.Stat(filepath.Join(r.mount, c)); err == nil {
			list = append(list, filepath.Join(r.mount, c, path))
		}
	}
	return list
}

// dir returns the directory of the controller for the group at path.
func (r *Root) dir(controller, path string) string {
	if r.version == 2 {
		return filepath.Join(r.mount, path)
	}
	return filepath.Join(r.mount, controller, path)
}

// Create makes the group at path ("/a/b") with all its parents, and in version 2 hands the
// controllers down to it. A group that exists is success.
func (r *Root) Create(path string) error {
	for _, d := range r.dirs(path) {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("making cgroup %s: %w", path, err)
		}
	}
	if r.version == 1 {
		return r.seedCPUSet(path)
	}
	return r.delegate(path)
}

// seedCPUSet copies cpus and mems downwards: version 1 makes cpuset groups that no process can
// enter until someone has.
func (r *Root) seedCPUSet(path string) error {
	base := filepath.Join(r.mount, "cpuset")
	if _, err := os.Stat(base); err != nil {
		return nil
	}
	at := base
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		parent := at
		at = filepath.Join(at, part)
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := seed(filepath.Join(parent, f), filepath.Join(at, f)); err != nil {
				return fmt.Errorf("seeding cgroup %s: %w", path, err)
			}
		}
	}
	return nil
}

func seed(from, to string) error {
	have, err := os.ReadFile(to)
	if err != nil || strings.TrimSpace(string(have)) != "" {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// delegate enables cpu, memory, pids and io for the children of every group on the way to path
// and of path itself.
func (r *Root) delegate(path string) error {
	have, err := os.ReadFile(filepath.Join(r.mount, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading cgroup controllers: %w", err)
	}
	at := r.mount
	for part := range strings.SplitSeq("/"+strings.Trim(path, "/"), "/") {
		at = filepath.Join(at, part)
		for _, c := range []string{"cpu", "memory", "pids", "io"} {
			if !slices.Contains(strings.Fields(string(have)), c) {
				continue
			}
			f := filepath.Join(at, "cgroup.subtree_control")
			if err := os.WriteFile(f, []byte("+"+c), 0o644); err != nil {
				return fmt.Errorf("%w: enabling %s below %s: %w", ErrMissing, c, at, err)
			}
		}
	}
	return nil
}

// AddProc moves the process into the group, in every hierarchy.
func (r *Root) AddProc(path string, pid int) error {
	for _, d := range r.dirs(path) {
		f := filepath.Join(d, "cgroup.procs")
		if err := os.WriteFile(f, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("moving process %d to cgroup %s: %w", pid, path, err)
		}
	}
	return nil
}

// Remove removes the group and every group below it. No process may be left inside; a group that
// is gone is success.
func (r *Root) Remove(path string) error {
	var first error
	for _, d := range r.dirs(path) {
		if err := removeTree(d); err != nil && first == nil {
			first = fmt.Errorf("removing cgroup %s: %w", path, err)
		}
	}
	return first
}

func removeTree(dir string) error {
	subs, err := subgroups(dir)
	if err != nil {
		return err
	}
	for i := len(subs) - 1; i >= 0; i-- {
		if err := os.Remove(subs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// maxGroups bounds how many groups a container can make us walk through.
const maxGroups = 10_000

// subgroups lists dir and the groups below it, parents first. A directory that is gone is empty.
func subgroups(dir string) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && len(list) < maxGroups:
			list = append(list, p)
		}
		return nil
	})
	return list, err
}
