// Package clock tells the time to those who pay by it: the wall clock, without its jumps.
//
// A wall clock is set by people, by NTP, by a hypervisor; a jump of hours would end leases, expire
// what was signed a moment ago, and have intervals paid that never were. A Steady clock follows the
// wall clock as long as that moves like time does, measured by a clock that nobody can set. When
// the wall clock jumps ahead, the Steady clock goes on as if it had not, until the wall clock is
// near again; whoever knows that it is right now starts the process anew, since a Steady clock
// begins with it. When the wall clock falls behind, the Steady clock goes on at nine tenths of the
// pace until they are together.
//
// It is not symmetric because its users are not: what is signed is valid for seconds or minutes,
// so a clock that gains on everybody else's refuses it all; one that loses a little harms nobody,
// and as time never goes back it is the only way back.
//
// All processes of a machine that were there before a jump stay together. A clock knows nothing of
// other machines.
package clock

import (
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How a Steady clock treats what the wall clock does.
const (
	// MaxJump is how far the wall clock may be ahead and still be followed at once.
	MaxJump = 10 * time.Second
	// slew is the part of the passing time that a clock gives up which is ahead: 1/slew.
	slew = 10
)

// Deps are what a Steady clock is made of.
type Deps struct {
	// Wall is the clock that may jump; nil means time.Now.
	Wall func() time.Time
	// Elapsed is the time since any moment, by a clock that nobody sets and that goes on while the
	// machine sleeps; nil means the kernel's (CLOCK_BOOTTIME).
	Elapsed func() time.Duration
	// Log is told of jumps; nil for nobody.
	Log *slog.Logger
}

// Steady is a clock without jumps. Safe for concurrent use.
type Steady struct {
	deps Deps

	// mu guards what was told last, and when by the elapsed time.
	mu     sync.Mutex
	told   time.Time
	seen   time.Duration
	given  time.Duration // given up to wait for the wall clock, and not made good yet
	jumped bool          // the wall clock is away, and the log knows
}

// New makes a clock that begins with the wall clock.
func New(d Deps) *Steady {
	if d.Wall == nil {
		d.Wall = time.Now
	}
	if d.Elapsed == nil {
		d.Elapsed = sinceBoot
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Steady{deps: d, told: d.Wall().Round(0), seen: d.Elapsed()}
}

// sinceBoot is the time since the machine's start, its sleep included.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("clock: the kernel has no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(t.Nano())
}

// Now tells the time. It never goes back.
func (s *Steady) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	elapsed := s.deps.Elapsed()
	passed := max(0, elapsed-s.seen)
	s.seen += passed
	wall := s.deps.Wall().Round(0) // without Go's own monotonic reading: only what a person sees
	away := wall.Sub(s.told.Add(passed))
	s.notice(away, away > MaxJump+s.given || away < -MaxJump)
	switch {
	case away > MaxJump+s.given:
		s.told = s.told.Add(passed)
	case away >= 0: // also when it comes back after it was behind: at once, or after they met
		s.told, s.given = wall, max(0, s.given-away)
	default:
		slow := s.told.Add(passed - passed/slew)
		s.told = later(wall, slow)
		s.given -= s.told.Sub(slow) - passed/slew
	}
	return s.told
}

// notice tells of a jump once.
func (s *Steady) notice(away time.Duration, jumped bool) {
	if jumped && !s.jumped {
		s.deps.Log.Error("the wall clock jumped: time goes on without it; if the wall clock is right "+
			"now and ahead, start this process anew", "jump", away)
	}
	if !jumped && s.jumped {
		s.deps.Log.Info("the wall clock and the time are together again")
	}
	s.jumped = jumped
}

// Raise makes the clock tell no earlier time than this from now on: that of something that has
// happened, as the last block's.
func (s *Steady) Raise(to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = later(s.told, to.Round(0))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
