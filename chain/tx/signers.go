package tx

import (
	"slices"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// MaxDelegates is the most live delegates of an account.
const MaxDelegates = 16

// AccountSigners is the state leaf of who may act for an account beside its key set. Never deleted:
// it keeps the numbers that were used.
type AccountSigners struct {
	// Number of the delegate that was set last.
	Last uint32
	// Ascending by number, at most MaxDelegates.
	Delegates []Delegate
	Recovery  Recovery
}

// Bounds are what holds a delegate.
type Bounds struct {
	Operations Operations
	// The most that may leave the account within a period, fees and locks included.
	Limit Grains
	// On the accrual clock.
	Period Millis
	// Block time from which it may sign no more.
	Until Millis
}

// Delegate is a key that may act for an account within bounds.
type Delegate struct {
	// Never 0, never used again.
	Number uint32
	Key    sig.PublicKey
	Bounds
	// That of its next transaction.
	Nonce uint64
	// Accrual time at which the period began that Spent belongs to.
	Window Millis
	Spent  Grains
}

// Operations is a set of kinds: bit n stands for kind n.
type Operations uint64

// OperationsOf returns the set of the kinds.
func OperationsOf(kinds ...Kind) (set Operations) {
	for _, kind := range kinds {
		set |= 1 << kind
	}
	return set
}

// Has tells whether the kind is in the set.
func (o Operations) Has(kind Kind) bool { return o&(1<<kind) != 0 }

// Find returns the place of a delegate, false if there is none of that number.
func (a *AccountSigners) Find(number uint32) (at int, found bool) {
	at = slices.IndexFunc(a.Delegates, func(d Delegate) bool { return d.Number == number })
	return at, at >= 0
}

// Remaining returns what may still leave the account through the delegate in the period of an
// accrual time, and when that period began.
func (d *Delegate) Remaining(accrual Millis) (left Grains, window Millis) {
	spent, window := d.Spent, d.Window
	if passed := accrual - min(accrual, window); d.Period > 0 && passed >= d.Period {
		spent, window = 0, accrual-passed%d.Period
	}
	return d.Limit - min(d.Limit, spent), window
}

// DecodeSigners reads the canonical bytes of an AccountSigners leaf.
func DecodeSigners(raw []byte) (AccountSigners, error) {
	r := canon.NewReader(raw)
	var a AccountSigners
	for r.Next() {
		switch r.Field() {
		case 1:
			a.Last = r.Uint32()
		case 2:
			if len(a.Delegates) >= MaxDelegates {
				r.Fail(ErrDelegates)
				break
			}
			frame := r.OpenElement("delegates")
			a.Delegates = append(a.Delegates, readDelegate(&r))
			r.Close(frame)
		case 3:
			frame := r.Open("recovery")
			a.Recovery.readFrom(&r)
			r.Close(frame)
		default:
			r.Unknown()
		}
	}
	if err := r.Err(); err != nil {
		return AccountSigners{}, malformed("account signers", err, &chainv1.AccountSigners{})
	}
	return a, nil
}

// Append appends the canonical bytes of the leaf.
func (a *AccountSigners) Append(dst []byte) []byte {
	dst = canon.AppendUint(dst, 1, uint64(a.Last))
	for i := range a.Delegates {
		var mark canon.Mark
		dst, mark = canon.Begin(dst, 2)
		dst = canon.EndElement(a.Delegates[i].appendTo(dst), mark)
	}
	dst, mark := canon.Begin(dst, 3)
	return canon.End(a.Recovery.appendTo(dst), mark)
}

func readDelegate(r *canon.Reader) (d Delegate) {
	for r.Next() {
		if readBounds(r, &d.Number, &d.Key, &d.Bounds) {
			continue
		}
		switch r.Field() {
		case 7:
			d.Nonce = r.Uint64()
		case 8:
			d.Window = Millis(r.Uint64())
		case 9:
			d.Spent = Grains(r.Uint64())
		default:
			r.Unknown()
		}
	}
	need(r, 2, d.Key != sig.PublicKey{})
	return d
}

func (d *Delegate) appendTo(dst []byte) []byte {
	dst = appendBounds(dst, d.Number, d.Key, &d.Bounds)
	dst = canon.AppendUint(dst, 7, d.Nonce)
	dst = canon.AppendUint(dst, 8, uint64(d.Window))
	return canon.AppendUint(dst, 9, uint64(d.Spent))
}

// readBounds reads a field that SetDelegate and Delegate share; false if it is another.
func readBounds(r *canon.Reader, number *uint32, key *sig.PublicKey, b *Bounds) bool {
	switch r.Field() {
	case 1:
		*number = r.Uint32()
	case 2:
		frame := r.Open("key")
		*key = readKey(r)
		r.Close(frame)
	case 3:
		b.Operations = Operations(r.Uint64())
	case 4:
		b.Limit = Grains(r.Uint64())
	case 5:
		b.Period = Millis(r.Uint64())
	case 6:
		b.Until = Millis(r.Uint64())
	default:
		return false
	}
	return true
}

func appendBounds(dst []byte, number uint32, key sig.PublicKey, b *Bounds) []byte {
	dst = canon.AppendUint(dst, 1, uint64(number))
	dst, mark := canon.Begin(dst, 2)
	dst = canon.AppendUint(dst, 1, sig.AlgorithmEd25519)
	dst = canon.End(appendID(dst, 2, key), mark)
	dst = canon.AppendUint(dst, 3, uint64(b.Operations))
	dst = canon.AppendUint(dst, 4, uint64(b.Limit))
	dst = canon.AppendUint(dst, 5, uint64(b.Period))
	return canon.AppendUint(dst, 6, uint64(b.Until))
}

func (o *SetDelegate) appendTo(dst []byte) []byte {
	return appendBounds(dst, o.Number, o.Key, &o.Bounds)
}

func (o *SetDelegate) readFrom(r *canon.Reader) {
	for r.Next() {
		if !readBounds(r, &o.Number, &o.Key, &o.Bounds) {
			r.Unknown()
		}
	}
	need(r, 2, o.Key != sig.PublicKey{})
}

func (o *RemoveDelegate) appendTo(dst []byte) []byte {
	return canon.AppendUint(dst, 1, uint64(o.Number))
}

func (o *RemoveDelegate) readFrom(r *canon.Reader) {
	for r.Next() {
		if r.Field() != 1 {
			r.Unknown()
			return
		}
		o.Number = r.Uint32()
	}
}
