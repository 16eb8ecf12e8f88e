package state

import (
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// charge pays what is payable by a note. It never fails: it pays 0 and names the bound.
func (x *Execution) charge(o *tx.Charge, out *tx.Outcome) {
	out.Unpaid = o.Note.Cumulative
	h, ok := x.hold(o.Note.Lease)
	if !ok {
		out.Bound = chainv1.Bound_BOUND_LEASE_MISSING
		return
	}
	l := &h.lease.val
	out.Unpaid = satSub(o.Note.Cumulative, l.Paid)
	switch {
	case !x.mayCharge(l) || !x.noteSigned(o, l):
		out.Bound = chainv1.Bound_BOUND_SIGNATURE
		return
	case l.Settled || windowOver(l, l.Lease.ClaimWindow, x.ctx.Accrual):
		out.Bound = chainv1.Bound_BOUND_SETTLED
		return
	}
	before := x.mark(h)
	x.lapse(l)
	x.acceptBySilence(l)
	x.payCharge(o, h, out)
	out.Unpaid = satSub(o.Note.Cumulative, l.Paid)
	x.follow(h, before)
}

func (x *Execution) mayCharge(l *tx.LeaseState) bool {
	return x.sender.id == l.Lease.Payee || x.isAgent(l)
}

// noteSigned verifies the agent's signature and the countersignature, if there is one.
func (x *Execution) noteSigned(o *tx.Charge, l *tx.LeaseState) bool {
	anchor := x.s.genesis.anchor
	if !x.verify(roleAgent, l.Lease.AgentKey, o.Signature,
		func() []byte { return o.Note.Preimage(anchor) }) {
		return false
	}
	return o.Countersignature.IsZero() || x.acknowledged(l, o.Countersignature,
		func() []byte { return o.Note.AckPreimage(anchor) })
}

// acknowledged verifies an ack key's signature.
func (x *Execution) acknowledged(l *tx.LeaseState, c tx.Countersignature,
	preimage func() []byte) bool {
	if int64(c.Index) >= int64(len(l.Lease.AckKeys)) {
		return false
	}
	return x.verify(roleAck, l.Lease.AckKeys[c.Index], c.Signature, preimage)
}

// payCharge pays the difference between what is payable and what was paid, and books the note.
func (x *Execution) payCharge(o *tx.Charge, h held, out *tx.Outcome) {
	l := &h.lease.val
	if !o.Countersignature.IsZero() {
		l.Countersigned = max(l.Countersigned, o.Note.Cumulative)
	}
	l.Upto = max(l.Upto, min(o.Note.Upto, x.ctx.Time, endOf(l)))
	payable, bound := x.payable(&o.Note, l)
	// An older note takes back nothing that a newer one earned.
	payable = max(payable, l.Paid+l.Withheld)
	withheld := withholding(l, payable)
	amount := satSub(payable-withheld, l.Paid)
	out.Bound = nameBound(bound, withheld, amount)
	payee := x.s.accounts.get(l.Lease.Payee)
	if amount > 0 && !x.credit(payee, amount) {
		// Not final either: the money is there once the payee is.
		out.Bound = chainv1.Bound_BOUND_PAYEE_LOCK
		return
	}
	x.withhold(h, withheld)
	if amount > 0 {
		x.book(h, amount)
		x.proceeds = append(x.proceeds, proceed{payee, amount})
	}
	out.Amount = amount
	if o.Final {
		x.endNow(l)
		l.Settled = true
	}
}

// nameBound names what kept a charge from paying more: what bound the note, else the holdback,
// else that there was nothing new to pay.
func nameBound(bound chainv1.Bound, withheld, amount tx.Grains) chainv1.Bound {
	switch {
	case bound != chainv1.Bound_BOUND_UNSPECIFIED:
		return bound
	case withheld > 0:
		return chainv1.Bound_BOUND_HOLDBACK
	case amount == 0:
		return chainv1.Bound_BOUND_ALREADY_PAID
	}
	return chainv1.Bound_BOUND_UNSPECIFIED
}

// book takes an amount that a payee got from escrow and lease.
func (x *Execution) book(h held, amount tx.Grains) {
	h.lease.val.Paid += amount
	e := x.s.escrows.edit(h.escrow)
	e.Balance -= amount
	e.Paid += amount
}

// payable returns what may be paid on the lease in all by this note, holdback included, and what
// kept it from being the note's whole cumulative.
func (x *Execution) payable(n *tx.Note, l *tx.LeaseState) (tx.Grains, chainv1.Bound) {
	amount, bound := n.Cumulative, chainv1.Bound_BOUND_UNSPECIFIED
	end := endOf(l)
	if most := accrued(l, min(n.Upto, x.ctx.Time, end)); amount > most {
		amount, bound = most, chainv1.Bound_BOUND_ACCRUED
		if end <= x.ctx.Time && n.Upto > end {
			bound = chainv1.Bound_BOUND_ENDED
		}
	}
	amount = satAdd(amount, l.NoticeDue)
	if amount > l.Budget {
		amount, bound = l.Budget, chainv1.Bound_BOUND_BUDGET
	}
	if most := satAdd(l.Countersigned, l.Lease.Trust); amount > most {
		amount, bound = most, chainv1.Bound_BOUND_TRUST
	}
	return amount, bound
}

// withholding is how much of what is payable is not paid out: the holdback, first, unless it was
// accepted.
func withholding(l *tx.LeaseState, payable tx.Grains) tx.Grains {
	if l.Holdback == chainv1.Holdback_HOLDBACK_ACCEPTED {
		return 0
	}
	return max(l.Withheld, min(l.Lease.Holdback, payable))
}

// withhold books a holdback; of a rejected one, what comes to it burns at once.
func (x *Execution) withhold(h held, withheld tx.Grains) {
	l := &h.lease.val
	if l.Holdback == chainv1.Holdback_HOLDBACK_REJECTED {
		x.burnFrom(h, withheld-l.Withheld)
	}
	l.Withheld = withheld
}

func (x *Execution) burnFrom(h held, amount tx.Grains) {
	if amount > 0 {
		x.s.escrows.edit(h.escrow).Balance -= amount
		x.burn(amount)
	}
}

// acceptBySilence accepts a holdback that nobody rejected within its window. What was withheld
// is not paid here: the charge or settlement in hand does.
func (x *Execution) acceptBySilence(l *tx.LeaseState) {
	if l.Lease.Holdback > 0 && l.Holdback == chainv1.Holdback_HOLDBACK_UNSPECIFIED &&
		windowOver(l, holdbackWindow, x.ctx.Accrual) {
		l.Holdback = chainv1.Holdback_HOLDBACK_ACCEPTED
	}
}

func (x *Execution) settle(o *tx.Settle, out *tx.Outcome) {
	out.Settled = make([]tx.SettleOutcome, len(o.Leases))
	for i, id := range o.Leases {
		if h, ok := x.hold(id); ok {
			out.Amount += x.settleLease(h, &out.Settled[i])
		}
	}
}

// settleLease frees what an ended lease no longer needs and returns what a holdback paid.
func (x *Execution) settleLease(h held, out *tx.SettleOutcome) (paid tx.Grains) {
	l := &h.lease.val
	before := x.mark(h)
	out.RateFreed = x.lapse(l)
	over := windowOver(l, l.Lease.ClaimWindow, x.ctx.Accrual)
	if !l.Settled && over {
		l.Settled, out.RestFreed = true, true
	}
	x.acceptBySilence(l)
	if l.Withheld > 0 && l.Holdback == chainv1.Holdback_HOLDBACK_ACCEPTED {
		paid = x.release(h, over)
	}
	x.follow(h, before)
	open := l.Withheld > 0 && l.Holdback != chainv1.Holdback_HOLDBACK_REJECTED
	if l.Settled && !open && x.ctx.Time > l.Lease.PlaceBy {
		x.removeLease(h)
		out.Deleted = true
	}
	return paid
}

// release pays an accepted holdback. A payee that does not exist has until the claim window is
// over; then the holdback goes back to the escrow.
func (x *Execution) release(h held, over bool) tx.Grains {
	l := &h.lease.val
	amount := l.Withheld
	switch {
	case x.credit(x.s.accounts.get(l.Lease.Payee), amount):
		l.Withheld = 0
		x.book(h, amount)
		return amount
	case over:
		l.Withheld = 0
	}
	return 0
}

func (x *Execution) removeLease(h held) {
	lane := x.s.lanes.get(LaneID{h.lease.val.Lease.Escrow, h.lease.val.Lease.Slot})
	if lane.live && lane.val.Lease == h.lease.id {
		x.s.lanes.remove(lane)
	}
	x.s.escrows.edit(h.escrow).Live--
	x.s.leases.remove(h.lease)
}

func (x *Execution) accept(o *tx.Accept, out *tx.Outcome) chainv1.Reason {
	h, reason := x.judge(o.Lease, o.Countersignature, func() []byte {
		return tx.AcceptPreimage(x.s.genesis.anchor, o.Lease)
	})
	if reason != outcomeOK {
		return reason
	}
	l := &h.lease.val
	amount := l.Withheld
	before := x.mark(h)
	if amount > 0 && !x.credit(x.s.accounts.get(l.Lease.Payee), amount) {
		return chainv1.Reason_REASON_BELOW_LOCK
	}
	l.Holdback, l.Withheld = chainv1.Holdback_HOLDBACK_ACCEPTED, 0
	x.book(h, amount)
	x.follow(h, before)
	out.Amount = amount
	return outcomeOK
}

func (x *Execution) reject(o *tx.Reject) chainv1.Reason {
	h, reason := x.judge(o.Lease, o.Countersignature, func() []byte {
		return tx.RejectPreimage(x.s.genesis.anchor, o.Lease, o.Evidence)
	})
	if reason != outcomeOK {
		return reason
	}
	before := x.mark(h)
	h.lease.val.Holdback = chainv1.Holdback_HOLDBACK_REJECTED
	x.burnFrom(h, h.lease.val.Withheld)
	x.follow(h, before)
	return outcomeOK
}

// judge finds a lease whose holdback the sender, or the ack key that signed, may decide.
func (x *Execution) judge(id tx.LeaseID, c tx.Countersignature, preimage func() []byte) (
	held, chainv1.Reason,
) {
	h, ok := x.hold(id)
	if !ok {
		return held{}, chainv1.Reason_REASON_LEASE_UNKNOWN
	}
	l := &h.lease.val
	switch {
	case l.Lease.Holdback == 0:
		return held{}, chainv1.Reason_REASON_NO_HOLDBACK
	case l.Holdback != chainv1.Holdback_HOLDBACK_UNSPECIFIED,
		windowOver(l, holdbackWindow, x.ctx.Accrual):
		return held{}, chainv1.Reason_REASON_HOLDBACK_DECIDED
	case c.IsZero() && x.sender.id != h.escrow.val.Owner:
		return held{}, chainv1.Reason_REASON_NOT_PARTY
	case !c.IsZero() && !x.acknowledged(l, c, preimage):
		return held{}, chainv1.Reason_REASON_ACK_SIGNATURE
	}
	return h, outcomeOK
}
