package scheduler

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/tx"
)

// sweepEvery is how often live attempts are looked over.
const sweepEvery = 5 * time.Second

// resume takes up attempts that an earlier life left in the middle.
func (e *Engine) resume(ctx context.Context) error {
	return e.eachLive(ctx, func(j *Job) {
		e.rewound(ctx, j)
		e.awaited.set(j.ID, j.absences())
		e.takeUp(j)
	})
}

// eachLive does something for each job of which an attempt has not ended or is kept.
func (e *Engine) eachLive(ctx context.Context, do func(*Job)) error {
	var after job.ID
	for {
		ids, err := e.deps.Store.Live(ctx, after, duePage)
		if err != nil {
			return err
		}
		for _, id := range ids {
			j, err := e.deps.Store.Job(ctx, id)
			if err != nil {
				return err
			}
			do(j)
			after = id
		}
		if len(ids) < duePage {
			return nil
		}
	}
}

// takeUp goes on with live attempts from where their record stands.
func (e *Engine) takeUp(j *Job) {
	for r, a := range j.open() {
		why, _ := j.stops(r)
		switch {
		case !a.Placed:
			e.findLease(j.ID, a.ID)
		case why != "":
			e.stop(j, a.ID)
		case !a.Delivered:
			e.deliver(j, a.ID)
		}
	}
}

// open goes over the attempts of the job that have not ended.
func (j *Job) open() iter.Seq2[*Run, *Attempt] {
	return func(yield func(*Run, *Attempt) bool) {
		for i := range j.Runs {
			for k := range j.Runs[i].Attempts {
				if a := &j.Runs[i].Attempts[k]; a.State != Ended && !yield(&j.Runs[i], a) {
					return
				}
			}
		}
	}
}

// placeSlack is how long after its place_by a lease that was sent may still turn up on the chain,
// by this clock: clocks differ, and a block may be on its way.
const placeSlack = 10 * time.Second

// errDoubt: whether the lease will be on the chain is not known yet.
var errDoubt = errors.New("the lease may still be placed")

// findLease looks whether a lease that was sent is on the chain, and sends it again while it may
// still be placed.
func (e *Engine) findLease(id job.ID, attempt AttemptID) {
	e.once(attempt, findingLease, func(ctx context.Context) {
		j, err := e.deps.Store.Job(ctx, id)
		if err != nil {
			e.deps.Log.ErrorContext(ctx, "cannot read a job", "job", id, "error", err)
			return
		}
		r, a := j.Attempt(attempt)
		if a == nil || a.Placed || a.State == Ended || e.isInflight(r.ID) {
			return
		}
		purse := e.purses.open(j.Escrow)
		defer e.purses.close(purse)
		purse.take()
		defer purse.land(r.ID)
		_, err = e.deps.Ledger.Lease(ctx, a.Lease.ID)
		if errors.Is(err, ErrNotFound) {
			why, _ := j.stops(r)
			err = e.placeAgain(ctx, a, why != "")
		}
		switch {
		case err == nil:
			if err := e.leased(ctx, id, a.ID); err != nil {
				e.deps.Log.ErrorContext(ctx, "cannot record a lease", "job", id, "error", err)
			}
		case errors.Is(err, ErrLeaseRefused), errors.Is(err, ErrNotPlaced):
			e.unplaced(ctx, id, a, err)
		case !errors.Is(err, errDoubt):
			e.deps.Log.WarnContext(ctx, "cannot find out about a lease", "job", id, "error", err)
		}
	})
}

// placeAgain sends a lease once more that is not on the chain. For a job that was cancelled it
// waits until the lease cannot come any more.
func (e *Engine) placeAgain(ctx context.Context, a *Attempt, stops bool) error {
	now, placeBy := e.deps.Now(), time.UnixMilli(int64(a.Lease.Lease.PlaceBy))
	switch {
	case e.past(ctx, placeBy.Add(placeSlack)):
		return fmt.Errorf("%w: its time to be placed is over", ErrNotPlaced)
	case now.After(placeBy), stops:
		return errDoubt
	}
	return e.deps.Ledger.PlaceLease(ctx, a.Lease, e.policy.LeaseFee)
}

// sweep looks over live attempts now and then: leases in doubt, hosts that never began or fell
// silent, cancellations that did not get through.
func (e *Engine) sweep(ctx context.Context) {
	now := e.deps.Now()
	ago := now.Sub(e.swept)
	if ago.Abs() < sweepEvery {
		return
	}
	if !e.swept.IsZero() && ago > missed {
		e.present()
	}
	e.swept = now
	e.once(AttemptID{}, dating, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, e.policy.AskTimeout)
		defer cancel()
		e.readTime(ctx)
	})
	e.book.Sweep(now, e.policy.LostAfter)
	e.notes.sweep(now)
	e.once(AttemptID{}, settling, e.settleClaims)
	e.lookAtReturned(ctx, now)
	for range duePages {
		due, err := e.deps.Store.Due(ctx, e.dueFrom, now, duePage)
		if err != nil {
			e.deps.Log.ErrorContext(ctx, "cannot list what is due", "error", err)
			return
		}
		for _, at := range due {
			if j, err := e.deps.Store.Job(ctx, at.Job); err == nil {
				e.look(j, now)
				e.putOff(j, now)
			}
			e.dueFrom = at
		}
		if len(due) < duePage {
			e.dueFrom = Cursor{}
			return
		}
	}
}

// What is due is looked at in pages, at most duePages in one sweep; the next one goes on.
const (
	duePage  = 1024
	duePages = 16
)

// lookAt is when a job must be looked at, if nothing is heard of it until then: never before look
// could decide anything, so that a sweep reads only what is due.
func (e *Engine) lookAt(j *Job) time.Time {
	var soonest time.Time
	at := func(t time.Time) {
		if !t.IsZero() && (soonest.IsZero() || t.Before(soonest)) {
			soonest = t
		}
	}
	for i := range j.Runs {
		if j.Runs[i].Waits() {
			at(j.Expires)
		}
	}
	for r, a := range j.kept {
		at(e.keptUntil(j, a))
		if r.continuable(a) && (e.isBack(a) || !e.awaited.has(j.ID)) {
			at(latest(a.Ended, a.Hold.AskFrom))
		}
	}
	for r, a := range j.open() {
		why, since := j.stops(r)
		switch {
		case !a.Placed:
			at(a.Created.Add(2 * e.policy.AskTimeout))
		case why != "":
			at(since.Add(2 * stopGrace))
		case a.lingers():
			at(r.goOnBy(a, a.Created))
			at(a.Created.Add(e.lostAfter(j)))
		case a.Reported.IsZero():
			at(a.Created.Add(min(e.policy.StartWithin, e.lostAfter(j))))
		default:
			at(latest(a.Created, a.Heard).Add(e.lostAfter(j)))
		}
	}
	return soonest
}

// overdue ends a run that waited until its escrow paid for no lease any more, unless the owner has
// given it more time. What fits nowhere is not tried, so this is not left to the dispatcher.
func (e *Engine) overdue(j *Job, now time.Time) {
	if j.Expires.IsZero() || j.Expires.After(now) {
		return
	}
	for i := range j.Runs {
		r := &j.Runs[i]
		if !r.Waits() || e.isInflight(r.ID) {
			continue
		}
		e.once(AttemptID(r.ID), expiring, func(ctx context.Context) {
			e.expire(ctx, j.ID, r.ID)
		})
	}
}

// expire looks at a run that is overdue once more, with a record of its own: those of the sweep are
// shared by all that is done about the job.
func (e *Engine) expire(ctx context.Context, id job.ID, run RunID) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read an overdue job", "job", id, "error", err)
		return
	}
	if r := j.Run(run); r != nil && r.Waits() {
		e.place(ctx, j, r, nil)
		e.requeue(ctx, id, run, Ref{})
	}
}

// cancelWithin is how long a host has to report the end of what was cancelled before the chain
// ends its pay.
const cancelWithin = time.Minute

// look decides about what of a job waits or lives.
func (e *Engine) look(j *Job, now time.Time) {
	e.overdue(j, now)
	for r, a := range j.kept {
		e.lookAtKept(j, r, a, now)
	}
	for r, a := range j.open() {
		if why, since := j.stops(r); why != "" && a.Placed {
			e.lookAtStopped(j, a, why, now.Sub(latest(since, e.since())))
			continue
		}
		e.lookAtOne(j, r, a, now)
	}
}

// lookAtStopped sees to it that an attempt that was told to stop so long ago does.
func (e *Engine) lookAtStopped(j *Job, a *Attempt, why string, ago time.Duration) {
	id, attempt := j.ID, *a
	switch {
	case ago > cancelWithin:
		e.once(a.ID, looking, func(ctx context.Context) {
			e.giveUp(ctx, id, &attempt, Cancelled, why)
		})
	case ago > 2*stopGrace:
		e.stop(j, a.ID)
	}
}

// lookAtOne decides about one live attempt. What this process could not hear while it was not
// running is held against nobody.
func (e *Engine) lookAtOne(j *Job, r *Run, a *Attempt, now time.Time) {
	id, attempt := j.ID, *a
	switch {
	case !a.Placed:
		if now.Sub(a.Created) > 2*e.policy.AskTimeout {
			e.findLease(id, a.ID)
		}
	case a.lingers() && now.After(r.goOnBy(a, latest(a.Created, e.since()))),
		a.Reported.IsZero() && now.Sub(latest(a.Created, e.since())) > e.policy.StartWithin:
		e.once(a.ID, looking, func(ctx context.Context) { e.lookAtBegin(ctx, id, attempt.ID) })
	case now.Sub(latest(a.Created, a.Heard, e.since())) > e.lostAfter(j):
		e.once(a.ID, looking, func(ctx context.Context) { e.lookAfter(ctx, id, attempt.ID) })
	}
}

// lookAtBegin gives up a host that did not begin in time. First it is asked, and what is decided is
// written down: it may have told of its beginning while nothing could be written here, and a
// program that runs is not ended for that.
func (e *Engine) lookAtBegin(ctx context.Context, id job.ID, attempt AttemptID) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a job", "job", id, "error", err)
		return
	}
	r, a := j.Attempt(attempt)
	if a == nil || a.State == Ended {
		return
	}
	if err := e.deliverOnce(ctx, j, r, a); err != nil {
		e.deps.Log.InfoContext(ctx, "a host that did not begin is given up", "job", id,
			"host", a.Host.Name, "error", err)
	}
	reason, late := shorten(a.Host.Name+" did not begin in time"), false
	_, err = e.change(ctx, id, func(j *Job) (string, *Run) {
		r, a := j.Attempt(attempt)
		late = a != nil && a.State != Ended && (a.Reported.IsZero() || a.lingers())
		if !late {
			return "", nil
		}
		a.Reason = reason
		return "attempt.late", r
	})
	switch {
	case err != nil:
		e.deps.Log.ErrorContext(ctx, "cannot give up a host", "job", id, "error", err)
	case late:
		e.giveUp(ctx, id, a, Refused, reason)
	}
}

func latest(first time.Time, more ...time.Time) time.Time {
	for _, t := range more {
		if t.After(first) {
			first = t
		}
	}
	return first
}

// lookAfter asks a host for an attempt of which nothing was heard for long: its last report may be
// lost. A host that is not there, or has lost the attempt, is given up; so is one that does not
// answer and makes no offers while others do. When nobody is heard at all it is this end that is
// cut off, and what runs goes on.
func (e *Engine) lookAfter(ctx context.Context, id job.ID, attempt AttemptID) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a job", "job", id, "error", err)
		return
	}
	r, a := j.Attempt(attempt)
	if a == nil || a.State == Ended {
		return
	}
	now := e.deps.Now()
	silent := e.silent(j, a, now)
	asked := e.deliverOnce(ctx, j, r, a)
	over := e.past(ctx, time.UnixMilli(int64(a.Lease.Lease.Until)).Add(e.policy.LostAfter))
	if asked == nil {
		if j, err = e.deps.Store.Job(ctx, id); err != nil {
			return
		}
		if _, a := j.Attempt(attempt); a == nil || a.State == Ended {
			return // it told the end
		}
	}
	switch {
	case over && asked == nil:
		e.giveUp(ctx, id, a, Expired, "its lease is over")
	case asked == nil:
	case over, errors.Is(asked, ErrForgotten):
		e.giveUp(ctx, id, a, HostLost, silence(a, e.lostAfter(j)))
	case errors.Is(asked, ErrAbsent) && silent,
		errors.Is(asked, ErrUnreachable) && silent && !e.deaf(now):
		e.lost(ctx, j, a)
	}
}

func silence(a *Attempt, since time.Duration) string {
	return fmt.Sprintf("%s has been silent for %s", a.Host.Name, since)
}

// lost does by the job's policy what is due when a host is lost.
func (e *Engine) lost(ctx context.Context, j *Job, a *Attempt) {
	reason := silence(a, e.lostAfter(j))
	if j.Spec.Keep == KeepReplacement {
		e.giveUp(ctx, j.ID, a, HostLost, reason)
		return
	}
	_, err := e.change(ctx, j.ID, func(j *Job) (string, *Run) {
		r, a := j.Attempt(a.ID)
		if a == nil || a.State == Ended || a.Silent || a != r.Current() {
			return "", nil
		}
		if why, _ := j.stops(r); why != "" {
			return "", nil
		}
		a.Silent, a.Reason = true, reason
		r.State, r.Reason, r.NotBefore = Pending, "waiting: "+reason, e.deps.Now()
		return "attempt.silent", r
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot record a silent host", "job", j.ID, "error", err)
	}
}

// silent tells whether neither offer nor report has come from the host for so long that it counts
// as lost.
func (e *Engine) silent(j *Job, a *Attempt, now time.Time) bool {
	last := latest(a.Created, a.Heard, e.since())
	if o, ok := e.book.Get(a.Host.Executor); ok {
		last = latest(last, o.Posted)
	}
	return now.Sub(last) > e.lostAfter(j)
}

// endLease ends a lease on the chain; false when that must be tried again. If it is not this
// scheduler's to end any more, that is its owner's affair.
func (e *Engine) endLease(ctx context.Context, id job.ID, lease tx.LeaseID) bool {
	err := e.deps.Ledger.EndLease(ctx, lease)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot end a lease", "job", id, "error", err)
	}
	return err == nil || errors.Is(err, ErrEndRefused)
}

// giveUp ends the lease of a host that does not answer, so that no interval is paid twice, and
// then the attempt. What fails is tried again by the next sweep.
func (e *Engine) giveUp(ctx context.Context, id job.ID, a *Attempt, end EndReason, reason string) {
	if e.endLease(ctx, id, a.Lease.ID) {
		e.endAttempt(ctx, id, a.ID, end, reason)
	}
}
