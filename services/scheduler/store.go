package scheduler

import (
	"bytes"
	"cmp"
	"context"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
)

// MaxPendingPage bounds one page of the queue, MaxPendingScan the entries looked at for it.
const (
	MaxPendingPage = 1024
	MaxPendingScan = 4096
)

// Store keeps jobs and the queue of runs that wait.
//
// Durability: what Save was given is on disk, all of it or nothing, when Save returns.
// Concurrency: all methods may be called from any goroutine; the engine never saves one job from
// two goroutines at once. Retry: saving the same change twice is harmless. Errors: ErrNotFound
// from Job; anything else is the disk's, and the store may be used again after it.
type Store interface {
	// Job returns the job or ErrNotFound. The caller may change what it gets, as Job.Clone says.
	Job(ctx context.Context, id job.ID) (*Job, error)
	// Save makes one change durable.
	Save(ctx context.Context, c Change) error
	// Tasks returns a chunk of an array's tasks, TasksPerChunk bytes; nil when none of it ended.
	Tasks(ctx context.Context, id job.ID, chunk uint32) ([]byte, error)
	// Claims lists leases that must be looked after by a time, soonest first, behind a claim (zero =
	// from the first), at most limit.
	Claims(ctx context.Context, after Claim, by time.Time, limit int) ([]Claim, error)
	// Claimed makes durable that claims were looked after, and which are to be again.
	Claimed(ctx context.Context, done, again []Claim) error
	Lister
}

// Lister reads the store's indexes. They are exact: they change with Save.
type Lister interface {
	// Jobs lists an owner's jobs without their revisions.
	Jobs(ctx context.Context, q JobQuery) ([]*Job, error)
	// Owners lists owners that have pending runs, in order of their ids.
	Owners(ctx context.Context) ([]sig.AccountID, error)
	// Pending lists an owner's waiting runs in their order behind a place, without those whose
	// shape is skipped (nil = none).
	Pending(ctx context.Context, q PendingQuery) (PendingPage, error)
	// Ahead counts the owner's waiting runs before a place, up to most.
	Ahead(ctx context.Context, owner sig.AccountID, at Place, most int) (int, error)
	// Count tells how many runs wait and how many owners they belong to.
	Count(ctx context.Context) (Count, error)
	// CountOf tells how many runs of the owner wait.
	CountOf(ctx context.Context, owner sig.AccountID) (int, error)
	// Live lists jobs with an attempt that has not ended or is kept, by id, behind after
	// (zero = from the first), at most limit.
	Live(ctx context.Context, after job.ID, limit int) ([]job.ID, error)
	// Due lists jobs that must be looked at by a time, soonest first, behind a cursor.
	Due(ctx context.Context, after Cursor, by time.Time, limit int) ([]Cursor, error)
}

// JobQuery asks for an owner's jobs.
type JobQuery struct {
	Owner sig.AccountID
	// After is the last job of the page before; zero = from the beginning.
	After Cursor
	Limit int
	// Oldest lists the oldest first, otherwise the newest.
	Oldest bool
	// Since and Until bound the time of submission: Since <= t < Until; zero = unbounded.
	Since, Until time.Time
}

// PendingQuery asks for an owner's waiting runs.
type PendingQuery struct {
	Owner sig.AccountID
	After Place
	Limit int // at most MaxPendingPage
	Skip  func(Shape) bool
}

// PendingPage is a part of an owner's queue.
type PendingPage struct {
	Refs []Ref
	// Next is the place up to which was looked; More tells that something may stand behind it.
	Next Place
	More bool
}

// Count is how much waits.
type Count struct{ Runs, Owners int }

// Change is what one Save writes.
type Change struct {
	// Job replaces the job's record; its place in the indexes follows from its state.
	Job *Job
	// Tasks replaces chunks of an array's tasks.
	Tasks map[uint32][]byte
	// Claims are of attempts that ended with this change.
	Claims []Claim
	// Event is published after the change is durable; nil = none.
	Event *Event
	// Look is when somebody must look after the job; zero = never.
	Look time.Time
}

// Event tells the world of a change of a job.
type Event struct {
	Type string
	Job  *Job
	// Run is the run that the change is of.
	Run  *Run
	Time time.Time
}

// Ref names a waiting run with all that the queue needs to know of it.
type Ref struct {
	Job job.ID
	Run RunID
	// Order is its place in the queue: when it began to wait, less what it gains by its bid.
	Order time.Time
	// Due is when it may be placed.
	Due   time.Time
	Shape Shape
	// Size is what it takes of a host, in thousandths of a core or as much memory; at least 1.
	Size uint32
	// Bid is the class of what it pays.
	Bid uint8
}

// Place is a place in an owner's queue; the zero value is before the first.
type Place struct {
	Order time.Time
	Job   job.ID
	Run   RunID
}

// Place returns where the ref stands.
func (r Ref) Place() Place { return Place{Order: r.Order, Job: r.Job, Run: r.Run} }

// IsZero tells whether the place is before the first entry.
func (p Place) IsZero() bool { return p == Place{} }

// Compare sorts places.
func (p Place) Compare(q Place) int {
	return cmp.Or(p.Order.Compare(q.Order), bytes.Compare(p.Job[:], q.Job[:]),
		bytes.Compare(p.Run[:], q.Run[:]))
}

// Cursor is a place in a listing of jobs; the zero value is before the first.
type Cursor struct {
	Time time.Time
	Job  job.ID
}

// IsZero tells whether the cursor is before the first entry.
func (c Cursor) IsZero() bool { return c.Time.IsZero() }

// WaitingSince returns the ref under which the job's run waits, if it waits.
func (j *Job) WaitingSince(r *Run) (Ref, bool) {
	if r == nil || !r.Waits() {
		return Ref{}, false
	}
	since := r.Created
	if r.NotBefore.After(since) {
		since = r.NotBefore
	}
	bid := j.Spec.bid()
	order := since.Add(-lead(bid))
	if r.moving() != nil {
		order = order.Add(-moveLead)
	}
	return Ref{
		Job: j.ID, Run: r.ID, Due: since, Order: order, Bid: bid,
		Shape: j.Spec.Shape(), Size: j.Spec.size(),
	}, true
}

// Waiting returns the refs under which runs of the job wait.
func (j *Job) Waiting() []Ref {
	var refs []Ref
	for i := range j.Runs {
		if ref, waits := j.WaitingSince(&j.Runs[i]); waits {
			refs = append(refs, ref)
		}
	}
	return refs
}
