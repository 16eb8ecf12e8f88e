package state_test

import (
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const (
	leaseFee      tx.Grains = 50_000
	leaseFeeTotal           = 3 * leaseFee
)

// newPaying is a market whose owner grants three fees.
func newPaying(t testing.TB, change func(*tx.OpenEscrow)) *market {
	return newMarket(t, func(o *tx.OpenEscrow) {
		o.Terms.LeaseFee, o.Terms.LeaseFeeTotal = leaseFee, leaseFeeTotal
		if change != nil {
			change(o)
		}
	})
}

// placeFor places the lease of a slot and epoch for a fee.
func (m *market) placeFor(fee tx.Grains, slot uint32, epoch uint64) *tx.PlaceLease {
	o := m.place(m.lease(func(l *tx.Lease) { l.Slot, l.Epoch = slot, epoch }))
	o.Fee = fee
	return o
}

// TestLeaseFee: the assigner takes what it asks for within what was granted, from the escrow, for
// each lease, also for one that supersedes another; the receipt and the escrow tell it.
func TestLeaseFee(t *testing.T) {
	m := newPaying(t, nil)
	before, had := m.escrowNow(), m.balance(assigner())
	fees := tx.Grains(0)
	for i, fee := range []tx.Grains{leaseFee, 1, 0, leaseFee} {
		r := m.must(assigner(), m.placeFor(fee, 1, uint64(i+1)))
		if got := r.Outcomes[0].Amount; got != fee {
			t.Errorf("the receipt tells a fee of %d, want %d", got, fee)
		}
		had, fees = had-r.Fee+fee, fees+fee
		if got := m.balance(assigner()); got != had {
			t.Errorf("the assigner has %d, want %d", got, had)
		}
		e := m.escrowNow()
		if e.LeaseFees != fees || e.Balance != before.Balance-fees || e.Paid != 0 {
			t.Errorf("after %d in fees the escrow is %+v", fees, e)
		}
	}
	m.s.Recount()
}

func TestLeaseFeeRefused(t *testing.T) {
	for name, c := range map[string]struct {
		want   chainv1.Reason
		escrow func(*tx.OpenEscrow)
		by     person
		fee    tx.Grains
	}{
		"more than granted": {chainv1.Reason_REASON_LEASE_FEE, nil, assigner(), leaseFee + 1},
		"none granted": {chainv1.Reason_REASON_LEASE_FEE,
			func(o *tx.OpenEscrow) { o.Terms.LeaseFee = 0 }, assigner(), 1},
		"by the owner": {chainv1.Reason_REASON_LEASE_FEE, nil, owner(), 1},
		"by the owner, without assigner": {chainv1.Reason_REASON_LEASE_FEE,
			func(o *tx.OpenEscrow) { o.Terms.Assigner = sig.AccountID{} }, owner(), 1},
		"by a stranger": {chainv1.Reason_REASON_NOT_ASSIGNER, nil, other(), 1},
		"more than in all": {chainv1.Reason_REASON_LEASE_FEE_TOTAL,
			func(o *tx.OpenEscrow) { o.Terms.LeaseFeeTotal = leaseFee - 1 }, assigner(), leaseFee},
		"no total": {chainv1.Reason_REASON_LEASE_FEE_TOTAL,
			func(o *tx.OpenEscrow) { o.Terms.LeaseFeeTotal = 0 }, assigner(), leaseFee},
		"not beside the budget": {chainv1.Reason_REASON_UNRESERVED_TOO_LOW,
			func(o *tx.OpenEscrow) { o.Amount = 1_000_000 + leaseFee - 1 }, assigner(), leaseFee},
		"above max_total": {chainv1.Reason_REASON_MAX_TOTAL,
			func(o *tx.OpenEscrow) { o.Terms.MaxTotal = 1_000_000 + leaseFee - 1 },
			assigner(), leaseFee},
		"overflow": {chainv1.Reason_REASON_OVERFLOW,
			func(o *tx.OpenEscrow) {
				o.Terms.LeaseFee, o.Terms.LeaseFeeTotal = 1<<64-1, 1<<64-1
			}, assigner(), 1<<64 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newPaying(t, c.escrow)
			m.refused(c.want, c.by, m.placeFor(c.fee, 1, 1))
			if e := m.escrowNow(); e.LeaseFees != 0 || e.Live != 0 {
				t.Errorf("a refused lease left %+v", e)
			}
		})
	}
}

// TestLeaseFeesEnd: what was granted in all ends the fees, also in the middle of a transaction and
// whatever became of the leases; more needs the owner's word, and less is not taken back.
func TestLeaseFeesEnd(t *testing.T) {
	m := newPaying(t, nil)
	for slot := range uint32(2) {
		m.must(assigner(), m.placeFor(leaseFee, slot, 1))
	}
	r := m.do(assigner(), m.placeFor(leaseFee, 1, 2), m.placeFor(leaseFee, 1, 3))
	if r.Reason != chainv1.Reason_REASON_LEASE_FEE_TOTAL || r.FailedOperation != 1 {
		t.Errorf("one fee too many: %+v", r)
	}
	m.must(assigner(), m.placeFor(leaseFee, 1, 2))
	m.refused(chainv1.Reason_REASON_LEASE_FEE_TOTAL, assigner(), m.placeFor(1, 1, 3))
	m.must(assigner(), m.placeFor(0, 1, 3))

	more := terms()
	more.LeaseFee, more.LeaseFeeTotal = 1, leaseFeeTotal+1
	m.must(owner(), &tx.SetTerms{Escrow: m.escrow, Terms: more})
	m.refused(chainv1.Reason_REASON_LEASE_FEE, assigner(), m.placeFor(2, 1, 4))
	m.must(assigner(), m.placeFor(1, 1, 4))
	m.must(owner(), &tx.SetTerms{Escrow: m.escrow, Terms: terms()})
	m.refused(chainv1.Reason_REASON_LEASE_FEE, assigner(), m.placeFor(1, 1, 5))
	if e := m.escrowNow(); e.LeaseFees != leaseFeeTotal+1 {
		t.Errorf("%d were taken in fees, want %d", e.LeaseFees, leaseFeeTotal+1)
	}
}

// TestLeaseFeeCounts: fees count within max_total, and for extensions too.
func TestLeaseFeeCounts(t *testing.T) {
	m := newPaying(t, func(o *tx.OpenEscrow) { o.Terms.MaxTotal = 1_000_000 + leaseFee })
	l := m.placeFor(leaseFee, 1, 1)
	m.must(assigner(), l)
	longer := &tx.Extend{Lease: l.Lease.ID(m.anchor), Budget: 1_000_001, Until: m.now() + 2*hour}
	m.refused(chainv1.Reason_REASON_MAX_TOTAL, owner(), longer)
	more := m.escrowNow().Terms
	more.MaxTotal++
	m.must(owner(), &tx.SetTerms{Escrow: m.escrow, Terms: more})
	m.must(owner(), longer)
}

// TestLeaseFeeOfOtherPurposes: no lease stands under a bond or a budget.
func TestLeaseFeeOfOtherPurposes(t *testing.T) {
	for _, open := range []*tx.OpenEscrow{openBudget(), openBond(chainv1.Purpose_PURPOSE_BOND)} {
		for _, change := range []func(*tx.Terms){
			func(t *tx.Terms) { t.LeaseFee = 1 }, func(t *tx.Terms) { t.LeaseFeeTotal = 1 },
		} {
			o := *open
			change(&o.Terms)
			newWorld(t).refused(chainv1.Reason_REASON_TERMS_INVALID, owner(), &o)
		}
	}
}
