package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/job"
)

// Report folds what a host tells of an attempt into its job. It is idempotent: a report that is
// older, repeated, of an unknown job, or by another host changes nothing. Of an attempt that ended
// without its host's word only the host's account of the end is kept, for people.
func (e *Engine) Report(ctx context.Context, rep Report) error {
	e.hear()
	ended := false
	j, err := e.change(ctx, rep.Job, func(j *Job) (string, bool) {
		r := j.Run(rep.Run)
		if r == nil {
			return "", false
		}
		a := r.Attempt(rep.Attempt)
		if a == nil || a.Host.Executor != rep.Executor || rep.Time.Before(a.Reported) {
			return "", false
		}
		if a.State == Ended {
			late := rep.State == Ended && !a.Told
			if late {
				a.Status, a.Reported, a.Told = rep.Raw, rep.Time, true
			}
			return "attempt.told", late
		}
		if rep.State < a.State && rep.State != Running ||
			rep.State == a.State && bytes.Equal(rep.Raw, a.Status) && rep.Raw != nil {
			return "", false
		}
		e.fold(j, r, a, rep)
		ended = a.State == Ended
		return "attempt." + a.State.String(), true
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if ended {
		if a := j.Run(rep.Run).Attempt(rep.Attempt); a != nil {
			e.settle(j, a, rep)
		}
		e.afterAttempt(j)
	}
	return nil
}

// fold writes a report into the attempt and its run.
func (e *Engine) fold(j *Job, r *Run, a *Attempt, rep Report) {
	a.Delivered, a.Heard = true, e.deps.Now()
	a.Began = a.Began || rep.Ran || rep.State == Running || rep.State == Asleep
	a.State, a.Reason, a.Status, a.Reported = rep.State, shorten(rep.Reason), rep.Raw, rep.Time
	if rep.State != Ended {
		r.State = rep.State
		if j.CancelReason == "" {
			r.Reason = a.Reason
		}
		return
	}
	a.Told = true
	a.finish(rep.End, a.Reason, e.deps.Now())
	e.settleRun(j, r, a)
}

// settleRun decides what an ended attempt means for its run: the one retry policy.
//
//   - completed, cancelled, exhausted, expired, fraud: the run ends so.
//   - failed: tried again up to limits.retries times, then failed.
//   - refused, evicted, host-lost, and expired before the program ran: the host's or the
//     network's affair; tried again elsewhere up to HostRetries times, then ended so.
//   - refused maxSameRefusals times running in the same words: the job's own fault, such as an
//     image that is nowhere; ended so.
//
// Nothing is tried again once the owner cancelled. A further attempt waits backoff x 2^n, at most
// maxBackoff.
func (e *Engine) settleRun(j *Job, r *Run, a *Attempt) {
	if r.State == Ended {
		return
	}
	now := e.deps.Now()
	again := false
	switch {
	case a.End == Failed:
		r.Failures++
		again = r.Failures <= r.Retries
	case a.End == Refused, a.End == Evicted, a.End == HostLost, a.End == Expired && !a.Began:
		again = uint32(len(r.Attempts))-r.Failures <= e.policy.HostRetries &&
			r.sameRefusals() < maxSameRefusals
	}
	if again && j.CancelReason != "" {
		r.finish(Cancelled, j.CancelReason, now)
		return
	}
	if !again || len(r.Attempts) >= MaxAttempts {
		r.finish(a.End, a.Reason, now)
		return
	}
	r.State = Pending
	r.NotBefore = now.Add(r.backoff())
	r.Reason = shorten(fmt.Sprintf("waiting: attempt %d %s: %s", len(r.Attempts), a.End, a.Reason))
}

// maxSameRefusals is how often a run is refused for one and the same reason before it ends: what
// several hosts say is not a matter of the host.
const maxSameRefusals = 3

// sameRefusals counts the newest attempts that were refused with the reason of the last one.
func (r *Run) sameRefusals() (n int) {
	for i := len(r.Attempts) - 1; i >= 0; i-- {
		a, last := &r.Attempts[i], &r.Attempts[len(r.Attempts)-1]
		if a.End != Refused || a.Reason != last.Reason {
			break
		}
		n++
	}
	return n
}

const (
	minBackoff = 250 * time.Millisecond
	maxBackoff = 5 * time.Minute
)

func (r *Run) backoff() time.Duration {
	wait := max(r.Backoff, minBackoff)
	for range len(r.Attempts) - 1 {
		wait = min(2*wait, maxBackoff)
	}
	return min(wait, maxBackoff)
}

// afterAttempt queues the run again if another attempt is due.
func (e *Engine) afterAttempt(j *Job) {
	if _, waits := j.WaitingSince(); waits {
		e.enqueue(j)
	}
}

// endAttempt ends an attempt that its host will not report on.
func (e *Engine) endAttempt(
	ctx context.Context, id job.ID, attempt AttemptID, end EndReason, reason string,
) {
	j, err := e.change(ctx, id, func(j *Job) (string, bool) {
		r := j.Current()
		a := r.Attempt(attempt)
		if a == nil || a.State == Ended {
			return "", false
		}
		if j.CancelReason != "" {
			end, reason = Cancelled, j.CancelReason
		}
		a.finish(end, shorten(reason), e.deps.Now())
		e.settleRun(j, r, a)
		return "attempt.ended", true
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot end an attempt", "job", id, "error", err)
		return
	}
	e.afterAttempt(j)
}

// Cancel ends what runs and what waits. Cancelling what has ended changes nothing.
func (e *Engine) Cancel(ctx context.Context, j *Job, reason string) (*Job, error) {
	live := false
	j, err := e.change(ctx, j.ID, func(j *Job) (string, bool) {
		r := j.Current()
		if r.State == Ended || j.CancelReason != "" {
			live = r.Live()
			return "", false
		}
		j.CancelReason, j.Cancelled = reason, e.deps.Now()
		if live = r.Live(); !live {
			r.finish(Cancelled, reason, e.deps.Now())
		} else {
			r.Reason = "being cancelled: " + reason
		}
		return "job.cancelled", true
	})
	if err != nil {
		return nil, err
	}
	if live {
		e.stop(ctx, j)
	}
	return j, nil
}

// stopGrace is what a container gets between SIGTERM and SIGKILL when its owner cancels.
const stopGrace = 10 * time.Second

// stop asks the host to end the newest attempt; when it does not answer, the chain ends the lease
// and so the pay.
func (e *Engine) stop(ctx context.Context, j *Job) {
	a := j.Current().Current()
	if a == nil || a.State == Ended || !a.Placed {
		return // not placed: leased() or the sweep will stop it
	}
	id, host := j.ID, a.Host
	s := Stop{Job: j.ID, Attempt: a.ID, Reason: j.CancelReason, Grace: stopGrace}
	lease, delivered := a.Lease.ID, a.Delivered
	e.once(a.ID, stopping, func(ctx context.Context) {
		stopCtx, cancel := context.WithTimeout(ctx, e.policy.AskTimeout)
		defer cancel()
		err := e.deps.Hosts.Stop(stopCtx, host, s)
		if err == nil && delivered {
			return // the host reports the end
		}
		if err := e.deps.Ledger.EndLease(ctx, lease); err != nil {
			e.deps.Log.ErrorContext(ctx, "cannot end a lease", "job", id, "error", err)
			return // the sweep tries again
		}
		e.endAttempt(ctx, id, s.Attempt, Cancelled, s.Reason)
	})
}

// holdBack makes a run that no candidate took wait a little before it is offered again.
func (e *Engine) holdBack(ctx context.Context, j *Job, cause error) {
	expires := j.Expires
	_, err := e.change(ctx, j.ID, func(j *Job) (string, bool) {
		r := j.Current()
		if r.State != Pending || r.Live() {
			return "", false
		}
		r.NotBefore, j.Expires = e.deps.Now().Add(time.Second), expires
		if cause != nil {
			r.Reason = shorten("waiting: " + cause.Error())
		}
		return "job.waiting", true
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot hold a run back", "job", j.ID, "error", err)
	}
}

// escrowTrouble ends a run whose escrow is gone, and holds it back when the ledger is away.
func (e *Engine) escrowTrouble(ctx context.Context, j *Job, cause error) {
	if !errors.Is(cause, ErrNotFound) {
		e.holdBack(ctx, j, fmt.Errorf("the ledger does not answer: %w", cause))
		return
	}
	e.endWaiting(ctx, j.ID, Exhausted, "its escrow was closed")
}

// endWaiting ends a run that has no attempt.
func (e *Engine) endWaiting(ctx context.Context, id job.ID, end EndReason, reason string) {
	_, err := e.change(ctx, id, func(j *Job) (string, bool) {
		r := j.Current()
		if r.State != Pending || r.Live() {
			return "", false
		}
		r.finish(end, reason, e.deps.Now())
		return "job.ended", true
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot end a run", "job", id, "error", err)
	}
}
