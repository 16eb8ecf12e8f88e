package executor

import (
	"context"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

// Metered is billable usage, cumulative since the attempt began.
type Metered struct {
	WallMS      uint64
	CPUNS       uint64
	MemoryKiBMS uint64 // of max(reserved, used)
	BytesIn     uint64
	BytesOut    uint64
	DiskKiBMS   uint64
	Runs        uint64
	MemoryPeak  uint64   // bytes; information, not billed
	Unmeasured  []string // fields that this host cannot measure and does not bill; ascending
}

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

// Pricing computes money from prices. It is pure.
type Pricing interface {
	// Amount is what usage costs; an error when it passes 64 bits.
	Amount(p Prices, u Metered) (uint64, error)
	// Rate is the cap of what accrues per hour for reserved resources, and what one run costs at
	// once.
	Rate(p Prices, r Resources) (rate, upfront uint64, err error)
}

// Signer signs with the instance key under the chain's anchor. It is pure but for the key.
type Signer interface {
	// SignLease fills in the price hash and signs.
	SignLease(l Lease, p Prices) (SignedLease, error)
	// SignNote fills in the usage hash and signs.
	SignNote(n Note, u Metered) (SignedNote, error)
	// VerifyAck tells whether one of the lease's ack keys countersigned the note.
	VerifyAck(l Lease, a Ack) error
}

// LeaseState is a lease as it stands on the chain.
type LeaseState struct {
	From    time.Time
	Until   time.Time
	End     time.Time // zero: not ended early
	Budget  uint64
	Paid    uint64
	Settled bool
}

// Escrow is what an executor must know of one.
type Escrow struct {
	Job   JobID // what it names; zero when it is for something else than a job
	Owner sig.AccountID
}

// Charge asks the chain to pay what is payable by a note.
type Charge struct {
	Note SignedNote
	// Ack countersigns Note; nil: paid within the lease's trust alone.
	Ack *Ack
	// Final: nothing more will come. The lease is ended and what is left of it freed.
	Final bool
}

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
	// Charge returns when the charges are committed, in one transaction, one answer for each.
	Charge(ctx context.Context, chain string, charges []Charge) ([]Charged, error)
}
