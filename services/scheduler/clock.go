package scheduler

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of how the time is told.
const (
	// maxApart is how far the own clock may be from the chain's: no lease's place_by may lie further
	// ahead.
	maxApart = 10 * time.Minute
	// together is how near the two must be again for the own clock to be gone by.
	together = 10 * time.Second
	// maxChainAway is how far from the own clock a chain's is believed, both ways: what is further off
	// is no clock, and by it claims and offers would never be due, or all at once.
	maxChainAway = 24 * time.Hour
	// maxSetBack is by how much, in all of a life, the time is set back after the first reading. A
	// ledger that lies could otherwise keep all timers from ever coming.
	maxSetBack = 24 * time.Hour
	// timeWithin bounds the first reading of the chain's clock, which a start waits for.
	timeWithin = time.Second
	// missed is a time between two sweeps in which this process was not there: its machine slept, or
	// its clock was wrong before.
	missed = time.Minute
)

// dial tells the time: by the own clock or, while the two are far apart, by the chain's. A clock
// may be wrong by hours when the process begins, and what is signed and waited for here is judged
// by the chain, and by hosts that sell by its time: by the own clock nothing would be placed, and
// what is not over would be ended.
//
// The time may stand still for what is waited for by it, so it follows a chain that is behind only
// as long as that goes on, by maxChainAway, and in all by maxSetBack.
type dial struct {
	own func() time.Time
	// off is by how much the own clock is ahead, ns; 0 while it is gone by.
	off atomic.Int64

	mu sync.Mutex
	// read is what the own clock showed at the newest reading, told what the chain's did.
	read, told time.Time
	setBack    time.Duration
	// doubted tells that the chain's clock was not believed by the newest reading.
	doubted bool
}

func (d *dial) now() time.Time { return d.own().Add(-time.Duration(d.off.Load())) }

// set compares the own clock with the chain's, and returns by how much the time moved.
func (d *dial) set(chain time.Time) (moved time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	own, off, first := d.own(), time.Duration(d.off.Load()), d.read.IsZero()
	away, next := own.Sub(chain), off
	stands := !first && chain.Sub(d.told) < own.Sub(d.read)/2
	d.read, d.told = own, chain
	switch {
	case away.Abs() > maxChainAway, away.Abs() <= together:
		next = 0
	case away.Abs() > maxApart || off != 0:
		next = away
	}
	if moved = off - next; moved.Abs() <= together && next != 0 {
		return 0
	}
	if moved < 0 && !first {
		if stands || d.setBack-moved > maxSetBack {
			return 0
		}
		d.setBack -= moved
	}
	d.off.Store(int64(next))
	return moved
}

// doubts tells whether the chain's clock, so far behind the time, is not gone by from now on.
func (d *dial) doubts(behind time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.doubted
	d.doubted = behind.Abs() > maxApart
	return d.doubted && !before
}

// readTime compares the clocks. What is known of how long hosts are silent is not worth anything
// after the time has moved.
func (e *Engine) readTime(ctx context.Context) {
	chain, err := e.deps.Ledger.Now(ctx)
	if err != nil {
		return // it is away, as others will notice
	}
	moved := e.dial.set(chain)
	if apart := e.deps.Now().Sub(chain); e.dial.doubts(apart) {
		e.deps.Log.ErrorContext(ctx, "the chain's clock is not believed: it stands still, is too far "+
			"from this one or was set back too often; if it is right start this process anew",
			"behind", apart)
	}
	if moved.Abs() <= together {
		return
	}
	e.deps.Log.ErrorContext(ctx, "the clock of this process and the chain's were apart: the time is "+
		"told by the chain's until they are together", "moved", moved,
		"ahead", time.Duration(e.dial.off.Load()))
	e.present()
	if moved < 0 {
		e.rewindLive(ctx)
	}
	e.poke()
}

// past tells whether a time is over by the chain's clock too. What is decided by it cannot be taken
// back, and the own clock may be wrong.
func (e *Engine) past(ctx context.Context, at time.Time) bool {
	if !e.deps.Now().After(at) {
		return false
	}
	chain, err := e.deps.Ledger.Now(ctx)
	return err == nil && chain.After(at)
}

// present notes that this process listens from now on: what was not heard before is held against
// nobody.
func (e *Engine) present() {
	e.began.Store(e.deps.Now().UnixNano())
	e.hear()
}

// since is when this process began to listen.
func (e *Engine) since() time.Time { return time.Unix(0, e.began.Load()) }

// rewindLive puts the records of what lives right after the time was told too late.
func (e *Engine) rewindLive(ctx context.Context) {
	if err := e.eachLive(ctx, func(j *Job) { e.rewound(ctx, j) }); err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot look over live jobs", "error", err)
	}
}

// rewound writes down what a job's record says by the clock as it is now, if that was ahead before.
func (e *Engine) rewound(ctx context.Context, j *Job) {
	if !j.rewind(e.deps.Now()) {
		return
	}
	lock := e.lock(j.ID)
	lock.Lock()
	defer lock.Unlock()
	held, err := e.deps.Store.Job(ctx, j.ID)
	if err == nil && held.rewind(e.deps.Now()) {
		err = e.save(ctx, Change{Job: held})
	}
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot put the times of a job right", "job", j.ID, "error", err)
	}
}

// rewind takes what the record says to have happened, but is still to come, for what happens now,
// and cuts waits to what they can be at most: the clock was ahead when it was written. It reports
// whether that was so.
func (j *Job) rewind(now time.Time) (was bool) {
	back := func(t *time.Time, to time.Time) {
		if t.After(to) {
			*t, was = to, true
		}
	}
	back(&j.Cancelled, now)
	back(&j.Updated, now)
	for i := range j.Runs {
		r := &j.Runs[i]
		back(&r.Created, now)
		back(&r.NotBefore, r.longestWait(now))
		for k := range r.Attempts {
			a := &r.Attempts[k]
			back(&a.Created, now)
			back(&a.Ended, now)
			back(&a.Heard, now)
			back(&a.Hold.Back, now)
			back(&a.Hold.Quiet, now)
			back(&a.Hold.AskFrom, now.Add(max(maxAskAgain, a.Hold.patient())))
			if a.Reported.After(now.Add(together)) { // by the host's clock
				back(&a.Reported, now)
			}
		}
	}
	return was
}

// longestWait is until when the run waits at the latest.
func (r *Run) longestWait(now time.Time) time.Time {
	until := now.Add(maxBackoff)
	if a := r.moving(); a != nil {
		until = latest(until, a.EvictAt.Add(-moveAhead))
	}
	return until
}

// heldBack tells whether the run may not be placed yet. One that waits longer than any does was
// written down by a clock that was ahead.
func (r Ref) heldBack(now time.Time) bool {
	moves := r.Due.Sub(r.Order) >= moveLead
	return r.Due.After(now) && (moves || r.Due.Sub(now) <= maxBackoff)
}

// oursOf translates what a host says by its clock: what is so by a time that has not come here is
// so now, and what it tells ahead comes as much later.
//
// How long a program is held is taken for longer rather than for shorter, where it is not known
// whether its host's clock is behind or its word was long on its way.
func oursOf(rep *Report, now time.Time) {
	ahead, held := rep.Time.Sub(now), now.Add(rep.HeldUntil.Sub(rep.Time))
	switch {
	case rep.HeldUntil.IsZero():
	case ahead > together:
		rep.HeldUntil = held
	case ahead < -together:
		rep.HeldUntil = latest(rep.HeldUntil, held)
	}
	if ahead <= together {
		return
	}
	rep.Time = now
	if !rep.EvictAt.IsZero() {
		rep.EvictAt = rep.EvictAt.Add(-ahead)
	}
}

// millis is a time on the chain, ms since 1970.
func millis(t time.Time) uint64 { return uint64(max(0, t.UnixMilli())) }
