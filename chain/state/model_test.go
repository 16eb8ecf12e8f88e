package state_test

import (
	"maps"
	"math/big"
	"slices"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// The model is the rules once more, written from the domain page and docs/design/0001-money.md
// with plain maps and big integers, no journal, no running sums and no tree. Numbers are never
// changed in place, so copying a record is enough to keep it.

func num[T ~uint64 | ~int](n T) *big.Int { return new(big.Int).SetUint64(uint64(n)) }

func add(ns ...*big.Int) *big.Int {
	sum := new(big.Int)
	for _, n := range ns {
		sum.Add(sum, n)
	}
	return sum
}

func sub(a, b *big.Int) *big.Int { return new(big.Int).Sub(a, b) }

// over returns a - b, or 0.
func over(a, b *big.Int) *big.Int { return most(sub(a, b), num(0)) }

func least(ns ...*big.Int) *big.Int { return slices.MinFunc(ns, (*big.Int).Cmp) }
func most(ns ...*big.Int) *big.Int  { return slices.MaxFunc(ns, (*big.Int).Cmp) }

// mulDiv returns floor(a × b / c).
func mulDiv(a, b, c *big.Int) *big.Int { return new(big.Int).Div(new(big.Int).Mul(a, b), c) }

func perHour(rate, ms *big.Int) *big.Int { return mulDiv(rate, ms, num(hour)) }

func less(a, b *big.Int) bool { return a.Cmp(b) < 0 }

type mAccount struct {
	balance, lock *big.Int
	nonce         uint64
	signed        bool
	signers       mSigners
}

type mEscrow struct {
	open               *tx.OpenEscrow
	owner              sig.AccountID
	terms              tx.Terms
	balance, lock      *big.Int
	opened             *big.Int
	riskOfDeleted      *big.Int
	burned, paid, fees *big.Int
	// The most that its terms ever trusted, and granted in lease fees.
	trusted, granted tx.Grains
	// Of a bond.
	noticed, noticeDue *big.Int
}

type mLease struct {
	tx.Lease
	from, accrualFrom      *big.Int
	budget, until, end     *big.Int
	ended                  bool // an End, a higher epoch or a final charge set end
	lapsed                 bool // something touched it after its end
	noticeDue, paid, acked *big.Int
	upto                   *big.Int
	settled                bool
	verdict                chainv1.Holdback
	withheld               *big.Int
	spends                 uint64
}

type model struct {
	params    block.Params
	anchor    sig.Anchor
	time      *big.Int
	accrual   *big.Int
	accounts  map[sig.AccountID]mAccount
	escrows   map[tx.EscrowID]mEscrow
	leases    map[tx.LeaseID]mLease
	lanes     map[tx.EscrowID]map[uint32]tx.LeaseID
	burned    *big.Int
	operation *big.Int // prices
	bytes     *big.Int
}

func newModel(g *block.Genesis) *model {
	m := &model{
		params: g.Params, anchor: g.Anchor(), time: num(g.Time), accrual: num(g.Time),
		accounts: map[sig.AccountID]mAccount{}, escrows: map[tx.EscrowID]mEscrow{},
		leases: map[tx.LeaseID]mLease{}, lanes: map[tx.EscrowID]map[uint32]tx.LeaseID{},
		burned: num(0), operation: num(g.Params.OperationFee), bytes: num(g.Params.ByteFee),
	}
	for _, a := range g.Allocations {
		m.accounts[a.Account] = mAccount{
			balance: num(a.Amount - g.Params.AccountLock), lock: num(g.Params.AccountLock)}
	}
	return m
}

func (m *model) clone() *model {
	c := *m
	c.accounts, c.escrows, c.leases = maps.Clone(m.accounts), maps.Clone(m.escrows),
		maps.Clone(m.leases)
	c.lanes = map[tx.EscrowID]map[uint32]tx.LeaseID{}
	for id, lanes := range m.lanes {
		c.lanes[id] = maps.Clone(lanes)
	}
	return &c
}

// mOperation is an operation with what the test knows of its signatures.
type mOperation struct {
	tx.Operation
	agentSigned, ackSigned bool
}

// mResult is what the model says of a transaction.
type mResult struct {
	included bool
	failed   int // index of the failed operation, -1 if none
	reason   chainv1.Reason
	fee      *big.Int
	outcomes []tx.Outcome
}

// run is a transaction on its way through a copy of the model.
type run struct {
	*model
	id       tx.ID
	sender   sig.AccountID
	signer   uint32
	index    int
	proceeds []mProceed
}

type mProceed struct {
	payee  sig.AccountID
	amount *big.Int
}

// apply runs a transaction whose own signature is good and whose nonce is next.
func (m *model) apply(id tx.ID, t *tx.Transaction, ops []mOperation) mResult {
	fee := add(new(big.Int).Mul(m.operation, num(len(ops))),
		new(big.Int).Mul(m.bytes, num(len(t.BodyBytes()))))
	sender, exists := m.accounts[t.Account]
	if less(num(t.Fee), fee) || !m.mayAct(t, ops, fee) {
		return mResult{}
	}
	if !exists || less(sender.balance, fee) {
		return m.applyPoor(id, t, ops, fee)
	}
	sender.balance = sub(sender.balance, fee)
	m.accounts[t.Account] = sender
	m.spendNonce(t.Account, t.Signer, fee)
	r := &run{model: m.clone(), id: id, sender: t.Account, signer: t.Signer}
	outcomes, failed, reason := r.operate(ops)
	if failed < 0 {
		*m = *r.model
	}
	return mResult{true, failed, reason, fee, outcomes}
}

// applyPoor: charges and settlements may pay the fee from what they earn.
func (m *model) applyPoor(id tx.ID, t *tx.Transaction, ops []mOperation, fee *big.Int) mResult {
	for _, o := range ops {
		if k := o.Kind(); k != tx.KindCharge && k != tx.KindSettle {
			return mResult{}
		}
	}
	r := &run{model: m.clone(), id: id, sender: t.Account}
	outcomes, _, _ := r.operate(ops)
	sender, exists := r.accounts[t.Account]
	if !exists {
		return mResult{}
	}
	lacking := over(fee, sender.balance)
	sender.balance = over(sender.balance, fee)
	r.accounts[t.Account] = sender
	r.spendNonce(t.Account, t.Signer, fee)
	for _, p := range r.proceeds {
		if p.payee != t.Account {
			payee := r.accounts[p.payee]
			take := least(lacking, p.amount, payee.balance)
			payee.balance, lacking = sub(payee.balance, take), sub(lacking, take)
			r.accounts[p.payee] = payee
		}
	}
	if lacking.Sign() > 0 {
		return mResult{}
	}
	*m = *r.model
	return mResult{true, -1, 0, fee, outcomes}
}

func (r *run) operate(ops []mOperation) (outcomes []tx.Outcome, failed int, why chainv1.Reason) {
	for i, o := range ops {
		r.index = i
		out, reason := r.one(o)
		if reason != 0 {
			return nil, i, reason
		}
		outcomes = append(outcomes, out)
	}
	return outcomes, -1, 0
}

func (r *run) one(o mOperation) (out tx.Outcome, reason chainv1.Reason) {
	switch op := o.Operation.(type) {
	case *tx.Transfer:
		reason = r.transfer(op, &out)
	case *tx.OpenEscrow:
		reason = r.open(op, &out)
	case *tx.TopUp:
		reason = r.topUp(op, &out)
	case *tx.Withdraw:
		reason = r.withdraw(op, &out)
	case *tx.SetTerms:
		reason = r.setTerms(op)
	case *tx.CloseEscrow:
		reason = r.close(op, &out)
	case *tx.PlaceLease:
		reason = r.place(op, o.agentSigned, &out)
	case *tx.Extend:
		reason = r.extend(op)
	case *tx.Charge:
		r.charge(op, o.agentSigned, o.ackSigned, &out)
	case *tx.End:
		reason = r.endLease(op)
	case *tx.Settle:
		r.settle(op, &out)
	case *tx.Accept:
		reason = r.accept(op, o.ackSigned, &out)
	case *tx.Reject:
		reason = r.reject(op, o.ackSigned)
	default:
		reason = r.other(o, &out)
	}
	return out, reason
}

// other is one for bonds, budgets and who may sign.
func (r *run) other(o mOperation, out *tx.Outcome) chainv1.Reason {
	switch op := o.Operation.(type) {
	case *tx.Notice:
		return r.notice(op)
	case *tx.Spend:
		return r.spend(op, o.ackSigned, out)
	case *tx.SetDelegate:
		return r.setDelegate(op, out)
	case *tx.RemoveDelegate:
		return r.removeDelegate(op)
	case *tx.SetRecovery:
		return r.setRecovery(op)
	case *tx.Recover:
		return r.recover(op, o.ackSigned)
	case *tx.FinishRecovery:
		return r.endRecovery(op.Account, true)
	case *tx.CancelRecovery:
		return r.endRecovery(r.sender, false)
	}
	panic("the model does not know the operation")
}

func (r *run) pay(from sig.AccountID, amount *big.Int) bool {
	a := r.accounts[from]
	if less(a.balance, amount) {
		return false
	}
	a.balance = sub(a.balance, amount)
	r.accounts[from] = a
	return true
}

func (r *run) give(to sig.AccountID, amount *big.Int) bool {
	a, exists := r.accounts[to]
	switch {
	case exists:
		a.balance = add(a.balance, amount)
	case less(amount, num(r.params.AccountLock)):
		return false
	default:
		a.lock = num(r.params.AccountLock)
		a.balance = sub(amount, a.lock)
	}
	r.accounts[to] = a
	return true
}

func (r *run) transfer(o *tx.Transfer, out *tx.Outcome) chainv1.Reason {
	if o.Amount == 0 {
		return chainv1.Reason_REASON_AMOUNT_ZERO
	}
	if reason := r.leave(num(o.Amount)); reason != 0 {
		return reason
	}
	if !r.give(o.To, num(o.Amount)) {
		return chainv1.Reason_REASON_BELOW_LOCK
	}
	out.Amount = o.Amount
	return 0
}

func (r *run) open(o *tx.OpenEscrow, out *tx.Outcome) chainv1.Reason {
	lock := num(r.params.EscrowLock)
	cost := add(num(o.Amount), lock)
	if reason := r.openGood(o); reason != 0 {
		return reason
	}
	if cost.BitLen() > 64 {
		return chainv1.Reason_REASON_OVERFLOW
	}
	if reason := r.leave(cost); reason != 0 {
		return reason
	}
	id := tx.EscrowIDOf(r.id, uint32(r.index))
	r.escrows[id] = mEscrow{open: o, owner: r.sender, terms: o.Terms, balance: num(o.Amount),
		lock: lock, opened: r.accrual, burned: num(0), paid: num(0), riskOfDeleted: num(0),
		trusted: o.Terms.Trust, granted: o.Terms.LeaseFeeTotal, fees: num(0),
		noticed: num(0), noticeDue: num(0)}
	out.Created, out.Amount = tx.Hash(id), o.Amount
	return 0
}

func (r *run) termsGood(t tx.Terms) bool { return less(r.accrual, num(t.Expires)) }

// reserved is the sum of what can still be paid on an escrow's leases.
func (m *model) reserved(id tx.EscrowID) *big.Int {
	sum := num(0)
	for _, l := range m.leases {
		if l.Escrow == id {
			sum = add(sum, l.reserved())
		}
	}
	return sum
}

func (l *mLease) reserved() *big.Int {
	rejected := l.verdict == chainv1.Holdback_HOLDBACK_REJECTED
	gone := l.paid
	if rejected {
		gone = add(gone, l.withheld)
	}
	switch {
	case l.settled && rejected:
		return num(0)
	case l.settled:
		return l.withheld
	case l.lapsed:
		return sub(least(l.budget, add(l.accrued(l.theEnd()), l.noticeDue)), gone)
	}
	return sub(l.budget, gone)
}

func (l *mLease) theEnd() *big.Int {
	if l.ended {
		return l.end
	}
	return l.until
}

func (l *mLease) accrued(upto *big.Int) *big.Int {
	return add(num(l.Upfront), perHour(num(l.Rate), over(upto, l.from)))
}

func (m *model) rate(id tx.EscrowID) *big.Int {
	sum := num(0)
	for _, l := range m.leases {
		if l.Escrow == id && !l.lapsed {
			sum = add(sum, num(l.Rate))
		}
	}
	return sum
}

func (m *model) risk(id tx.EscrowID) *big.Int {
	sum := m.escrows[id].riskOfDeleted
	for _, l := range m.leases {
		if l.Escrow == id {
			sum = add(sum, l.risk())
		}
	}
	return sum
}

func (l *mLease) risk() *big.Int {
	if l.lapsed {
		return least(num(l.Trust), over(add(l.paid, l.reserved()), l.acked))
	}
	return num(l.Trust)
}

func (m *model) live(id tx.EscrowID) (n int) {
	for _, l := range m.leases {
		if l.Escrow == id {
			n++
		}
	}
	return n
}

// escrow finds an escrow and lets burn what burns by now.
func (r *run) escrow(id tx.EscrowID) (mEscrow, bool) {
	e, ok := r.escrows[id]
	if !ok {
		return e, false
	}
	due := over(perHour(num(e.open.BurnRate), sub(r.accrual, e.opened)), e.burned)
	due = least(due, sub(e.balance, r.reserved(id)))
	e.balance, e.burned = sub(e.balance, due), add(e.burned, due)
	r.burned = add(r.burned, due)
	r.escrows[id] = e
	return e, true
}

func (r *run) topUp(o *tx.TopUp, out *tx.Outcome) chainv1.Reason {
	e, ok := r.escrow(o.Escrow)
	switch {
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case !ok:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case e.bond() && e.owner != r.sender:
		return chainv1.Reason_REASON_NOT_OWNER
	}
	if reason := r.leave(num(o.Amount)); reason != 0 {
		return reason
	}
	e.balance = add(e.balance, num(o.Amount))
	r.escrows[o.Escrow] = e
	out.Amount = o.Amount
	return 0
}

func (r *run) withdraw(o *tx.Withdraw, out *tx.Outcome) chainv1.Reason {
	e, ok := r.escrow(o.Escrow)
	switch {
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case !ok:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case e.owner != r.sender:
		return chainv1.Reason_REASON_NOT_OWNER
	case less(sub(e.balance, r.reserved(o.Escrow)), num(o.Amount)):
		return chainv1.Reason_REASON_UNRESERVED_TOO_LOW
	}
	if reason := r.held(e, o.Amount); reason != 0 {
		return reason
	}
	e.balance = sub(e.balance, num(o.Amount))
	e.noticed = over(e.noticed, num(o.Amount))
	r.escrows[o.Escrow] = e
	r.give(r.sender, num(o.Amount))
	out.Amount = o.Amount
	return 0
}

func (r *run) setTerms(o *tx.SetTerms) chainv1.Reason {
	e, ok := r.escrow(o.Escrow)
	switch {
	case !ok:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case e.owner != r.sender:
		return chainv1.Reason_REASON_NOT_OWNER
	case e.bond():
		return chainv1.Reason_REASON_PURPOSE_DIFFERS
	case !r.termsGood(o.Terms) || e.open.Purpose == chainv1.Purpose_PURPOSE_BUDGET:
		return chainv1.Reason_REASON_TERMS_INVALID
	}
	e.terms, e.trusted = o.Terms, max(e.trusted, o.Terms.Trust)
	e.granted = max(e.granted, o.Terms.LeaseFeeTotal)
	r.escrows[o.Escrow] = e
	return 0
}

func (r *run) close(o *tx.CloseEscrow, out *tx.Outcome) chainv1.Reason {
	e, ok := r.escrow(o.Escrow)
	switch {
	case !ok:
		return chainv1.Reason_REASON_ESCROW_UNKNOWN
	case e.owner != r.sender && e.bond():
		return chainv1.Reason_REASON_NOT_OWNER
	case e.owner != r.sender && !less(num(e.terms.Expires), r.accrual):
		return chainv1.Reason_REASON_NOT_EXPIRED
	case r.live(o.Escrow) > 0:
		return chainv1.Reason_REASON_LEASES_LIVE
	}
	if reason := r.held(e, tx.Grains(e.balance.Uint64())); reason != 0 {
		return reason
	}
	r.give(e.owner, add(e.balance, e.lock))
	out.Amount = tx.Grains(add(e.balance, e.lock).Uint64())
	delete(r.escrows, o.Escrow)
	return 0
}
