package scheduler_test

import (
	"testing"
	"testing/synctest"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestHoldback: each lease holds back exactly what the owner asks for, and none is placed that
// could not.
func TestHoldback(t *testing.T) {
	tests := map[string]struct {
		spoil func(*tx.Lease)
		free  uint64 // grains of the escrow; 0 = all
		want  string
	}{
		"as asked":     {func(*tx.Lease) {}, 0, ""},
		"none":         {func(l *tx.Lease) { l.Holdback = 0 }, 0, "not what was asked for"},
		"less":         {func(l *tx.Lease) { l.Holdback-- }, 0, "not what was asked for"},
		"above budget": {func(l *tx.Lease) { l.Budget = l.Holdback - 1 }, 0, "not what was asked for"},
		"not free":     {func(*tx.Lease) {}, 999, "do not cover its holdback of 1000"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.hosts.Hook(func() {
					m.hosts.OnAsk = func(_ scheduler.Host, a scheduler.Ask, l *tx.Lease) error {
						if a.Terms.Holdback != 1000 {
							t.Errorf("asked for a holdback of %d, want 1000", a.Terms.Holdback)
						}
						tt.spoil(l)
						return nil
					}
				})
				j := m.submitSpec(func(s *scheduler.Spec) { s.Holdback = 1000 })
				if tt.free > 0 {
					m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.Unreserved = tt.free })
				}
				m.offer(1, 1000)
				if tt.want == "" {
					m.want(j.ID, scheduler.Leased, 0, "leased")
					return
				}
				m.want(j.ID, scheduler.Pending, 0, tt.want)
				if got := m.ledger.Placed(); got != 0 {
					t.Errorf("%d leases were placed", got)
				}
			})
		})
	}
}
