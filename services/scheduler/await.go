package scheduler

import (
	"context"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
)

// maxAwaited bounds how many kept programs are remembered by their hosts. Jobs with more are looked
// at with every sweep.
const maxAwaited = 1 << 17

// awaited remembers by which hosts programs are kept that a run would go on with. Until such a host
// is heard nothing can be done about them, and a network that has lost many hosts has many such
// jobs: what is kept here is compared with the offers, and no job is read for that.
//
// It is told of each change of a job before that is saved, and of all that live at a start.
type awaited struct {
	mu   sync.Mutex
	n    int
	jobs map[job.ID][]absence
}

// absence is what is known of a host that keeps a program.
type absence struct {
	host sig.PublicKey
	// quiet and askFrom are those of the Hold.
	quiet, askFrom time.Time
}

// absences are those of the job's hosts that would be asked to go on with what they keep.
func (j *Job) absences() (all []absence) {
	for r, a := range j.kept {
		if r.continuable(a) {
			all = append(all, absence{a.Host.Executor, a.Hold.Quiet, a.Hold.AskFrom})
		}
	}
	return all
}

// set replaces what is remembered of a job. If there is no room nothing is.
func (w *awaited) set(id job.ID, all []absence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n -= len(w.jobs[id])
	if len(all) == 0 || w.n+len(all) > maxAwaited {
		delete(w.jobs, id)
		return
	}
	if w.jobs == nil {
		w.jobs = map[job.ID][]absence{}
	}
	w.jobs[id] = all
	w.n += len(all)
}

// has tells whether the hosts that keep programs of the job are remembered.
func (w *awaited) has(id job.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[id] != nil
}

// back are jobs of which a host has made an offer since it fell silent, and may be asked by now.
func (w *awaited) back(book *Book, now time.Time, most int) (ids []job.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, all := range w.jobs {
		for _, a := range all {
			o, ok := book.Get(a.host)
			if ok && o.Posted.After(a.quiet) && !now.Before(a.askFrom) {
				ids = append(ids, id)
				break
			}
		}
		if len(ids) >= most {
			break
		}
	}
	return ids
}

// lookAtReturned looks at the jobs of which a host that keeps a program makes offers again.
func (e *Engine) lookAtReturned(ctx context.Context, now time.Time) {
	for _, id := range e.awaited.back(e.book, now, duePage) {
		if j, err := e.deps.Store.Job(ctx, id); err == nil {
			e.look(j, now)
		}
	}
}

// putOff writes down when a job must be looked at, if that is not now as its record says: a host
// that was back is not in the book any more, or not yet after a start.
func (e *Engine) putOff(j *Job, now time.Time) {
	if next := e.lookAt(j); !next.IsZero() && !next.After(now) {
		return
	}
	e.once(AttemptID(j.Runs[0].ID), puttingOff, func(ctx context.Context) {
		lock := e.lock(j.ID)
		lock.Lock()
		defer lock.Unlock()
		held, err := e.deps.Store.Job(ctx, j.ID)
		if err == nil {
			err = e.save(ctx, Change{Job: held})
		}
		if err != nil {
			e.deps.Log.ErrorContext(ctx, "cannot put off a look at a job", "job", j.ID, "error", err)
		}
	})
}
