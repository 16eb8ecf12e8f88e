package tx

import (
	"github.com/united-containers/ucn/chain/canon"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Receipt says what a transaction did.
type Receipt struct {
	Transaction ID
	Status      chainv1.Status
	// Index of the operation that failed, and why.
	FailedOperation uint32
	Reason          chainv1.Reason
	// Charged.
	Fee Grains
	// One per operation when the status is ok.
	Outcomes []Outcome
}

// Outcome is that of one operation.
type Outcome struct {
	// Id that the operation created; zero = none.
	Created Hash
	// Moved to a payee, receiver, owner or assigner.
	Amount Grains
	Bound  chainv1.Bound
	// Number of the delegate that was set; beside Bound it takes no room.
	Delegate uint32
	// Still due by the note and not paid because of the bound.
	Unpaid Grains
	// Per lease of a Settle.
	Settled []SettleOutcome
}

// SettleOutcome is what Settle did to one lease.
type SettleOutcome struct {
	RateFreed, RestFreed, Deleted bool
}

// largest known values of the enums of a receipt.
const (
	maxStatus = int32(chainv1.Status_STATUS_FAILED)
	maxReason = int32(chainv1.Reason_REASON_LEASE_FEE_TOTAL)
	maxBound  = int32(chainv1.Bound_BOUND_ALREADY_PAID)
)

// DecodeReceipt reads the canonical bytes of a Receipt.
func DecodeReceipt(raw []byte) (Receipt, error) {
	r := canon.NewReader(raw)
	var out Receipt
	for r.Next() {
		switch r.Field() {
		case 1:
			out.Transaction = readID[ID](&r)
		case 2:
			out.Status = chainv1.Status(r.Enum(maxStatus))
		case 3:
			out.FailedOperation = r.Uint32()
		case 4:
			out.Reason = chainv1.Reason(r.Enum(maxReason))
		case 5:
			out.Fee = Grains(r.Uint64())
		case 6:
			if len(out.Outcomes) >= MaxOperations {
				r.Fail(ErrOperations)
				break
			}
			frame := r.OpenElement("outcomes")
			out.Outcomes = append(out.Outcomes, readOutcome(&r))
			r.Close(frame)
		default:
			r.Unknown()
		}
	}
	need(&r, 1, out.Transaction != ID{})
	if err := r.Err(); err != nil {
		return Receipt{}, malformed("receipt", err, &chainv1.Receipt{})
	}
	return out, nil
}

func readOutcome(r *canon.Reader) (out Outcome) {
	for r.Next() {
		switch r.Field() {
		case 1:
			out.Created = readID[Hash](r)
		case 2:
			out.Amount = Grains(r.Uint64())
		case 3:
			out.Bound = chainv1.Bound(r.Enum(maxBound))
		case 4:
			out.Unpaid = Grains(r.Uint64())
		case 5:
			if len(out.Settled) >= MaxSettle {
				r.Fail(ErrSettle)
				break
			}
			frame := r.OpenElement("settled")
			out.Settled = append(out.Settled, readSettled(r))
			r.Close(frame)
		case 6:
			out.Delegate = r.Uint32()
		default:
			r.Unknown()
		}
	}
	return out
}

func readSettled(r *canon.Reader) (out SettleOutcome) {
	for r.Next() {
		switch r.Field() {
		case 1:
			out.RateFreed = r.Bool()
		case 2:
			out.RestFreed = r.Bool()
		case 3:
			out.Deleted = r.Bool()
		default:
			r.Unknown()
		}
	}
	return out
}

// Append appends the canonical bytes of the receipt.
func (r *Receipt) Append(dst []byte) []byte {
	dst = appendID(dst, 1, r.Transaction)
	dst = canon.AppendUint(dst, 2, uint64(r.Status))
	dst = canon.AppendUint(dst, 3, uint64(r.FailedOperation))
	dst = canon.AppendUint(dst, 4, uint64(r.Reason))
	dst = canon.AppendUint(dst, 5, uint64(r.Fee))
	for i := range r.Outcomes {
		var mark canon.Mark
		dst, mark = canon.Begin(dst, 6)
		dst = canon.EndElement(r.Outcomes[i].appendTo(dst), mark)
	}
	return dst
}

func (o *Outcome) appendTo(dst []byte) []byte {
	dst = appendID(dst, 1, o.Created)
	dst = canon.AppendUint(dst, 2, uint64(o.Amount))
	dst = canon.AppendUint(dst, 3, uint64(o.Bound))
	dst = canon.AppendUint(dst, 4, uint64(o.Unpaid))
	for _, one := range o.Settled {
		var mark canon.Mark
		dst, mark = canon.Begin(dst, 5)
		dst = canon.AppendBool(dst, 1, one.RateFreed)
		dst = canon.AppendBool(dst, 2, one.RestFreed)
		dst = canon.AppendBool(dst, 3, one.Deleted)
		dst = canon.EndElement(dst, mark)
	}
	return canon.AppendUint(dst, 6, uint64(o.Delegate))
}
