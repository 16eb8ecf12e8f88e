package executor

import (
	"context"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// Metered is billable usage, cumulative since the attempt began.
type Metered = price.Usage

// Note is signed usage. Cumulative, so lost and repeated notes are harmless.
type Note struct {
	Lease      LeaseID
	Revision   Hash
	Upto       uint64 // ms since 1970
	Cumulative uint64 // grains due since the lease began
	UsageHash  Hash
}

// SignedNote is a note with what it was computed from.
type SignedNote struct {
	Note      Note
	Signature sig.Signature
	Usage     Metered
	Final     bool
}

// Ack is a countersigned note.
type Ack struct {
	Note      Note
	Index     uint32 // which of the lease's ack keys
	Signature sig.Signature
}

// LeaseState is a lease as it stands on the chain.
type LeaseState struct {
	From    time.Time
	Until   time.Time
	End     time.Time // zero: not ended early
	Budget  uint64
	Paid    uint64
	Settled bool
	// SupersededBy is the newest lease of its lane; zero: itself, or not known any more.
	SupersededBy LeaseID
	// Withheld waits for the owner's acceptance, or a day of silence after the end; grains.
	Withheld uint64
	// Leaf is all that the chain holds of it.
	Leaf tx.LeaseState
	// SilenceOver is when, by ChainTime.Accrual, that day is over. An earlier end brings it nearer.
	SilenceOver time.Time
}

// ChainTime is a chain's newest block by its two clocks, and its time now.
type ChainTime struct {
	Block time.Time
	// Now is the time that a block made now would have; zero: not told.
	Now time.Time
	// Accrual counts time in which the chain made blocks: what delays of the chain run on.
	Accrual time.Time
}

// Escrow is what an executor must know of one.
type Escrow struct {
	Job      JobID // what it names; zero when it is for something else than a job
	Owner    sig.AccountID
	Assigner sig.AccountID // may place leases, besides the owner
	Free     uint64        // grains that no lease has reserved
}

// Charge asks the chain to pay what is payable by a note.
type Charge struct {
	Note SignedNote
	// Ack countersigns Note; nil: paid within the lease's trust alone.
	Ack *Ack
	// Final: nothing more will come. The lease is ended and what is left of it freed.
	Final bool
}

// BoundPayeeLock is the Bound of a charge whose payee has no account and that is too small to open
// one. Nothing is booked then, and a final charge does not end the lease.
const BoundPayeeLock = "payee_lock"

// Charged is what became of a charge.
type Charged struct {
	Paid  uint64 // grains paid by this charge
	Bound string // what cut it, such as "trust"; empty when all was paid
}

// Ledger is the chain as an executor needs it.
//
// Retry: every method may be repeated. Charge is cumulative: repeating one pays nothing twice.
// Errors: ErrNoLease and ErrNoEscrow say that the chain holds none; errors of a retryable
// fault.Kind, and errors that are no faults, may pass; any other fault will not.
// Concurrency: any goroutine.
type Ledger interface {
	Lease(ctx context.Context, chain string, id LeaseID) (LeaseState, error)
	Escrow(ctx context.Context, chain string, id EscrowID) (Escrow, error)
	// Time reads the chain's clocks.
	Time(ctx context.Context, chain string) (ChainTime, error)
	// AccountOf reads an account; one that is not there has nothing.
	AccountOf(ctx context.Context, chain string, id sig.AccountID) (AccountState, error)
	// Charge returns when the charges are committed, in one transaction, one answer for each.
	Charge(ctx context.Context, chain string, charges []Charge) ([]Charged, error)
	// Settle asks the chain to pay what silence has accepted, of 1 to 1,000 leases. Those that are
	// not due, or gone, are passed over.
	Settle(ctx context.Context, chain string, leases []LeaseID) error
}
