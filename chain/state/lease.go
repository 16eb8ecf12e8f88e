package state

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const (
	day tx.Millis = 24 * hour
	// minClaimWindow and maxClaimWindow bound a lease's claim window.
	minClaimWindow = day
	maxClaimWindow = 30 * day
	// maxPlaceAhead is how far place_by may be ahead of the block's time.
	maxPlaceAhead tx.Millis = 10 * 60 * 1000
	// holdbackWindow is how long after the end a holdback may be rejected.
	holdbackWindow = day
	// maxLive is the most lease leaves under an escrow.
	maxLive = 65_536
)

// held is a lease with its escrow.
type held struct {
	lease  *cell[tx.LeaseID, tx.LeaseState]
	escrow *escrowCell
}

// claims is what a lease counts for in its escrow's sums.
type claims struct {
	reserved tx.Grains
	rate     tx.GrainsPerHour
	risk     tx.Grains
}

// claimsOf derives a lease's part of the sums from its record alone, so the sums cannot drift
// from the leases: every edit of a lease goes between mark and follow.
func claimsOf(l *tx.LeaseState) (c claims) {
	c.reserved = reservedOf(l)
	c.risk = riskOf(l, c.reserved)
	if !l.RateFreed {
		c.rate = l.Lease.Rate
	}
	return c
}

// riskOf is the most that a lease can come to beyond what was countersigned: its trust until the
// chain has counted its end, since until then it can be extended; from then on no more than what
// was paid and can still be. It never rises: a charge moves reserved to paid, a countersignature
// lessens it, and a settlement, which never comes before the end is counted, frees what is left.
func riskOf(l *tx.LeaseState, reserved tx.Grains) tx.Grains {
	if !l.RateFreed {
		return l.Lease.Trust
	}
	return min(l.Lease.Trust, satSub(satAdd(l.Paid, reserved), l.Countersigned))
}

// reservedOf is what can still be paid on a lease, holdback included: the budget until the end,
// then what rate and notice allow up to the end, and after settlement an unpaid holdback.
func reservedOf(l *tx.LeaseState) tx.Grains {
	rejected := l.Holdback == chainv1.Holdback_HOLDBACK_REJECTED
	switch {
	case l.Settled && rejected:
		return 0
	case l.Settled:
		return l.Withheld
	}
	most := l.Budget
	if l.RateFreed {
		most = min(most, satAdd(accrued(l, endOf(l)), l.NoticeDue))
	}
	gone := l.Paid
	if rejected {
		gone += l.Withheld
	}
	return satSub(most, gone)
}

// endOf returns the time at which the lease ended or will end.
func endOf(l *tx.LeaseState) tx.Millis {
	if l.End != 0 {
		return l.End
	}
	return l.Until
}

// accrued is what rate and upfront allow for the time up to upto.
func accrued(l *tx.LeaseState, upto tx.Millis) tx.Grains {
	return satAdd(l.Lease.Upfront, perHour(l.Lease.Rate, satSub(upto, l.From)))
}

// windowOver tells whether a window after the lease's end is over by the accrual clock.
func windowOver(l *tx.LeaseState, window, accrual tx.Millis) bool {
	return accrual >= windowEnd(l, window)
}

// windowEnd is when a window after the lease's end is over, on the accrual clock.
func windowEnd(l *tx.LeaseState, window tx.Millis) tx.Millis {
	return windowAfter(l, endOf(l), window)
}

func windowAfter(l *tx.LeaseState, end, window tx.Millis) tx.Millis {
	return satAdd(l.AccrualFrom, satAdd(satSub(end, l.From), window))
}

// hold finds a lease and its escrow, whose burn is booked.
func (x *Execution) hold(id tx.LeaseID) (held, bool) {
	c := x.s.leases.get(id)
	if !c.live {
		return held{}, false
	}
	return held{c, x.findEscrow(c.val.Lease.Escrow)}, true
}

// mark returns what the lease counts for before an edit, follow moves the difference into the
// escrow's sums after it.
func (x *Execution) mark(h held) claims {
	x.s.leases.edit(h.lease)
	return claimsOf(&h.lease.val)
}

func (x *Execution) follow(h held, before claims) {
	after := claimsOf(&h.lease.val)
	e := x.s.escrows.edit(h.escrow)
	e.Reserved += after.reserved - before.reserved
	e.Rate += after.rate - before.rate
	e.Risk += after.risk - before.risk
}

// lapse frees the rate and cuts the reservation of a lease that has ended; whoever touches a
// lease after its end does so.
func (x *Execution) lapse(l *tx.LeaseState) (freed bool) {
	if l.RateFreed || endOf(l) > x.ctx.Time {
		return false
	}
	l.RateFreed = true
	return true
}

// endNow ends a running lease at the block's time.
func (x *Execution) endNow(l *tx.LeaseState) {
	if endOf(l) > x.ctx.Time {
		l.End = x.ctx.Time
	}
	x.lapse(l)
}

// isAgent tells whether the sender is the account of the lease's agent key.
func (x *Execution) isAgent(l *tx.LeaseState) bool {
	return sig.AccountOfKey(l.Lease.AgentKey) == x.sender.id
}

func (x *Execution) placeLease(o *tx.PlaceLease, out *tx.Outcome) chainv1.Reason {
	l := &o.Lease
	c := x.findEscrow(l.Escrow)
	if c == nil {
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	}
	if reason := x.checkLease(l, &c.val); reason != outcomeOK {
		return reason
	}
	if reason := x.checkLeaseFee(o.Fee, &c.val.Terms, c.val.LeaseFees); reason != outcomeOK {
		return reason
	}
	preimage := l.Preimage(x.s.genesis.anchor)
	id := tx.LeaseID(sha256.Sum256(preimage))
	leaf := x.s.leases.get(id)
	lane := x.s.lanes.get(LaneID{l.Escrow, l.Slot})
	switch {
	case leaf.live:
		return chainv1.Reason_REASON_LEASE_EXISTS
	case lane.live && l.Epoch <= lane.val.Epoch:
		return chainv1.Reason_REASON_EPOCH_NOT_HIGHER
	case !x.verify(roleAgent, l.AgentKey, o.Signature, func() []byte { return preimage }):
		return chainv1.Reason_REASON_LEASE_SIGNATURE
	}
	if lane.live {
		x.supersede(lane.val.Lease)
	}
	if reason := x.checkRoom(l, &c.val, o.Fee); reason != outcomeOK {
		return reason
	}
	x.insertLease(l, held{leaf, c}, lane)
	x.payLeaseFee(c, o.Fee)
	out.Created, out.Amount = tx.Hash(id), o.Fee
	return outcomeOK
}

// checkLeaseFee bounds what an owner can lose to an assigner who places leases for their fees: by
// what he granted for one, and for all over the life of the escrow, whatever the terms were before.
func (x *Execution) checkLeaseFee(fee tx.Grains, t *tx.Terms, taken tx.Grains) chainv1.Reason {
	switch {
	case fee == 0:
		return outcomeOK
	case x.sender.id != t.Assigner || fee > t.LeaseFee:
		return chainv1.Reason_REASON_LEASE_FEE
	case satAdd(taken, fee) > t.LeaseFeeTotal:
		return chainv1.Reason_REASON_LEASE_FEE_TOTAL
	}
	return outcomeOK
}

// payLeaseFee moves the fee, which is covered by the unreserved balance, to the assigner.
func (x *Execution) payLeaseFee(c *escrowCell, fee tx.Grains) {
	if fee == 0 {
		return
	}
	e := x.s.escrows.edit(c)
	e.Balance -= fee
	e.LeaseFees += fee
	x.s.accounts.edit(x.sender).Balance += fee
}

// supersede ends the lease that held the lane, without notice: it is the way to replace a host
// that is lost, and must not pay it.
func (x *Execution) supersede(id tx.LeaseID) {
	if h, ok := x.hold(id); ok {
		before := x.mark(h)
		x.endNow(&h.lease.val)
		x.follow(h, before)
	}
}

func (x *Execution) insertLease(l *tx.Lease, h held, lane *cell[LaneID, tx.LaneState]) {
	*x.s.leases.create(h.lease) = tx.LeaseState{
		Lease: *l, From: x.ctx.Time, AccrualFrom: x.ctx.Accrual, Budget: l.Budget, Until: l.Until,
	}
	h.lease.val.Lease.Subject = bytes.Clone(l.Subject)
	x.follow(h, claims{})
	x.s.escrows.edit(h.escrow).Live++
	*x.s.lanes.create(lane) = tx.LaneState{Lease: h.lease.id, Epoch: l.Epoch}
}

// checkLease checks what a lease says against the escrow's terms, amounts apart. Its claims must be
// over when the escrow expires, both by the accrual clock.
func (x *Execution) checkLease(l *tx.Lease, e *tx.Escrow) chainv1.Reason {
	switch {
	case x.sender.id != e.Owner && x.sender.id != e.Terms.Assigner:
		return chainv1.Reason_REASON_NOT_ASSIGNER
	case e.Purpose != chainv1.Purpose_PURPOSE_JOB:
		return chainv1.Reason_REASON_PURPOSE_DIFFERS
	case !bytes.Equal(l.Subject, e.Subject):
		return chainv1.Reason_REASON_SUBJECT_DIFFERS
	case !slices.Equal(l.AckKeys, e.Terms.AckKeys):
		return chainv1.Reason_REASON_ACK_KEYS_DIFFER
	case len(e.Payees) > 0 && !slices.Contains(e.Payees, l.Payee):
		return chainv1.Reason_REASON_PAYEE_NOT_ALLOWED
	case l.PlaceBy < x.ctx.Time:
		return chainv1.Reason_REASON_LEASE_LATE
	case !x.leaseValid(l):
		return chainv1.Reason_REASON_LEASE_INVALID
	case satAdd(satAdd(x.ctx.Accrual, l.Until-x.ctx.Time), l.ClaimWindow) > e.Terms.Expires:
		return chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST
	}
	return outcomeOK
}

// leaseValid checks a lease's own bounds.
func (x *Execution) leaseValid(l *tx.Lease) bool {
	return l.Budget > 0 && l.Upfront <= l.Budget && l.Holdback <= l.Budget &&
		l.Until > x.ctx.Time && l.PlaceBy-x.ctx.Time <= maxPlaceAhead &&
		l.ClaimWindow >= minClaimWindow && l.ClaimWindow <= maxClaimWindow &&
		l.PriceHash != tx.Hash{} && l.OfferHash != tx.Hash{} &&
		indexOf(l.AckKeys, l.AgentKey) < 0 && sessionValid(l)
}

// checkRoom checks that the escrow can promise the lease and pay the fee for it.
func (x *Execution) checkRoom(l *tx.Lease, e *tx.Escrow, fee tx.Grains) chainv1.Reason {
	switch {
	case e.Live >= maxLive:
		return chainv1.Reason_REASON_TOO_MANY_LEASES
	case sumsOverflow(l, e, fee):
		return chainv1.Reason_REASON_OVERFLOW
	case e.Rate+l.Rate > e.Terms.MaxRate:
		return chainv1.Reason_REASON_MAX_RATE
	case e.Risk+l.Trust > e.Terms.Trust:
		return chainv1.Reason_REASON_TRUST_EXCEEDED
	}
	return checkBudget(l.Budget+fee, e)
}

// sumsOverflow tells whether the lease would carry a sum of the escrow beyond 64 bits.
func sumsOverflow(l *tx.Lease, e *tx.Escrow, fee tx.Grains) bool {
	return e.Rate+l.Rate < e.Rate || e.Risk+l.Trust < e.Risk || l.Budget+fee < fee ||
		overflows(l.Budget+fee, e)
}

func overflows(more tx.Grains, e *tx.Escrow) bool { return promised(e)+more < more }

// promised is what max_total bounds: what was paid, fees included, and what is reserved.
func promised(e *tx.Escrow) tx.Grains { return satAdd(satAdd(e.Paid, e.Reserved), e.LeaseFees) }

// checkBudget checks that the escrow can reserve, or pay in fees, so much more.
func checkBudget(more tx.Grains, e *tx.Escrow) chainv1.Reason {
	switch {
	case satAdd(promised(e), more) > e.Terms.MaxTotal:
		return chainv1.Reason_REASON_MAX_TOTAL
	case unreserved(e) < e.Terms.Floor:
		return chainv1.Reason_REASON_BELOW_FLOOR
	case unreserved(e) < more:
		return chainv1.Reason_REASON_UNRESERVED_TOO_LOW
	}
	return outcomeOK
}

func (x *Execution) extend(o *tx.Extend) chainv1.Reason {
	h, ok := x.hold(o.Lease)
	if !ok {
		return chainv1.Reason_REASON_LEASE_UNKNOWN
	}
	l, e := &h.lease.val, &h.escrow.val
	reason := x.mayExtend(o, l, e)
	switch {
	case reason != outcomeOK:
		return reason
	case l.Settled || endOf(l) <= x.ctx.Time:
		return chainv1.Reason_REASON_LEASE_ENDED
	case o.Budget < l.Budget || o.Until < l.Until:
		return chainv1.Reason_REASON_EXTEND_SHRINKS
	case o.Budget == l.Budget && o.Until == l.Until:
		return outcomeOK
	}
	if reason := checkExtended(o, l, e); reason != outcomeOK {
		return reason
	}
	before := x.mark(h)
	l.Budget, l.Until = o.Budget, o.Until
	x.follow(h, before)
	return outcomeOK
}

// mayExtend: owner and assigner may; the agent may up to an hour ahead if the escrow says renew.
func (x *Execution) mayExtend(o *tx.Extend, l *tx.LeaseState, e *tx.Escrow) chainv1.Reason {
	ahead := x.ctx.Time + hour
	switch {
	case x.sender.id == e.Owner || x.sender.id == e.Terms.Assigner:
		return outcomeOK
	case !x.isAgent(l):
		return chainv1.Reason_REASON_NOT_PARTY
	case !e.Renew:
		return chainv1.Reason_REASON_RENEW_OFF
	case o.Budget > max(l.Budget, accrued(l, ahead)) || o.Until > max(l.Until, ahead):
		return chainv1.Reason_REASON_EXTEND_TOO_FAR
	}
	return outcomeOK
}

// checkExtended runs the tests of placing for what an extension adds, under today's terms.
func checkExtended(o *tx.Extend, l *tx.LeaseState, e *tx.Escrow) chainv1.Reason {
	more := o.Budget - l.Budget
	switch {
	case overflows(more, e):
		return chainv1.Reason_REASON_OVERFLOW
	case e.Rate > e.Terms.MaxRate:
		return chainv1.Reason_REASON_MAX_RATE
	case e.Risk > e.Terms.Trust:
		return chainv1.Reason_REASON_TRUST_EXCEEDED
	case windowAfter(l, o.Until, l.Lease.ClaimWindow) > e.Terms.Expires:
		return chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST
	}
	return checkBudget(more, e)
}

func (x *Execution) end(o *tx.End) chainv1.Reason {
	h, ok := x.hold(o.Lease)
	if !ok {
		return chainv1.Reason_REASON_LEASE_UNKNOWN
	}
	l, e := &h.lease.val, &h.escrow.val
	host := x.isAgent(l) || x.sender.id == l.Lease.Payee
	client := x.sender.id == e.Owner || x.sender.id == e.Terms.Assigner
	switch {
	case !host && !client:
		return chainv1.Reason_REASON_NOT_PARTY
	case l.Settled || endOf(l) <= x.ctx.Time:
		return chainv1.Reason_REASON_LEASE_ENDED
	}
	before := x.mark(h)
	if !host {
		l.NoticeDue = min(perHour(l.Lease.Rate, l.Lease.Notice), l.Budget)
	}
	x.endNow(l)
	x.follow(h, before)
	return outcomeOK
}
