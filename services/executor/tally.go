package executor

import (
	"math"
	"slices"
	"time"
)

// Tally adds samples of a container's counters up to billable usage. It is plain data, so that
// the journal keeps it: an executor that comes back goes on where the last one was. The zero value
// is ready once Begin was called.
type Tally struct {
	Used    Metered
	Started time.Time // when the program began
	At      time.Time // of the newest sample
	Epoch   string    // life of the counters that the next four belong to
	Uptime  time.Duration
	CPU     time.Duration
	NetIn   uint64
	NetOut  uint64
	// Carried: the program began under an earlier lease; what it used until then is not counted.
	Carried bool `json:",omitempty"`
}

// Begin notes when the program started; usage is counted from there.
func (m *Tally) Begin(at time.Time) { m.Started, m.At, m.Used.Runs = at, at, 1 }

// Carry returns a tally that counts from here on.
func (m *Tally) Carry() Tally {
	next := *m
	next.Used, next.Carried = Metered{}, true
	return next
}

// Add counts a sample. Samples that are older than the last one, and counters that fall within
// one epoch, add nothing: usage never shrinks.
func (m *Tally) Add(s Usage, reserved Resources) {
	elapsed := m.elapsed(s)
	m.At = m.At.Add(time.Duration(elapsed) * time.Millisecond)
	m.Used.WallMS = add(m.Used.WallMS, elapsed)
	if s.Epoch != m.Epoch {
		m.Epoch, m.Uptime, m.CPU, m.NetIn, m.NetOut = s.Epoch, 0, 0, 0, 0
	}
	if s.Uptime > 0 && m.Uptime == 0 {
		m.Uptime = s.Uptime
	} else {
		m.Uptime += time.Duration(elapsed) * time.Millisecond // the rest of a ms is for the next one
	}
	m.count(s, reserved, elapsed)
	m.Used.Unmeasured = union(m.Used.Unmeasured, unmeasured(s.Measured))
}

// elapsed returns the ms since the last sample: by the host's uptime when both have it, so that a
// clock that was set bills nothing, not even over a restart of the executor.
func (m *Tally) elapsed(s Usage) uint64 {
	d := s.At.Sub(m.At)
	if s.Epoch == m.Epoch && s.Uptime > 0 && m.Uptime > 0 {
		d = s.Uptime - m.Uptime
	}
	return uint64(max(d.Milliseconds(), 0))
}

func (m *Tally) count(s Usage, reserved Resources, elapsed uint64) {
	if s.Measured.Has(MeterCPU) && s.CPU > m.CPU {
		m.Used.CPUNS = add(m.Used.CPUNS, uint64(s.CPU-m.CPU))
		m.CPU = s.CPU
	}
	if s.Measured.Has(MeterMemory) {
		held := kib(max(s.Memory, reserved.Memory))
		m.Used.MemoryKiBMS = add(m.Used.MemoryKiBMS, multiply(held, elapsed))
	}
	if s.Measured.Has(MeterMemoryPeak) {
		m.Used.MemoryPeak = max(m.Used.MemoryPeak, s.MemoryPeak)
	}
	if s.Measured.Has(MeterNetwork) {
		m.Used.BytesIn = add(m.Used.BytesIn, grown(m.NetIn, s.NetIn))
		m.Used.BytesOut = add(m.Used.BytesOut, grown(m.NetOut, s.NetOut))
		m.NetIn, m.NetOut = max(m.NetIn, s.NetIn), max(m.NetOut, s.NetOut)
	}
	if s.Measured.Has(MeterDisk) {
		m.Used.DiskKiBMS = add(m.Used.DiskKiBMS, multiply(kib(s.Disk), elapsed))
	}
}

// Finish counts the last sample of a program that is over. What passed between its end and the
// sample is not counted; what passed between its start and Begin is. The engine's times are the
// clock's, which may have been set meanwhile: they add no more than that.
func (m *Tally) Finish(s Usage, exit Exit, reserved Resources) {
	if s.At.IsZero() {
		s.At = exit.Ended
	}
	if late := s.At.Round(0).Sub(exit.Ended); late > 0 { // Round: both by the clock on the wall
		s.At = s.At.Add(-late)
		if s.Uptime > 0 {
			s.Uptime = max(s.Uptime-late, 1)
		}
	}
	m.Add(s, reserved)
	if m.Carried || exit.Started.IsZero() || !exit.Ended.After(exit.Started) {
		return
	}
	wall := uint64(exit.Ended.Sub(exit.Started).Milliseconds())
	before := uint64(max(m.Started.Round(0).Sub(exit.Started).Milliseconds(), 0))
	m.Used.WallMS = max(m.Used.WallMS, min(wall, add(m.Used.WallMS, before)))
}

// unmeasured names the usage fields whose meters are missing, ascending.
func unmeasured(have Meter) []string {
	var names []string
	for _, f := range []struct {
		meter Meter
		names []string
	}{
		{MeterNetwork, []string{"bytes_in", "bytes_out"}}, {MeterCPU, []string{"cpu_ns"}},
		{MeterDisk, []string{"disk_kib_ms"}}, {MeterMemory, []string{"memory_kib_ms"}},
	} {
		if !have.Has(f.meter) {
			names = append(names, f.names...)
		}
	}
	return names
}

func union(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

func grown(from, to uint64) uint64 {
	if to < from {
		return 0
	}
	return to - from
}

func kib(bytes uint64) uint64 { return bytes >> 10 }

// add and multiply stay at the largest number instead of wrapping: a wrapped counter would be a
// bill of nothing.
func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func multiply(a, b uint64) uint64 {
	if b != 0 && a > math.MaxUint64/b {
		return math.MaxUint64
	}
	return a * b
}
