package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
)

// maxCandidates is how many hosts are asked for one run before it waits again.
const maxCandidates = 8

// Run takes up what an earlier life left and then places runs until ctx ends. It waits for the
// goroutines it started. ready is called once submissions may come.
func (e *Engine) Run(ctx context.Context, ready func()) error {
	defer e.tasks.Wait()
	defer e.end()
	defer close(e.stopped)
	first, cancel := context.WithTimeout(ctx, timeWithin)
	e.readTime(first)
	cancel()
	e.present()
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
	j, asked, err := e.waiting(ctx, ref.Job)
	if errors.Is(err, ErrNotFound) {
		return gone
	} else if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a waiting job", "job", ref.Job, "error", err)
		return notNow
	}
	now := e.deps.Now()
	e.rewound(ctx, j)
	r := j.Run(ref.Run)
	held, waits := j.WaitingSince(r)
	if !waits || held.Run != ref.Run {
		return gone
	}
	if held.Order.After(ref.Order) { // it stands elsewhere in the line now
		// Where that is may have come before this old place and have been forgotten for it.
		e.later(0, func(ctx context.Context) { e.requeue(ctx, ref.Job, ref.Run, Ref{}) })
		return gone
	}
	fit, reason := e.candidates(j, r, asked, now)
	expired := !j.Expires.IsZero() && !j.Expires.After(now)
	if len(fit) == 0 && !expired {
		e.setWaiting(j.ID, ref.Run, e.explain(r, reason, now))
		return notNow
	}
	return e.begin(ctx, j, r, fit, slots)
}

// waiting reads a job that waits, and which hosts are asked for its replicas at the moment. What is
// asked is looked at before the job is read: a replica that is placed in between is then seen in
// the one or the other, never in neither.
func (e *Engine) waiting(ctx context.Context, id job.ID) (*Job, map[RunID]Host, error) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil || !j.spread() {
		return j, nil, err
	}
	e.inflightMu.Lock()
	asked := maps.Clone(e.inflight)
	e.inflightMu.Unlock()
	j, err = e.deps.Store.Job(ctx, id)
	return j, asked, err
}

// spread tells whether the job's runs are to stand on hosts of their own.
func (j *Job) spread() bool { return j.Spec.Tasks == 0 && len(j.Runs) > 1 }

// begin places a run beside the dispatcher, unless that is being done or it is not its owner's
// turn, and then puts it back in its line. Only the dispatcher fills slots, so one is free.
func (e *Engine) begin(
	ctx context.Context, j *Job, r *Run, fit []Candidate, slots chan struct{},
) verdict {
	run, first := r.ID, Host{}
	if len(fit) > 0 {
		first = fit[0].Offer.Host
	}
	done, ok := e.refusals.turn(j.Owner, e.deps.Now())
	if !ok {
		e.setWaiting(j.ID, run, "waiting: "+errTurn.Error())
		return notNow
	}
	if !e.claim(run, first) {
		done()
		return gone
	}
	slots <- struct{}{}
	if len(fit) > 0 { // held here, so that the next run is matched with what this one leaves
		e.book.Hold(first.Executor, j.Spec.Resources)
	}
	stood, _ := j.WaitingSince(r)
	e.tasks.Go(func() {
		defer func() { <-slots; e.poke() }()
		e.place(ctx, j, r, fit)
		done()
		e.landed(run)
		e.requeue(ctx, j.ID, run, stood)
	})
	return taken
}

// explain adds a host's own words to the reason when hosts that would fit declined lately.
func (e *Engine) explain(r *Run, reason string, now time.Time) string {
	words, waits := strings.CutPrefix(r.Reason, "waiting: ")
	if len(e.notes.avoids(r.ID, now)) == 0 || !waits || words == "just submitted" {
		return reason
	}
	return reason + " (" + words + ")"
}

// requeueAgain is how long a run waits for the next try of which nothing could be read or written.
const requeueAgain = time.Second

// requeue puts a run back in its line if it still waits. If it waits as it stood before, the store
// took nothing of what came of it, as a full disk does: then a while later, else one host would be
// asked again and again.
func (e *Engine) requeue(ctx context.Context, id job.ID, run RunID, stood Ref) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a job to queue it again", "job", id, "error", err)
		e.later(requeueAgain, func(ctx context.Context) { e.requeue(ctx, id, run, Ref{}) })
		return
	}
	select {
	case <-ctx.Done():
	default:
		ref, waits := j.WaitingSince(j.Run(run))
		switch {
		case waits && ref.Place() == stood.Place() && ref.Due.Equal(stood.Due):
			e.later(requeueAgain, func(ctx context.Context) { e.requeue(ctx, id, run, Ref{}) })
		case waits:
			e.enqueue(j.Owner, []Ref{ref})
		}
	}
}

func (e *Engine) isInflight(r RunID) bool {
	e.inflightMu.Lock()
	defer e.inflightMu.Unlock()
	_, is := e.inflight[r]
	return is
}

// claim notes that the run is being placed, on the host first; false: it is already.
func (e *Engine) claim(r RunID, first Host) bool {
	e.inflightMu.Lock()
	defer e.inflightMu.Unlock()
	if _, is := e.inflight[r]; is {
		return false
	}
	e.inflight[r] = first
	return true
}

func (e *Engine) landed(r RunID) {
	e.inflightMu.Lock()
	defer e.inflightMu.Unlock()
	delete(e.inflight, r)
}

// candidates are the hosts to ask for the run. Replicas are spread: hosts of operators that run
// none of them come first, then hosts that run none, then any.
func (e *Engine) candidates(
	j *Job, r *Run, asked map[RunID]Host, now time.Time,
) (fit []Candidate, reason string) {
	skip, doubt := e.skips(r, now), e.doubts(j, r, now)
	if doubt != nil {
		fit, reason = e.fitting(j, r, asked, func(o *Offer) bool { return skip(o) || doubt(o) })
		if len(fit) > 0 || e.spared(j, r) {
			return fit, reason
		}
	}
	return e.fitting(j, r, asked, skip)
}

// fitting returns hosts that are not skipped, of which those come first that do not stand beside
// another replica: of other operators, then other hosts.
func (e *Engine) fitting(
	j *Job, r *Run, asked map[RunID]Host, skip func(*Offer) bool,
) (fit []Candidate, reason string) {
	now := e.deps.Now()
	operators, hosts := siblings(j, r, asked)
	for _, taken := range []func(*Offer) bool{
		func(o *Offer) bool { return operators[o.Host.Operator] },
		func(o *Offer) bool { return hosts[o.Host.Executor] },
	} {
		if len(hosts) == 0 {
			break
		}
		fit, _ = e.book.Best(&j.Spec, now, func(o *Offer) bool {
			return skip(o) || taken(o)
		}, maxCandidates)
		if len(fit) > 0 {
			return fit, ""
		}
	}
	return e.book.Best(&j.Spec, now, skip, maxCandidates)
}

// siblings are the operators and hosts that run the job's other replicas, or are asked to.
func siblings(
	j *Job, r *Run, asked map[RunID]Host,
) (map[sig.AccountID]bool, map[sig.PublicKey]bool) {
	operators, hosts := map[sig.AccountID]bool{}, map[sig.PublicKey]bool{}
	if !j.spread() {
		return operators, hosts
	}
	for i := range j.Runs {
		other := &j.Runs[i]
		host, is := asked[other.ID]
		if other.Live() {
			host, is = other.Current().Host, true
		}
		if is && other.ID != r.ID {
			operators[host.Operator], hosts[host.Executor] = true, true
		}
	}
	return operators, hosts
}
