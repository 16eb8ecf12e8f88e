package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// delays makes every call take its own time, so that lanes are placed one between another.
type delays struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *delays) wait() {
	d.mu.Lock()
	wait := time.Duration(d.r.IntN(60)) * time.Millisecond
	d.mu.Unlock()
	time.Sleep(wait)
}

func (d *delays) chance(of int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(of) == 0
}

// TestLanesShareEvenly: whichever call comes between which, whoever declines and whatever answer is
// lost, lanes share the escrow's money evenly, all of it, and the chain never refuses for money.
func TestLanesShareEvenly(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lanesShare(t, rand.New(rand.NewPCG(seed, 2)), seed%2*scheduler.DefaultLeaseFee)
			})
		})
	}
}

func lanesShare(t *testing.T, r *rand.Rand, fee uint64) {
	m := newMarketFor(t, fee)
	defer m.stop()
	const total = 1_000_000
	m.ledger.MaxTotal = total
	lanes := 2 + r.IntN(5)
	d := &delays{r: r}
	m.ledger.Hook(func() { m.ledger.Fail = func(string) error { d.wait(); return nil } })
	m.ledger.Hook(func() {
		m.ledger.FailAfter = func(method string) error {
			if method == "PlaceLease" && d.chance(6) {
				return fmt.Errorf("the answer was lost")
			}
			return nil
		}
	})
	m.hosts.Hook(func() {
		m.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, _ *tx.Lease) error {
			d.wait()
			if d.chance(4) {
				return fmt.Errorf("%w: POLICY", scheduler.ErrDeclined)
			}
			return nil
		}
	})
	for n := range byte(8) {
		m.offer(n+1, 1000)
	}
	j := m.submitSpec(replicas(uint32(lanes)))
	for range 12 {
		time.Sleep(5 * time.Second)
		for n := range byte(8) {
			m.offer(n+1, 1000)
		}
	}
	for _, run := range m.read(j.ID).Runs {
		a := run.Current()
		if a == nil || !a.Placed {
			t.Fatalf("lane %d has no lease: %s", run.Slot, run.Reason)
		}
		if got := uint64(a.Lease.Lease.Budget); got < total/uint64(lanes)-fee || run.Tries != 1 {
			t.Errorf("lane %d of %d has %d after %d tries", run.Slot, lanes, got, run.Tries)
		}
	}
}

// TestRatesAreCounted: lanes that are placed at the same time keep within max_rate together,
// without the chain's refusal.
func TestRatesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(_ scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
				l.Rate = 1000
				return nil
			}
		})
		j := schedulertest.NewJob(1, 1)
		j.Runs, j.Spec.Lanes, j.Spec.Always = nil, 3, true
		m.ledger.Fund(j)
		m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.MaxRate = 2500 })
		if _, err := m.engine.Submit(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		for n := range byte(3) {
			m.offer(n+1, 1000)
		}
		time.Sleep(10 * time.Second)
		tries, waits := 0, 0
		for _, r := range m.read(j.ID).Runs {
			tries += int(r.Tries)
			if r.State == scheduler.Pending {
				waits++
			}
		}
		if tries != 2 || waits != 1 {
			t.Errorf("%d leases were tried and %d lanes wait, want 2 and 1", tries, waits)
		}
	})
}

// TestTrustIsCounted: ten lanes of tasks, and an escrow that trusts two at once. Whoever completes
// frees its trust; the chain refuses none meanwhile, and none is blamed for what it would.
func TestTrustIsCounted(t *testing.T) {
	for name, trust := range map[string]uint64{"the owner's": 100, "the usual": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.ledger.Hook(func() { m.ledger.Fail = slowly(nil) })
				m.hosts.Hook(func() {
					m.hosts.OnAsk = func(_ scheduler.Host, a scheduler.Ask, l *tx.Lease) error {
						l.Trust = 100
						return nil
					}
				})
				j := m.submitSpec(func(s *scheduler.Spec) { s.Lanes, s.Tasks, s.Trust = 10, 30, trust })
				m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.Trust = 299 })
				for range 600 {
					for n := range byte(12) {
						m.offer(n+1, 6000)
					}
					time.Sleep(time.Second)
					for _, r := range m.read(j.ID).Runs {
						a := r.Current()
						if a != nil && a.State == scheduler.Leased && time.Since(a.Created) > 3*time.Second {
							m.ledger.Final(a.Lease.ID)
							m.tellOf(j.ID, r.ID, *a, scheduler.Ended, scheduler.Completed)
						}
					}
				}
				m.want(j.ID, scheduler.Ended, scheduler.Completed, "30 tasks completed")
				checkPaid(t, m.ledger)
			})
		})
	}
}

// TestNextTaskHasTheMoneyOfTheLast: a task's host has said that it ended, and has not charged for
// the last time: what its lease reserves goes to the next task of the lane, which supersedes it.
func TestNextTaskHasTheMoneyOfTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.MaxTotal = 1_000_000
		var asked []scheduler.Terms
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(_ scheduler.Host, a scheduler.Ask, _ *tx.Lease) error {
				asked = append(asked, a.Terms)
				return nil
			}
		})
		m.offer(1, 1000)
		j := m.submitSpec(array(3, 1))
		for range 3 {
			first := m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
			m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
			synctest.Wait()
			if n := len(asked); asked[n-1].Supersedes != first.Lease.ID && n < 3 {
				t.Errorf("task %d supersedes %x, want %x", n, asked[n-1].Supersedes, first.Lease.ID)
			}
			m.offer(1, 1000)
		}
		m.want(j.ID, scheduler.Ended, scheduler.Completed, "3 tasks completed")
		for _, terms := range asked[1:] {
			if terms.Budget < 999_000 {
				t.Errorf("a task has %d grains, want what the last one left", terms.Budget)
			}
		}
		checkPaid(t, m.ledger)
	})
}

// TestNextTaskHasTheTrustOfTheLast: the owner trusts with all there is, once and a bit. A lease
// that ended and was not charged for the last time counts for what it can still be paid alone, when
// the next one supersedes it and after.
func TestNextTaskHasTheTrustOfTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.MaxTotal = 1_000_000
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(_ scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
				l.Rate = 3_600 // a grain a second
				return nil
			}
		})
		m.offer(1, 3_600)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Tasks, s.Lanes, s.Trust = 5, 1, 900_000 })
		m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.Trust = 901_000 })
		for range 5 {
			m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
			time.Sleep(30 * time.Second)
			m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
			m.offer(1, 3_600)
			time.Sleep(time.Second)
		}
		m.want(j.ID, scheduler.Ended, scheduler.Completed, "5 tasks completed")
		checkPaid(t, m.ledger)
	})
}

// TestEscrowIsReadWithTheLease: while a lane's first candidate thinks its question over, its last
// lease ends, and another lane reads the escrow. What that lease leaves is then free, and not
// counted as freed once more.
func TestEscrowIsReadWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.MaxTotal = 1_000_000
		m.offer(1, 1000)
		m.offer(4, 1000)
		j := m.submitSpec(replicas(2))
		for slot := range 2 {
			m.tell(j.ID, slot, scheduler.Running, 0)
		}
		first := *m.read(j.ID).Runs[0].Current()
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(h scheduler.Host, a scheduler.Ask, _ *tx.Lease) error {
				if h.Name == "host-2" && a.Terms.Slot == 0 {
					time.Sleep(4 * time.Second)
					return scheduler.ErrDeclined
				}
				return nil
			}
		})
		m.offer(2, 500)
		m.offer(3, 2000)
		m.evict(j.ID, first, time.Now().Add(10*time.Minute))
		time.Sleep(time.Second)
		if err := m.ledger.EndLease(t.Context(), first.Lease.ID); err != nil {
			t.Fatal(err)
		}
		m.tell(j.ID, 1, scheduler.Ended, scheduler.Failed) // and is placed again
		time.Sleep(30 * time.Second)
		total := uint64(0)
		for slot, r := range m.read(j.ID).Runs {
			a := r.Current()
			if a == nil || !a.Placed || a.State == scheduler.Ended {
				t.Fatalf("lane %d is %s: %s", slot, r.State, r.Reason)
			}
			for _, tried := range r.Attempts {
				if tried.End == scheduler.Refused {
					t.Errorf("lane %d: the chain refused it: %s", slot, tried.Reason)
				}
			}
			total += uint64(a.Lease.Lease.Budget)
		}
		if total < 990_000 || total > 1_000_000 {
			t.Errorf("the lanes have %d", total)
		}
		checkPaid(t, m.ledger)
	})
}

// TestLanesReadTogether: lanes that come at one moment share a reading of the escrow.
func TestLanesReadTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.MaxTotal = 1_000_000
		var reads atomic.Int32
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "Escrow" {
					reads.Add(1)
					time.Sleep(50 * time.Millisecond)
				}
				return nil
			}
		})
		const lanes = 20
		j := m.submitSpec(replicas(lanes))
		reads.Store(0)
		for n := range byte(lanes) {
			m.offer(n+1, 1000)
		}
		time.Sleep(5 * time.Second)
		for _, r := range m.read(j.ID).Runs {
			if a := r.Current(); a == nil || a.Lease.Lease.Budget != 1_000_000/lanes {
				t.Fatalf("lane %d: %+v", r.Slot, a)
			}
		}
		if n := reads.Load(); n > lanes/2 {
			t.Errorf("%d lanes read the escrow %d times", lanes, n)
		}
	})
}
