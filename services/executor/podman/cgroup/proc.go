package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Procs lists the processes in the group and below it. A group that is gone has none.
func (r *Root) Procs(path string) ([]int, error) {
	groups, err := subgroups(r.dir("freezer", path))
	if err != nil {
		return nil, fmt.Errorf("listing cgroup %s: %w", path, err)
	}
	var pids []int
	for _, g := range groups {
		b, err := os.ReadFile(filepath.Join(g, "cgroup.procs"))
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading processes of cgroup %s: %w", path, err)
		}
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// gone tells a group that was removed, before or while it is read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// Signal sends sig to the process if it is in the group or below it, and tells whether it was.
// A process number that was taken over by a stranger meanwhile is never signalled.
func (r *Root) Signal(path string, pid int, sig unix.Signal) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	pids, err := r.Procs(path)
	if err != nil {
		return false, err
	}
	for _, p := range pids {
		if p != pid {
			continue
		}
		err := unix.PidfdSendSignal(fd, sig, nil, 0)
		if errors.Is(err, unix.ESRCH) {
			return false, nil
		}
		return err == nil, err
	}
	return false, nil
}

// killPoll is the pause between two looks at a group that is being killed.
const killPoll = 2 * time.Millisecond

// Kill kills every process in the group and below it, again and again until none is left or ctx
// ends. Thaw a frozen group first: in version 1 frozen processes do not die.
func (r *Root) Kill(ctx context.Context, path string) error {
	tick := time.NewTicker(killPoll)
	defer tick.Stop()
	for {
		pids, err := r.Procs(path)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if _, err := r.Signal(path, pid, unix.SIGKILL); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("killing %d processes of cgroup %s: %w", len(pids), path, ctx.Err())
		case <-tick.C:
		}
	}
}

// freezePoll is the pause between two looks at a group that is being frozen, which begins anew
// after freezeAgain of them.
const (
	freezePoll  = 100 * time.Microsecond
	freezeAgain = 2_000
)

// Freeze stops every process in the group and below it, and returns when they are stopped. When
// ctx ends first, the group is thawed again.
func (r *Root) Freeze(ctx context.Context, path string) error {
	if err := r.setFrozen(path, true); err != nil {
		return err
	}
	tick := time.NewTicker(freezePoll)
	defer tick.Stop()
	for look := 1; ; look++ {
		frozen, err := r.Frozen(path)
		if err != nil || frozen {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("freezing cgroup %s: %w", path, ctx.Err()),
				r.setFrozen(path, false))
		case <-tick.C:
		}
		if look%freezeAgain != 0 {
			continue
		}
		// A group that was just forking can stay half frozen: let go for a moment it can be stopped.
		if err := errors.Join(r.setFrozen(path, false), r.setFrozen(path, true)); err != nil {
			return err
		}
	}
}

// Thaw undoes Freeze. A group that is gone or not frozen is success.
func (r *Root) Thaw(path string) error {
	err := r.setFrozen(path, false)
	if gone(err) {
		return nil
	}
	return err
}

func (r *Root) setFrozen(path string, on bool) error {
	file, text := "freezer.state", "THAWED"
	switch {
	case r.version == 2 && on:
		file, text = "cgroup.freeze", "1"
	case r.version == 2:
		file, text = "cgroup.freeze", "0"
	case on:
		text = "FROZEN"
	}
	f := filepath.Join(r.dir("freezer", path), file)
	if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing the freezer of cgroup %s: %w", path, err)
	}
	return nil
}

// Frozen tells whether every process of the group is stopped. A group that is gone is not.
func (r *Root) Frozen(path string) (bool, error) {
	file, want := "freezer.state", "FROZEN\n"
	if r.version == 2 {
		file, want = "cgroup.events", "frozen 1"
	}
	b, err := os.ReadFile(filepath.Join(r.dir("freezer", path), file))
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the freezer of cgroup %s: %w", path, err)
	}
	return strings.Contains(string(b), want), nil
}
