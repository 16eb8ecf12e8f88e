package state_test

import (
	"bytes"
	"math/big"
	"slices"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func (r *run) place(o *tx.PlaceLease, signed bool, out *tx.Outcome) chainv1.Reason {
	l := o.Lease
	e, ok := r.escrow(l.Escrow)
	if !ok {
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	}
	id := l.ID(r.anchor)
	_, exists := r.leases[id]
	before, taken := r.lanes[l.Escrow][l.Slot]
	switch {
	case r.sender != e.owner && r.sender != e.terms.Assigner:
		return chainv1.Reason_REASON_NOT_ASSIGNER
	case e.open.Purpose != chainv1.Purpose_PURPOSE_JOB:
		return chainv1.Reason_REASON_PURPOSE_DIFFERS
	case !bytes.Equal(l.Subject, e.open.Subject):
		return chainv1.Reason_REASON_SUBJECT_DIFFERS
	case !slices.Equal(l.AckKeys, e.terms.AckKeys):
		return chainv1.Reason_REASON_ACK_KEYS_DIFFER
	case len(e.open.Payees) > 0 && !slices.Contains(e.open.Payees, l.Payee):
		return chainv1.Reason_REASON_PAYEE_NOT_ALLOWED
	case less(num(l.PlaceBy), r.time):
		return chainv1.Reason_REASON_LEASE_LATE
	case l.Budget == 0 || l.Upfront > l.Budget || l.Holdback > l.Budget ||
		!less(r.time, num(l.Until)):
		return chainv1.Reason_REASON_LEASE_INVALID
	case less(num(e.terms.Expires),
		add(r.accrual, sub(num(l.Until), r.time), num(l.ClaimWindow))):
		return chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST
	case o.Fee > 0 && (r.sender != e.terms.Assigner || o.Fee > e.terms.LeaseFee):
		return chainv1.Reason_REASON_LEASE_FEE
	case o.Fee > 0 && less(num(e.terms.LeaseFeeTotal), add(e.fees, num(o.Fee))):
		return chainv1.Reason_REASON_LEASE_FEE_TOTAL
	case exists:
		return chainv1.Reason_REASON_LEASE_EXISTS
	case taken && l.Epoch <= r.leases[before].Epoch:
		return chainv1.Reason_REASON_EPOCH_NOT_HIGHER
	case !signed:
		return chainv1.Reason_REASON_LEASE_SIGNATURE
	}
	if taken {
		r.escrow(l.Escrow)
		old := r.leases[before]
		r.stop(&old)
		r.leases[before] = old
	}
	if reason := r.room(l, e, num(o.Fee)); reason != 0 {
		return reason
	}
	e = r.escrows[l.Escrow]
	e.balance, e.fees = sub(e.balance, num(o.Fee)), add(e.fees, num(o.Fee))
	r.escrows[l.Escrow] = e
	r.give(r.sender, num(o.Fee))
	r.leases[id] = mLease{Lease: l, from: r.time, accrualFrom: r.accrual, budget: num(l.Budget),
		until: num(l.Until), end: num(0), noticeDue: num(0), paid: num(0), acked: num(0),
		upto: num(0), withheld: num(0)}
	if r.lanes[l.Escrow] == nil {
		r.lanes[l.Escrow] = map[uint32]tx.LeaseID{}
	}
	r.lanes[l.Escrow][l.Slot] = id
	out.Created, out.Amount = tx.Hash(id), o.Fee
	return 0
}

func (r *run) room(l tx.Lease, e mEscrow, fee *big.Int) chainv1.Reason {
	rate := add(r.rate(l.Escrow), num(l.Rate))
	risk := add(r.risk(l.Escrow), num(l.Trust))
	total := add(e.paid, e.fees, r.reserved(l.Escrow), num(l.Budget), fee)
	switch {
	case rate.BitLen() > 64 || risk.BitLen() > 64 || total.BitLen() > 64:
		return chainv1.Reason_REASON_OVERFLOW
	case less(num(e.terms.MaxRate), rate):
		return chainv1.Reason_REASON_MAX_RATE
	case less(num(e.terms.Trust), risk):
		return chainv1.Reason_REASON_TRUST_EXCEEDED
	}
	return r.budget(l.Escrow, add(num(l.Budget), fee))
}

func (r *run) budget(id tx.EscrowID, more *big.Int) chainv1.Reason {
	e := r.escrows[id]
	free := sub(e.balance, r.reserved(id))
	switch {
	case less(num(e.terms.MaxTotal), add(e.paid, e.fees, r.reserved(id), more)):
		return chainv1.Reason_REASON_MAX_TOTAL
	case less(free, num(e.terms.Floor)):
		return chainv1.Reason_REASON_BELOW_FLOOR
	case less(free, more):
		return chainv1.Reason_REASON_UNRESERVED_TOO_LOW
	}
	return 0
}

// stop ends a lease now unless it has ended.
func (r *run) stop(l *mLease) {
	if less(r.time, l.theEnd()) {
		l.ended, l.end = true, r.time
	}
	r.touch(l)
}

func (r *run) touch(l *mLease) bool {
	lapses := !l.lapsed && !less(r.time, l.theEnd())
	l.lapsed = l.lapsed || lapses
	return lapses
}

func (r *run) windowOver(l *mLease, window *big.Int) bool {
	return !less(r.accrual, add(l.accrualFrom, sub(l.theEnd(), l.from), window))
}

// find returns a lease with its escrow, whose burn is booked.
func (r *run) find(id tx.LeaseID) (mLease, mEscrow, bool) {
	l, ok := r.leases[id]
	if !ok {
		return l, mEscrow{}, false
	}
	e, _ := r.escrow(l.Escrow)
	return l, e, true
}

func (r *run) isAgent(l mLease) bool { return r.sender == sig.AccountOfKey(l.AgentKey) }

func (r *run) extend(o *tx.Extend) chainv1.Reason {
	l, e, ok := r.find(o.Lease)
	client := r.sender == e.owner || r.sender == e.terms.Assigner
	ahead := add(r.time, num(hour))
	budget, until := num(o.Budget), num(o.Until)
	switch {
	case !ok:
		return chainv1.Reason_REASON_LEASE_UNKNOWN
	case !client && !r.isAgent(l):
		return chainv1.Reason_REASON_NOT_PARTY
	case !client && !e.open.Renew:
		return chainv1.Reason_REASON_RENEW_OFF
	case !client && (less(most(l.budget, l.accrued(ahead)), budget) ||
		less(most(l.until, ahead), until)):
		return chainv1.Reason_REASON_EXTEND_TOO_FAR
	case l.settled || !less(r.time, l.theEnd()):
		return chainv1.Reason_REASON_LEASE_ENDED
	case less(budget, l.budget) || less(until, l.until):
		return chainv1.Reason_REASON_EXTEND_SHRINKS
	case budget.Cmp(l.budget) == 0 && until.Cmp(l.until) == 0:
		return 0
	case add(e.paid, e.fees, r.reserved(l.Escrow), sub(budget, l.budget)).BitLen() > 64:
		return chainv1.Reason_REASON_OVERFLOW
	case less(num(e.terms.MaxRate), r.rate(l.Escrow)):
		return chainv1.Reason_REASON_MAX_RATE
	case less(num(e.terms.Trust), r.risk(l.Escrow)):
		return chainv1.Reason_REASON_TRUST_EXCEEDED
	case less(num(e.terms.Expires),
		add(l.accrualFrom, sub(until, l.from), num(l.ClaimWindow))):
		return chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST
	}
	if reason := r.budget(l.Escrow, sub(budget, l.budget)); reason != 0 {
		return reason
	}
	l.budget, l.until = budget, until
	r.leases[o.Lease] = l
	return 0
}

func (r *run) endLease(o *tx.End) chainv1.Reason {
	l, e, ok := r.find(o.Lease)
	host := r.isAgent(l) || r.sender == l.Payee
	switch {
	case !ok:
		return chainv1.Reason_REASON_LEASE_UNKNOWN
	case !host && r.sender != e.owner && r.sender != e.terms.Assigner:
		return chainv1.Reason_REASON_NOT_PARTY
	case l.settled || !less(r.time, l.theEnd()):
		return chainv1.Reason_REASON_LEASE_ENDED
	}
	if !host {
		l.noticeDue = least(perHour(num(l.Rate), num(l.Notice)), l.budget)
	}
	r.stop(&l)
	r.leases[o.Lease] = l
	return 0
}

func (r *run) charge(o *tx.Charge, agent, ack bool, out *tx.Outcome) {
	cumulative := num(o.Note.Cumulative)
	l, _, ok := r.find(o.Note.Lease)
	if !ok {
		out.Bound, out.Unpaid = chainv1.Bound_BOUND_LEASE_MISSING, o.Note.Cumulative
		return
	}
	unpaid := func() { out.Unpaid = tx.Grains(over(cumulative, l.paid).Uint64()) }
	unpaid()
	switch {
	case r.sender != l.Payee && !r.isAgent(l), !agent, !o.Countersignature.IsZero() && !ack:
		out.Bound = chainv1.Bound_BOUND_SIGNATURE
		return
	case l.settled || r.windowOver(&l, num(l.ClaimWindow)):
		out.Bound = chainv1.Bound_BOUND_SETTLED
		return
	}
	r.touch(&l)
	r.silence(&l)
	if !o.Countersignature.IsZero() {
		l.acked = most(l.acked, cumulative)
	}
	upto := least(num(o.Note.Upto), r.time, l.theEnd())
	l.upto = most(l.upto, upto)
	payable, bound := r.payable(o, &l, upto)
	payable = most(payable, add(l.paid, l.withheld))
	withheld := most(l.withheld, least(num(l.Holdback), payable))
	if l.verdict == chainv1.Holdback_HOLDBACK_ACCEPTED {
		withheld = num(0)
	}
	amount := over(sub(payable, withheld), l.paid)
	switch {
	case bound != 0:
	case withheld.Sign() > 0:
		bound = chainv1.Bound_BOUND_HOLDBACK
	case amount.Sign() == 0:
		bound = chainv1.Bound_BOUND_ALREADY_PAID
	}
	if amount.Sign() > 0 && !r.give(l.Payee, amount) {
		out.Bound = chainv1.Bound_BOUND_PAYEE_LOCK
		r.leases[o.Note.Lease] = l
		return
	}
	if l.verdict == chainv1.Holdback_HOLDBACK_REJECTED {
		r.burnFrom(l.Escrow, sub(withheld, l.withheld))
	}
	l.withheld = withheld
	r.book(&l, amount)
	if amount.Sign() > 0 {
		r.proceeds = append(r.proceeds, mProceed{l.Payee, amount})
	}
	if o.Final {
		r.stop(&l)
		l.settled = true
	}
	out.Amount, out.Bound = tx.Grains(amount.Uint64()), bound
	unpaid()
	r.leases[o.Note.Lease] = l
}

func (r *run) payable(o *tx.Charge, l *mLease, upto *big.Int) (*big.Int, chainv1.Bound) {
	amount, bound := num(o.Note.Cumulative), chainv1.Bound_BOUND_UNSPECIFIED
	if accrued := l.accrued(upto); less(accrued, amount) {
		amount, bound = accrued, chainv1.Bound_BOUND_ACCRUED
		if !less(r.time, l.theEnd()) && less(l.theEnd(), num(o.Note.Upto)) {
			bound = chainv1.Bound_BOUND_ENDED
		}
	}
	amount = add(amount, l.noticeDue)
	if less(l.budget, amount) {
		amount, bound = l.budget, chainv1.Bound_BOUND_BUDGET
	}
	if trusted := add(l.acked, num(l.Trust)); less(trusted, amount) {
		amount, bound = trusted, chainv1.Bound_BOUND_TRUST
	}
	return amount, bound
}

// book moves what a payee got out of the escrow.
func (r *run) book(l *mLease, amount *big.Int) {
	e := r.escrows[l.Escrow]
	e.balance, e.paid = sub(e.balance, amount), add(e.paid, amount)
	r.escrows[l.Escrow] = e
	l.paid = add(l.paid, amount)
}

func (r *run) burnFrom(id tx.EscrowID, amount *big.Int) {
	e := r.escrows[id]
	e.balance = sub(e.balance, amount)
	r.escrows[id] = e
	r.burned = add(r.burned, amount)
}

func (r *run) silence(l *mLease) {
	if l.Holdback > 0 && l.verdict == 0 && r.windowOver(l, num(day)) {
		l.verdict = chainv1.Holdback_HOLDBACK_ACCEPTED
	}
}

func (r *run) settle(o *tx.Settle, out *tx.Outcome) {
	for _, id := range o.Leases {
		var s tx.SettleOutcome
		if l, _, ok := r.find(id); ok {
			out.Amount += r.settleOne(id, l, &s)
		}
		out.Settled = append(out.Settled, s)
	}
}

func (r *run) settleOne(id tx.LeaseID, l mLease, out *tx.SettleOutcome) (paid tx.Grains) {
	out.RateFreed = r.touch(&l)
	over := r.windowOver(&l, num(l.ClaimWindow))
	if over && !l.settled {
		l.settled, out.RestFreed = true, true
	}
	r.silence(&l)
	if l.verdict == chainv1.Holdback_HOLDBACK_ACCEPTED && l.withheld.Sign() > 0 {
		amount := l.withheld
		if r.give(l.Payee, amount) {
			l.withheld = num(0)
			r.book(&l, amount)
			paid = tx.Grains(amount.Uint64())
		} else if over {
			l.withheld = num(0)
		}
	}
	r.leases[id] = l
	waits := l.withheld.Sign() > 0 && l.verdict != chainv1.Holdback_HOLDBACK_REJECTED
	if l.settled && !waits && less(num(l.PlaceBy), r.time) {
		out.Deleted = true
		e := r.escrows[l.Escrow]
		e.riskOfDeleted = add(e.riskOfDeleted, l.unacked())
		r.escrows[l.Escrow] = e
		delete(r.leases, id)
		if r.lanes[l.Escrow][l.Slot] == id {
			delete(r.lanes[l.Escrow], l.Slot)
		}
	}
	return paid
}

func (r *run) mayJudge(id tx.LeaseID, c tx.Countersignature, ack bool) (mLease, chainv1.Reason) {
	l, e, ok := r.find(id)
	switch {
	case !ok:
		return l, chainv1.Reason_REASON_LEASE_UNKNOWN
	case l.Holdback == 0:
		return l, chainv1.Reason_REASON_NO_HOLDBACK
	case l.verdict != 0 || r.windowOver(&l, num(day)):
		return l, chainv1.Reason_REASON_HOLDBACK_DECIDED
	case c.IsZero() && r.sender != e.owner:
		return l, chainv1.Reason_REASON_NOT_PARTY
	case !c.IsZero() && !ack:
		return l, chainv1.Reason_REASON_ACK_SIGNATURE
	}
	return l, 0
}

func (r *run) accept(o *tx.Accept, ack bool, out *tx.Outcome) chainv1.Reason {
	l, reason := r.mayJudge(o.Lease, o.Countersignature, ack)
	if reason != 0 {
		return reason
	}
	amount := l.withheld
	if amount.Sign() > 0 && !r.give(l.Payee, amount) {
		return chainv1.Reason_REASON_BELOW_LOCK
	}
	l.verdict, l.withheld = chainv1.Holdback_HOLDBACK_ACCEPTED, num(0)
	r.book(&l, amount)
	r.leases[o.Lease] = l
	out.Amount = tx.Grains(amount.Uint64())
	return 0
}

func (r *run) reject(o *tx.Reject, ack bool) chainv1.Reason {
	l, reason := r.mayJudge(o.Lease, o.Countersignature, ack)
	if reason != 0 {
		return reason
	}
	l.verdict = chainv1.Holdback_HOLDBACK_REJECTED
	r.burnFrom(l.Escrow, l.withheld)
	r.leases[o.Lease] = l
	return 0
}

// unacked is what was paid on all leases that an escrow ever had and not acknowledged.
func (m *model) unacked(id tx.EscrowID) *big.Int {
	sum := m.escrows[id].riskOfDeleted
	for _, l := range m.leases {
		if l.Escrow == id {
			sum = add(sum, l.unacked())
		}
	}
	return sum
}

func (l *mLease) unacked() *big.Int { return over(l.paid, l.acked) }
