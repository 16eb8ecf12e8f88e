package state_test

import (
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// heldBack is a lease that ended 50,000 grains in, of which 20,000 are held back.
func heldBack(t *testing.T, payee person) (*market, tx.LeaseID) {
	t.Helper()
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Holdback, l.Payee = 20_000, payee.id })
	m.wait(99 * second)
	out := m.must(agent(), final(m.acked(id, m.now(), 50_000))).Outcomes[0]
	if out.Amount != 30_000 || out.Bound != chainv1.Bound_BOUND_HOLDBACK || out.Unpaid != 20_000 {
		t.Fatalf("outcome is %+v", out)
	}
	if e := m.escrowNow(); e.Reserved != 20_000 {
		t.Fatalf("escrow is %+v", e)
	}
	return m, id
}

func (m *market) accept(id tx.LeaseID) *tx.Accept {
	return &tx.Accept{Lease: id, Countersignature: tx.Countersignature{
		Signature: acker().key.Sign(tx.AcceptPreimage(m.anchor, id))}}
}

func (m *market) reject(id tx.LeaseID) *tx.Reject {
	evidence := tx.Hash{8}
	return &tx.Reject{Lease: id, Evidence: evidence, Countersignature: tx.Countersignature{
		Signature: acker().key.Sign(tx.RejectPreimage(m.anchor, id, evidence))}}
}

func TestAccept(t *testing.T) {
	for name, c := range map[string]struct {
		by person
		op func(*market, tx.LeaseID) *tx.Accept
	}{
		"owner":   {owner(), func(_ *market, id tx.LeaseID) *tx.Accept { return &tx.Accept{Lease: id} }},
		"ack key": {other(), (*market).accept},
	} {
		t.Run(name, func(t *testing.T) {
			m, id := heldBack(t, host())
			before := m.balance(host())
			out := m.must(c.by, c.op(m, id)).Outcomes[0]
			if out.Amount != 20_000 || m.balance(host()) != before+20_000 {
				t.Errorf("outcome is %+v", out)
			}
			m.refused(chainv1.Reason_REASON_HOLDBACK_DECIDED, owner(), &tx.Reject{Lease: id})
			if e := m.escrowNow(); e.Reserved != 0 || e.Paid != 50_000 || e.Risk != 0 {
				t.Errorf("escrow is %+v", e)
			}
		})
	}
}

func TestReject(t *testing.T) {
	for name, c := range map[string]struct {
		by person
		op func(*market, tx.LeaseID) *tx.Reject
	}{
		"owner": {owner(), func(_ *market, id tx.LeaseID) *tx.Reject {
			return &tx.Reject{Lease: id, Evidence: tx.Hash{8}}
		}},
		"ack key": {other(), (*market).reject},
	} {
		t.Run(name, func(t *testing.T) {
			m, id := heldBack(t, host())
			before, burned := m.balance(host()), m.s.Chain().Burned.Lo
			r := m.must(c.by, c.op(m, id))
			if m.balance(host()) != before {
				t.Error("a rejected holdback was paid")
			}
			if got := m.s.Chain().Burned.Lo - burned; got != 20_000+uint64(r.Fee-r.Fee*4/5) {
				t.Errorf("%d burned, fee %d", got, r.Fee)
			}
			m.refused(chainv1.Reason_REASON_HOLDBACK_DECIDED, owner(), &tx.Accept{Lease: id})
			if e := m.escrowNow(); e.Reserved != 0 || e.Balance != 5_000_000-50_000 {
				t.Errorf("escrow is %+v", e)
			}
			m.block(minute)
			if out := m.settled(id).Settled[0]; !out.Deleted {
				t.Error("the leaf stayed")
			}
		})
	}
}

// TestRejectEarly: what comes to the holdback after its rejection burns as it comes.
func TestRejectEarly(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Holdback = 20_000 })
	m.wait(99 * second)
	m.charged(m.acked(id, m.now(), 5_000), 0, chainv1.Bound_BOUND_HOLDBACK)
	m.must(owner(), &tx.Reject{Lease: id, Evidence: tx.Hash{8}})
	if e := m.escrowNow(); e.Balance != 4_995_000 || e.Reserved != 995_000 {
		t.Errorf("escrow is %+v", e)
	}
	m.charged(final(m.acked(id, m.now(), 50_000)), 30_000, chainv1.Bound_BOUND_HOLDBACK)
	if e := m.escrowNow(); e.Balance != 4_950_000 || e.Reserved != 0 {
		t.Errorf("escrow is %+v", e)
	}
}

func TestSilenceAccepts(t *testing.T) {
	m, id := heldBack(t, host())
	before := m.balance(host())
	m.wait(day - minute)
	if out := m.settled(id); out.Amount != 0 || out.Settled[0].Deleted {
		t.Errorf("settled %+v too early", out)
	}
	m.wait(minute)
	m.refused(chainv1.Reason_REASON_HOLDBACK_DECIDED, owner(), &tx.Reject{Lease: id})
	if out := m.settled(id); out.Amount != 20_000 || !out.Settled[0].Deleted {
		t.Errorf("settled %+v", out)
	}
	if m.balance(host()) != before+20_000 {
		t.Error("the holdback was not paid")
	}
}

// TestSilenceWithinCharge: after the holdback's window an ordinary charge pays everything, an old
// note included.
func TestSilenceWithinCharge(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Holdback, l.ClaimWindow = 20_000, 2*day })
	m.wait(99 * second)
	m.charged(m.acked(id, m.now(), 50_000), 30_000, chainv1.Bound_BOUND_HOLDBACK)
	m.must(host(), &tx.End{Lease: id})
	m.wait(day)
	m.charged(m.acked(id, m.now(), 1), 20_000, unbound)
	m.charged(final(m.acked(id, m.now(), 60_000)), 10_000, unbound)
	if e := m.escrowNow(); e.Reserved != 0 || e.Paid != 60_000 {
		t.Errorf("escrow is %+v", e)
	}
}

// TestHoldbackOfMissingPayee: it waits for the payee while the claim window lasts.
func TestHoldbackOfMissingPayee(t *testing.T) {
	for _, window := range []tx.Millis{day, 2 * day} {
		m := newMarket(t, nil)
		id := m.placed(func(l *tx.Lease) {
			l.Holdback, l.Payee, l.ClaimWindow = lock-1, newcomer().id, window
		})
		m.wait(99 * second)
		m.must(agent(), m.acked(id, m.now(), lock-1))
		m.must(agent(), &tx.End{Lease: id})
		m.refused(chainv1.Reason_REASON_BELOW_LOCK, owner(), &tx.Accept{Lease: id})
		m.wait(day)
		if out := m.settled(id); out.Amount != 0 || out.Settled[0].Deleted != (window == day) {
			t.Errorf("window %d: settled %+v", window, out)
		}
		if window == day {
			continue
		}
		m.must(other(), &tx.Transfer{To: newcomer().id, Amount: lock})
		if out := m.settled(id); out.Amount != lock-1 {
			t.Errorf("settled %+v", out)
		}
	}
}

func TestHoldbackRefused(t *testing.T) {
	m, id := heldBack(t, host())
	plain := m.placed(func(l *tx.Lease) { l.Slot = 2 })
	wrong := m.accept(id)
	wrong.Countersignature.Index = 3
	reused := &tx.Reject{Lease: id, Countersignature: m.accept(id).Countersignature}
	otherEvidence := m.reject(id)
	otherEvidence.Evidence[0]++
	for _, c := range []struct {
		want chainv1.Reason
		by   person
		op   tx.Operation
	}{
		{chainv1.Reason_REASON_LEASE_UNKNOWN, owner(), &tx.Accept{Lease: tx.LeaseID{1}}},
		{chainv1.Reason_REASON_LEASE_UNKNOWN, owner(), &tx.Reject{Lease: tx.LeaseID{1}}},
		{chainv1.Reason_REASON_NO_HOLDBACK, owner(), &tx.Accept{Lease: plain}},
		{chainv1.Reason_REASON_NOT_PARTY, host(), &tx.Accept{Lease: id}},
		{chainv1.Reason_REASON_NOT_PARTY, assigner(), &tx.Reject{Lease: id}},
		{chainv1.Reason_REASON_ACK_SIGNATURE, owner(), wrong},
		{chainv1.Reason_REASON_ACK_SIGNATURE, other(), reused},
		{chainv1.Reason_REASON_ACK_SIGNATURE, other(), otherEvidence},
	} {
		m.refused(c.want, c.by, c.op)
	}
}

// TestHoldbackKeepsBlocksComing: on a chain where nothing else happens blocks come until silence
// has accepted, and not after. Without them a day by the clock would be a minute by accrual.
func TestHoldbackKeepsBlocksComing(t *testing.T) {
	m, id := heldBack(t, host())
	day := 0
	for ; m.s.Accruing(); day++ {
		if day > 25*60 {
			t.Fatal("blocks come for ever")
		}
		m.block(minute)
	}
	if day < 24*60-5 {
		t.Errorf("blocks came for %d minutes after the last charge", day)
	}
	if out := m.settled(id); out.Amount == 0 {
		t.Error("silence has not accepted")
	}
	for name, decide := range map[string]tx.Operation{
		"accepted": &tx.Accept{}, "rejected": &tx.Reject{Evidence: tx.Hash{1}},
	} {
		m, id := heldBack(t, host())
		switch o := decide.(type) {
		case *tx.Accept:
			o.Lease = id
		case *tx.Reject:
			o.Lease = id
		}
		m.must(owner(), decide)
		if m.s.Accruing() {
			t.Errorf("%s: blocks still come", name)
		}
	}
}
