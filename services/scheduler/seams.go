package scheduler

import (
	"context"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// Ledger is what the scheduler needs of the chain.
//
// Retry: every method may be repeated. Errors: ErrNotFound when the chain does not hold what is
// asked; from PlaceLease ErrLeaseRefused (with the chain's reason, which is the host's affair), and
// ErrNotPlaced when the chain does not hold the lease and will not for what was sent, with
// ErrEscrow if its escrow has no room or says otherwise by now; anything else may pass, and nothing
// is known.
type Ledger interface {
	// Now is the time that a block made now would have.
	Now(ctx context.Context) (time.Time, error)
	Escrow(ctx context.Context, id tx.EscrowID) (Escrow, error)
	// Lease tells whether the lease is on the chain and when it ends (zero = by its until).
	Lease(ctx context.Context, id tx.LeaseID) (LeaseState, error)
	// Leases tells the same of 1 to MaxClaims leases; those that are not on the chain are left out.
	Leases(ctx context.Context, ids []tx.LeaseID) (map[tx.LeaseID]LeaseState, error)
	// PlaceLease returns once the lease is committed, and takes the fee, in grains, from its escrow
	// for it. A lease that is there already is success, and takes none again.
	PlaceLease(ctx context.Context, l SignedLease, fee uint64) error
	// EndLease returns once the end is committed. A lease that has ended is success. ErrEndRefused
	// is final, and costs a fee.
	EndLease(ctx context.Context, id tx.LeaseID) error
	// Settle returns once the leases' settlement is committed, 1 to MaxClaims of them. What it does
	// to each is the chain's affair: nothing for one that is not on it.
	Settle(ctx context.Context, leases []tx.LeaseID) error
}

// Escrow is what the scheduler looks at in an escrow.
type Escrow struct {
	Owner      sig.AccountID
	ForJob     bool
	Subject    [32]byte
	Assigner   sig.AccountID
	AckKeys    []sig.PublicKey
	Payees     []sig.AccountID // empty = any
	Unreserved uint64          // grains
	Floor      uint64
	MaxRate    uint64
	Rate       uint64 // in use
	MaxTotal   uint64
	Used       uint64 // paid + reserved + lease fees
	Trust      uint64
	Risk       uint64
	Expires    time.Time
	// Deadline is the same as its terms say it, ms of the time that counts for escrows. Only its owner
	// changes it; Expires also comes later while the chain stands still.
	Deadline uint64
	// LeaseFee is what its owner grants for a lease that is placed, LeaseFeeTotal for all, and
	// LeaseFees what was taken of that.
	LeaseFee, LeaseFeeTotal, LeaseFees uint64
}

// LeaseState is what the scheduler looks at in a lease.
type LeaseState struct {
	Until time.Time
	Ended time.Time
	// Settled: its host charged it for the last time, or its claim window is over.
	Settled bool
	// Claimable is until when it may be charged, by the chain's time at the earliest.
	Claimable time.Time
	// Leaf is all that the chain holds of it.
	Leaf tx.LeaseState
}

// Ask is the question to a host.
type Ask struct {
	Revision []byte
	Run      RunID
	Task     uint32 // of an array: the index
	Attempt  AttemptID
	// Continues is the attempt at this host whose running program the lease goes on with; zero: a new
	// program.
	Continues AttemptID
	OfferHash [32]byte
	Resources price.Resources
	Terms     Terms
}

// Terms are what the lease must say.
type Terms struct {
	Escrow      tx.EscrowID
	Subject     job.ID
	Slot        uint32
	Epoch       uint64
	Budget      uint64
	Trust       uint64 // 0 = the host's default
	Holdback    uint64 // of the budget, until the owner accepts; exactly this
	AckKeys     []sig.PublicKey
	ClaimWindow time.Duration
	PlaceBy     time.Time
	Until       time.Time
	// Supersedes is the lease of the lane that this one takes the place of; zero: none.
	Supersedes tx.LeaseID
}

// Task is a job as it is delivered to the host that holds the lease.
type Task struct {
	Revision     []byte
	Run          RunID
	Attempt      AttemptID
	Lease        tx.LeaseID
	StorageToken string
}

// Hosts speaks to executors.
//
// Errors: ErrDeclined with the host's words, also ErrNotContinuable when it has no program that the
// ask's Continues means; ErrUnreachable when nobody answers in time, which also
// is ErrAbsent when the way there works and nobody is at its end; anything else may pass. Retry:
// Deliver and Stop may be repeated; Ask with the same attempt returns the same lease or a decline.
type Hosts interface {
	Ask(ctx context.Context, h Host, a Ask) (SignedLease, error)
	// Deliver returns once the host has confirmed that it holds the task, with what it says of the
	// attempt, which may be an earlier state or the end. nil: it said nothing of that.
	Deliver(ctx context.Context, h Host, t Task) (*Report, error)
	Stop(ctx context.Context, h Host, s Stop) error
}

// Stop asks a host to end an attempt.
type Stop struct {
	Job     job.ID
	Attempt AttemptID
	Reason  string
	Grace   time.Duration
}

// Report is what a host tells of an attempt, read from a verified event.
type Report struct {
	Job      job.ID
	Run      RunID
	Attempt  AttemptID
	Executor sig.PublicKey // who signed the event
	State    State
	End      EndReason
	Reason   string
	Time     time.Time
	// EvictAt is when the host will ask the program to end; zero: it did not say that it will.
	EvictAt time.Time
	// HeldUntil is until when the host keeps the program of an attempt whose lease is over by another
	// of its lane; zero: it does not say that it does.
	HeldUntil time.Time
	// Ran tells that the program was seen to run.
	Ran bool
	// Amount (grains), WallMS and CPUNS are what the host says of the whole when it ended.
	Amount, WallMS, CPUNS uint64
	Raw                   []byte // canonical AttemptStatus

	// endedOnChain: the host says that it was cancelled, and the chain that its lease was ended.
	endedOnChain bool
}
