package scheduler

import (
	"fmt"
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
	MaxRuns     = 100
	MaxAttempts = 100
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
	RunTime   time.Duration
	Retries   uint32
	Backoff   time.Duration
}

// Job is a job as the scheduler remembers it.
type Job struct {
	ID           job.ID
	Owner        sig.AccountID
	Escrow       tx.EscrowID
	Revision     []byte // canonical SignedRevision
	Spec         Spec
	StorageToken string
	Delivery     Delivery
	Submitted    time.Time
	Traceparent  string
	// Epoch of the newest lease that was asked for; rises before every lease.
	Epoch uint64
	// CancelReason is set once the owner asked for the end, Cancelled is when.
	CancelReason string
	Cancelled    time.Time
	// Expires is when the escrow as it was last seen does not pay for a new lease any more.
	Expires time.Time
	Runs    []Run
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
	Attempts []Attempt
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
	// Status is the newest report of the host, canonical AttemptStatus; nil before the first.
	Status []byte
	// Reported is when the newest report was made, by the host's clock; Heard is when the host
	// was last heard of this attempt, by ours.
	Reported time.Time
	Heard    time.Time
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

// Current returns the newest run. A job has at least one.
func (j *Job) Current() *Run { return &j.Runs[len(j.Runs)-1] }

// State, End and Reason of a job are those of its newest run.
func (j *Job) State() (State, EndReason, string) {
	r := j.Current()
	return r.State, r.End, r.Reason
}

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

// Live tells whether the newest attempt holds or may hold a lease.
func (r *Run) Live() bool {
	a := r.Current()
	return r.State != Ended && a != nil && a.State != Ended
}

// finish ends the run.
func (r *Run) finish(end EndReason, reason string, now time.Time) {
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
