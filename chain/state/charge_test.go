package state_test

import (
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// TestChargeBounds: a lease of 1,000 grains per second, upfront 500, has run 100 s when the
// charge lands.
func TestChargeBounds(t *testing.T) {
	type charge = func(*market, tx.LeaseID) *tx.Charge
	acked := func(upto tx.Millis, cumulative tx.Grains) charge {
		return func(m *market, id tx.LeaseID) *tx.Charge {
			return m.acked(id, m.leaseNow(id).From+upto, cumulative)
		}
	}
	alone := func(upto tx.Millis, cumulative tx.Grains) charge {
		return func(m *market, id tx.LeaseID) *tx.Charge {
			return m.note(id, m.leaseNow(id).From+upto, cumulative)
		}
	}
	before := ^tx.Millis(0) // one ms before from
	upfront := func(l *tx.Lease) { l.Upfront = 500 }
	for _, c := range []struct {
		name  string
		lease func(*tx.Lease)
		op    charge
		want  tx.Grains
		bound chainv1.Bound
	}{
		{"whole note", upfront, acked(50*second, 40_000), 40_000, unbound},
		{"what accrued by upto", upfront, acked(50*second, 50_501), 50_500,
			chainv1.Bound_BOUND_ACCRUED},
		{"upto is cut to now", upfront, acked(day, 1<<64-1), 100_500, chainv1.Bound_BOUND_ACCRUED},
		{"upto before from", upfront, acked(before, 700), 500, chainv1.Bound_BOUND_ACCRUED},
		{"after the end", func(l *tx.Lease) { l.Until = l.PlaceBy }, acked(day, 1<<63),
			59_000, chainv1.Bound_BOUND_ENDED},
		{"upto before the end", func(l *tx.Lease) { l.Until = l.PlaceBy }, acked(second, 5_000),
			1_000, chainv1.Bound_BOUND_ACCRUED},
		{"budget", func(l *tx.Lease) { l.Budget = 30_000 }, acked(day, 60_000), 30_000,
			chainv1.Bound_BOUND_BUDGET},
		{"trust alone", upfront, alone(day, 100_000), 60_000, chainv1.Bound_BOUND_TRUST},
		{"within trust", upfront, alone(day, 60_000), 60_000, unbound},
		{"no trust at all", func(l *tx.Lease) { l.Trust = 0 }, alone(day, 1), 0,
			chainv1.Bound_BOUND_TRUST},
		{"upfront counts as trust", func(l *tx.Lease) { l.Upfront, l.Trust = 900, 100 },
			alone(0, 900), 100, chainv1.Bound_BOUND_TRUST},
		{"nothing", upfront, acked(day, 0), 0, chainv1.Bound_BOUND_ALREADY_PAID},
		{"part held back", func(l *tx.Lease) { l.Holdback = 30_000 }, acked(day, 50_000), 20_000,
			chainv1.Bound_BOUND_HOLDBACK},
		{"all held back", func(l *tx.Lease) { l.Holdback = 80_000 }, acked(day, 50_000), 0,
			chainv1.Bound_BOUND_HOLDBACK},
		{"rate of 2^64", func(l *tx.Lease) { l.Rate = 1<<64 - 1 }, acked(day, 1<<64-1), 1_000_000,
			chainv1.Bound_BOUND_BUDGET},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMarket(t, func(o *tx.OpenEscrow) { o.Terms.MaxRate = 1<<64 - 1 })
			id := m.placed(c.lease)
			m.block(99 * second)
			op := c.op(m, id)
			out := m.charged(op, c.want, c.bound)
			if want := op.Note.Cumulative - min(c.want, op.Note.Cumulative); out.Unpaid != want {
				t.Errorf("unpaid %d, want %d", out.Unpaid, want)
			}
			e, l := m.escrowNow(), m.leaseNow(id)
			if e.Paid != c.want || e.Balance != 5_000_000-c.want || l.Paid != c.want {
				t.Errorf("escrow %+v, lease %+v", e, l)
			}
		})
	}
}

// TestChargeIsCumulative: notes that are lost, repeated or out of order are harmless.
func TestChargeIsCumulative(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(nil)
	m.block(100 * second)
	m.charged(m.acked(id, m.now(), 10_000), 10_000, unbound)
	m.charged(m.acked(id, m.now(), 10_000), 0, chainv1.Bound_BOUND_ALREADY_PAID)
	m.charged(m.acked(id, m.now(), 30_000), 20_000, unbound)
	m.charged(m.acked(id, m.now(), 20_000), 0, chainv1.Bound_BOUND_ALREADY_PAID)
	// Countersigned 30,000 and 60,000 of trust.
	m.charged(m.note(id, m.now(), 95_000), 60_000, chainv1.Bound_BOUND_TRUST)
	m.charged(m.acked(id, m.now(), 95_000), 5_000, unbound)
	if l := m.leaseNow(id); l.Countersigned != 95_000 || l.Paid != 95_000 {
		t.Errorf("lease is %+v", l)
	}
}

func TestChargeSignatures(t *testing.T) {
	for _, c := range []struct {
		name   string
		by     person
		change func(*market, *tx.Charge)
	}{
		{"stranger", other(), func(*market, *tx.Charge) {}},
		{"owner", owner(), func(*market, *tx.Charge) {}},
		{"note of another key", agent(), func(m *market, c *tx.Charge) {
			c.Signature = host().key.Sign(c.Note.Preimage(m.anchor))
		}},
		{"changed note", agent(), func(_ *market, c *tx.Charge) { c.Note.Cumulative++ }},
		{"countersigned by a stranger", agent(), func(m *market, c *tx.Charge) {
			c.Countersignature.Signature = other().key.Sign(c.Note.AckPreimage(m.anchor))
		}},
		{"countersigned by the agent", agent(), func(m *market, c *tx.Charge) {
			c.Countersignature.Signature = agent().key.Sign(c.Note.AckPreimage(m.anchor))
		}},
		{"countersignature of the note's domain", agent(), func(m *market, c *tx.Charge) {
			c.Countersignature.Signature = acker().key.Sign(c.Note.Preimage(m.anchor))
		}},
		{"no such ack key", agent(), func(_ *market, c *tx.Charge) { c.Countersignature.Index = 1 }},
		{"note of another network", agent(), func(m *market, c *tx.Charge) {
			anchor := m.anchor
			anchor[0]++
			c.Signature = agent().key.Sign(c.Note.Preimage(anchor))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMarket(t, nil)
			id := m.placed(nil)
			m.block(100 * second)
			op := final(m.acked(id, m.now(), 50_000))
			c.change(m, op)
			before := m.balance(host())
			out := m.must(c.by, op).Outcomes[0]
			if out.Bound != chainv1.Bound_BOUND_SIGNATURE || out.Amount != 0 {
				t.Errorf("outcome is %+v", out)
			}
			l := m.leaseNow(id)
			if m.balance(host()) != before || l.Settled || l.Countersigned != 0 {
				t.Errorf("lease is %+v", l)
			}
		})
	}
}

func TestChargeMissing(t *testing.T) {
	m := newMarket(t, nil)
	m.charged(m.acked(tx.LeaseID{5}, m.now(), 7), 0, chainv1.Bound_BOUND_LEASE_MISSING)
}

// TestFinalCharge frees the rest at once; what comes later pays nothing.
func TestFinalCharge(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(nil)
	m.block(9 * second)
	m.charged(final(m.acked(id, m.now(), 8_000)), 8_000, unbound)
	e, l := m.escrowNow(), m.leaseNow(id)
	if !l.Settled || l.End != m.now() || e.Reserved != 0 || e.Rate != 0 || e.Risk != 0 {
		t.Errorf("escrow %+v, lease %+v", e, l)
	}
	m.charged(m.acked(id, m.now(), 9_000), 0, chainv1.Bound_BOUND_SETTLED)
	// The leaf stays until place_by, so that the lease cannot be placed again.
	if out := m.settled(id).Settled[0]; out.Deleted {
		t.Error("deleted before place_by")
	}
	m.block(minute)
	if out := m.settled(id).Settled[0]; !out.Deleted || out.RateFreed || out.RestFreed {
		t.Errorf("settled %+v", out)
	}
	m.charged(m.acked(id, m.now(), 9_000), 0, chainv1.Bound_BOUND_LEASE_MISSING)
	if _, ok := m.s.Lane(m.lane()); ok {
		t.Error("the lane outlived its lease")
	}
	if e := m.escrowNow(); e.Live != 0 || e.Paid != 8_000 {
		t.Errorf("escrow is %+v", e)
	}
}

// TestRiskStays: what was paid and never acknowledged counts against the escrow's trust for good.
func TestRiskStays(t *testing.T) {
	m := newMarket(t, func(o *tx.OpenEscrow) { o.Terms.Trust = 100_000 })
	id := m.placed(nil)
	m.block(2 * minute)
	m.charged(final(m.note(id, m.now(), 50_000)), 50_000, unbound)
	m.settled(id)
	if e := m.escrowNow(); e.Risk != 50_000 || e.Live != 0 {
		t.Errorf("escrow is %+v", e)
	}
	m.refused(chainv1.Reason_REASON_TRUST_EXCEEDED, assigner(), m.place(m.lease(nil)))
}

// TestRiskOfEnded: once its end is counted, a lease counts against the escrow's trust for no more
// than it can still come to beyond what was countersigned, and that never rises.
func TestRiskOfEnded(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Trust, l.Holdback = 500_000, 5_000 })
	risk := func(what string, want tx.Grains) {
		t.Helper()
		if e := m.escrowNow(); e.Risk != want {
			t.Errorf("%s: risk is %d, want %d", what, e.Risk, want)
		}
	}
	m.wait(90 * second)
	m.charged(m.acked(id, m.now(), 20_000), 15_000, chainv1.Bound_BOUND_HOLDBACK)
	risk("while it runs", 500_000)
	m.block(8 * second)
	m.must(agent(), &tx.End{Lease: id})
	risk("ended", 80_000) // 100 s at 1,000, of which 20,000 are acknowledged
	m.charged(m.note(id, m.now(), 60_000), 40_000, chainv1.Bound_BOUND_HOLDBACK)
	risk("charged without a countersignature", 80_000)
	m.charged(m.acked(id, m.now(), 30_000), 0, chainv1.Bound_BOUND_HOLDBACK)
	risk("acknowledged more", 70_000)
	m.charged(final(m.note(id, m.now(), 60_000)), 0, chainv1.Bound_BOUND_HOLDBACK)
	risk("settled, the holdback is open", 30_000)
	m.must(owner(), &tx.Accept{Lease: id})
	risk("the holdback is paid", 30_000)
}

// TestRiskOfHoldback: a holdback that nobody acknowledged and silence may pay is a risk already.
func TestRiskOfHoldback(t *testing.T) {
	m := newMarket(t, func(o *tx.OpenEscrow) { o.Terms.Trust = 100_000 })
	id := m.placed(func(l *tx.Lease) { l.Holdback = 50_000 })
	m.wait(99 * second)
	m.charged(final(m.note(id, m.now(), 60_000)), 10_000, chainv1.Bound_BOUND_HOLDBACK)
	m.refused(chainv1.Reason_REASON_TRUST_EXCEEDED, assigner(), m.place(m.lease(
		func(l *tx.Lease) { l.Epoch, l.Trust = 2, 40_001 })))
	m.must(owner(), &tx.Reject{Lease: id, Evidence: tx.Hash{8}})
	m.placed(func(l *tx.Lease) { l.Epoch, l.Trust = 2, 90_000 })
}

// TestLostHostsLeaveRoom: an owner who trusts with all he has loses hosts one after the other, of
// which none charges or settles. The trust of two leases is enough for all of them.
func TestLostHostsLeaveRoom(t *testing.T) {
	m := newMarket(t, func(o *tx.OpenEscrow) { o.Terms.Trust = 2_000_000 })
	for epoch := range uint64(40) {
		m.placed(func(l *tx.Lease) { l.Epoch, l.Trust = epoch+1, 1_000_000 })
		m.wait(19 * second)
	}
	e := m.escrowNow()
	if want := tx.Grains(1_000_000 + 39*20_000); e.Risk != want || e.Live != 40 {
		t.Errorf("risk is %d of %d leases, want %d", e.Risk, e.Live, want)
	}
}

// TestClaimWindow: charges count until the window is over by the accrual clock.
func TestClaimWindow(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Until = l.PlaceBy })
	m.block(30 * day) // the accrual clock advances by a minute only
	m.charged(m.acked(id, m.now(), 10_000), 10_000, unbound)
	if out := m.settled(id).Settled[0]; out.RestFreed || out.Deleted {
		t.Errorf("settled %+v after a stopped chain", out)
	}
	m.wait(day)
	if !m.s.Accruing() {
		t.Error("an unsettled lease does not accrue")
	}
	m.charged(m.acked(id, m.now(), 20_000), 0, chainv1.Bound_BOUND_SETTLED)
	if out := m.settled(id).Settled[0]; !out.RestFreed || !out.Deleted {
		t.Errorf("settled %+v", out)
	}
	if e := m.escrowNow(); e.Reserved != 0 || e.Live != 0 || m.s.Accruing() {
		t.Errorf("escrow is %+v, accruing %v", e, m.s.Accruing())
	}
}

func TestSettleFreesRate(t *testing.T) {
	m := newMarket(t, func(o *tx.OpenEscrow) { o.Terms.MaxRate = 3_600_000 })
	id := m.placed(func(l *tx.Lease) { l.Until = l.PlaceBy })
	m.block(30 * second)
	if out := m.settled(id, tx.LeaseID{1}).Settled; out[0].RateFreed || out[1].RateFreed {
		t.Errorf("settled %+v while it ran", out)
	}
	m.block(minute)
	next := m.lease(func(l *tx.Lease) { l.Slot = 2 })
	m.refused(chainv1.Reason_REASON_MAX_RATE, assigner(), m.place(next))
	if out := m.settled(id).Settled[0]; !out.RateFreed || out.RestFreed {
		t.Errorf("settled %+v", out)
	}
	if e := m.escrowNow(); e.Rate != 0 || e.Reserved != 59_000 {
		t.Errorf("escrow is %+v", e)
	}
	next = m.lease(func(l *tx.Lease) { l.Slot = 2 })
	m.must(assigner(), m.place(next))
}

// TestPayeeLock: a payee without an account is paid once it is enough to open one.
func TestPayeeLock(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Payee = newcomer().id })
	m.block(100 * second)
	out := m.must(agent(), final(m.acked(id, m.now(), lock-1))).Outcomes[0]
	if out.Bound != chainv1.Bound_BOUND_PAYEE_LOCK || out.Amount != 0 || out.Unpaid != lock-1 {
		t.Errorf("outcome is %+v", out)
	}
	if l := m.leaseNow(id); l.Settled {
		t.Error("a charge that could not be paid was final")
	}
	out = m.must(agent(), m.acked(id, m.now(), lock+5)).Outcomes[0]
	a, ok := m.s.Account(newcomer().id)
	if !ok || a.Balance != 5 || a.Lock != lock || out.Amount != lock+5 {
		t.Errorf("payee %+v, outcome %+v", a, out)
	}
}
