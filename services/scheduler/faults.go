package scheduler

import (
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
)

// Bounds of the faults that are remembered.
const (
	maxFaultyJobs = 1024
	maxFaulty     = 256 // hosts of one job
)

// faults are the hosts that failed tasks of an array, for doubtFor: a task's attempts are forgotten
// with it, and what a few cheap hosts do to one they would do to each. A host that let a program
// of the array run to its end is not among them any more. Forgotten at a restart.
type faults struct {
	mu sync.Mutex
	of map[job.ID]map[sig.PublicKey]fault
}

type fault struct {
	operator sig.AccountID
	at       time.Time
}

func (f fault) past(now time.Time) bool { return now.Sub(f.at).Abs() >= doubtFor }

// note remembers how an attempt of the job ended.
func (f *faults) note(j *Job, a *Attempt, now time.Time) {
	if j.Spec.Tasks == 0 || a.State != Ended {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	held := f.of[j.ID]
	switch {
	case !a.hostsFault():
		if a.Began {
			delete(held, a.Host.Executor)
		}
		return
	case held == nil:
		f.sweep(now)
		held = map[sig.PublicKey]fault{}
		f.of[j.ID] = held
	}
	for host, of := range held {
		if of.past(now) || len(held) >= maxFaulty {
			delete(held, host)
		}
	}
	held[a.Host.Executor] = fault{a.Host.Operator, now}
}

// sweep makes room for one more job; mu is held.
func (f *faults) sweep(now time.Time) {
	if f.of == nil {
		f.of = map[job.ID]map[sig.PublicKey]fault{}
	}
	for id, held := range f.of {
		for host, of := range held {
			if of.past(now) {
				delete(held, host)
			}
		}
		if len(held) == 0 || len(f.of) >= maxFaultyJobs {
			delete(f.of, id)
		}
	}
}

// each calls fn with what is remembered of the job.
func (f *faults) each(id job.ID, now time.Time, fn func(sig.PublicKey, sig.AccountID)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for host, of := range f.of[id] {
		if !of.past(now) {
			fn(host, of.operator)
		}
	}
}

// othersServe tells whether hosts of an operator that is without a fault in this job, by this run's
// attempts and by other tasks of its array, serve it, be they full at the moment.
func (e *Engine) othersServe(j *Job, r *Run) bool {
	now := e.deps.Now()
	faulty := map[sig.AccountID]bool{}
	e.faults.each(j.ID, now, func(_ sig.PublicKey, operator sig.AccountID) {
		faulty[operator] = true
	})
	for i := range r.Attempts {
		if a := &r.Attempts[i]; a.hostsFault() {
			faulty[a.Host.Operator] = true
		}
	}
	return e.book.Serves(&j.Spec, now, func(o *Offer) bool { return faulty[o.Host.Operator] })
}

// spared tells whether the run was failed by hosts so often that it waits for those of others
// rather than be given to them again: each time costs its owner.
func (e *Engine) spared(j *Job, r *Run) bool {
	return !j.Spec.Always && r.HostFailures > e.policy.HostRetries && e.othersServe(j, r)
}
