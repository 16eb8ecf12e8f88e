package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
)

// early is how much before its time, by this clock, a host may say that a lease is over or used up:
// it stops what would be so by its next measurement, and clocks differ. It is less than the minute
// of use that a host trusts an owner for.
const early = 30 * time.Second

// verdict is how an attempt ended whose host reports the end, and in which words. What is the
// owner's doing or the money's is believed only if it can be so: else one host could end a run by
// one word. It is the host then that ended it.
func (e *Engine) verdict(j *Job, r *Run, a *Attempt, rep *Report) (EndReason, string) {
	now, lie := e.deps.Now(), ""
	why, _ := j.stops(r)
	switch {
	case rep.End == Fraud: // it is no host's to judge
		return Evicted, rep.Reason
	case why != "":
	case rep.End == Cancelled && !rep.endedOnChain && !j.stoppedBefore(a):
		lie = "it was cancelled, which it was not"
	case rep.End == Exhausted && !j.usedUp(a, now):
		lie = "its money is used up, which it cannot be yet"
	case rep.End == Expired && a.Began && now.Add(early).Before(
		time.UnixMilli(int64(a.Lease.Lease.Until))):
		lie = "its lease is over, which it is not"
	}
	if lie == "" {
		return rep.End, rep.Reason
	}
	return Evicted, fmt.Sprintf("%s says that %s: %s", a.Host.Name, lie, rep.Reason)
}

// stoppedBefore tells whether the attempt may have been told to stop by an update that a later one
// took back.
func (j *Job) stoppedBefore(a *Attempt) bool {
	return !j.Updated.IsZero() && !a.Created.After(j.Updated)
}

// usedUp tells whether what the attempt's lease pays, or lets be paid without the owner's word, may
// be used up by the time: no host is due more than what accrued at the lease's rate. A host that
// signed for less trust than is usual has itself to thank.
func (j *Job) usedUp(a *Attempt, now time.Time) bool {
	l := &a.Lease.Lease
	most := usualTrust(uint64(l.Budget), uint64(l.Rate), uint64(l.Upfront))
	if j.Spec.Trust != 0 {
		most = min(uint64(l.Budget), j.Spec.Trust)
	}
	ran := now.Add(early).Sub(a.Created)
	due, err := price.Accrued(l.Rate, tx.Millis(max(0, ran.Milliseconds())))
	return err != nil || addUpTo(uint64(l.Upfront), uint64(due)) > most
}

// endedByOwner tells whether a host says that an attempt was cancelled which nobody here cancelled,
// and the chain says that its lease was ended: its owner may do that himself. An error is the
// store's, or the end of ctx.
func (e *Engine) endedByOwner(ctx context.Context, rep *Report) (bool, error) {
	if rep.State != Ended || rep.End != Cancelled {
		return false, nil
	}
	j, err := e.deps.Store.Job(ctx, rep.Job)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read the job: %w", err)
	}
	r, a := j.Attempt(rep.Attempt)
	if a == nil || r.ID != rep.Run || a.Host.Executor != rep.Executor || a.State == Ended {
		return false, nil
	}
	if why, _ := j.stops(r); why != "" || e.doing(a.ID, looking) { // or it is ended from here
		return false, nil
	}
	lease, err := e.onChain(ctx, a.Lease.ID)
	return lease != nil && !lease.Ended.IsZero(), err
}
