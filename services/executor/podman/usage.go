package podman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
)

// How old the measure of a container's disk use may be: at least diskEvery, and as much longer as
// keeps the measuring of all containers within a diskShare of one core, at most diskLate.
const (
	diskEvery = 3 * time.Second
	diskLate  = time.Minute
	diskShare = 20
)

// diskAge is that for a measure that took so long, on a host with so many containers.
func diskAge(took time.Duration, containers int) time.Duration {
	return min(max(diskEvery, took*diskShare*time.Duration(max(containers, 1))), diskLate)
}

// Usage implements executor.Container.
func (c *container) Usage(ctx context.Context) (executor.Usage, error) {
	r, err := c.known()
	if err != nil {
		return executor.Usage{}, err
	}
	if err := c.openMeter(); err != nil {
		return executor.Usage{}, err
	}
	c.mu.Lock()
	meter := c.meter
	c.mu.Unlock()
	if meter == nil {
		return executor.Usage{}, fmt.Errorf("%w: %s", executor.ErrNotFound, c.id)
	}
	s, err := meter.Read()
	if err != nil {
		return executor.Usage{}, fmt.Errorf("reading the counters of %s: %w", c.id, err)
	}
	// There is no network but the loopback device: nothing goes in or out, and that is measured.
	u := executor.Usage{
		At: time.Now().UTC(), Uptime: uptime(), Epoch: meter.Epoch(), Measured: executor.MeterNetwork,
		CPU: s.CPU, Memory: s.Memory, MemoryPeak: s.MemoryPeak,
	}
	for _, m := range []struct {
		has bool
		bit executor.Meter
	}{
		{s.Has.CPU, executor.MeterCPU}, {s.Has.Memory, executor.MeterMemory},
		{s.Has.MemoryPeak, executor.MeterMemoryPeak},
	} {
		if m.has {
			u.Measured |= m.bit
		}
	}
	disk, err := c.diskUse(ctx, r)
	if err == nil {
		u.Disk, u.Measured = disk, u.Measured|executor.MeterDisk
	}
	u.Uncounted = errors.Is(err, errTreeTooBig)
	return u, nil
}

// uptime is the time since the host booted, 0 if unknown.
func uptime() time.Duration {
	var at unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &at) != nil {
		return 0
	}
	return time.Duration(at.Nano())
}

func (c *container) openMeter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.meter != nil {
		return nil
	}
	m, err := c.i.groups.Meter(c.group, c.i.bootID)
	if errors.Is(err, fs.ErrNotExist) { // a reboot took it
		if err := c.i.groups.Create(c.group); err != nil {
			return err
		}
		m, err = c.i.groups.Meter(c.group, c.i.bootID)
	}
	if c.meter = m; m != nil {
		c.i.metered.Add(1)
	}
	return err
}

func (c *container) closeMeter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.meter == nil {
		return nil
	}
	m := c.meter
	c.meter = nil
	c.i.metered.Add(-1)
	return m.Close()
}

// diskUse measures what root has written and what the volumes hold. It fails with errTreeTooBig
// when the program made more than can be measured.
func (c *container) diskUse(ctx context.Context, r *record) (uint64, error) {
	c.mu.Lock()
	upper, at, last, took := c.upper, c.diskAt, c.disk, c.diskTook
	c.mu.Unlock()
	if !at.IsZero() && time.Since(at) < diskAge(took, int(c.i.metered.Load())) {
		return last, nil
	}
	began := time.Now()
	if upper == "" {
		if _, err := c.inspect(ctx); err != nil {
			return 0, err
		}
		c.mu.Lock()
		upper = c.upper
		c.mu.Unlock()
	}
	used, err := treeBytes(upper)
	if err != nil {
		return 0, err
	}
	pids, err := c.i.groups.Procs(c.group)
	if err != nil {
		return 0, err
	}
	deleted, err := unlinkedBytes("/proc", pids, unix.OVERLAYFS_SUPER_MAGIC)
	if err != nil {
		return 0, err
	}
	used += deleted + c.dir.volumeUse(&r.Spec)
	c.mu.Lock()
	c.diskAt, c.disk, c.diskTook = time.Now(), used, time.Since(began)
	c.mu.Unlock()
	return used, nil
}

// maxTree bounds how many files are looked at: a container can make millions.
const maxTree = 100_000

var errTreeTooBig = errors.New("too many files to measure")

// treeBytes sums the blocks of the files below dir, a file with many links once for each.
func treeBytes(dir string) (uint64, error) {
	var sum uint64
	files := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case errors.Is(err, unix.ENAMETOOLONG): // folders in folders, on purpose
				return errTreeTooBig
			}
			return err
		}
		if files++; files > maxTree {
			return errTreeTooBig
		}
		info, err := d.Info()
		if errors.Is(err, unix.ENAMETOOLONG) {
			return errTreeTooBig
		}
		if err != nil {
			return nil // gone meanwhile
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			const blockSize = 512 // of st_blocks, whatever the file system's
			sum += uint64(st.Blocks) * blockSize
		}
		return nil
	})
	return sum, err
}
