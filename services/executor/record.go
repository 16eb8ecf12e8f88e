package executor

import (
	"context"
	"time"

	"github.com/united-containers/ucn/kit/event"
)

// Phase is how far an executor has come with an attempt. Phases only rise.
type Phase int

// The phases. What an executor is about to do is on disk before it does it.
const (
	PhaseAsked   Phase = iota + 1 // a lease is signed; capacity is held for it
	PhaseTaken                    // the lease is on the chain and the task is here
	PhaseRunning                  // the program was started
	PhaseEnded                    // the outcome is fixed and told; the last charge may be open
	PhaseClosed                   // nothing is left to do
)

// State returns what others see of the phase.
func (p Phase) State() AttemptState {
	switch p {
	case PhaseAsked:
		return AttemptLeased
	case PhaseTaken:
		return AttemptStarting
	case PhaseRunning:
		return AttemptRunning
	default:
		return AttemptEnded
	}
}

// StopCause says why an attempt is being ended from outside of its program.
type StopCause struct {
	Reason  EndReason
	Message string
	Grace   time.Duration
}

// Record is all that an executor knows of one attempt, as its journal keeps it. It holds no
// secret values.
type Record struct {
	// What was asked; never changes.
	Ask     Ask
	Lease   SignedLease
	Prices  Prices
	Asked   time.Time
	Trace   string // W3C traceparent of the question
	Request Hash   // of the question, to know it again

	Phase   Phase
	Changed time.Time // of the phase

	// Since PhaseTaken.
	LeaseFrom  time.Time // block time at which the lease began
	Token      string    // the owner's for storage; cleared when closed
	TokenUntil time.Time // when it ends; zero: not known
	TokenOwned bool      // the owner brought it himself, and not a scheduler for him
	TaskTrace  string    // W3C traceparent of the task
	Private    bool      // the task brought registry credentials, which are never written down
	Waiting    string    // what the start waits for, in a sentence; empty: it goes on

	// Since PhaseRunning.
	Tally   Tally
	Note    SignedNote // newest; zero: none yet
	Ack     *Ack       // highest countersigned
	AckNote SignedNote // the note that Ack countersigns
	Stop    *StopCause // why it is being stopped

	Evict *Eviction // that it is to go; in any phase
	Marks []Mark    `json:",omitempty"` // of its notes, ascending
	Cut   *Cut      `json:",omitempty"` // that its lease ended before its last note
	Hold  *Hold     `json:",omitempty"` // that it goes on though its lease was superseded

	Charged uint64 // highest cumulative that a charge named
	Paid    uint64 // grains the chain paid us

	// Of one that continues another, since PhaseRunning.
	Container AttemptID `json:",omitempty"` // whose container it runs; empty: its own
	Ran       uint64    `json:",omitempty"` // ms that the program ran before
	PaidFor   uint64    `json:",omitempty"` // ms of those that its leases before were paid for
	Unpaid    uint64    `json:",omitempty"` // ms that it went on for nothing between its leases

	// Since PhaseEnded.
	Outcome  *Outcome
	HandedTo AttemptID `json:",omitempty"` // the attempt that its program goes on as

	// Held since PhaseClosed: the chain may hold part of the pay back for the owner's word.
	Held bool
}

// Status returns what others are told of the attempt as it stands.
func (r *Record) Status(reason string) Status {
	return Status{
		Job: r.Ask.Job, Run: r.Ask.Run, Attempt: r.Ask.Attempt, State: r.Phase.State(),
		Reason: reason, Time: r.Changed, Lease: r.Lease.ID, Usage: r.Note.Usage,
		Amount: r.Note.Note.Cumulative, Outcome: r.Outcome, EvictAt: r.evictAt(),
		HeldUntil: r.heldUntil(), Continues: r.Ask.Continues,
	}
}

// Acked returns the highest countersigned cumulative, grains.
func (r *Record) Acked() uint64 {
	if r.Ack == nil {
		return 0
	}
	return r.Ack.Note.Cumulative
}

// Covered returns the most that the chain would pay by now, grains: what is countersigned and the
// trust beyond it, within the budget.
func (r *Record) Covered() uint64 {
	return min(add(r.Acked(), r.Lease.Lease.Trust), r.Lease.Lease.Budget)
}

// Journal is the executor's memory on its own disk.
//
// Durability: Save and Publish return nil when everything is on disk. When they return an error,
// nothing or everything of it is there, never a part: repeat it, it is harmless except that the
// events may be told twice.
// Concurrency: any goroutine; one record is saved by one goroutine at a time.
type Journal interface {
	// Save replaces the attempt's record and puts the events into the outbox, both or neither.
	Save(ctx context.Context, r Record, events ...event.Event) error
	// SaveBoth is Save of two records: all of it, or nothing.
	SaveBoth(ctx context.Context, one, other Record, events ...event.Event) error
	// Publish puts events into the outbox.
	Publish(ctx context.Context, events ...event.Event) error
	// Unclosed returns every record that is not closed, in no order.
	Unclosed(ctx context.Context) ([]Record, error)
	// Held returns at most limit closed records that are held, by attempt id, after the one given:
	// fewer when they take much memory. Only an empty answer is the end.
	Held(ctx context.Context, after AttemptID, limit int) ([]Record, error)
	// Get returns the record of an attempt; ErrNoAttempt when there is none.
	Get(ctx context.Context, id AttemptID) (Record, error)
	// List returns at most limit records asked before the time given (zero: all), newest first:
	// fewer when they take much memory. Only an empty answer is the end.
	List(ctx context.Context, before time.Time, limit int) ([]Record, error)
	// SaveHost replaces what the operator said and puts the events into the outbox, both or neither;
	// Host returns it, zero when nothing was said.
	SaveHost(ctx context.Context, s HostState, events ...event.Event) error
	Host(ctx context.Context) (HostState, error)
	// Forget deletes the closed records but the newest keep, and those that are held.
	Forget(ctx context.Context, keep int) error
}
