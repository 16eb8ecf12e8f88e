package tx

import (
	"math"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Account is the state leaf of an account. Never deleted.
type Account struct {
	// Can be spent, the lock not counted.
	Balance Grains
	Lock    Grains
	// The nonce that the next transaction of the key set must carry.
	Nonce uint64
	// The set now in force; zero until the account has signed once.
	Keys sig.KeySet
}

// Escrow is the state leaf of an escrow.
type Escrow struct {
	Owner   sig.AccountID
	Purpose chainv1.Purpose
	Subject []byte
	// Reserved ones included, the lock not counted.
	Balance   Grains
	Lock      Grains
	Terms     Terms
	Payees    []sig.AccountID
	PayeeRoot Hash
	Renew     bool
	BurnRate  GrainsPerHour
	// Accrual times.
	Unbond Millis
	Opened Millis
	// Cumulative from opening.
	Burned Grains
	// Numerator below 3,600,000.
	BurnRemainder uint64
	Reserved      Grains
	Rate          GrainsPerHour
	Risk          Grains
	// Number of lease leaves.
	Live uint32
	Paid Grains
	// Of a bond: what notice was given for, and from when by the accrual clock it may be withdrawn.
	Noticed   Grains
	NoticeDue Millis
	// Taken by assigners; not in Paid.
	LeaseFees Grains
}

// LeaseState is the state leaf of a lease.
type LeaseState struct {
	Lease Lease
	// Block time at which it was placed.
	From Millis
	// The same by the accrual clock.
	AccrualFrom Millis
	// In force; extensions raise them.
	Budget Grains
	Until  Millis
	// Block time at which it ended or ends; 0 = no earlier end than Until.
	End           Millis
	NoticeDue     Grains
	Paid          Grains
	Countersigned Grains
	Upto          Millis
	RateFreed     bool
	Settled       bool
	Holdback      chainv1.Holdback
	Withheld      Grains
	// Orders that its session key signed and that were paid.
	Spends uint64
}

// LaneState is the state leaf of one (escrow, slot).
type LaneState struct {
	// Lease with the highest epoch.
	Lease LeaseID
	Epoch uint64
}

// DecodeAccount reads the canonical bytes of an Account leaf.
func DecodeAccount(raw []byte) (Account, error) {
	r := canon.NewReader(raw)
	var a Account
	for r.Next() {
		switch r.Field() {
		case 1:
			a.Balance = Grains(r.Uint64())
		case 2:
			a.Lock = Grains(r.Uint64())
		case 3:
			a.Nonce = r.Uint64()
		case 4:
			a.Keys = readKeySet(&r, "keys", sig.MaxKeys)
		default:
			r.Unknown()
		}
	}
	if err := r.Err(); err != nil {
		return Account{}, malformed("account", err, &chainv1.Account{})
	}
	return a, nil
}

// Append appends the canonical bytes of the leaf.
func (a *Account) Append(dst []byte) []byte {
	dst = canon.AppendUint(dst, 1, uint64(a.Balance))
	dst = canon.AppendUint(dst, 2, uint64(a.Lock))
	dst = canon.AppendUint(dst, 3, a.Nonce)
	return appendKeySet(dst, 4, a.Keys)
}

// DecodeEscrow reads the canonical bytes of an Escrow leaf. It keeps raw.
func DecodeEscrow(raw []byte) (Escrow, error) {
	r := canon.NewReader(raw)
	var e Escrow
	for r.Next() {
		e.readField(&r)
	}
	need(&r, 1, !e.Owner.IsZero())
	if err := r.Err(); err != nil {
		return Escrow{}, malformed("escrow", err, &chainv1.Escrow{})
	}
	return e, nil
}

func (e *Escrow) readField(r *canon.Reader) {
	switch r.Field() {
	case 1:
		e.Owner = readID[sig.AccountID](r)
	case 2:
		e.Purpose = chainv1.Purpose(r.Enum(math.MaxInt32))
	case 3:
		e.Subject = r.Bytes(MaxSubject)
	case 4:
		e.Balance = Grains(r.Uint64())
	case 5:
		e.Lock = Grains(r.Uint64())
	case 6:
		readTerms(r, &e.Terms)
	case 7:
		e.Payees = append(e.Payees, readElement[sig.AccountID](r))
	case 8:
		e.PayeeRoot = readID[Hash](r)
	case 9:
		e.Renew = r.Bool()
	case 10:
		e.BurnRate = GrainsPerHour(r.Uint64())
	default:
		e.readRest(r)
	}
}

func (e *Escrow) readRest(r *canon.Reader) {
	switch r.Field() {
	case 11:
		e.Unbond = Millis(r.Uint64())
	case 12:
		e.Opened = Millis(r.Uint64())
	case 13:
		e.Burned = Grains(r.Uint64())
	case 14:
		e.BurnRemainder = r.Uint64()
	case 15:
		e.Reserved = Grains(r.Uint64())
	case 16:
		e.Rate = GrainsPerHour(r.Uint64())
	case 17:
		e.Risk = Grains(r.Uint64())
	case 18:
		e.Live = r.Uint32()
	case 19:
		e.Paid = Grains(r.Uint64())
	case 20:
		e.Noticed = Grains(r.Uint64())
	case 21:
		e.NoticeDue = Millis(r.Uint64())
	case 22:
		e.LeaseFees = Grains(r.Uint64())
	default:
		r.Unknown()
	}
}

// Append appends the canonical bytes of the leaf.
func (e *Escrow) Append(dst []byte) []byte {
	dst = appendID(dst, 1, e.Owner)
	dst = canon.AppendUint(dst, 2, uint64(e.Purpose))
	dst = canon.AppendBytes(dst, 3, e.Subject)
	dst = canon.AppendUint(dst, 4, uint64(e.Balance))
	dst = canon.AppendUint(dst, 5, uint64(e.Lock))
	dst = appendTerms(dst, 6, &e.Terms)
	dst = appendIDs(dst, 7, e.Payees)
	dst = appendID(dst, 8, e.PayeeRoot)
	dst = canon.AppendBool(dst, 9, e.Renew)
	dst = canon.AppendUint(dst, 10, uint64(e.BurnRate))
	dst = canon.AppendUint(dst, 11, uint64(e.Unbond))
	dst = canon.AppendUint(dst, 12, uint64(e.Opened))
	dst = canon.AppendUint(dst, 13, uint64(e.Burned))
	dst = canon.AppendUint(dst, 14, e.BurnRemainder)
	dst = canon.AppendUint(dst, 15, uint64(e.Reserved))
	dst = canon.AppendUint(dst, 16, uint64(e.Rate))
	dst = canon.AppendUint(dst, 17, uint64(e.Risk))
	dst = canon.AppendUint(dst, 18, uint64(e.Live))
	dst = canon.AppendUint(dst, 19, uint64(e.Paid))
	dst = canon.AppendUint(dst, 20, uint64(e.Noticed))
	dst = canon.AppendUint(dst, 21, uint64(e.NoticeDue))
	return canon.AppendUint(dst, 22, uint64(e.LeaseFees))
}

// DecodeLeaseState reads the canonical bytes of a LeaseState leaf. It keeps raw.
func DecodeLeaseState(raw []byte) (LeaseState, error) {
	r := canon.NewReader(raw)
	var l LeaseState
	for r.Next() {
		l.readField(&r)
	}
	need(&r, 1, l.Lease.Escrow != EscrowID{})
	if err := r.Err(); err != nil {
		return LeaseState{}, malformed("lease state", err, &chainv1.LeaseState{})
	}
	return l, nil
}

func (l *LeaseState) readField(r *canon.Reader) {
	switch r.Field() {
	case 1:
		frame := r.Open("lease")
		l.Lease.readFrom(r)
		r.Close(frame)
	case 2:
		l.From = Millis(r.Uint64())
	case 3:
		l.AccrualFrom = Millis(r.Uint64())
	case 4:
		l.Budget = Grains(r.Uint64())
	case 5:
		l.Until = Millis(r.Uint64())
	case 6:
		l.End = Millis(r.Uint64())
	case 7:
		l.NoticeDue = Grains(r.Uint64())
	case 8:
		l.Paid = Grains(r.Uint64())
	case 9:
		l.Countersigned = Grains(r.Uint64())
	case 10:
		l.Upto = Millis(r.Uint64())
	case 11:
		l.RateFreed = r.Bool()
	case 12:
		l.Settled = r.Bool()
	case 13:
		l.Holdback = chainv1.Holdback(r.Enum(int32(chainv1.Holdback_HOLDBACK_REJECTED)))
	case 14:
		l.Withheld = Grains(r.Uint64())
	case 15:
		l.Spends = r.Uint64()
	default:
		r.Unknown()
	}
}

// Append appends the canonical bytes of the leaf.
func (l *LeaseState) Append(dst []byte) []byte {
	dst, mark := canon.Begin(dst, 1)
	dst = canon.End(l.Lease.Append(dst), mark)
	dst = canon.AppendUint(dst, 2, uint64(l.From))
	dst = canon.AppendUint(dst, 3, uint64(l.AccrualFrom))
	dst = canon.AppendUint(dst, 4, uint64(l.Budget))
	dst = canon.AppendUint(dst, 5, uint64(l.Until))
	dst = canon.AppendUint(dst, 6, uint64(l.End))
	dst = canon.AppendUint(dst, 7, uint64(l.NoticeDue))
	dst = canon.AppendUint(dst, 8, uint64(l.Paid))
	dst = canon.AppendUint(dst, 9, uint64(l.Countersigned))
	dst = canon.AppendUint(dst, 10, uint64(l.Upto))
	dst = canon.AppendBool(dst, 11, l.RateFreed)
	dst = canon.AppendBool(dst, 12, l.Settled)
	dst = canon.AppendUint(dst, 13, uint64(l.Holdback))
	dst = canon.AppendUint(dst, 14, uint64(l.Withheld))
	return canon.AppendUint(dst, 15, l.Spends)
}

// DecodeLaneState reads the canonical bytes of a LaneState leaf.
func DecodeLaneState(raw []byte) (LaneState, error) {
	r := canon.NewReader(raw)
	var l LaneState
	for r.Next() {
		switch r.Field() {
		case 1:
			l.Lease = readID[LeaseID](&r)
		case 2:
			l.Epoch = r.Uint64()
		default:
			r.Unknown()
		}
	}
	need(&r, 1, l.Lease != LeaseID{})
	if err := r.Err(); err != nil {
		return LaneState{}, malformed("lane state", err, &chainv1.LaneState{})
	}
	return l, nil
}

// Append appends the canonical bytes of the leaf.
func (l *LaneState) Append(dst []byte) []byte {
	return canon.AppendUint(appendID(dst, 1, l.Lease), 2, l.Epoch)
}
