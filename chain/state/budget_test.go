package state_test

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func session() person { return newPerson(85) }

func openBudget() *tx.OpenEscrow {
	return &tx.OpenEscrow{Purpose: chainv1.Purpose_PURPOSE_BUDGET, Subject: jobID[:],
		Amount: 1_000_000, Terms: tx.Terms{
			MaxRate: 100_000, MaxTotal: 500_000, Expires: genesisTime + 60*day}}
}

// shop is a market with a budget and a lease whose session key may spend it.
type shop struct {
	*market
	budget tx.EscrowID
	lease  tx.LeaseID
}

func newShop(t testing.TB, change func(*tx.OpenEscrow)) *shop {
	t.Helper()
	m := newMarket(t, nil)
	o := openBudget()
	if change != nil {
		change(o)
	}
	s := &shop{market: m}
	s.budget = tx.EscrowID(m.must(owner(), o).Outcomes[0].Created)
	s.lease = s.spender(1, 2*hour)
	return s
}

// spender places a lease with the session key.
func (s *shop) spender(slot uint32, life tx.Millis) tx.LeaseID {
	s.t.Helper()
	return s.placed(func(l *tx.Lease) {
		l.Slot, l.SessionKey, l.Until = slot, session().key.Public(), s.now()+life
		l.Budget = 100_000
	})
}

func (s *shop) order(amount tx.Grains) tx.SpendOrder {
	l, _ := s.s.Lease(s.lease)
	return tx.SpendOrder{Escrow: s.budget, Lease: s.lease, To: host().id, Amount: amount,
		Sequence: l.Spends}
}

func (s *shop) signed(o tx.SpendOrder) *tx.Spend {
	return &tx.Spend{Order: o, Signature: session().key.Sign(o.Preimage(s.anchor))}
}

func (s *shop) left() tx.Escrow {
	e, _ := s.s.Escrow(s.budget)
	return e
}

// TestSpend: an hour of max_rate at once, then as time passes, at most max_total; anyone submits.
func TestSpend(t *testing.T) {
	s := newShop(t, nil)
	tooFast := chainv1.Reason_REASON_SPEND_TOO_FAST
	before := s.balance(host())
	first := s.signed(s.order(60_000))
	if r := s.must(other(), first); r.Outcomes[0].Amount != 60_000 {
		t.Errorf("the receipt says %+v", r.Outcomes)
	}
	if got := s.balance(host()) - before; got != 60_000 || s.left().Paid != 60_000 ||
		s.left().Balance != 940_000 {
		t.Errorf("the payee got %d, the budget is %+v", got, s.left())
	}
	s.refused(chainv1.Reason_REASON_SPEND_SEQUENCE, other(), first)
	s.refused(tooFast, other(), s.signed(s.order(41_000)))
	s.wait(hour)
	s.refused(tooFast, other(), s.signed(s.order(141_000)))
	s.must(other(), s.signed(s.order(140_000)))
	newcomers := s.order(lock)
	newcomers.To = newPerson(86).id
	s.wait(3 * minute)
	s.must(other(), s.signed(newcomers))
	s.wait(hour)
	s.refused(chainv1.Reason_REASON_LEASE_ENDED, other(), s.signed(s.order(1)))
	s.lease = s.spender(2, 10*hour)
	s.wait(4 * hour)
	s.refused(chainv1.Reason_REASON_MAX_TOTAL, other(),
		s.signed(s.order(500_001-s.left().Paid)))
	s.must(other(), s.signed(s.order(500_000-s.left().Paid)))
	s.must(owner(), &tx.Withdraw{Escrow: s.budget, Amount: 499_999})
	s.must(owner(), &tx.SetTerms{Escrow: s.budget, Terms: tx.Terms{
		MaxRate: 1 << 40, MaxTotal: 1 << 60, Expires: s.now() + day}})
	s.refused(chainv1.Reason_REASON_UNRESERVED_TOO_LOW, other(), s.signed(s.order(2)))
	s.must(owner(), &tx.CloseEscrow{Escrow: s.budget})
	s.refused(chainv1.Reason_REASON_ESCROW_UNKNOWN, other(), s.signed(s.order(1)))
}

// TestSpendRefused: who is not the live lease's session key spends nothing.
func TestSpendRefused(t *testing.T) {
	s := newShop(t, func(o *tx.OpenEscrow) { o.Payees = []sig.AccountID{host().id} })
	mine := s.must(other(), openBudget())
	foreign := tx.EscrowID(mine.Outcomes[0].Created)
	silent := s.placed(func(l *tx.Lease) { l.Slot, l.Budget = 3, 100_000 })
	change := func(of func(*tx.SpendOrder)) *tx.Spend {
		o := s.order(10)
		of(&o)
		return s.signed(o)
	}
	late := func(o *tx.Spend) *tx.Spend { o.Order.Amount++; return o }
	by := func(p person) *tx.Spend {
		o := s.signed(s.order(10))
		o.Signature = p.key.Sign(o.Order.Preimage(s.anchor))
		return o
	}
	for name, c := range map[string]struct {
		want chainv1.Reason
		o    *tx.Spend
	}{
		"no escrow": {chainv1.Reason_REASON_ESCROW_UNKNOWN,
			change(func(o *tx.SpendOrder) { o.Escrow[3]++ })},
		"the job's escrow": {chainv1.Reason_REASON_PURPOSE_DIFFERS,
			change(func(o *tx.SpendOrder) { o.Escrow = s.escrow })},
		"no lease": {chainv1.Reason_REASON_LEASE_UNKNOWN,
			change(func(o *tx.SpendOrder) { o.Lease[3]++ })},
		"another owner's budget": {chainv1.Reason_REASON_SUBJECT_DIFFERS,
			change(func(o *tx.SpendOrder) { o.Escrow = foreign })},
		"a lease without session key": {chainv1.Reason_REASON_SPEND_SIGNATURE,
			change(func(o *tx.SpendOrder) { o.Lease = silent })},
		"sequence ahead": {chainv1.Reason_REASON_SPEND_SEQUENCE,
			change(func(o *tx.SpendOrder) { o.Sequence++ })},
		"nothing": {chainv1.Reason_REASON_AMOUNT_ZERO,
			change(func(o *tx.SpendOrder) { o.Amount = 0 })},
		"a stranger": {chainv1.Reason_REASON_PAYEE_NOT_ALLOWED,
			change(func(o *tx.SpendOrder) { o.To = other().id })},
		"everything": {chainv1.Reason_REASON_SPEND_TOO_FAST,
			change(func(o *tx.SpendOrder) { o.Amount = 1<<64 - 1 })},
		"raised after signing": {chainv1.Reason_REASON_SPEND_SIGNATURE, late(s.signed(s.order(10)))},
		"by the agent":         {chainv1.Reason_REASON_SPEND_SIGNATURE, by(agent())},
		"by the ack key":       {chainv1.Reason_REASON_SPEND_SIGNATURE, by(acker())},
		"by the owner":         {chainv1.Reason_REASON_SPEND_SIGNATURE, by(owner())},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, s: s.s, anchor: s.anchor, ctx: s.ctx}
			w.refused(c.want, other(), c.o)
		})
	}
	s.must(owner(), &tx.End{Lease: s.lease})
	s.refused(chainv1.Reason_REASON_LEASE_ENDED, other(), s.signed(s.order(10)))
	if s.left().Paid != 0 || s.left().Balance != 1_000_000 {
		t.Errorf("the budget is %+v", s.left())
	}
}

// TestSpendLeavesTheFloor: a budget of 1,000,000 with a floor of 950,000 pays 50,000 and no more,
// in one order or in many.
func TestSpendLeavesTheFloor(t *testing.T) {
	s := newShop(t, func(o *tx.OpenEscrow) { o.Terms.Floor = 950_000 })
	below := chainv1.Reason_REASON_BELOW_FLOOR
	s.refused(below, other(), s.signed(s.order(50_001)))
	s.must(other(), s.signed(s.order(30_000)))
	s.refused(below, other(), s.signed(s.order(20_001)))
	s.must(other(), s.signed(s.order(20_000)))
	s.refused(below, other(), s.signed(s.order(1)))
	if s.left().Balance != 950_000 {
		t.Errorf("the budget is %+v", s.left())
	}
	// The floor binds the job, not the owner.
	s.must(owner(), &tx.Withdraw{Escrow: s.budget, Amount: 1})
}

// TestSpendToNobody: a payee that does not exist must get its lock, and gets nothing otherwise; an
// expired budget pays nothing although its lease lives.
func TestSpendToNobody(t *testing.T) {
	s := newShop(t, func(o *tx.OpenEscrow) { o.Terms.Expires = genesisTime + hour })
	poor := s.order(lock - 1)
	poor.To = newPerson(86).id
	s.refused(chainv1.Reason_REASON_BELOW_LOCK, other(), s.signed(poor))
	s.wait(hour)
	s.refused(chainv1.Reason_REASON_ESCROW_EXPIRED, other(), s.signed(s.order(10)))
	s.must(other(), &tx.CloseEscrow{Escrow: s.budget})
}

func TestBudgetRefused(t *testing.T) {
	s := newShop(t, nil)
	for _, c := range []struct {
		want   chainv1.Reason
		change func(*tx.OpenEscrow)
	}{
		{chainv1.Reason_REASON_TERMS_INVALID, func(o *tx.OpenEscrow) { o.Terms.MaxRate = 0 }},
		{chainv1.Reason_REASON_TERMS_INVALID, func(o *tx.OpenEscrow) { o.Terms.MaxTotal = 0 }},
		{chainv1.Reason_REASON_TERMS_INVALID, func(o *tx.OpenEscrow) { o.Terms.Trust = 1 }},
		{chainv1.Reason_REASON_TERMS_INVALID, func(o *tx.OpenEscrow) { o.Terms.Expires = 1 }},
		{chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Terms.Assigner = assigner().id }},
		{chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Terms.AckKeys = terms().AckKeys }},
		{chainv1.Reason_REASON_PAYEES_INVALID,
			func(o *tx.OpenEscrow) { o.Payees = []sig.AccountID{host().id, host().id} }},
		{chainv1.Reason_REASON_SUBJECT_INVALID, func(o *tx.OpenEscrow) { o.Subject = nil }},
		{chainv1.Reason_REASON_AMOUNT_ZERO, func(o *tx.OpenEscrow) { o.Amount = 0 }},
		{chainv1.Reason_REASON_FIELD_NOT_BUILT, func(o *tx.OpenEscrow) { o.BurnRate = 1 }},
		{chainv1.Reason_REASON_FIELD_NOT_BUILT, func(o *tx.OpenEscrow) { o.Unbond = 1 }},
	} {
		o := openBudget()
		c.change(o)
		s.refused(c.want, owner(), o)
	}
	s.refused(chainv1.Reason_REASON_TERMS_INVALID, owner(),
		&tx.SetTerms{Escrow: s.budget, Terms: terms()})
	s.refused(chainv1.Reason_REASON_PURPOSE_DIFFERS, owner(), &tx.Notice{Escrow: s.budget})
	under := s.market.lease(func(l *tx.Lease) { l.Escrow = s.budget })
	s.refused(chainv1.Reason_REASON_PURPOSE_DIFFERS, owner(), s.place(under))
	for _, key := range []sig.PublicKey{agent().key.Public(), acker().key.Public(), {1}} {
		l := s.market.lease(func(l *tx.Lease) { l.Slot, l.SessionKey = 9, key })
		s.refused(chainv1.Reason_REASON_LEASE_INVALID, assigner(), s.place(l))
	}
}

// TestSpendProperty: whatever is ordered and when, what leaves a budget is what was paid, within
// rate and total as computed anew, and the chain recounts after each block.
func TestSpendProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := newShop(t, nil)
		opened := s.left().Opened
		paid, in := tx.Grains(0), tx.Grains(1_000_000)
		rate := tx.GrainsPerHour(100_000)
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			if rapid.IntRange(0, 3).Draw(r, "kind") == 0 {
				s.wait(pick(r, "wait", second, 10*minute, hour))
			}
			if rapid.IntRange(0, 9).Draw(r, "terms change") == 0 {
				rate = pick(r, "rate", tx.GrainsPerHour(1), 100_000, 1<<63)
				s.must(owner(), &tx.SetTerms{Escrow: s.budget, Terms: tx.Terms{
					MaxRate: rate, MaxTotal: 500_000, Expires: genesisTime + 60*day}})
			}
			amount := pick(r, "amount", tx.Grains(1), 1_000, 30_000, 100_000, 400_000, 1<<64-1)
			receipt := s.do(other(), s.signed(s.order(amount)))
			if l, _ := s.s.Lease(s.lease); l.Until <= s.now() {
				break
			}
			elapsed := num(s.s.Head().Accrual - opened + hour)
			most := least(mulDiv(num(rate), elapsed, num(hour)), num(500_000))
			fits := new(big.Int).Add(num(paid), num(amount)).Cmp(most) <= 0
			if ok := receipt.Status == chainv1.Status_STATUS_OK; ok != fits {
				r.Fatalf("%d after %d at rate %d: %v, the most is %v", amount, paid, rate,
					receipt.Reason, most)
			} else if ok {
				paid += amount
			}
			if e := s.left(); e.Paid != paid || e.Balance != in-paid {
				r.Fatalf("paid %d, the budget is %+v", paid, e)
			}
		}
	})
}
