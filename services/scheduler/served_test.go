package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// dear is a price at which a lease of a million grains is used up in ten minutes.
const dear = 6_000_000

// signDearly has hosts sign leases that draw what dear comes to.
func (m *market) signDearly() {
	m.hosts.Hook(func() {
		m.hosts.OnAsk = func(_ scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
			l.Rate = dear
			return nil
		}
	})
}

// TestRefilledService: a service whose money is there in time goes on at once, on the host that
// served it, each time that a lease is used up or over, however often.
func TestRefilledService(t *testing.T) {
	for _, end := range []scheduler.EndReason{scheduler.Exhausted, scheduler.Expired} {
		t.Run(end.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.ledger.MaxTotal = 1_000_000
				m.signDearly()
				offer := func() {
					m.offer(1, dear)
					m.offer(2, dear+1)
				}
				j := m.submitSpec(func(s *scheduler.Spec) { s.Always, s.Backoff = true, 10*time.Second })
				used := uint64(0)
				topUp := func() { // before the lease is over; the next one is for ten minutes too
					m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) {
						s.Used, s.MaxTotal, s.Unreserved = used, used+1_000_000, 1_000_000
						s.Expires = time.Now().Add(24*time.Hour + 10*time.Minute)
					})
				}
				for range 12 {
					topUp()
					offer()
					time.Sleep(time.Second)
					m.tell(j.ID, 0, scheduler.Running, 0)
					a := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
					time.Sleep(10*time.Minute - time.Second)
					if err := m.ledger.EndLease(t.Context(), a.Lease.ID); err != nil {
						t.Fatal(err)
					}
					used += 1_000_000
					topUp()
					offer()
					m.tell(j.ID, 0, scheduler.Ended, end)
				}
				time.Sleep(time.Second)
				m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
			})
		})
	}
}
