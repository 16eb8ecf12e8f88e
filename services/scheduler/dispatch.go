package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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
	q := &queue{store: e.deps.Store}
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
			e.sweep(ctx)
		}
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
		taken, due, err := q.turn(ctx, e.deps.Now(), func(ref Ref) bool {
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
	}
}

// try starts the placing of a run if a host fits and a slot is free. It reports whether the run
// is out of the queue.
func (e *Engine) try(ctx context.Context, ref Ref, slots chan struct{}) bool {
	if e.isInflight(ref.Run) {
		return true
	}
	j, err := e.deps.Store.Job(ctx, ref.Job)
	if errors.Is(err, ErrNotFound) {
		return true
	} else if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a waiting job", "job", ref.Job, "error", err)
		return false
	}
	if held, waits := j.WaitingSince(); !waits || held.Run != ref.Run {
		return true
	}
	live := e.book.Live(e.deps.Now())
	fit, reason := Match(&j.Spec, math.MaxUint64, live, j.skips(e.deps.Now()))
	if len(fit) == 0 {
		e.setWaiting(j.ID, ref.Run, reason)
		return false
	}
	select {
	case slots <- struct{}{}:
	default:
		return false
	}
	// Held here, so that the next run is matched with what this one leaves.
	fit = fit[:min(len(fit), maxCandidates)]
	e.book.Hold(fit[0].Offer.Host.Executor, j.Spec.Resources)
	e.setInflight(ref.Run, true)
	e.tasks.Go(func() {
		defer func() { <-slots; e.poke() }()
		e.place(ctx, j, fit)
		e.setInflight(ref.Run, false)
		e.requeue(ctx, j.ID)
	})
	return true
}

// avoidFor is how long a host that failed or declined a run is not asked for it again.
const avoidFor = 30 * time.Second

// skips names hosts that failed this run lately: another one is tried first.
func (j *Job) skips(now time.Time) func(*Offer) bool {
	attempts := j.Current().Attempts
	return func(o *Offer) bool {
		return slices.ContainsFunc(attempts, func(a Attempt) bool {
			hostsFault := a.End != Failed && a.End != Completed
			return hostsFault && a.Host.Executor == o.Host.Executor && now.Sub(a.Ended) < avoidFor
		})
	}
}

// requeue puts the job's newest run back in its line if it still waits.
func (e *Engine) requeue(ctx context.Context, id job.ID) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a job to queue it again", "job", id, "error", err)
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
