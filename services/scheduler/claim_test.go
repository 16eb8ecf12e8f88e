package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
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
		m.hosts.Hook(func() {
			m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
				if h.Name == "host-1" {
					return fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
				}
				return nil
			}
		})
		m.silence(6 * time.Minute)
		m.tell(j.ID, 0, scheduler.Running, 0)
		if m.wantLane(j.ID, 0, scheduler.Running, "host-2"); m.ledger.Unsettled() != 2 {
			t.Fatalf("%d leases are not settled, want both", m.ledger.Unsettled())
		}
		m.stop()
		time.Sleep(23*time.Hour + 45*time.Minute)
		var away atomic.Bool
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if away.Load() && method == "Settle" {
					return errors.New("away")
				}
				return nil
			}
		})
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
		if due := m.claimsBy(time.Now().Add(48 * time.Hour)); len(due) != 1 {
			t.Errorf("claims %v, want the settled one to be looked at once more", due)
		}
		time.Sleep(2 * time.Hour)
		if due := m.claimsBy(time.Now()); len(due) != 0 {
			t.Errorf("claims %v, want none once the chain shows it settled", due)
		}
	})
}

// placedBefore places n leases that ended long ago and leaves a claim of each.
func (m *market) placedBefore(n int) (ids []tx.LeaseID) {
	m.t.Helper()
	var claims []scheduler.Claim
	for i := range n {
		l := tx.Lease{
			Escrow: tx.EscrowID{byte(i >> 8), byte(i)}, Epoch: 1,
			Until: tx.Millis(time.Now().Add(-time.Hour).UnixMilli()),
		}
		s := scheduler.SignedLease{ID: l.ID(sig.Anchor{}), Lease: l}
		if err := m.ledger.PlaceLease(context.Background(), s, 0); err != nil {
			m.t.Fatal(err)
		}
		ids = append(ids, s.ID)
		claims = append(claims, scheduler.Claim{Lease: s.ID, Due: time.Now().Add(-time.Minute)})
	}
	if err := m.store.Claimed(context.Background(), nil, claims); err != nil {
		m.t.Fatal(err)
	}
	return ids
}

func (m *market) claimsBy(by time.Time) []scheduler.Claim {
	m.t.Helper()
	due, err := m.store.Claims(context.Background(), scheduler.Claim{}, by, 10_000)
	if err != nil {
		m.t.Fatal(err)
	}
	return due
}

// TestClaimsAreAskedTogether: thousands of claims cost one question for each page of them, and only
// what is open is settled.
func TestClaimsAreAskedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer func() { m.stop() }()
		m.stop()
		ids := m.placedBefore(3*scheduler.MaxClaims + 1)
		if err := m.ledger.Settle(t.Context(), ids[:2*scheduler.MaxClaims]); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		calls := map[string]int{}
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				mu.Lock()
				defer mu.Unlock()
				calls[method]++
				return nil
			}
		})
		m.start()
		synctest.Wait()
		if n := m.ledger.Unsettled(); n != 0 {
			t.Errorf("%d leases are left open", n)
		}
		if calls["Leases"] != 4 || calls["Lease"] != 0 || calls["Settle"] == 0 ||
			calls["Settle"] > 3 {
			t.Errorf("calls %v, want a question per page of %d and no more settlements than that",
				calls, scheduler.MaxClaims)
		}
		if due := m.claimsBy(time.Now()); len(due) != 0 {
			t.Errorf("%d claims are due", len(due))
		}
		if later := m.claimsBy(time.Now().Add(2 * time.Hour)); len(later) != scheduler.MaxClaims+1 {
			t.Errorf("%d claims are to be looked at again, want those that were settled now",
				len(later))
		}
	})
}

// TestClaimsThatCannotBeSettled hold up no claims beside and behind them.
func TestClaimsThatCannotBeSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer func() { m.stop() }()
		m.stop()
		ids := m.placedBefore(2 * scheduler.MaxClaims)
		if err := m.ledger.Settle(t.Context(), ids[scheduler.MaxClaims+10:]); err != nil {
			t.Fatal(err)
		}
		const open = scheduler.MaxClaims + 10
		var rich atomic.Bool
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "Settle" && !rich.Load() {
					return errors.New("CANNOT_PAY")
				}
				return nil
			}
		})
		m.start()
		synctest.Wait()
		if due := m.claimsBy(time.Now()); len(due) != open || m.ledger.Unsettled() != open {
			t.Errorf("%d claims are due, want the %d that are open", len(due), open)
		}
		rich.Store(true)
		time.Sleep(10 * time.Second)
		if due := m.claimsBy(time.Now()); len(due) != 0 || m.ledger.Unsettled() != 0 {
			t.Errorf("%d claims are due once the scheduler can pay", len(due))
		}
	})
}

// TestArraysLeaveNoLeases: an escrow may have 65,536 leases on the chain, so those of tasks
// that are done are removed soon, while the array goes on; one whose holdback waits for its owner
// is not.
func TestArraysLeaveNoLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Tasks, s.Lanes = 40, 1 })
		for n := range 20 {
			m.tell(j.ID, 0, scheduler.Running, 0)
			a := m.read(j.ID).Runs[0].Current()
			m.ledger.Charged(a.Lease.ID, n == 0)
			m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
			time.Sleep(time.Second)
			m.offer(1, 1000)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		if n := m.ledger.Leaves(); n != 2 {
			t.Errorf("%d leases are on the chain, want the one that runs and the one held back", n)
		}
	})
}

// TestToldEndIsEnded: a host says that it is done and is never heard again, or never charges. Its
// lease is ended soon, tried again while the ledger is away, and settled after its claim window.
func TestToldEndIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) { s.RunTime = 0 })
		m.tell(j.ID, 0, scheduler.Running, 0)
		m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
		m.want(j.ID, scheduler.Ended, scheduler.Completed, "")
		m.ledger.Hook(func() { m.ledger.Fail = once("EndLease", errors.New("away")) })
		time.Sleep(9 * time.Minute)
		if got := m.ledger.Open(); got != 1 {
			t.Errorf("%d leases are open while the host may charge", got)
		}
		time.Sleep(2 * time.Minute)
		if got := m.ledger.Open(); got != 0 {
			t.Errorf("%d leases are open of a host that said it was done", got)
		}
		time.Sleep(26 * time.Hour)
		if got := m.ledger.Unsettled(); got != 0 {
			t.Errorf("%d leases are unsettled", got)
		}
	})
}

// TestEndsForNothing: a lease that is not the scheduler's to end any more costs it no end, or one
// that came too late, and is settled once it may be.
func TestEndsForNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		before bool // the owner names another assigner before the lease is looked at
		ends   int32
	}{"before": {true, 0}, "just then": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				var ends atomic.Int32
				m.ledger.Hook(func() {
					m.ledger.Fail = func(method string) error {
						if method == "EndLease" {
							ends.Add(1)
							return fmt.Errorf("%w: REASON_NOT_PARTY", scheduler.ErrEndRefused)
						}
						return nil
					}
				})
				m.offer(1, 1000)
				j := m.submitSpec(func(s *scheduler.Spec) { s.RunTime = time.Hour })
				m.tell(j.ID, 0, scheduler.Running, 0)
				if tt.before {
					m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.Assigner = sig.AccountID{9} })
				}
				m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
				time.Sleep(20 * time.Hour)
				if n := ends.Load(); n != tt.ends {
					t.Errorf("%d ends were sent, want %d", n, tt.ends)
				}
				time.Sleep(8 * time.Hour)
				synctest.Wait()
				if n := m.ledger.Unsettled(); n != 0 || ends.Load() != tt.ends {
					t.Errorf("%d leases are unsettled, %d ends were sent", n, ends.Load())
				}
			})
		})
	}
}

// TestManyEnds: leases whose hosts told the end and charge nothing are ended many at a time, and
// one whose end fails holds up no other.
func TestManyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer func() { m.stop() }()
		m.offer(1, 1000)
		j := m.submit(1, 1)
		first := m.read(j.ID).Current().Current().Lease
		m.stop()
		const many = 100
		claims := []scheduler.Claim{}
		for i := range many {
			l := first.Lease
			l.Slot, l.Budget, l.Trust = uint32(i+1), 1, 0
			s := scheduler.SignedLease{ID: l.ID(sig.Anchor{}), Lease: l}
			if err := m.ledger.PlaceLease(t.Context(), s, 0); err != nil {
				t.Fatal(err)
			}
			claims = append(claims, scheduler.Claim{Lease: s.ID, Due: time.Now()})
		}
		if err := m.store.Claimed(t.Context(), nil, claims); err != nil {
			t.Fatal(err)
		}
		var now, most atomic.Int32
		failed := once("EndLease", errors.New("away"))
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method != "EndLease" {
					return nil
				}
				n := now.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				time.Sleep(time.Second)
				now.Add(-1)
				return failed(method)
			}
		})
		m.start()
		time.Sleep(15 * time.Second)
		if open := m.ledger.Open(); open != 1 {
			t.Errorf("%d leases are open, want the one that runs", open)
		}
		if n := most.Load(); n < 8 || n > 32 {
			t.Errorf("%d ends were on their way together", n)
		}
	})
}
