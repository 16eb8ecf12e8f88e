package scheduler

import (
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

// settleRun decides what an ended attempt means for its run: the one retry policy.
//
//   - completed, cancelled, exhausted, expired: the run ends so, but for an always job whose money
//     ended: it waits for more.
//   - failed: tried again up to limits.retries times, then failed.
//   - refused, evicted, host-lost, and expired before the program ran: the host's or the
//     network's affair; tried again elsewhere up to HostRetries times, and then as long as hosts
//     of an operator serve it of whom none failed the job; then ended so.
//   - refused by all whom it could be given to, in the same words: the job's own fault, such as an
//     image that is nowhere; ended so.
//   - of an always job: completed and failed by its restart policy, without end; a lease that is
//     over is followed by another at once; what hosts do never ends it, else a few cheap ones that
//     begin nothing could, but one that never ran ends if all refuse it, three operators at least.
//
// Nothing is tried again once the owner cancelled. A further attempt waits backoff x 2^n, at most
// maxBackoff.
func (e *Engine) settleRun(j *Job, r *Run, a *Attempt) {
	e.faults.note(j, a, e.deps.Now())
	if r.State == Ended {
		return
	}
	if a.End == Completed && !j.Spec.Always { // whatever else there is of it is stopped
		r.finish(Completed, a.Reason, e.deps.Now())
		return
	}
	if next := r.Current(); a != next { // what goes on is another attempt
		if next.State == Pending {
			r.State, r.Reason = Pending, next.Reason // which is only asked for
		}
		return
	}
	now := e.deps.Now()
	r.streak(a)
	again := e.again(j, r, a)
	if r.goesOn(a, again, now) {
		return
	}
	if why, _ := j.stops(r); again && why != "" {
		r.finish(Cancelled, why, now)
		return
	}
	if !again || !j.Spec.Always && len(r.Attempts) >= MaxAttempts {
		r.finish(a.End, a.Reason, now)
		return
	}
	r.State = Pending
	wait := r.pause(a)
	if a.hostsFault() && !j.Spec.Always && r.HostFailures > e.policy.HostRetries {
		wait = min(wait, max(r.Backoff, othersPause))
	}
	r.NotBefore = now.Add(wait)
	r.Reason = shorten(fmt.Sprintf("waiting: attempt %d %s: %s", r.Tries, a.End, a.Reason))
}

// again tells whether the run is tried again after the attempt.
func (e *Engine) again(j *Job, r *Run, a *Attempt) bool {
	restarts := j.Spec.Always && j.Spec.Restart != RestartNever
	switch {
	case a.End == Completed:
		return j.Spec.Always && j.Spec.Restart == RestartAlways
	case a.End == Failed:
		r.Failures++
		return restarts || r.Failures <= r.Retries
	case a.End == Expired && a.Began, a.End == Exhausted:
		return j.Spec.Always
	case a.End == Cancelled && !j.Spec.Always:
		return false
	case a.End == Cancelled && j.stoppedBefore(a):
		return true // it was told to stop by an update that a later one took back
	case a.End == Refused, a.End == Evicted, a.End == HostLost, a.End == Expired,
		a.End == Cancelled: // of an always job that nobody cancelled
		if a.Began && j.Spec.Always {
			r.HostFailures = 0
		}
		r.HostFailures++
		if j.Spec.Always {
			return r.Ran || !e.refusedByAll(j, r)
		}
		if r.HostFailures > e.policy.HostRetries && (e.policy.HostRetries == 0 || !e.othersServe(j, r)) {
			return false
		}
		return !e.refusedByAll(j, r)
	}
	return false
}

// othersPause bounds the wait of a run that hosts failed so often that it is given to others
// alone: what is wrong with the job itself, such as an image that is nowhere, is known once all
// refused it.
const othersPause = 10 * time.Second

// steady is how long a program must have been leased for the next backoff to be the first again.
const steady = 10 * time.Minute

// streak counts the attempt for the backoff.
func (r *Run) streak(a *Attempt) {
	if a.Began && a.Ended.Sub(a.Created) >= steady || a.servedOut() {
		r.Streak = 0
	}
	if !a.servedOut() {
		r.Streak++
	}
}

// servedOut tells whether the attempt's host served for all that its lease paid for, and that was
// more than a moment.
func (a *Attempt) servedOut() bool { return a.served() && a.Ended.Sub(a.Created) >= leastLife }

// pause is how long the run waits after the attempt: not at all if nothing went wrong.
func (r *Run) pause(a *Attempt) time.Duration {
	if a.servedOut() {
		return 0
	}
	return r.backoff()
}

// maxSameRefusals is how often a run is refused for one and the same reason before it can end for
// that; of one that is to run for good each operator counts once.
const maxSameRefusals = 3

// refusedByAll tells whether the newest refusals of the run are a matter of the job and not of
// hosts: they are in the same words, and nobody else is left to give it to. Hosts are cheap to
// certify, and so are operators: a few that ask little must not speak for all others.
func (e *Engine) refusedByAll(j *Job, r *Run) bool {
	n, by := r.sameRefusals()
	if j.Spec.Always {
		n = len(by)
	}
	return n >= maxSameRefusals && !e.book.Serves(&j.Spec, e.deps.Now(), func(o *Offer) bool {
		return by[o.Host.Operator]
	})
}

// sameRefusals counts the newest attempts that were refused with the reason of the last one, and
// names the operators whose hosts did.
func (r *Run) sameRefusals() (n int, by map[sig.AccountID]bool) {
	by = map[sig.AccountID]bool{}
	for i := len(r.Attempts) - 1; i >= 0; i-- {
		a, last := &r.Attempts[i], &r.Attempts[len(r.Attempts)-1]
		if a.End != Refused || a.Reason != last.Reason {
			break
		}
		n++
		by[a.Host.Operator] = true
	}
	return n, by
}

const (
	minBackoff = 250 * time.Millisecond
	maxBackoff = 5 * time.Minute
	// maxDoublings of minBackoff are more than maxBackoff.
	maxDoublings = 16
)

func (r *Run) backoff() time.Duration {
	wait := max(r.Backoff, minBackoff)
	for range min(r.Streak, maxDoublings) - min(r.Streak, 1) {
		wait = min(2*wait, maxBackoff)
	}
	return min(wait, maxBackoff)
}
