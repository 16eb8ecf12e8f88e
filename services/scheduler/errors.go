package scheduler

import "errors"

// Errors that a caller must act on. The text around them says what to do.
var (
	// ErrNotFound: there is no such job, or it belongs to somebody else.
	ErrNotFound = errors.New("no such job")
	// ErrOvertaken: another revision came first.
	ErrOvertaken = errors.New("another revision of the job came first")
	// ErrOver: the job has ended or is being cancelled.
	ErrOver = errors.New("the job has ended or is being cancelled")
	// ErrEscrow: the escrow does not pay for this job.
	ErrEscrow = errors.New("the escrow does not pay for this job")
	// ErrExhausted: what an always job has left does not pay for another lease, until its owner tops
	// the escrow up.
	ErrExhausted = errors.New("exhausted")
	// ErrConflict: the job exists with another escrow.
	ErrConflict = errors.New("the job was submitted with another escrow")
	// ErrFull: too many watch a job already.
	ErrFull = errors.New("too many watch this job already")
	// ErrQueueFull: the queue takes no more of anybody.
	ErrQueueFull = errors.New("the queue is full")
	// ErrOwnerFull: the queue takes no more of this owner.
	ErrOwnerFull = errors.New("too many runs of this account wait")
	// ErrLeaseFee: an escrow grants less for a lease than this scheduler takes. Comes with ErrEscrow.
	ErrLeaseFee = errors.New("its lease fee is too low")
	// ErrDeclined: a host does not take the job; the text is its own.
	ErrDeclined = errors.New("declined")
	// ErrNotContinuable: a host has no program that the lease it was asked for could go on with.
	// Comes with ErrDeclined.
	ErrNotContinuable = errors.New("there is no program to go on with")
	// ErrUnreachable: a host does not answer.
	ErrUnreachable = errors.New("host does not answer")
	// ErrAbsent: the way to a host works, but it is not there. Comes with ErrUnreachable.
	ErrAbsent = errors.New("host is not connected")
	// ErrForgotten: a host does not know the attempt that it was asked for.
	ErrForgotten = errors.New("host does not know the attempt")
	// ErrNotPlaced: a lease is not on the chain, for reasons that are not its host's. If they are
	// its escrow's it comes with ErrEscrow.
	ErrNotPlaced = errors.New("the lease could not be placed")
	// ErrEndRefused: the chain does not let this scheduler end a lease, and will not: its escrow has
	// another assigner by now.
	ErrEndRefused = errors.New("the chain does not let this scheduler end the lease")
	// ErrLeaseRefused: the chain did not take a lease; the text names its reason.
	ErrLeaseRefused = errors.New("lease refused by the chain")
	// ErrBadLease: a host signed something else than what it was asked.
	ErrBadLease = errors.New("the host's lease is not what was asked for")
)
