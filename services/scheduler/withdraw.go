package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/united-containers/ucn/chain/job"
)

// unplaced decides what becomes of an attempt whose lease is not on the chain and will not be.
func (e *Engine) unplaced(ctx context.Context, id job.ID, a *Attempt, cause error) {
	switch {
	case a.Continues != (AttemptID{}):
		e.takeBack(ctx, id, a.ID, cause)
	case errors.Is(cause, ErrLeaseRefused):
		e.endAttempt(ctx, id, a.ID, Refused, cause.Error())
	default:
		e.withdraw(ctx, id, a.ID, cause)
	}
}

// withdrawn is how long a run waits at least after its lease could not be placed; each try may cost
// a fee.
const withdrawn = 5 * time.Second

// withdraw takes an attempt back whose lease is in no block through no fault of its host.
func (e *Engine) withdraw(ctx context.Context, id job.ID, attempt AttemptID, cause error) {
	_, err := e.change(ctx, id, func(j *Job) (string, *Run) {
		r, a := j.Attempt(attempt)
		if a == nil || a != r.Current() || a.Placed || a.State == Ended {
			return "", nil
		}
		r.Attempts = r.Attempts[:len(r.Attempts)-1]
		r.Tries--
		if why, _ := j.stops(r); why != "" {
			if r.State == Ended || r.Open() { // the one that was to be replaced, which is being stopped
				return "job.waiting", r
			}
			r.finish(Cancelled, why, e.deps.Now())
			return "job.ended", r
		}
		now := e.deps.Now()
		r.NotBefore = now.Add(max(withdrawn, r.patience(cause, now)))
		r.say("waiting: " + cause.Error())
		return "job.waiting", r
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot take an attempt back", "job", id, "error", err)
	}
}
