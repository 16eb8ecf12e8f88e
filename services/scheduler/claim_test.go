package scheduler_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/scheduler"
)

// TestLostLeaseIsSettled: a host that is lost charges for nothing any more; once its claim window
// is over the scheduler settles the lease, also in a later life and when the ledger was away. No
// other lease is touched before its time.
func TestLostLeaseIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer func() { m.stop() }()
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
		m.tell(j.ID, 0, scheduler.Running, 0)
		m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
			if h.Name == "host-1" {
				return fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
			}
			return nil
		}
		m.silence(6 * time.Minute)
		m.tell(j.ID, 0, scheduler.Running, 0)
		if m.wantLane(j.ID, 0, scheduler.Running, "host-2"); m.ledger.Unsettled() != 2 {
			t.Fatalf("%d leases are not settled, want both", m.ledger.Unsettled())
		}
		m.stop()
		time.Sleep(23*time.Hour + 45*time.Minute)
		var away atomic.Bool
		m.ledger.Fail = func(method string) error {
			if away.Load() && method == "Settle" {
				return errors.New("away")
			}
			return nil
		}
		m.start()
		time.Sleep(10 * time.Second)
		if m.ledger.Unsettled() != 2 {
			t.Fatal("a lease was settled before its claim window was over")
		}
		away.Store(true)
		time.Sleep(30 * time.Minute)
		away.Store(false)
		time.Sleep(10 * time.Second)
		if n := m.ledger.Unsettled(); n != 1 {
			t.Errorf("%d leases are not settled, want only the one that runs", n)
		}
		if due, err := m.store.Claims(t.Context(), time.Now().Add(48*time.Hour), 9); err != nil ||
			len(due) != 1 {
			t.Errorf("claims %v, %v, want the settled one to be looked at once more", due, err)
		}
		time.Sleep(2 * time.Hour)
		if due, err := m.store.Claims(t.Context(), time.Now(), 9); err != nil || len(due) != 0 {
			t.Errorf("claims %v, %v, want none once the chain shows it settled", due, err)
		}
	})
}
