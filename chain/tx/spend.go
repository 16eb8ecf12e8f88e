package tx

import (
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// SpendOrder is what a lease's session key signs to pay from a budget.
type SpendOrder struct {
	// Of purpose budget.
	Escrow EscrowID
	// Whose session key signs.
	Lease  LeaseID
	To     sig.AccountID
	Amount Grains
	// The lease's spends so far.
	Sequence uint64
}

// Spend pays from a budget; anyone may submit it.
type Spend struct {
	Order SpendOrder
	// Of Order.Preimage.
	Signature sig.Signature
}

// Kind implements Operation.
func (*Spend) Kind() Kind { return KindSpend }

// DecodeOrder reads the canonical bytes of a SpendOrder.
func DecodeOrder(raw []byte) (SpendOrder, error) {
	r := canon.NewReader(raw)
	var o SpendOrder
	o.readFrom(&r)
	if err := r.Err(); err != nil {
		return SpendOrder{}, malformed("spend order", err, &chainv1.SpendOrder{})
	}
	return o, nil
}

// Preimage returns the bytes that the session key signs.
func (o *SpendOrder) Preimage(anchor sig.Anchor) []byte {
	return sig.Preimage(sig.DomainSpend, anchor[:], o.Append(nil))
}

// Append appends the canonical bytes of the order.
func (o *SpendOrder) Append(dst []byte) []byte {
	dst = appendID(dst, 1, o.Escrow)
	dst = appendID(dst, 2, o.Lease)
	dst = appendID(dst, 3, o.To)
	dst = canon.AppendUint(dst, 4, uint64(o.Amount))
	return canon.AppendUint(dst, 5, o.Sequence)
}

func (o *SpendOrder) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			o.Escrow = readID[EscrowID](r)
		case 2:
			o.Lease = readID[LeaseID](r)
		case 3:
			o.To = readID[sig.AccountID](r)
		case 4:
			o.Amount = Grains(r.Uint64())
		case 5:
			o.Sequence = r.Uint64()
		default:
			r.Unknown()
		}
	}
	need(r, 1, o.Escrow != EscrowID{})
	need(r, 2, o.Lease != LeaseID{})
	need(r, 3, !o.To.IsZero())
}

func (o *Spend) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			frame := r.Open("order")
			o.Order.readFrom(r)
			r.Close(frame)
		case 2:
			o.Signature = readSig(r)
		default:
			r.Unknown()
		}
	}
	need(r, 1, o.Order.Escrow != EscrowID{})
	need(r, 2, o.Signature != sig.Signature{})
}

func (o *Spend) appendTo(dst []byte) []byte {
	dst, mark := canon.Begin(dst, 1)
	dst = canon.End(o.Order.Append(dst), mark)
	return appendSig(dst, 2, o.Signature)
}
