package state

import (
	"bytes"
	"slices"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// spendAhead is what a budget may spend at once, before any time has passed: an hour of max_rate.
const spendAhead tx.Millis = hour

// checkBudgetEscrow wants a budget to be about a job, to hold money, and to have the limits that
// spending is held by. No lease stands under it and nothing burns.
func (x *Execution) checkBudgetEscrow(o *tx.OpenEscrow) chainv1.Reason {
	switch {
	case o.PayeeRoot != tx.Hash{} || o.Renew || o.BurnRate != 0 || o.Unbond != 0:
		return chainv1.Reason_REASON_FIELD_NOT_BUILT
	case len(o.Subject) != jobIDSize:
		return chainv1.Reason_REASON_SUBJECT_INVALID
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case !ascending(o.Payees):
		return chainv1.Reason_REASON_PAYEES_INVALID
	case !x.budgetTermsValid(&o.Terms):
		return chainv1.Reason_REASON_TERMS_INVALID
	}
	return outcomeOK
}

// budgetTermsValid wants both limits and an expiry, and nothing that only leases know.
func (x *Execution) budgetTermsValid(t *tx.Terms) bool {
	return t.MaxRate > 0 && t.MaxTotal > 0 && t.Expires > x.ctx.Accrual && t.Trust == 0 &&
		len(t.AckKeys) == 0 && t.Assigner.IsZero() && t.LeaseFee == 0 && t.LeaseFeeTotal == 0
}

// spend pays from a budget by an order of a live lease's session key.
func (x *Execution) spend(o *tx.Spend, out *tx.Outcome) chainv1.Reason {
	c := x.findEscrow(o.Order.Escrow)
	l := x.s.leases.get(o.Order.Lease)
	switch {
	case c == nil:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case c.val.Purpose != chainv1.Purpose_PURPOSE_BUDGET:
		return chainv1.Reason_REASON_PURPOSE_DIFFERS
	case !l.live:
		return chainv1.Reason_REASON_LEASE_UNKNOWN
	}
	if reason := x.maySpend(&o.Order, &l.val, &c.val); reason != outcomeOK {
		return reason
	}
	if reason := x.checkSpend(&o.Order, &c.val); reason != outcomeOK {
		return reason
	}
	if !x.verify(roleSession, l.val.Lease.SessionKey, o.Signature,
		func() []byte { return o.Order.Preimage(x.s.genesis.anchor) }) {
		return chainv1.Reason_REASON_SPEND_SIGNATURE
	}
	if !x.credit(x.s.accounts.get(o.Order.To), o.Order.Amount) {
		return chainv1.Reason_REASON_BELOW_LOCK
	}
	e := x.s.escrows.edit(c)
	e.Balance -= o.Order.Amount
	e.Paid += o.Order.Amount
	x.s.leases.edit(l).Spends++
	out.Amount = o.Order.Amount
	return outcomeOK
}

// maySpend wants the lease to live, to be of the budget's owner and job, and the order to be its
// session key's next.
func (x *Execution) maySpend(o *tx.SpendOrder, l *tx.LeaseState, e *tx.Escrow) chainv1.Reason {
	of := &x.s.escrows.get(l.Lease.Escrow).val
	switch {
	case of.Owner != e.Owner || !bytes.Equal(l.Lease.Subject, e.Subject):
		return chainv1.Reason_REASON_SUBJECT_DIFFERS
	case l.Settled || endOf(l) <= x.ctx.Time:
		return chainv1.Reason_REASON_LEASE_ENDED
	case l.Lease.SessionKey == sig.PublicKey{}:
		return chainv1.Reason_REASON_SPEND_SIGNATURE
	case o.Sequence != l.Spends:
		return chainv1.Reason_REASON_SPEND_SEQUENCE
	}
	return outcomeOK
}

// checkSpend runs the escrow's limits. Nothing is reserved of a budget, so all it holds but the
// floor can be spent.
func (x *Execution) checkSpend(o *tx.SpendOrder, e *tx.Escrow) chainv1.Reason {
	allowed := perHour(e.Terms.MaxRate, satAdd(satSub(x.ctx.Accrual, e.Opened), spendAhead))
	switch {
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case len(e.Payees) > 0 && !slices.Contains(e.Payees, o.To):
		return chainv1.Reason_REASON_PAYEE_NOT_ALLOWED
	case x.ctx.Accrual > e.Terms.Expires:
		return chainv1.Reason_REASON_ESCROW_EXPIRED
	case satAdd(e.Paid, o.Amount) > allowed:
		return chainv1.Reason_REASON_SPEND_TOO_FAST
	case satAdd(e.Paid, o.Amount) > e.Terms.MaxTotal:
		return chainv1.Reason_REASON_MAX_TOTAL
	case e.Balance < o.Amount:
		return chainv1.Reason_REASON_UNRESERVED_TOO_LOW
	case e.Balance-o.Amount < e.Terms.Floor:
		return chainv1.Reason_REASON_BELOW_FLOOR
	}
	return outcomeOK
}

// sessionValid wants a lease's session key to be none, or a key for nothing else: a host that signs
// charges with it, or an owner's ack key, must not spend by accident.
func sessionValid(l *tx.Lease) bool {
	return l.SessionKey == sig.PublicKey{} || l.SessionKey != l.AgentKey &&
		indexOf(l.AckKeys, l.SessionKey) < 0 && l.SessionKey.Validate() == nil
}
