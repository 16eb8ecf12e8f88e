package scheduler_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// spend has the escrow pay all that the lease of a lane promised but some grains, and the host say
// that the budget is used up.
func (m *market) spend(j *scheduler.Job, slot int, left uint64) {
	m.t.Helper()
	a := m.read(j.ID).Runs[slot].Current()
	if err := m.ledger.EndLease(m.t.Context(), a.Lease.ID); err != nil {
		m.t.Fatal(err)
	}
	m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { // what it did not use was freed
		s.Used, s.Unreserved = s.MaxTotal-left, left
	})
	m.tell(j.ID, slot, scheduler.Ended, scheduler.Exhausted)
}

// TestToppedUp: an always job whose money is used up waits, says so, and goes on once its owner
// gives it more, be it after a restart. What does not pay for a minute begins nothing.
func TestToppedUp(t *testing.T) {
	for name, tt := range map[string]struct {
		left uint64
		then func(*market, *scheduler.Job)
		runs bool
	}{
		"nothing more": {0, func(*market, *scheduler.Job) {}, false},
		"some grains":  {15, func(*market, *scheduler.Job) {}, false},
		"topped up": {0, func(m *market, j *scheduler.Job) {
			m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) {
				s.Unreserved, s.MaxTotal = s.Unreserved+500_000, s.MaxTotal+500_000
			})
		}, true},
		"topped up within max_total only": {0, func(m *market, j *scheduler.Job) {
			m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.Unreserved += 500_000 })
		}, false},
		"topped up and restarted": {0, func(m *market, j *scheduler.Job) {
			m.stop()
			m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) {
				s.Unreserved, s.MaxTotal = s.Unreserved+500_000, s.MaxTotal+500_000
			})
			m.start()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer func() { m.stop() }()
				m.ledger.MaxTotal = 1_000_000
				m.offer(1, 1000)
				j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
				m.tell(j.ID, 0, scheduler.Running, 0)
				m.spend(j, 0, tt.left)
				m.offers(time.Hour, 1)
				r := m.read(j.ID).Runs[0]
				if r.State != scheduler.Pending || m.ledger.Placed() != 1 ||
					!strings.Contains(r.Reason, "waiting: exhausted") {
					t.Fatalf("without money it is %s after %d leases: %s", r.State, m.ledger.Placed(),
						r.Reason)
				}
				tt.then(m, j)
				m.offers(80*time.Second, 1)
				if r = m.read(j.ID).Runs[0]; (r.State == scheduler.Leased) != tt.runs {
					t.Errorf("it is %s: %s", r.State, r.Reason)
				}
				if tt.runs && r.Current().Lease.Lease.Budget != 500_000 {
					t.Errorf("its lease promises %d", r.Current().Lease.Lease.Budget)
				}
			})
		})
	}
}

// TestWaitingForMoneyIsPatient: the escrow of a job that has none is looked at about once a minute.
func TestWaitingForMoneyIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.MaxTotal = 1_000_000
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
		m.tell(j.ID, 0, scheduler.Running, 0)
		m.spend(j, 0, 0)
		var reads atomic.Int32
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "Escrow" {
					reads.Add(1)
				}
				return nil
			}
		})
		m.offers(time.Hour, 1)
		if n := reads.Load(); n < 50 || n > 90 {
			t.Errorf("in an hour it was looked at %d times", n)
		}
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "Escrow" {
					return scheduler.ErrNotFound
				}
				return nil
			}
		})
		m.offers(80*time.Second, 1)
		m.want(j.ID, scheduler.Ended, scheduler.Exhausted, "closed")
	})
}

// TestExhaustedLaneLeavesOthers: one lane of two has used its share up and waits; what the other's
// end frees is shared again.
func TestExhaustedLaneLeavesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.MaxTotal = 1_000_000
		m.offer(1, 1000)
		m.offer(2, 1000)
		j := m.submitSpec(replicas(2))
		m.tell(j.ID, 0, scheduler.Running, 0)
		m.tell(j.ID, 1, scheduler.Running, 0)
		a := m.read(j.ID).Runs[0].Current()
		if err := m.ledger.EndLease(t.Context(), a.Lease.ID); err != nil {
			t.Fatal(err)
		}
		m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.Used = s.MaxTotal })
		m.tell(j.ID, 0, scheduler.Ended, scheduler.Exhausted)
		m.offers(10*time.Minute, 1, 2)
		if r := m.read(j.ID).Runs[0]; r.State != scheduler.Pending {
			t.Errorf("the lane is %s: %s", r.State, r.Reason)
		}
		m.wantLane(j.ID, 1, scheduler.Running, m.read(j.ID).Runs[1].Current().Host.Name)
		got, err := m.engine.Job(t.Context(), j.Owner, j.ID)
		if state, _, why := got.State(); err != nil || state != scheduler.Running ||
			!strings.Contains(why, "1 of 2 replicas run; waiting: ") {
			t.Errorf("the job is %s: %s, %v", state, why, err)
		}
	})
}

// TestTooPoorToBegin: an always job is not begun on less than a minute costs.
func TestTooPoorToBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.MaxTotal = 15
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
				return errors.New("nobody is to be asked")
			}
		})
		m.offer(1, 1000) // a minute is 16 grains
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
		m.want(j.ID, scheduler.Pending, 0,
			"15 grains are free for it, and 1m0s cost 16; top its escrow up")
	})
}

// TestLanesToppedUp: a service whose max_total pays for no minute of each lane says so, and runs
// once its owner has raised the escrow's, but not past what it was raised by.
func TestLanesToppedUp(t *testing.T) {
	for name, tt := range map[string]struct {
		raise  uint64
		budget uint64
	}{
		"not raised": {0, 0},
		"too little": {7, 0}, // 47 are 15 for each
		"a minute":   {8, 16},
		"much":       {500_000, 166_680},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.ledger.MaxTotal = 40
				m.offer(1, 1000)
				j := m.submitSpec(func(s *scheduler.Spec) {
					s.Always, s.Lanes, s.MaxTotal = true, 3, 40
				})
				m.offers(time.Minute, 1)
				m.want(j.ID, scheduler.Pending, 0, "13 grains are free for it, and 1m0s cost 16")
				m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.MaxTotal += tt.raise })
				m.offers(5*time.Minute, 1)
				for _, r := range m.read(j.ID).Runs {
					a := r.Current()
					switch {
					case tt.budget == 0 && a != nil:
						t.Errorf("lane %d has a lease of %d grains", r.Slot, a.Lease.Lease.Budget)
					case tt.budget > 0 && (a == nil || uint64(a.Lease.Lease.Budget) != tt.budget):
						t.Errorf("lane %d: %+v, want a lease of %d: %s", r.Slot, a, tt.budget, r.Reason)
					}
				}
			})
		})
	}
}
