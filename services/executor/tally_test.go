package executor_test

import (
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// TestTallyClockJumps sets the clock by hours, both ways, at every moment of a program that runs
// for a minute, also while the executor is away. What is billed stays the minute.
func TestTallyClockJumps(t *testing.T) {
	const measured = executor.MeterCPU | executor.MeterMemory
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	reserved := executor.Resources{Memory: 1 << 20}
	for _, jump := range []time.Duration{0, 5 * time.Hour, -5 * time.Hour} {
		for at := time.Second; at <= 59*time.Second; at += time.Second {
			clock := func(since time.Duration) time.Time {
				if since >= at {
					return begin.Add(since + jump)
				}
				return begin.Add(since)
			}
			sample := func(since time.Duration) executor.Usage {
				return executor.Usage{
					At: clock(since), Uptime: time.Hour + since, Epoch: "e", Measured: measured,
				}
			}
			var m executor.Tally
			m.Begin(begin)
			m.Add(sample(500*time.Millisecond), reserved)
			for since := 10 * time.Second; since < time.Minute; since += 20 * time.Second {
				m.Add(sample(since), reserved)
			}
			m.Finish(sample(61*time.Second), executor.Exit{
				Started: begin.Add(-100 * time.Millisecond), Ended: clock(time.Minute),
			}, reserved)
			if m.Used.WallMS < 59_900 || m.Used.WallMS > 60_100 ||
				m.Used.MemoryKiBMS/1024 > m.Used.WallMS {
				t.Errorf("jump of %v at %v: billed %d ms, %d MiB ms", jump, at, m.Used.WallMS,
					m.Used.MemoryKiBMS/1024)
			}
		}
	}
}

// TestTallyShortProgram counts a program that was over before it was looked at.
func TestTallyShortProgram(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var m executor.Tally
	m.Begin(at)
	m.Finish(executor.Usage{At: at.Add(time.Second), Epoch: "e"}, executor.Exit{
		Started: at.Add(-80 * time.Millisecond), Ended: at.Add(-30 * time.Millisecond),
	}, executor.Resources{})
	if m.Used.WallMS != 50 {
		t.Errorf("billed %d ms, want 50", m.Used.WallMS)
	}
}
