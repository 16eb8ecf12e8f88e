package tx

import (
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Kind names an operation; the number is that of its field in ucn.chain.v1.Operation.
type Kind uint8

// The kinds.
const (
	KindTransfer       Kind = 1
	KindSetKeys        Kind = 2
	KindOpenEscrow     Kind = 3
	KindTopUp          Kind = 4
	KindWithdraw       Kind = 5
	KindSetTerms       Kind = 6
	KindCloseEscrow    Kind = 7
	KindPlaceLease     Kind = 8
	KindExtend         Kind = 9
	KindCharge         Kind = 10
	KindEnd            Kind = 11
	KindSettle         Kind = 12
	KindAccept         Kind = 13
	KindReject         Kind = 14
	KindNotice         Kind = 15
	KindSetDelegate    Kind = 16
	KindRemoveDelegate Kind = 17
	KindSetRecovery    Kind = 18
	KindRecover        Kind = 19
	KindFinishRecovery Kind = 20
	KindCancelRecovery Kind = 21
	KindSpend          Kind = 22
)

// Operation is one change: a pointer to one of the structs below.
type Operation interface {
	Kind() Kind
	// appendTo appends the canonical bytes of the operation's message.
	appendTo(dst []byte) []byte
}

// Transfer moves grains; a receiver that does not exist is created and pays its lock out of it.
type Transfer struct {
	To     sig.AccountID
	Amount Grains
}

// SetKeys replaces the sender's key set from the next transaction on. The set's shape is not
// judged by Decode.
type SetKeys struct {
	Keys sig.KeySet
}

// OpenEscrow moves amount and the escrow's lock from the sender into a new escrow.
type OpenEscrow struct {
	Purpose chainv1.Purpose
	Subject []byte
	Amount  Grains
	Terms   Terms
	// Accounts that may be paid; empty = any. Neither order nor number is judged by Decode.
	Payees    []sig.AccountID
	PayeeRoot Hash
	Renew     bool
	BurnRate  GrainsPerHour
	Unbond    Millis
}

// Terms are what the owner may change for later leases and extensions.
type Terms struct {
	MaxRate  GrainsPerHour
	MaxTotal Grains
	Trust    Grains
	AckKeys  []sig.PublicKey
	// Zero = only the owner.
	Assigner sig.AccountID
	Floor    Grains
	// Accrual time.
	Expires Millis
	// The most that the assigner may take for a lease that it places, and in all.
	LeaseFee      Grains
	LeaseFeeTotal Grains
}

// TopUp adds to an escrow; anyone may.
type TopUp struct {
	Escrow EscrowID
	Amount Grains
}

// Withdraw takes unreserved balance back to the owner.
type Withdraw struct {
	Escrow EscrowID
	Amount Grains
}

// SetTerms replaces the terms for later leases and extensions; the owner only.
type SetTerms struct {
	Escrow EscrowID
	Terms  Terms
}

// CloseEscrow returns balance and lock to the owner and deletes the escrow.
type CloseEscrow struct {
	Escrow EscrowID
}

// PlaceLease puts a lease signed by its agent on the chain.
type PlaceLease struct {
	Lease Lease
	// The agent key's signature of Lease.Preimage.
	Signature sig.Signature
	// What the assigner takes from the escrow for it.
	Fee Grains
}

// Extend raises a lease's budget and until to the values given.
type Extend struct {
	Lease  LeaseID
	Budget Grains
	// Block time.
	Until Millis
}

// Charge pays what is payable on a lease by a note.
type Charge struct {
	Note Note
	// The agent key's signature of Note.Preimage.
	Signature sig.Signature
	// Of Note.AckPreimage; zero = absent.
	Countersignature Countersignature
	// No more charges will come.
	Final bool
}

// End ends a lease now.
type End struct {
	Lease LeaseID
}

// Settle frees what ended leases no longer need; anyone may.
type Settle struct {
	// 1 to MaxSettle.
	Leases []LeaseID
}

// Accept releases a holdback.
type Accept struct {
	Lease LeaseID
	// Of AcceptPreimage; zero when the owner is the sender.
	Countersignature Countersignature
}

// Reject burns a holdback.
type Reject struct {
	Lease LeaseID
	// SHA-256 of the evidence.
	Evidence Hash
	// Of RejectPreimage; zero when the owner is the sender.
	Countersignature Countersignature
}

// Notice tells that the owner will withdraw from a bond or guarantee; 0 takes it back.
type Notice struct {
	Escrow EscrowID
	Amount Grains
}

// SetDelegate lets a key act for the sender within bounds, or changes the bounds of a delegate.
type SetDelegate struct {
	// 0 = a new one.
	Number uint32
	Key    sig.PublicKey
	Bounds
}

// RemoveDelegate ends a delegate; its number is never used again.
type RemoveDelegate struct {
	Number uint32
}

// Kind implements Operation.
func (*SetDelegate) Kind() Kind { return KindSetDelegate }

// Kind implements Operation.
func (*RemoveDelegate) Kind() Kind { return KindRemoveDelegate }

// Kind implements Operation.
func (*Notice) Kind() Kind { return KindNotice }

// Kind implements Operation.
func (*Transfer) Kind() Kind { return KindTransfer }

// Kind implements Operation.
func (*SetKeys) Kind() Kind { return KindSetKeys }

// Kind implements Operation.
func (*OpenEscrow) Kind() Kind { return KindOpenEscrow }

// Kind implements Operation.
func (*TopUp) Kind() Kind { return KindTopUp }

// Kind implements Operation.
func (*Withdraw) Kind() Kind { return KindWithdraw }

// Kind implements Operation.
func (*SetTerms) Kind() Kind { return KindSetTerms }

// Kind implements Operation.
func (*CloseEscrow) Kind() Kind { return KindCloseEscrow }

// Kind implements Operation.
func (*PlaceLease) Kind() Kind { return KindPlaceLease }

// Kind implements Operation.
func (*Extend) Kind() Kind { return KindExtend }

// Kind implements Operation.
func (*Charge) Kind() Kind { return KindCharge }

// Kind implements Operation.
func (*End) Kind() Kind { return KindEnd }

// Kind implements Operation.
func (*Settle) Kind() Kind { return KindSettle }

// Kind implements Operation.
func (*Accept) Kind() Kind { return KindAccept }

// Kind implements Operation.
func (*Reject) Kind() Kind { return KindReject }
