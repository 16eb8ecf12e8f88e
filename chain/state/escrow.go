package state

import (
	"bytes"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const (
	// maxAckKeys is the most ack keys of an escrow.
	maxAckKeys = 4
	// maxPayees is the most payees an escrow lists.
	maxPayees = 64
	// jobIDSize is the length of the subject of a job's escrow in bytes.
	jobIDSize = 32
)

type escrowCell = cell[tx.EscrowID, tx.Escrow]

// unreserved is what no lease has a claim to.
func unreserved(e *tx.Escrow) tx.Grains { return e.Balance - e.Reserved }

// burns tells whether anything is left that will burn.
func burns(e *tx.Escrow) bool { return e.BurnRate > 0 && e.Balance > e.Reserved }

// burnDue is what burns by an accrual time and has not been booked: cumulative from opening,
// and never more than the unreserved balance. What could not burn for want of it stays due.
func burnDue(e *tx.Escrow, accrual tx.Millis) tx.Grains {
	total := perHour(e.BurnRate, satSub(accrual, e.Opened))
	return min(satSub(total, e.Burned), unreserved(e))
}

// findEscrow returns an escrow with its burn booked up to now, nil if there is none.
func (x *Execution) findEscrow(id tx.EscrowID) *escrowCell {
	c := x.s.escrows.get(id)
	if !c.live {
		return nil
	}
	if due := burnDue(&c.val, x.ctx.Accrual); due > 0 {
		e := x.s.escrows.edit(c)
		e.Balance -= due
		e.Burned += due
		x.burn(due)
	}
	return c
}

func (x *Execution) burn(amount tx.Grains) { x.chain.burned = plus(x.chain.burned, amount) }

func (x *Execution) openEscrow(o *tx.OpenEscrow, out *tx.Outcome) chainv1.Reason {
	if reason := x.checkOpen(o); reason != outcomeOK {
		return reason
	}
	lock := x.s.genesis.params.EscrowLock
	cost := satAdd(o.Amount, lock)
	if cost-lock != o.Amount {
		return chainv1.Reason_REASON_OVERFLOW
	}
	if reason := x.leave(cost); reason != outcomeOK {
		return reason
	}
	id := tx.EscrowIDOf(x.prepared.ID, uint32(x.index))
	e := x.s.escrows.create(x.s.escrows.get(id))
	*e = tx.Escrow{
		Owner: x.sender.id, Purpose: o.Purpose, Subject: bytes.Clone(o.Subject),
		Balance: o.Amount, Lock: lock, Terms: o.Terms, Payees: o.Payees,
		Renew: o.Renew, BurnRate: o.BurnRate, Unbond: o.Unbond, Opened: x.ctx.Accrual,
	}
	out.Created, out.Amount = tx.Hash(id), o.Amount
	return outcomeOK
}

func (x *Execution) checkOpen(o *tx.OpenEscrow) chainv1.Reason {
	switch {
	case isBond(o.Purpose):
		return checkBond(o)
	case o.Purpose == chainv1.Purpose_PURPOSE_BUDGET:
		return x.checkBudgetEscrow(o)
	case o.Purpose != chainv1.Purpose_PURPOSE_JOB:
		return chainv1.Reason_REASON_PURPOSE_NOT_BUILT
	case o.PayeeRoot != tx.Hash{} || o.Unbond != 0:
		return chainv1.Reason_REASON_FIELD_NOT_BUILT
	case len(o.Subject) != jobIDSize:
		return chainv1.Reason_REASON_SUBJECT_INVALID
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case !ascending(o.Payees):
		return chainv1.Reason_REASON_PAYEES_INVALID
	case !x.termsValid(&o.Terms):
		return chainv1.Reason_REASON_TERMS_INVALID
	}
	return outcomeOK
}

func ascending(payees []sig.AccountID) bool {
	for i := 1; i < len(payees); i++ {
		if payees[i-1].Compare(payees[i]) >= 0 {
			return false
		}
	}
	return len(payees) <= maxPayees
}

func (x *Execution) termsValidFor(p chainv1.Purpose, t *tx.Terms) bool {
	if p == chainv1.Purpose_PURPOSE_BUDGET {
		return x.budgetTermsValid(t)
	}
	return x.termsValid(t)
}

// termsValid wants 1 to 4 distinct valid ack keys and an expiry that has not come.
func (x *Execution) termsValid(t *tx.Terms) bool {
	if len(t.AckKeys) == 0 || len(t.AckKeys) > maxAckKeys || t.Expires <= x.ctx.Accrual {
		return false
	}
	for i, key := range t.AckKeys {
		if key.Validate() != nil || indexOf(t.AckKeys[:i], key) >= 0 {
			return false
		}
	}
	return true
}

func indexOf(keys []sig.PublicKey, key sig.PublicKey) int {
	for i := range keys {
		if keys[i] == key {
			return i
		}
	}
	return -1
}

func (x *Execution) topUp(o *tx.TopUp, out *tx.Outcome) chainv1.Reason {
	c := x.findEscrow(o.Escrow)
	switch {
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case c == nil:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case isBond(c.val.Purpose) && c.val.Owner != x.sender.id:
		// A grain from a stranger would be above the notice that covers all of it, and keep it open.
		return chainv1.Reason_REASON_NOT_OWNER
	}
	if reason := x.leave(o.Amount); reason != outcomeOK {
		return reason
	}
	x.s.escrows.edit(c).Balance += o.Amount
	out.Amount = o.Amount
	return outcomeOK
}

func (x *Execution) withdraw(o *tx.Withdraw, out *tx.Outcome) chainv1.Reason {
	c := x.findEscrow(o.Escrow)
	switch {
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case c == nil:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case c.val.Owner != x.sender.id:
		return chainv1.Reason_REASON_NOT_OWNER
	case unreserved(&c.val) < o.Amount:
		return chainv1.Reason_REASON_UNRESERVED_TOO_LOW
	}
	if reason := x.unbonded(&c.val, o.Amount); reason != outcomeOK {
		return reason
	}
	e := x.s.escrows.edit(c)
	e.Balance -= o.Amount
	e.Noticed = satSub(e.Noticed, o.Amount)
	x.s.accounts.edit(x.sender).Balance += o.Amount
	out.Amount = o.Amount
	return outcomeOK
}

func (x *Execution) setTerms(o *tx.SetTerms) chainv1.Reason {
	c := x.findEscrow(o.Escrow)
	switch {
	case c == nil:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case c.val.Owner != x.sender.id:
		return chainv1.Reason_REASON_NOT_OWNER
	case isBond(c.val.Purpose):
		return chainv1.Reason_REASON_PURPOSE_DIFFERS
	case !x.termsValidFor(c.val.Purpose, &o.Terms):
		return chainv1.Reason_REASON_TERMS_INVALID
	}
	x.s.escrows.edit(c).Terms = o.Terms
	return outcomeOK
}

// closeEscrow returns balance and lock to the owner, whoever closes.
func (x *Execution) closeEscrow(o *tx.CloseEscrow, out *tx.Outcome) chainv1.Reason {
	c := x.findEscrow(o.Escrow)
	switch {
	case c == nil:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case c.val.Owner != x.sender.id && isBond(c.val.Purpose):
		return chainv1.Reason_REASON_NOT_OWNER
	case c.val.Owner != x.sender.id && x.ctx.Accrual <= c.val.Terms.Expires:
		return chainv1.Reason_REASON_NOT_EXPIRED
	case c.val.Live > 0:
		return chainv1.Reason_REASON_LEASES_LIVE
	}
	if reason := x.unbonded(&c.val, c.val.Balance); reason != outcomeOK {
		return reason
	}
	amount := c.val.Balance + c.val.Lock
	x.s.accounts.edit(x.s.accounts.get(c.val.Owner)).Balance += amount
	x.s.escrows.remove(c)
	out.Amount = amount
	return outcomeOK
}
