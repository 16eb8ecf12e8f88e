package tx

import (
	"math"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// readable is an operation that can be read from the current message.
type readable interface {
	Operation
	readFrom(r *canon.Reader)
}

// readOperation reads the one member of an Operation; nil if there is none. A transfer is put
// into room.
func readOperation(r *canon.Reader, room *Transfer) (operation Operation) {
	for r.Next() {
		if operation != nil {
			r.Fail(canon.ErrOneof)
			return nil
		}
		o, name := newOperation(Kind(min(r.Field(), math.MaxUint8)), room)
		if o == nil {
			r.Unknown()
			return nil
		}
		frame := r.OpenOneof(name)
		o.readFrom(r)
		r.Close(frame)
		operation = o
	}
	return operation
}

// newOperation returns an empty operation and its name in the proto.
func newOperation(kind Kind, room *Transfer) (o readable, name string) {
	switch kind {
	case KindTransfer:
		return room, "transfer"
	case KindSetKeys:
		return &SetKeys{}, "set_keys"
	case KindOpenEscrow:
		return &OpenEscrow{}, "open_escrow"
	case KindTopUp:
		return &TopUp{}, "top_up"
	case KindWithdraw:
		return &Withdraw{}, "withdraw"
	case KindSetTerms:
		return &SetTerms{}, "set_terms"
	case KindCloseEscrow:
		return &CloseEscrow{}, "close_escrow"
	case KindPlaceLease:
		return &PlaceLease{}, "place_lease"
	case KindExtend:
		return &Extend{}, "extend"
	case KindCharge:
		return &Charge{}, "charge"
	case KindEnd:
		return &End{}, "end"
	case KindSettle:
		return &Settle{}, "settle"
	case KindAccept:
		return &Accept{}, "accept"
	case KindReject:
		return &Reject{}, "reject"
	case KindNotice:
		return &Notice{}, "notice"
	}
	return newLaterOperation(kind)
}

// newLaterOperation is newOperation for recovery, delegates and budgets.
func newLaterOperation(kind Kind) (o readable, name string) {
	switch kind {
	case KindSetDelegate:
		return &SetDelegate{}, "set_delegate"
	case KindRemoveDelegate:
		return &RemoveDelegate{}, "remove_delegate"
	case KindSetRecovery:
		return &SetRecovery{}, "set_recovery"
	case KindRecover:
		return &Recover{}, "recover"
	case KindFinishRecovery:
		return &FinishRecovery{}, "finish_recovery"
	case KindCancelRecovery:
		return &CancelRecovery{}, "cancel_recovery"
	case KindSpend:
		return &Spend{}, "spend"
	}
	return nil, ""
}

func (o *Transfer) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			o.To = readID[sig.AccountID](r)
		case 2:
			o.Amount = Grains(r.Uint64())
		default:
			r.Unknown()
		}
	}
	need(r, 1, !o.To.IsZero())
}

func (o *SetKeys) readFrom(r *canon.Reader) {
	for r.Next() {
		if r.Field() != 1 {
			r.Unknown()
			return
		}
		o.Keys = readKeySet(r, "keys", math.MaxInt)
	}
}

func (o *OpenEscrow) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			o.Purpose = chainv1.Purpose(r.Enum(math.MaxInt32))
		case 2:
			o.Subject = r.Bytes(MaxSubject)
		case 3:
			o.Amount = Grains(r.Uint64())
		case 4:
			readTerms(r, &o.Terms)
		case 5:
			o.Payees = append(o.Payees, readElement[sig.AccountID](r))
		case 6:
			o.PayeeRoot = readID[Hash](r)
		case 7:
			o.Renew = r.Bool()
		case 8:
			o.BurnRate = GrainsPerHour(r.Uint64())
		case 9:
			o.Unbond = Millis(r.Uint64())
		default:
			r.Unknown()
		}
	}
}

// readTerms enters and reads a Terms.
func readTerms(r *canon.Reader, terms *Terms) {
	frame := r.Open("terms")
	for r.Next() {
		switch r.Field() {
		case 1:
			terms.MaxRate = GrainsPerHour(r.Uint64())
		case 2:
			terms.MaxTotal = Grains(r.Uint64())
		case 3:
			terms.Trust = Grains(r.Uint64())
		case 4:
			terms.AckKeys = append(terms.AckKeys, readElement[sig.PublicKey](r))
		case 5:
			terms.Assigner = readID[sig.AccountID](r)
		case 6:
			terms.Floor = Grains(r.Uint64())
		case 7:
			terms.Expires = Millis(r.Uint64())
		case 8:
			terms.LeaseFee = Grains(r.Uint64())
		case 9:
			terms.LeaseFeeTotal = Grains(r.Uint64())
		default:
			r.Unknown()
		}
	}
	r.Close(frame)
}

func (o *TopUp) readFrom(r *canon.Reader)    { o.Escrow, o.Amount = readEscrowAmount(r) }
func (o *Withdraw) readFrom(r *canon.Reader) { o.Escrow, o.Amount = readEscrowAmount(r) }
func (o *Notice) readFrom(r *canon.Reader)   { o.Escrow, o.Amount = readEscrowAmount(r) }

func readEscrowAmount(r *canon.Reader) (escrow EscrowID, amount Grains) {
	for r.Next() {
		switch r.Field() {
		case 1:
			escrow = readID[EscrowID](r)
		case 2:
			amount = Grains(r.Uint64())
		default:
			r.Unknown()
		}
	}
	need(r, 1, escrow != EscrowID{})
	return escrow, amount
}

func (o *SetTerms) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			o.Escrow = readID[EscrowID](r)
		case 2:
			readTerms(r, &o.Terms)
		default:
			r.Unknown()
		}
	}
	need(r, 1, o.Escrow != EscrowID{})
}

func (o *CloseEscrow) readFrom(r *canon.Reader) { o.Escrow = readOnlyID[EscrowID](r) }
func (o *End) readFrom(r *canon.Reader)         { o.Lease = readOnlyID[LeaseID](r) }

func readOnlyID[T ~[32]byte](r *canon.Reader) (id T) {
	for r.Next() {
		if r.Field() != 1 {
			r.Unknown()
			return id
		}
		id = readID[T](r)
	}
	need(r, 1, id != T{})
	return id
}

func (o *PlaceLease) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			frame := r.Open("lease")
			o.Lease.readFrom(r)
			r.Close(frame)
		case 2:
			o.Signature = readSig(r)
		case 3:
			o.Fee = Grains(r.Uint64())
		default:
			r.Unknown()
		}
	}
	need(r, 1, o.Lease.Escrow != EscrowID{})
	need(r, 2, o.Signature != sig.Signature{})
}

func (o *Extend) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			o.Lease = readID[LeaseID](r)
		case 2:
			o.Budget = Grains(r.Uint64())
		case 3:
			o.Until = Millis(r.Uint64())
		default:
			r.Unknown()
		}
	}
	need(r, 1, o.Lease != LeaseID{})
}

func (o *Charge) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			frame := r.Open("note")
			o.Note.readFrom(r)
			r.Close(frame)
		case 2:
			o.Signature = readSig(r)
		case 3:
			o.Countersignature = readCountersignature(r)
		case 4:
			o.Final = r.Bool()
		default:
			r.Unknown()
		}
	}
	need(r, 1, o.Note.Lease != LeaseID{})
	need(r, 2, o.Signature != sig.Signature{})
}

func (o *Settle) readFrom(r *canon.Reader) {
	for r.Next() {
		switch {
		case r.Field() != 1:
			r.Unknown()
		case len(o.Leases) >= MaxSettle:
			r.Fail(ErrSettle)
		default:
			o.Leases = append(o.Leases, readElement[LeaseID](r))
		}
	}
	if len(o.Leases) == 0 {
		r.FailField(1, ErrSettle)
	}
}

func (o *Accept) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			o.Lease = readID[LeaseID](r)
		case 2:
			o.Countersignature = readCountersignature(r)
		default:
			r.Unknown()
		}
	}
	need(r, 1, o.Lease != LeaseID{})
}

func (o *Reject) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			o.Lease = readID[LeaseID](r)
		case 2:
			o.Evidence = readID[Hash](r)
		case 3:
			o.Countersignature = readCountersignature(r)
		default:
			r.Unknown()
		}
	}
	need(r, 1, o.Lease != LeaseID{})
}

// readCountersignature enters and reads a Countersignature.
func readCountersignature(r *canon.Reader) (c Countersignature) {
	frame := r.Open("countersignature")
	for r.Next() {
		switch r.Field() {
		case 1:
			c.Index = r.Uint32()
		case 2:
			c.Signature = readSig(r)
		default:
			r.Unknown()
		}
	}
	need(r, 2, c.Signature != sig.Signature{})
	r.Close(frame)
	return c
}
