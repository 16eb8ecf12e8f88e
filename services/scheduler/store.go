package scheduler

import (
	"context"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
)

// MaxPendingPage bounds one page of the queue.
const MaxPendingPage = 1024

// Store keeps jobs and the queue of runs that wait.
//
// Durability: what Save was given is on disk, all of it or nothing, when Save returns.
// Concurrency: all methods may be called from any goroutine; the engine never saves one job from
// two goroutines at once. Retry: saving the same change twice is harmless. Errors: ErrNotFound
// from Job; anything else is the disk's, and the store may be used again after it.
type Store interface {
	// Job returns the job or ErrNotFound. The caller may change what it gets.
	Job(ctx context.Context, id job.ID) (*Job, error)
	// Save makes one change durable.
	Save(ctx context.Context, c Change) error
	Lister
}

// Lister reads the store's indexes. They are exact: they change with Save.
type Lister interface {
	// Jobs lists an owner's jobs, newest first, after the cursor, at most limit.
	Jobs(ctx context.Context, owner sig.AccountID, after Cursor, limit int) ([]*Job, error)
	// Owners lists owners that have pending runs, in order of their ids.
	Owners(ctx context.Context) ([]sig.AccountID, error)
	// Pending lists an owner's waiting runs, oldest first, after the cursor, at most limit.
	Pending(ctx context.Context, owner sig.AccountID, after Cursor, limit int) ([]Ref, error)
	// Live lists jobs whose newest run has an attempt that has not ended.
	Live(ctx context.Context) ([]job.ID, error)
}

// Change is what one Save writes.
type Change struct {
	// Job replaces the job's record; its place in the indexes follows from its state.
	Job *Job
	// Event is published after the change is durable; nil = none.
	Event *Event
}

// Event tells the world of a change of a job.
type Event struct {
	Type string
	Job  *Job
	Time time.Time
}

// Ref names a waiting run.
type Ref struct {
	Job  job.ID
	Run  RunID
	Time time.Time // when it began to wait: its place in the queue
}

// Cursor is a place in a listing; the zero value is before the first.
type Cursor struct {
	Time time.Time
	Job  job.ID
}

// Cursor returns the ref's place in the listing.
func (r Ref) Cursor() Cursor { return Cursor{Time: r.Time, Job: r.Job} }

// IsZero tells whether the cursor is before the first entry.
func (c Cursor) IsZero() bool { return c.Time.IsZero() }

// WaitingSince returns the ref under which the job's newest run waits, if it waits.
func (j *Job) WaitingSince() (Ref, bool) {
	r := j.Current()
	if r.State != Pending || r.Live() {
		return Ref{}, false
	}
	since := r.Created
	if r.NotBefore.After(since) {
		since = r.NotBefore
	}
	return Ref{Job: j.ID, Run: r.ID, Time: since}, true
}
