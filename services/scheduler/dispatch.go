package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/job"
)

// maxCandidates is how many hosts are asked for one run before it waits again.
const maxCandidates = 8

// Run takes up what an earlier life left and then places runs until ctx ends. It waits for the
// goroutines it started. ready is called once submissions may come.
func (e *Engine) Run(ctx context.Context, ready func()) error {
	defer e.tasks.Wait()
	defer e.end()
	defer close(e.stopped)
	e.began = e.deps.Now()
	e.hear()
	q := &queue{
		store: e.deps.Store, freed: e.book.Freed,
		skip: func(s Shape) bool { return e.book.Hopeless(s) != "" },
	}
	if err := q.load(ctx); err != nil {
		return fmt.Errorf("load the queue: %w", err)
	}
	if err := e.resume(ctx); err != nil {
		return fmt.Errorf("resume live attempts: %w", err)
	}
	ready()
	slots := make(chan struct{}, e.policy.Asks)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case in := <-e.inbox:
			q.add(in.owner, in.ref)
		case <-e.wake:
		case <-timer.C:
		}
		e.sweep(ctx)
		e.drainInbox(q) // first: whoever just came has a turn too
		next, err := e.dispatch(ctx, q, slots)
		if err != nil {
			e.deps.Log.ErrorContext(ctx, "dispatch failed", "error", err)
		}
		timer.Reset(next)
	}
}

func (e *Engine) drainInbox(q *queue) {
	for range maxInbox {
		select {
		case in := <-e.inbox:
			q.add(in.owner, in.ref)
		default:
			return
		}
	}
}

// dispatch goes round the owners until nothing more can be placed, and returns how long to wait.
func (e *Engine) dispatch(
	ctx context.Context, q *queue, slots chan struct{},
) (time.Duration, error) {
	next := e.policy.Tick
	for {
		taken, due, err := q.round(ctx, e.deps.Now(), func(ref Ref) verdict {
			return e.try(ctx, ref, slots)
		})
		if err != nil {
			return next, err
		}
		if wait := due.Sub(e.deps.Now()); !due.IsZero() && wait < next {
			next = max(wait, time.Millisecond)
		}
		if taken == 0 {
			return next, nil
		}
		e.drainInbox(q) // whoever just came has a turn too
	}
}

// try starts the placing of a run if a host fits and a slot is free.
func (e *Engine) try(ctx context.Context, ref Ref, slots chan struct{}) verdict {
	if len(slots) == cap(slots) {
		return nobodyNow
	}
	if e.isInflight(ref.Run) {
		return gone
	}
	if why := e.book.Hopeless(ref.Shape); why != "" {
		if e.watchers.watched(ref.Job) {
			e.setWaiting(ref.Job, ref.Run, why)
		}
		return notNow
	}
	j, err := e.deps.Store.Job(ctx, ref.Job)
	if errors.Is(err, ErrNotFound) {
		return gone
	} else if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a waiting job", "job", ref.Job, "error", err)
		return notNow
	}
	now := e.deps.Now()
	held, waits := j.WaitingSince()
	if !waits || held.Run != ref.Run || held.Order.After(ref.Order) {
		return gone // what it waits for now stands elsewhere in the line
	}
	fit, reason := e.book.Best(&j.Spec, now, e.skips(j, now), maxCandidates)
	expired := !j.Expires.IsZero() && !j.Expires.After(now)
	if len(fit) == 0 && !expired {
		e.setWaiting(j.ID, ref.Run, e.explain(j, reason, now))
		return notNow
	}
	e.begin(ctx, j, fit, slots)
	return taken
}

// begin places a run beside the dispatcher. Only the dispatcher fills slots, so one is free.
func (e *Engine) begin(ctx context.Context, j *Job, fit []Candidate, slots chan struct{}) {
	slots <- struct{}{}
	run := j.Current().ID
	if len(fit) > 0 { // held here, so that the next run is matched with what this one leaves
		e.book.Hold(fit[0].Offer.Host.Executor, j.Spec.Resources)
	}
	e.setInflight(run, true)
	e.tasks.Go(func() {
		defer func() { <-slots; e.poke() }()
		e.place(ctx, j, fit)
		e.setInflight(run, false)
		e.requeue(ctx, j.ID)
	})
}

// explain adds a host's own words to the reason when hosts that would fit declined lately.
func (e *Engine) explain(j *Job, reason string, now time.Time) string {
	words, waits := strings.CutPrefix(j.Current().Reason, "waiting: ")
	if len(e.notes.avoids(j.Current().ID, now)) == 0 || !waits || words == "just submitted" {
		return reason
	}
	return reason + " (" + words + ")"
}

// avoidFor is how long a host that failed or declined a run is not asked for it again.
const avoidFor = 30 * time.Second

// skips names hosts that failed or declined this run lately: another one is tried first.
func (e *Engine) skips(j *Job, now time.Time) func(*Offer) bool {
	attempts := j.Current().Attempts
	avoid := e.notes.avoids(j.Current().ID, now)
	return func(o *Offer) bool {
		return avoid[o.Host.Executor] || slices.ContainsFunc(attempts, func(a Attempt) bool {
			hostsFault := a.End != Failed && a.End != Completed
			return hostsFault && a.Host.Executor == o.Host.Executor && now.Sub(a.Ended) < avoidFor
		})
	}
}

// requeueAgain is how long a run that could not be read waits for the next try.
const requeueAgain = time.Second

// requeue puts the job's newest run back in its line if it still waits.
func (e *Engine) requeue(ctx context.Context, id job.ID) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a job to queue it again", "job", id, "error", err)
		e.later(requeueAgain, func(ctx context.Context) { e.requeue(ctx, id) })
		return
	}
	select {
	case <-ctx.Done():
	default:
		e.enqueue(j)
	}
}

func (e *Engine) isInflight(r RunID) bool {
	e.inflightMu.Lock()
	defer e.inflightMu.Unlock()
	return e.inflight[r]
}

func (e *Engine) setInflight(r RunID, is bool) {
	e.inflightMu.Lock()
	defer e.inflightMu.Unlock()
	if is {
		e.inflight[r] = true
	} else {
		delete(e.inflight, r)
	}
}
