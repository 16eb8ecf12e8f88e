package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// RunID names one execution that was asked for; AttemptID one try on one host. Random.
type (
	RunID     [16]byte
	AttemptID [16]byte
)

// Bounds of what is remembered per job.
const (
	MaxLanes    = 100
	MaxAttempts = 100
	// MaxKept is how many attempts of a run are kept at the same time: the oldest programs.
	MaxKept = 4
	// KeptAttempts is how many attempts are remembered of a run that is restarted without end.
	KeptAttempts = 10
)

// State of a run or an attempt.
type State uint8

// The states, in the order they are passed.
const (
	Pending State = iota + 1
	Leased
	Starting
	Running
	Asleep
	Ended
)

// EndReason says how a run or an attempt ended.
type EndReason uint8

// The ways to end.
const (
	Completed EndReason = iota + 1
	Failed
	Cancelled
	Exhausted
	Expired
	Evicted
	HostLost
	Refused
	Fraud
)

// Delivery says who sends the task to the host.
type Delivery uint8

// The client delivers and the scheduler steps in after a grace, or the scheduler does at once.
const (
	ByClient Delivery = iota + 1
	ByScheduler
)

// Position on earth, micro-degrees.
type Position struct{ LatitudeMicro, LongitudeMicro int32 }

// Label is a name and value that a host carries and a job may ask for.
type Label struct{ Name, Value string }

// Spec is what matching needs to know of a job's specification; the signed text itself stays in
// Job.Revision.
type Spec struct {
	Name      string
	Chain     string
	Image     string   // CID
	Files     []string // CIDs of inputs
	Resources price.Resources
	Platforms []string // empty = any
	Allow     []sig.AccountID
	Deny      []sig.AccountID
	Labels    []Label
	Near      *Position
	Cap       *price.Prices // nil = any
	Strict    bool          // isolation strict is asked for
	MaxTotal  uint64        // grains
	MaxRate   uint64        // grains per hour; 0 = the escrow's
	Trust     uint64        // grains; 0 = the host's default
	Holdback  uint64        // grains of each lease that wait for the owner's acceptance
	// Notice is the longest that a host may want to be paid for when its lease is ended early.
	Notice  time.Duration
	RunTime time.Duration
	Retries uint32
	Backoff time.Duration
	// Lanes is how many runs there are at the same time; 0 = 1.
	Lanes uint32
	// Always: each lane's program is run for as long as it is paid, by the restart policy.
	Always  bool
	Restart Restart
	// Tasks is how many tasks an array has; 0 = no array.
	Tasks uint32
	// LostAfter is the silence after which a host counts as lost; 0 = the policy's.
	LostAfter time.Duration
	Keep      Keep
}

// Restart says when the program of an always job is run again after it ended.
type Restart uint8

// The restart policies.
const (
	RestartAlways Restart = iota
	RestartOnFailure
	RestartNever
)

// Keep says which attempt goes on when a host falls silent.
type Keep uint8

// The disconnect policies.
const (
	// KeepReplacement ends the silent host's lease and places the run again.
	KeepReplacement Keep = iota
	// KeepOriginal places the run again; once the silent host returns it goes on with the program that
	// it kept, under a new lease, and the replacement is stopped.
	KeepOriginal
	// KeepBest places the run again; until that lease is there the silent host may return.
	KeepBest
)

// Job is a job as the scheduler remembers it.
type Job struct {
	ID       job.ID
	Owner    sig.AccountID
	Escrow   tx.EscrowID
	Revision []byte // canonical SignedRevision, the first
	Spec     Spec
	// Update is the newest signed revision when that is not the first, Updated when it came.
	Update       []byte
	Updated      time.Time
	StorageToken string
	Delivery     Delivery
	Submitted    time.Time
	Traceparent  string
	// CancelReason is set once the owner asked for the end, Cancelled is when.
	CancelReason string
	Cancelled    time.Time
	// Expires is when the escrow as it was last seen does not pay for a new lease any more.
	Expires time.Time
	// FirstTotal is what the escrow's max_total was when the job was taken, grains; 0: not known. What
	// the owner raised it by since is added to the job's.
	FirstTotal uint64
	// Runs holds one run per lane; of an array the one of the lane's newest task.
	Runs []Run
	// Array is how far an array is.
	Array Array
}

// Array counts the tasks of an array. Tasks run in the order of their indexes.
type Array struct {
	// Next is the index of the next task that a lane takes.
	Next      uint32
	Completed uint32
	Failed    uint32 // ended otherwise
	// Closed: no lane takes another task; set when the escrow was seen to pay for none.
	Closed bool
}

// Run is one execution that was asked for.
type Run struct {
	ID      RunID
	State   State
	End     EndReason
	Reason  string
	Created time.Time
	Ended   time.Time
	// NotBefore holds a retry back.
	NotBefore time.Time
	// Retries and Backoff are the job's limits, copied when the run was made.
	Retries uint32
	Backoff time.Duration
	// Failures counts attempts that the program itself failed.
	Failures uint32
	// Slot is the run's lane of the escrow; Epoch that of the lane's newest lease that was asked
	// for: it rises before every lease and is never used again.
	Slot  uint32
	Epoch uint64
	// Lease is the lane's newest lease that was placed, which the next one supersedes.
	Lease tx.LeaseID
	// Task is the index of an array's task; Counted tells that its end is counted.
	Task    uint32
	Counted bool
	// Surplus: an update left this lane over.
	Surplus bool
	// Tries counts attempts, also those that are not remembered; Streak those that ended soon, one
	// after the other; HostFailures those since the program last ran that ended for reasons of hosts.
	Tries        uint32
	Streak       uint32
	HostFailures uint32
	Attempts     []Attempt
	// Ran tells that the program was seen to run, in whatever attempt.
	Ran bool
}

// Attempt is one try on one host.
type Attempt struct {
	ID     AttemptID
	State  State
	End    EndReason
	Reason string
	Host   Host
	Lease  SignedLease
	// Placed tells that the lease is on the chain.
	Placed bool
	// Delivered tells that the host has confirmed the task.
	Delivered bool
	Prices    price.Prices
	Created   time.Time
	Ended     time.Time
	// Told tells that the host itself reported the end.
	Told bool
	// Began tells that the program was seen to run.
	Began bool
	// Silent: the host is silent and another is sought. It goes on if it is heard before another's
	// lease is on the chain.
	Silent bool
	// Status is the newest report of the host, canonical AttemptStatus; nil before the first, and when
	// there is no room for it (maxStatuses).
	Status []byte
	// Reported is when the newest report was made, by the host's clock; Heard is when the host
	// was last heard of this attempt, by ours.
	Reported time.Time
	Heard    time.Time
	// EvictAt is when the host said that it will ask the program to end, by its clock; zero: it did
	// not. Moving: another is sought before, and this one goes on until that has the lane's lease.
	EvictAt time.Time
	Moving  bool
	// Kept: the attempt has ended, as another of its lane was leased, but its host may keep its
	// program running for a lease that goes on with it. Hold is what is known of that.
	Kept bool
	Hold Hold
	// Continues is the attempt whose program this one goes on with, zero for a program of its own;
	// Origin is the lane's epoch at which a program that is gone on with began, 0 for the lease's own.
	Continues AttemptID
	Origin    uint64
}

// SignedLease is a lease with its agent's signature.
type SignedLease struct {
	ID        tx.LeaseID
	Lease     tx.Lease
	Signature sig.Signature
}

// Host is how an executor is reached: what the client learns of who runs its job.
type Host struct {
	Executor    sig.PublicKey
	Operator    sig.AccountID
	Name        string
	Subject     string
	Certificate []byte // canonical Certificate
}

// Clone returns a copy that may be changed by itself. What is only ever replaced as a whole is
// shared: the revisions, the lists of the specification, and of attempts the reports, certificates
// and ack keys.
func (j *Job) Clone() *Job {
	out := *j
	out.Runs = slices.Clone(j.Runs)
	for i := range out.Runs {
		out.Runs[i].Attempts = slices.Clone(out.Runs[i].Attempts)
	}
	return &out
}

// Current returns the run of the last lane. A job has at least one.
func (j *Job) Current() *Run { return &j.Runs[len(j.Runs)-1] }

// Run returns the run with the id, or nil.
func (j *Job) Run(id RunID) *Run {
	for i := range j.Runs {
		if j.Runs[i].ID == id {
			return &j.Runs[i]
		}
	}
	return nil
}

// Current returns the newest attempt, or nil before the first.
func (r *Run) Current() *Attempt {
	if len(r.Attempts) == 0 {
		return nil
	}
	return &r.Attempts[len(r.Attempts)-1]
}

// Attempt returns the attempt with the id, or nil.
func (r *Run) Attempt(id AttemptID) *Attempt {
	for i := range r.Attempts {
		if r.Attempts[i].ID == id {
			return &r.Attempts[i]
		}
	}
	return nil
}

// Live tells whether an attempt holds or may hold a lease and is not given up as silent.
func (r *Run) Live() bool {
	a := r.Current()
	return r.State != Ended && a != nil && a.State != Ended && !a.Silent
}

// Waits tells whether the run waits to be placed, be it elsewhere than where it runs.
func (r *Run) Waits() bool { return r.State == Pending && !r.Live() || r.moving() != nil }

// Open tells whether an attempt of the run has not ended, be its host silent or not.
func (r *Run) Open() bool {
	return slices.ContainsFunc(r.Attempts, func(a Attempt) bool { return a.State != Ended })
}

// Live tells whether an attempt of the job has not ended, or its program is kept.
func (j *Job) Live() bool {
	return slices.ContainsFunc(j.Runs, func(r Run) bool {
		return slices.ContainsFunc(r.Attempts, func(a Attempt) bool { return a.State != Ended || a.Kept })
	})
}

// Attempt returns the attempt with the id and its run, or nils.
func (j *Job) Attempt(id AttemptID) (*Run, *Attempt) {
	for i := range j.Runs {
		if a := j.Runs[i].Attempt(id); a != nil {
			return &j.Runs[i], a
		}
	}
	return nil, nil
}

// finish ends the run. What is kept for it is let go.
func (r *Run) finish(end EndReason, reason string, now time.Time) {
	r.letGo()
	r.State, r.End, r.Reason, r.Ended = Ended, end, reason, now
}

// finish ends the attempt.
func (a *Attempt) finish(end EndReason, reason string, now time.Time) {
	a.State, a.End, a.Reason, a.Ended = Ended, end, reason, now
}

// String returns the state's name.
func (s State) String() string {
	names := [...]string{"unknown", "pending", "leased", "starting", "running", "asleep", "ended"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// String returns the reason's name.
func (e EndReason) String() string {
	names := [...]string{
		"unknown", "completed", "failed", "cancelled", "exhausted", "expired", "evicted",
		"host-lost", "refused", "fraud",
	}
	if int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("end(%d)", uint8(e))
}
