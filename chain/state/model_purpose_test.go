package state_test

import (
	"slices"

	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func (e mEscrow) bond() bool {
	return e.open.Purpose == chainv1.Purpose_PURPOSE_BOND ||
		e.open.Purpose == chainv1.Purpose_PURPOSE_GUARANTEE
}

// openGood judges what the generator may draw wrong of each purpose.
func (r *run) openGood(o *tx.OpenEscrow) chainv1.Reason {
	switch {
	case (mEscrow{open: o}).bond():
		if o.Unbond < 7*day {
			return chainv1.Reason_REASON_UNBOND_INVALID
		}
	case !r.termsGood(o.Terms):
		return chainv1.Reason_REASON_TERMS_INVALID
	}
	return 0
}

// held tells why an amount may not leave a bond yet.
func (r *run) held(e mEscrow, amount tx.Grains) chainv1.Reason {
	switch {
	case !e.bond() || amount == 0:
		return 0
	case less(e.noticed, num(amount)):
		return chainv1.Reason_REASON_NOTICE_TOO_LOW
	case less(r.accrual, e.noticeDue):
		return chainv1.Reason_REASON_NOTICE_NOT_DUE
	case less(add(e.noticeDue, num(7*day)), r.accrual):
		return chainv1.Reason_REASON_NOTICE_LAPSED
	}
	return 0
}

func (r *run) notice(o *tx.Notice) chainv1.Reason {
	e, ok := r.escrow(o.Escrow)
	switch {
	case !ok:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case e.owner != r.sender:
		return chainv1.Reason_REASON_NOT_OWNER
	case !e.bond():
		return chainv1.Reason_REASON_PURPOSE_DIFFERS
	case less(e.balance, num(o.Amount)):
		return chainv1.Reason_REASON_BALANCE_TOO_LOW
	}
	e.noticed, e.noticeDue = num(o.Amount), num(0)
	if o.Amount > 0 {
		e.noticeDue = add(r.accrual, num(e.open.Unbond))
	}
	r.escrows[o.Escrow] = e
	return 0
}

func (r *run) spend(o *tx.Spend, signed bool, out *tx.Outcome) chainv1.Reason {
	s := o.Order
	e, ok := r.escrow(s.Escrow)
	l, exists := r.leases[s.Lease]
	switch {
	case !ok:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case e.open.Purpose != chainv1.Purpose_PURPOSE_BUDGET:
		return chainv1.Reason_REASON_PURPOSE_DIFFERS
	case !exists:
		return chainv1.Reason_REASON_LEASE_UNKNOWN
	case r.escrows[l.Escrow].owner != e.owner:
		return chainv1.Reason_REASON_SUBJECT_DIFFERS
	case l.settled || !less(r.time, l.theEnd()):
		return chainv1.Reason_REASON_LEASE_ENDED
	case s.Sequence != l.spends:
		return chainv1.Reason_REASON_SPEND_SEQUENCE
	case s.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case len(e.open.Payees) > 0 && !slices.Contains(e.open.Payees, s.To):
		return chainv1.Reason_REASON_PAYEE_NOT_ALLOWED
	case less(num(e.terms.Expires), r.accrual):
		return chainv1.Reason_REASON_ESCROW_EXPIRED
	case less(perHour(num(e.terms.MaxRate), add(sub(r.accrual, e.opened), num(hour))),
		add(e.paid, num(s.Amount))):
		return chainv1.Reason_REASON_SPEND_TOO_FAST
	case less(num(e.terms.MaxTotal), add(e.paid, num(s.Amount))):
		return chainv1.Reason_REASON_MAX_TOTAL
	case less(e.balance, num(s.Amount)):
		return chainv1.Reason_REASON_UNRESERVED_TOO_LOW
	case less(e.balance, add(num(s.Amount), num(e.terms.Floor))):
		return chainv1.Reason_REASON_BELOW_FLOOR
	case !signed:
		return chainv1.Reason_REASON_SPEND_SIGNATURE
	case !r.give(s.To, num(s.Amount)):
		return chainv1.Reason_REASON_BELOW_LOCK
	}
	e.balance, e.paid = sub(e.balance, num(s.Amount)), add(e.paid, num(s.Amount))
	l.spends++
	r.escrows[s.Escrow], r.leases[s.Lease] = e, l
	out.Amount = s.Amount
	return 0
}
