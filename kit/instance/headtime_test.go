package instance_test

import (
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/clock"
	"github.com/united-containers/ucn/kit/instance"
)

// TestHeadTimeMovesTheClockADayAtMost: not even step by step.
func TestHeadTimeMovesTheClockADayAtMost(t *testing.T) {
	wall := time.UnixMilli(1_800_000_000_000)
	now := func() time.Time { return wall }
	i := &instance.Instance{Now: now, Steady: clock.New(clock.Deps{
		Wall: now, Elapsed: func() time.Duration { return 0 },
	})}
	for step := range 10 {
		i.HeadTime(i.Clock()().Add(20 * time.Hour))
		if want := wall.Add(20 * time.Hour); !i.Clock()().Equal(want) {
			t.Fatalf("after step %d: %v, want %v", step, i.Clock()(), want)
		}
	}
	i.HeadTime(wall.AddDate(10, 0, 0))
	i.HeadTime(wall.Add(24 * time.Hour))
	if want := wall.Add(24 * time.Hour); !i.Clock()().Equal(want) {
		t.Errorf("%v, want %v", i.Clock()(), want)
	}
}
