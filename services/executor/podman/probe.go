package podman

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
)

// Probe implements executor.Driver.
func (d *Driver) Probe(ctx context.Context) (executor.Abilities, error) {
	i := d.i
	a := executor.Abilities{
		Platform:      runtime.GOOS + "/" + runtime.GOARCH,
		CPUMilli:      uint64(runtime.NumCPU()) * 1000,
		CgroupVersion: i.groups.Version(),
		Networks:      []executor.Network{executor.NetworkNone},
		VolumeQuota:   volumeKind(),
	}
	a.MemoryBytes = memoryTotal()
	var st unix.Statfs_t
	if err := unix.Statfs(i.cfg.Dir, &st); err == nil {
		a.DiskBytes = st.Bavail * uint64(st.Bsize)
	}
	i.probeGroups(&a)
	if a.VolumeQuota != volumeLoop {
		a.Missing = append(a.Missing, executor.Missing{
			What: "Outputs live in memory, because loop devices or mkfs.ext4 are missing.",
			Fix:  "modprobe loop; apt-get install -y e2fsprogs",
		})
	}
	a.Missing = append(a.Missing, executor.Missing{
		What: "The quota of a container's root is watched, not enforced by the file system.",
		Fix:  "Keep little free disk beside the executor's data, or mount write-heavy paths as scratch.",
	})
	err := i.probeEngine(ctx, &a)
	if err != nil && !errors.Is(err, executor.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", executor.ErrUnavailable, err)
	}
	return a, err
}

// engineInfo is what we read of the engine's view of the host.
type engineInfo struct {
	Host struct {
		OCIRuntime struct{ Name, Version string } `json:"ociRuntime"`
		Security   struct {
			Seccomp bool `json:"seccompEnabled"`
		} `json:"security"`
	} `json:"host"`
	Store struct {
		Driver string `json:"graphDriverName"`
	} `json:"store"`
	Version struct{ Version string } `json:"version"`
}

func (i *Instance) probeEngine(ctx context.Context, a *executor.Abilities) error {
	var info engineInfo
	// It asks after every container, one that it hangs over, too, and a new life waits for it.
	question := get("/info").within(i.api.limit / 3)
	if err := i.api.call(ctx, question, nil, &info); err != nil {
		return fmt.Errorf("asking podman about itself: %w", err)
	}
	a.Engine = "podman " + info.Version.Version
	version, _, _ := strings.Cut(info.Host.OCIRuntime.Version, "\n")
	a.Runtime = strings.Replace(version, " version ", " ", 1)
	if !info.Host.Security.Seccomp {
		a.Missing = append(a.Missing, executor.Missing{
			What: "The kernel or podman has no seccomp, so no isolation class can be kept.",
			Fix:  "Run a kernel with CONFIG_SECCOMP_FILTER.",
		})
		return fmt.Errorf("%w: no seccomp on this host", executor.ErrUnavailable)
	}
	a.Isolation = []executor.Isolation{executor.IsolationStandard, executor.IsolationStrict}
	return nil
}

// probeGroups tells what the control groups can measure and limit.
func (i *Instance) probeGroups(a *executor.Abilities) {
	have := i.groups.Controllers()
	a.Meters = executor.MeterNetwork | executor.MeterDisk
	cpuMeter := "cpuacct"
	if i.groups.Version() == 2 {
		cpuMeter = "cpu"
	}
	for _, n := range []struct {
		controller, lost string
		found            func()
	}{
		{cpuMeter, "CPU time is not measured and not billed", func() { a.Meters |= executor.MeterCPU }},
		{"cpu", "CPU cannot be limited", func() { a.CPULimit = true }},
		{"memory", "Memory is neither limited nor measured", func() {
			a.MemoryLimit = true
			a.Meters |= executor.MeterMemory | executor.MeterMemoryPeak
		}},
		{"pids", "The number of processes cannot be limited", func() { a.PIDsLimit = true }},
		{"freezer", "Containers cannot be paused", func() { a.Freeze = true }},
	} {
		if slices.Contains(have, n.controller) {
			n.found()
			continue
		}
		a.Missing = append(a.Missing, executor.Missing{
			What: n.lost + ": the control group controller " + n.controller + " is missing.",
			Fix:  "Enable it on the kernel's command line, or mount it below /sys/fs/cgroup.",
		})
	}
}

// memoryTotal returns the host's memory in bytes, 0 if unknown.
func memoryTotal() uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
