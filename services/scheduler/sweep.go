package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/job"
)

// sweepEvery is how often live attempts are looked over.
const sweepEvery = 5 * time.Second

// resume takes up attempts that an earlier life left in the middle.
func (e *Engine) resume(ctx context.Context) error {
	ids, err := e.deps.Store.Live(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		j, err := e.deps.Store.Job(ctx, id)
		if err != nil {
			return err
		}
		e.takeUp(j)
	}
	return nil
}

// takeUp goes on with a live attempt from where its record stands.
func (e *Engine) takeUp(j *Job) {
	a := j.Current().Current()
	switch {
	case a == nil || a.State == Ended:
	case !a.Placed:
		id := j.ID
		e.later(0, func(ctx context.Context) { e.findLease(ctx, id) })
	case j.CancelReason != "":
		e.stop(e.life, j)
	case !a.Delivered:
		e.deliver(j)
	}
}

// findLease looks whether a lease that was sent is on the chain, and sends it again while it may
// still be placed.
func (e *Engine) findLease(ctx context.Context, id job.ID) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a job", "job", id, "error", err)
		return
	}
	a := j.Current().Current()
	if a == nil || a.Placed || a.State == Ended || e.isInflight(j.Current().ID) {
		return
	}
	_, err = e.deps.Ledger.Lease(ctx, a.Lease.ID)
	if errors.Is(err, ErrNotFound) {
		err = e.placeAgain(ctx, a)
	}
	switch {
	case err == nil:
		if err := e.leased(ctx, id, a.ID); err != nil {
			e.deps.Log.ErrorContext(ctx, "cannot record a lease", "job", id, "error", err)
		}
	case errors.Is(err, ErrLeaseRefused):
		e.endAttempt(ctx, id, a.ID, Refused, err.Error())
	default:
		e.deps.Log.WarnContext(ctx, "cannot find out about a lease", "job", id, "error", err)
	}
}

func (e *Engine) placeAgain(ctx context.Context, a *Attempt) error {
	if uint64(a.Lease.Lease.PlaceBy) < millis(e.deps.Now()) {
		return fmt.Errorf("%w: its time to be placed is over", ErrLeaseRefused)
	}
	return e.deps.Ledger.PlaceLease(ctx, a.Lease)
}

// sweep looks over live attempts now and then: leases in doubt, hosts that never began or fell
// silent, cancellations that did not get through.
func (e *Engine) sweep(ctx context.Context) {
	now := e.deps.Now()
	if now.Sub(e.swept) < sweepEvery {
		return
	}
	e.swept = now
	e.book.Sweep(now, e.policy.LostAfter)
	ids, err := e.deps.Store.Live(ctx)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot list live attempts", "error", err)
		return
	}
	for _, id := range ids {
		if j, err := e.deps.Store.Job(ctx, id); err == nil {
			e.look(j, now)
		}
	}
}

// look decides about one live attempt.
func (e *Engine) look(j *Job, now time.Time) {
	a := j.Current().Current()
	if a == nil || a.State == Ended {
		return
	}
	id := j.ID
	switch {
	case !a.Placed:
		if now.Sub(a.Created) > 2*e.policy.AskTimeout {
			e.later(0, func(ctx context.Context) { e.findLease(ctx, id) })
		}
	case j.CancelReason != "" && now.Sub(a.Created) > 2*stopGrace:
		e.stop(e.life, j)
	case a.Reported.IsZero() && now.Sub(a.Created) > e.policy.StartWithin:
		e.giveUp(j, a, Refused, a.Host.Name+" did not begin in time")
	case e.silent(a, now):
		e.giveUp(j, a, HostLost, fmt.Sprintf("%s has been silent for %s", a.Host.Name,
			e.policy.LostAfter))
	}
}

// silent tells whether neither offer nor report has come from the host for LostAfter, or its
// lease is long over.
func (e *Engine) silent(a *Attempt, now time.Time) bool {
	last := a.Reported
	for _, t := range []time.Time{a.Created, e.began} { // after a restart offers must come in first
		if t.After(last) {
			last = t
		}
	}
	if o, ok := e.book.Get(a.Host.Executor); ok && o.Posted.After(last) {
		last = o.Posted
	}
	over := time.UnixMilli(int64(a.Lease.Lease.Until)).Add(e.policy.LostAfter)
	return now.Sub(last) > e.policy.LostAfter || now.After(over)
}

// giveUp ends the lease of a host that does not answer, so that no interval is paid twice, and
// then the attempt.
func (e *Engine) giveUp(j *Job, a *Attempt, end EndReason, reason string) {
	id, attempt, lease := j.ID, a.ID, a.Lease.ID
	e.later(0, func(ctx context.Context) {
		if err := e.deps.Ledger.EndLease(ctx, lease); err != nil {
			e.deps.Log.ErrorContext(ctx, "cannot end a lease", "job", id, "error", err)
			return
		}
		e.endAttempt(ctx, id, attempt, end, reason)
	})
}
