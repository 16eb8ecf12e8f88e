package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/tx"
)

// Report folds what a host tells of an attempt into its job. It is idempotent: a report that is
// older, repeated, of an unknown job, or by another host changes nothing. Of an attempt that ended
// without its host's word only the host's account of the end is kept, for people.
//
// A host knows an attempt from the question, so before it is known here that its lease is on the
// chain the chain is asked. If it is not there, or the ledger is away, nothing is said of what may
// never be: no host begins before, and one that was early is asked when the task is delivered. An
// error is the store's, or the end of ctx: the report must come again.
func (e *Engine) Report(ctx context.Context, rep Report) error {
	e.hear()
	oursOf(&rep, e.deps.Now())
	var err error
	if rep.endedOnChain, err = e.endedByOwner(ctx, &rep); err != nil {
		return err
	}
	lease, err := e.report(ctx, rep)
	if err != nil || lease == nil {
		return err
	}
	if there, err := e.onChain(ctx, *lease); err != nil || there == nil {
		return err
	}
	if err = e.leased(ctx, rep.Job, rep.Attempt); err == nil {
		_, err = e.report(ctx, rep)
	}
	return err
}

// report folds a report in, unless it is not known that the attempt's lease is on the chain: then
// it changes nothing and returns that lease.
func (e *Engine) report(ctx context.Context, rep Report) (unplaced *tx.LeaseID, err error) {
	var over *Attempt
	unwanted := false
	j, err := e.change(ctx, rep.Job, func(j *Job) (string, *Run) {
		r, a := j.Attempt(rep.Attempt)
		unwanted = rep.unwanted(r, a)
		if a == nil || r.ID != rep.Run || a.Host.Executor != rep.Executor ||
			rep.Time.Before(a.Reported) {
			return "", nil
		}
		if !a.Placed && a.State != Ended {
			lease := a.Lease.ID
			unplaced = &lease
			return "", nil
		}
		if a.State == Ended {
			return e.foldEnded(j, r, a, rep)
		}
		if rep.State < a.State && rep.State != Running ||
			rep.State == a.State && bytes.Equal(rep.Raw, a.Status) && rep.Raw != nil {
			return "", nil
		}
		e.fold(j, r, a, rep)
		if rep.State == Ended {
			last := *r.Attempt(rep.Attempt)
			over = &last
		}
		return "attempt." + rep.State.String(), r
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	} else if err != nil || unplaced != nil {
		return unplaced, err
	}
	if over != nil {
		e.settle(j, over, rep)
	}
	if unwanted {
		e.sendAwayWho(j, rep)
	}
	if r, a := j.Attempt(rep.Attempt); a != nil {
		e.follow(j, r, a, rep)
	}
	return nil, nil
}

// follow does what is due after a report was written down.
func (e *Engine) follow(j *Job, r *Run, a *Attempt, rep Report) {
	if rep.State == Running {
		e.dismiss(j, r)
	}
	if a.Kept {
		e.lookAtKept(j, r, a, e.deps.Now())
	}
	if r.State == Ended {
		for i := range r.Attempts { // those beside the one that completed it
			e.stop(j, r.Attempts[i].ID)
		}
	}
}

// foldEnded folds in what the host says of an attempt that has ended here without its word.
func (e *Engine) foldEnded(j *Job, r *Run, a *Attempt, rep Report) (string, *Run) {
	switch {
	case a.Told:
		return "", nil
	case rep.State != Ended && a.Kept:
		return e.heldBy(j, r, a, rep)
	case rep.State != Ended:
		return "", nil
	}
	a.Status, a.Reported, a.Told = rep.Raw, rep.Time, true
	if !a.Kept {
		return "attempt.told", r
	}
	a.Kept = false
	if rep.End == Completed && !j.Spec.Always { // that is what it was kept for
		a.End, a.Reason = Completed, shorten(rep.Reason)
		r.finish(Completed, a.Reason, e.deps.Now())
	}
	return "attempt.told", r
}

// fold writes a report into the attempt and its run.
func (e *Engine) fold(j *Job, r *Run, a *Attempt, rep Report) {
	a = r.returned(a)
	a.Delivered, a.Heard = true, e.deps.Now()
	a.Began = a.Began || rep.Ran || rep.State == Running || rep.State == Asleep
	r.Ran = r.Ran || a.Began
	if rep.State == Ended {
		rep.End, rep.Reason = e.verdict(j, r, a, &rep)
	}
	a.State, a.Reason, a.Status, a.Reported = rep.State, shorten(rep.Reason), rep.Raw, rep.Time
	a.Hold.Until = rep.HeldUntil
	if rep.State != Ended {
		e.leaves(j, r, a, rep.EvictAt)
		if a.begun() {
			r.original(a)
		}
		if a != r.Current() || r.State == Ended {
			return // another is asked in its place: it ends when that one is leased
		}
		r.State = rep.State
		if why, _ := j.stops(r); why == "" {
			r.Reason = a.Reason
		}
		return
	}
	a.Told = true
	a.finish(rep.End, a.Reason, e.deps.Now())
	e.settleRun(j, r, a)
}

// add remembers an attempt; of a run without end only the newest ones are kept.
func (r *Run) add(a Attempt, endless bool) {
	r.Attempts = append(r.Attempts, a)
	r.Tries++
	for endless && len(r.Attempts) > KeptAttempts {
		over := slices.IndexFunc(r.Attempts, func(a Attempt) bool {
			return a.State == Ended && !a.Kept
		})
		if over < 0 {
			return
		}
		r.Attempts = slices.Delete(r.Attempts, over, over+1)
	}
}

// replace ends the attempts in whose place another is leased, those of silent hosts, those that
// were told to go and those of a replacement that is not needed any more: their leases ended when
// its higher epoch began. Their programs are kept if the job wants that.
func (r *Run) replace(by *Attempt, keep bool, now time.Time) {
	for i := range r.Attempts {
		a := &r.Attempts[i]
		if a == by || a.State == Ended {
			continue
		}
		kept := keep && !a.Moving && a.Delivered && r.State != Ended
		switch {
		case a.Moving && !a.Silent:
			a.finish(Evicted, shorten("replaced by "+by.Host.Name+": "+a.Reason), now)
		case kept && a.Silent:
			a.finish(HostLost, shorten(a.Reason+", kept; its replacement is on "+by.Host.Name), now)
		case by.Origin != 0 && !a.Silent:
			a.finish(Cancelled, by.Host.Name+" is back and goes on with its program", now)
		default:
			a.finish(HostLost, "silent for too long: replaced by "+by.Host.Name, now)
		}
		if kept {
			r.keep(a)
		}
	}
}

// returned tells that the host of a silent attempt is heard again. The attempt goes on, as the
// newest of its run, unless another holds a lease in its place or is being asked. It returns the
// attempt, which may have moved.
func (r *Run) returned(a *Attempt) *Attempt {
	if !a.Silent || a.State == Ended || r.State == Ended ||
		a != r.Current() && r.Current().State != Ended {
		return a
	}
	back := *a
	back.Silent = false
	r.Attempts = slices.DeleteFunc(r.Attempts, func(other Attempt) bool { return other.ID == back.ID })
	r.Attempts = append(r.Attempts, back)
	r.State, r.Reason = back.State, back.Host.Name+" is back"
	return r.Current()
}

// endAttempt ends an attempt that its host will not report on.
func (e *Engine) endAttempt(
	ctx context.Context, id job.ID, attempt AttemptID, end EndReason, reason string,
) {
	_, err := e.change(ctx, id, func(j *Job) (string, *Run) {
		r, a := j.Attempt(attempt)
		if a == nil || a.State == Ended {
			return "", nil
		}
		if why, _ := j.stops(r); why != "" {
			end, reason = Cancelled, why
		}
		a.finish(end, shorten(reason), e.deps.Now())
		r.lingered(a)
		e.settleRun(j, r, a)
		return "attempt.ended", r
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot end an attempt", "job", id, "error", err)
	}
}

// Cancel ends what runs and what waits. Cancelling what has ended changes nothing.
func (e *Engine) Cancel(ctx context.Context, j *Job, reason string) (*Job, error) {
	j, err := e.change(ctx, j.ID, func(j *Job) (string, *Run) {
		if state, _, _ := j.State(); state == Ended || j.CancelReason != "" {
			return "", nil
		}
		j.CancelReason, j.Cancelled = reason, e.deps.Now()
		for i := range j.Runs {
			r := &j.Runs[i]
			r.stay()
			r.letGo()
			switch {
			case r.State == Ended:
			case r.Open():
				r.Reason = "being cancelled: " + reason
			default:
				r.finish(Cancelled, reason, e.deps.Now())
			}
		}
		return "job.cancelled", j.Current()
	})
	if err != nil {
		return nil, err
	}
	e.stopAll(j)
	return j, nil
}

// stopAll stops every attempt of the job that has not ended.
func (e *Engine) stopAll(j *Job) {
	for i := range j.Runs {
		for k := range j.Runs[i].Attempts {
			e.stop(j, j.Runs[i].Attempts[k].ID)
		}
	}
}

// stopGrace is what a container gets between SIGTERM and SIGKILL when its owner cancels.
const stopGrace = 10 * time.Second

// stop asks the host to end an attempt; when it does not answer, the chain ends the lease
// and so the pay.
func (e *Engine) stop(j *Job, attempt AttemptID) {
	r, a := j.Attempt(attempt)
	if a == nil || a.State == Ended || !a.Placed {
		return // not placed: leased() or the sweep will stop it
	}
	id, host := j.ID, a.Host
	why, _ := j.stops(r)
	s := Stop{Job: j.ID, Attempt: a.ID, Reason: why, Grace: stopGrace}
	lease, delivered := a.Lease.ID, a.Delivered
	e.once(a.ID, stopping, func(ctx context.Context) {
		stopCtx, cancel := context.WithTimeout(ctx, e.policy.AskTimeout)
		defer cancel()
		err := e.deps.Hosts.Stop(stopCtx, host, s)
		if err == nil && delivered {
			return // the host reports the end
		}
		if e.endLease(ctx, id, lease) { // else the sweep tries again
			e.endAttempt(ctx, id, s.Attempt, Cancelled, s.Reason)
		}
	})
}

// holdBack makes a run that no candidate took wait a little before it is offered again.
func (e *Engine) holdBack(ctx context.Context, j *Job, run RunID, cause error) {
	expires := j.Expires
	_, err := e.change(ctx, j.ID, func(j *Job) (string, *Run) {
		r := j.Run(run)
		if r == nil || !r.Waits() {
			return "", nil
		}
		now := e.deps.Now()
		r.NotBefore, j.Expires = now.Add(r.patience(cause, now)), expires
		if cause != nil {
			why := "waiting: " + cause.Error()
			r.say(why)
			e.notes.explain(run, shorten(why), now) // what was noted before is not so any more
		}
		return "job.waiting", r
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot hold a run back", "job", j.ID, "error", err)
	}
}

// How long a run waits to be offered again that no candidate took; for money longer the longer it
// has waited for it. The escrow is looked at anew each time: so soon is topping it up seen.
const (
	minPatience = time.Second
	maxPatience = time.Minute
	patienceOf  = 4 // a fourth of what it has waited
)

func (r *Run) patience(cause error, now time.Time) time.Duration {
	if !lacksMoney(cause) {
		return minPatience
	}
	since := r.Created
	if a := r.Current(); a != nil {
		since = latest(since, a.Ended)
	}
	return min(max(now.Sub(since)/patienceOf, minPatience), maxPatience)
}

// escrowTrouble ends a run whose escrow is gone, and holds it back when the ledger is away.
func (e *Engine) escrowTrouble(ctx context.Context, j *Job, r *Run, cause error) {
	if !errors.Is(cause, ErrNotFound) {
		e.holdBack(ctx, j, r.ID, fmt.Errorf("the ledger does not answer: %w", cause))
		return
	}
	e.endWaiting(ctx, j.ID, r.ID, Exhausted, "its escrow was closed")
}

// endWaiting ends a run that has no attempt, and the search of one that runs, as the escrow pays
// for no lease any more. It closes an array: its other tasks would end the same way.
func (e *Engine) endWaiting(
	ctx context.Context, id job.ID, run RunID, end EndReason, reason string,
) {
	_, err := e.change(ctx, id, func(j *Job) (string, *Run) {
		r := j.Run(run)
		if r == nil || !r.Waits() {
			return "", nil
		}
		if a := r.moving(); a != nil { // it runs on, and no other will
			r.stay()
			r.Reason = shorten(a.Reason + "; it is placed nowhere else: " + reason)
			return "job.waiting", r
		}
		r.finish(end, reason, e.deps.Now())
		j.Array.Closed = j.Spec.Tasks > 0
		return "job.ended", r
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot end a run", "job", id, "error", err)
	}
}
