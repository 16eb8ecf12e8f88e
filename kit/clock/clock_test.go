package clock_test

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/clock"
)

// hands are a wall clock that jumps and a time that does not.
type hands struct {
	wall    time.Time
	elapsed time.Duration
	said    bytes.Buffer
}

func newHands() *hands { return &hands{wall: time.UnixMilli(1_800_000_000_000)} }

func (h *hands) steady() *clock.Steady {
	return clock.New(clock.Deps{
		Wall: func() time.Time { return h.wall }, Elapsed: func() time.Duration { return h.elapsed },
		Log: slog.New(slog.NewTextHandler(&h.said, nil)),
	})
}

// pass lets time pass.
func (h *hands) pass(d time.Duration) {
	h.wall, h.elapsed = h.wall.Add(d), h.elapsed+d
}

func TestFollowsTheWallClock(t *testing.T) {
	h := newHands()
	s := h.steady()
	for _, drift := range []time.Duration{0, time.Second, clock.MaxJump, time.Millisecond} {
		h.pass(time.Minute)
		h.wall = h.wall.Add(drift)
		if got := s.Now(); !got.Equal(h.wall) {
			t.Errorf("drifted by %v: %v, the wall clock says %v", drift, got, h.wall)
		}
	}
	h.pass(5 * time.Hour) // a machine that slept: time passed, and both know it
	if got := s.Now(); !got.Equal(h.wall) || h.said.Len() > 0 {
		t.Errorf("after sleep: %v, the wall clock says %v, the log %s", got, h.wall, &h.said)
	}
}

// TestJumpsAreNotFollowed: hours both ways. Time goes on at once; one that is ahead waits for the
// wall clock at nine tenths of the pace, one that is behind keeps its own.
func TestJumpsAreNotFollowed(t *testing.T) {
	for jump, pace := range map[time.Duration]time.Duration{
		3 * time.Hour: 10, -3 * time.Hour: 9, 11 * time.Second: 10, -time.Minute: 9,
		240 * time.Hour: 10,
	} {
		h := newHands()
		s := h.steady()
		before := s.Now()
		h.wall = h.wall.Add(jump)
		if got := s.Now(); !got.Equal(before) {
			t.Errorf("jump of %v: %v passed at once", jump, got.Sub(before))
		}
		for range 100 {
			h.pass(100 * time.Millisecond)
			s.Now()
		}
		if passed := s.Now().Sub(before); passed != pace*time.Second {
			t.Errorf("jump of %v: %v passed in 10 s", jump, passed)
		}
		if n := strings.Count(h.said.String(), "the wall clock jumped"); n != 1 {
			t.Errorf("jump of %v: told %d times", jump, n)
		}
	}
}

func TestTheWallClockIsWaitedFor(t *testing.T) {
	h := newHands()
	s := h.steady()
	h.wall = h.wall.Add(-3 * time.Hour)
	for range 3 * 60 * 10 {
		h.pass(time.Minute)
		s.Now()
	}
	if got := s.Now(); !got.Equal(h.wall) || !strings.Contains(h.said.String(), "together again") {
		t.Errorf("after 30 hours it is %v away", h.wall.Sub(got))
	}
}

// TestAJumpThatIsTakenBackLeavesNothing: the wall clock was wrong for ten minutes.
func TestAJumpThatIsTakenBackLeavesNothing(t *testing.T) {
	for _, jump := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		h := newHands()
		s := h.steady()
		h.wall = h.wall.Add(jump)
		s.Now()
		h.pass(10 * time.Minute)
		s.Now()
		h.wall = h.wall.Add(-jump)
		h.pass(11 * time.Minute)
		s.Now()
		if off := h.wall.Sub(s.Now()).Abs(); off > clock.MaxJump {
			t.Errorf("jump of %v and back: %v away", jump, off)
		}
	}
}

// TestTimeGivenUpIsMadeGood: the wall clock was behind for so long that time waited for it until
// they met; its readings jitter, as they do. Then it was set right.
func TestTimeGivenUpIsMadeGood(t *testing.T) {
	h := newHands()
	s := h.steady()
	h.wall = h.wall.Add(-10 * time.Minute)
	for i := range 150 * 60 {
		h.pass(time.Second)
		jitter := time.Duration(i%200) * time.Millisecond
		h.wall = h.wall.Add(jitter)
		s.Now()
		h.wall = h.wall.Add(-jitter)
	}
	if off := h.wall.Sub(s.Now()).Abs(); off > time.Second {
		t.Fatalf("after 150 minutes they are %v apart", off)
	}
	h.wall = h.wall.Add(10 * time.Minute)
	h.pass(time.Second)
	if off := h.wall.Sub(s.Now()); off != 0 {
		t.Errorf("the wall clock is right again, time is %v behind it", off)
	}
	h.wall = h.wall.Add(10 * time.Minute) // nothing is owed any more: this is a jump
	h.pass(time.Second)
	if off := h.wall.Sub(s.Now()); off < 9*time.Minute {
		t.Errorf("a jump after it was followed up to %v", off)
	}
}

// TestNeverGoesBack: whatever the wall clock does, and never much faster than time.
func TestNeverGoesBack(t *testing.T) {
	const seed = 7 // go test ./kit/clock -run TestNeverGoesBack
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHands()
	s := h.steady()
	last, given := s.Now(), time.Duration(0) // given up to wait for the wall clock
	for range 100_000 {
		if random.IntN(20) == 0 {
			h.wall = h.wall.Add(time.Duration(random.Int64N(int64(6*time.Hour))) - 3*time.Hour)
		}
		d := time.Duration(random.Int64N(int64(3 * time.Second)))
		h.pass(d)
		now := s.Now()
		given += d - now.Sub(last)
		if now.Before(last) || given < -clock.MaxJump {
			t.Fatalf("%v passed in %v", now.Sub(last), d)
		}
		given = max(0, given)
		last = now
	}
}

func TestRaise(t *testing.T) {
	h := newHands()
	s := h.steady()
	to := h.wall.Add(time.Hour)
	s.Raise(to)
	h.pass(10 * time.Second)
	if got := s.Now().Sub(to); got != 9*time.Second {
		t.Errorf("%v passed in 10 s of a clock that is ahead", got)
	}
	s.Raise(h.wall) // which is earlier
	if s.Now().Before(to) {
		t.Error("raising put the clock back")
	}
}

func TestTheRealClocks(t *testing.T) {
	s := clock.New(clock.Deps{})
	if off := time.Since(s.Now()).Abs(); off > time.Minute {
		t.Errorf("it is %v away from the wall clock", off)
	}
}
