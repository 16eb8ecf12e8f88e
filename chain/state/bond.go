package state

import (
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const (
	// minUnbond is the longest window in which what a bond secures can be challenged; a bond that
	// could be gone before would secure nothing.
	minUnbond = 7 * day
	// maxUnbond bounds a bond's notice.
	maxUnbond = 366 * day
	// noticeLasts is how long a notice that is due can be used. One that could for ever would leave a
	// bond that looks full and can be gone in the next block.
	noticeLasts = 7 * day
)

// isBond tells whether money of this purpose can be withdrawn only after notice: it secures what
// its owner promised. Guarantees follow the rules of bonds.
func isBond(p chainv1.Purpose) bool {
	return p == chainv1.Purpose_PURPOSE_BOND || p == chainv1.Purpose_PURPOSE_GUARANTEE
}

// checkBond wants a bond to hold money, a subject and an unbond, and nothing else: no lease
// stands under it, nobody is paid from it, and it does not expire.
func checkBond(o *tx.OpenEscrow) chainv1.Reason {
	t := &o.Terms
	free := t.MaxRate == 0 && t.MaxTotal == 0 && t.Trust == 0 && t.Floor == 0 && t.Expires == 0 &&
		t.LeaseFee == 0 && t.LeaseFeeTotal == 0
	switch {
	case o.PayeeRoot != tx.Hash{} || o.Renew || o.BurnRate != 0:
		return chainv1.Reason_REASON_FIELD_NOT_BUILT
	case len(o.Subject) != jobIDSize:
		return chainv1.Reason_REASON_SUBJECT_INVALID
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case len(o.Payees) > 0:
		return chainv1.Reason_REASON_PAYEES_INVALID
	case !free || len(t.AckKeys) > 0 || !t.Assigner.IsZero():
		return chainv1.Reason_REASON_TERMS_INVALID
	case o.Unbond < minUnbond || o.Unbond > maxUnbond:
		return chainv1.Reason_REASON_UNBOND_INVALID
	}
	return outcomeOK
}

// notice starts the delay for an amount of what the bond holds now; what is added later needs a
// notice of its own. A new notice replaces the old one and its delay.
func (x *Execution) notice(o *tx.Notice) chainv1.Reason {
	c := x.findEscrow(o.Escrow)
	switch {
	case c == nil:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case c.val.Owner != x.sender.id:
		return chainv1.Reason_REASON_NOT_OWNER
	case !isBond(c.val.Purpose):
		return chainv1.Reason_REASON_PURPOSE_DIFFERS
	case c.val.Balance < o.Amount:
		return chainv1.Reason_REASON_BALANCE_TOO_LOW
	}
	e := x.s.escrows.edit(c)
	e.Noticed, e.NoticeDue = o.Amount, 0
	if o.Amount > 0 {
		e.NoticeDue = satAdd(x.ctx.Accrual, e.Unbond)
	}
	return outcomeOK
}

// unbonded tells whether an amount may leave an escrow: at once unless it is a bond, else only
// what notice was given for, from when its delay is over until it lapses.
func (x *Execution) unbonded(e *tx.Escrow, amount tx.Grains) chainv1.Reason {
	switch {
	case !isBond(e.Purpose) || amount == 0:
		return outcomeOK
	case e.Noticed < amount:
		return chainv1.Reason_REASON_NOTICE_TOO_LOW
	case x.ctx.Accrual < e.NoticeDue:
		return chainv1.Reason_REASON_NOTICE_NOT_DUE
	case lapsed(e, x.ctx.Accrual):
		return chainv1.Reason_REASON_NOTICE_LAPSED
	}
	return outcomeOK
}

// lapsed tells whether a notice was not used in time: what it was given for is held as before.
func lapsed(e *tx.Escrow, accrual tx.Millis) bool {
	return accrual > satAdd(e.NoticeDue, noticeLasts)
}

// Secured is what a bond or guarantee secures at an accrual time, from its leaf: what cannot leave
// it within unbond, whatever its owner does. What notice was given for is not part of it until the
// notice has lapsed or was taken back. 0 of what is no bond.
func Secured(e *tx.Escrow, accrual tx.Millis) tx.Grains {
	switch {
	case !isBond(e.Purpose):
		return 0
	case e.Noticed == 0 || lapsed(e, accrual):
		return e.Balance
	}
	return satSub(e.Balance, e.Noticed)
}
