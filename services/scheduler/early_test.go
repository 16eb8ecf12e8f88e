package scheduler_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// askedFor returns what returns the run and the attempt that a host was asked for last, of which it
// is not known that its lease is on the chain.
func (m *market) askedFor(id job.ID) func() (scheduler.RunID, scheduler.Attempt) {
	var last scheduler.AttemptID
	m.hosts.Hook(func() {
		m.hosts.OnAsk = func(_ scheduler.Host, a scheduler.Ask, _ *tx.Lease) error {
			last = a.Attempt
			return nil
		}
	})
	return func() (scheduler.RunID, scheduler.Attempt) {
		m.t.Helper()
		r, a := m.read(id).Attempt(last)
		if a == nil || a.Placed {
			m.t.Fatalf("nobody was asked, or the lease is known: %+v", a)
		}
		return r.ID, *a
	}
}

// slowly takes a second for each lease before it is on the chain, or err.
func slowly(err error) func(string) error {
	return func(method string) error {
		if method == "PlaceLease" {
			time.Sleep(time.Second)
			return err
		}
		return nil
	}
}

// TestWordBeforeTheLease: the host of a replacement tells of it while its lease is not on the
// chain. That is nothing: the first one runs until the lease is there, and then the second has it.
func TestWordBeforeTheLease(t *testing.T) {
	for _, end := range []scheduler.EndReason{
		0, scheduler.Refused, scheduler.Completed, scheduler.Exhausted,
	} {
		t.Run(end.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, id, first := eviction(t)
				defer m.stop()
				asked := m.askedFor(id)
				m.ledger.Hook(func() { m.ledger.Fail = slowly(nil) })
				m.offer(2, 2000)
				m.evict(id, first, time.Now().Add(time.Minute))
				time.Sleep(500 * time.Millisecond)
				run, a := asked()
				state := scheduler.Ended
				if end == 0 {
					state = scheduler.Running
				}
				m.tellOf(id, run, a, state, end)
				if r := m.read(id).Runs[0]; r.Attempt(first.ID).State != scheduler.Running {
					t.Errorf("the first one is %s", r.Attempt(first.ID).State)
				}
				m.offers(time.Minute, 1, 2, 3)
				m.wantLane(id, 0, scheduler.Leased, "host-2")
				if end := m.read(id).Runs[0].Attempt(first.ID).End; end != scheduler.Evicted {
					t.Errorf("the first one ended %s", end)
				}
				checkPaid(t, m.ledger)
			})
		})
	}
}

// TestWordBeforeTheAnswer: a lease is on the chain, and its host tells the end before the scheduler
// has the ledger's answer. The end counts, and the lease is not forgotten.
func TestWordBeforeTheAnswer(t *testing.T) {
	lost := errors.New("the answer was lost")
	t.Run("a replacement", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, id, first := eviction(t)
			defer m.stop()
			asked := m.askedFor(id)
			m.ledger.Hook(func() { m.ledger.FailAfter = once("PlaceLease", lost) })
			m.offer(2, 2000)
			m.evict(id, first, time.Now().Add(time.Minute))
			time.Sleep(time.Second)
			run, a := asked()
			m.tellOf(id, run, a, scheduler.Ended, scheduler.Refused)
			r := m.read(id).Runs[0]
			if r.State != scheduler.Pending || r.Attempt(first.ID).End != scheduler.Evicted {
				t.Errorf("it is %s, the first one ended %s", r.State, r.Attempt(first.ID).End)
			}
			m.offers(time.Minute, 3)
			m.wantLane(id, 0, scheduler.Leased, "host-3")
			checkPaid(t, m.ledger)
		})
	})
	t.Run("tasks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMarket(t)
			defer m.stop()
			m.ledger.MaxTotal = 1_000_000
			m.ledger.Hook(func() {
				m.ledger.FailAfter = func(method string) error {
					if method == "PlaceLease" {
						return lost
					}
					return nil
				}
			})
			j := m.submitSpec(array(3, 1))
			asked := m.askedFor(j.ID)
			for range 3 {
				m.offer(1, 1000)
				time.Sleep(time.Second)
				run, a := asked()
				m.tellOf(j.ID, run, a, scheduler.Ended, scheduler.Completed)
				if r := m.read(j.ID).Runs[0]; r.Lease != a.Lease.ID {
					t.Errorf("the lane's lease is %x, want %x", r.Lease, a.Lease.ID)
				}
			}
			m.want(j.ID, scheduler.Ended, scheduler.Completed, "3 tasks completed")
			checkPaid(t, m.ledger)
		})
	})
}

// TestWordWhileTheLedgerIsAway: what a host says of a lease that may be on the chain holds nobody
// up while the ledger does not answer, and asks it only now and then. The host is asked after.
func TestWordWhileTheLedgerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(2, 1000)
		other := m.submitSpecOf(2, func(*scheduler.Spec) {})
		m.want(other.ID, scheduler.Leased, 0, "host-2")
		synctest.Wait()
		m.ledger.Hook(func() {
			m.ledger.FailAfter = once("PlaceLease", errors.New("the answer was lost"))
		})
		looks := 0
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "Lease" {
					looks++
					return errors.New("away")
				}
				return nil
			}
		})
		m.offer(1, 500)
		j := m.submitSpec(func(*scheduler.Spec) {})
		r := m.read(j.ID).Current()
		rep := scheduler.Report{
			Job: j.ID, Run: r.ID, Attempt: r.Current().ID, Executor: r.Current().Host.Executor,
			State: scheduler.Ended, End: scheduler.Completed, Time: time.Now(),
		}
		m.hosts.Hook(func() {
			m.hosts.OnTell = func(_ scheduler.Host, k scheduler.Task) *scheduler.Report {
				if k.Attempt != rep.Attempt {
					return nil
				}
				return &rep
			}
		})
		for range 100 {
			if err := m.engine.Report(t.Context(), rep); err != nil {
				t.Fatal(err)
			}
		}
		if looks != 1 {
			t.Errorf("the ledger that is away was asked %d times", looks)
		}
		m.want(j.ID, scheduler.Pending, 0, "")
		m.report(other.ID, scheduler.Running, 0, "running")
		m.want(other.ID, scheduler.Running, 0, "running")
		synctest.Wait()
		m.ledger.Hook(func() { m.ledger.Fail = nil })
		m.offers(time.Minute, 1, 2)
		m.want(j.ID, scheduler.Ended, scheduler.Completed, "")
		if n := m.ledger.Placed(); n != 2 {
			t.Errorf("%d leases were placed, want one for each job", n)
		}
	})
}

// TestWordOfNoLease: a host says that it runs, and its lease never comes to the chain. The run is
// placed again, and can be cancelled.
func TestWordOfNoLease(t *testing.T) {
	for _, always := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMarket(t)
			defer m.stop()
			m.ledger.Hook(func() {
				m.ledger.Fail = slowly(fmt.Errorf("%w: REASON_LEASE_LATE", scheduler.ErrNotPlaced))
			})
			m.offer(1, 1000)
			j := m.submitSpec(func(s *scheduler.Spec) { s.Always = always })
			run, a := m.read(j.ID).Runs[0].ID, *m.read(j.ID).Runs[0].Current()
			m.tellOf(j.ID, run, a, scheduler.Running, 0)
			time.Sleep(time.Second)
			if r := m.read(j.ID).Runs[0]; r.State != scheduler.Pending || len(r.Attempts) > 0 {
				t.Errorf("with no lease it is %s, %+v", r.State, r.Attempts)
			}
			m.ledger.Hook(func() { m.ledger.Fail = nil })
			m.offers(time.Minute, 1)
			m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
		})
	}
}

// TestCancelledWhileItsReplacementIsRefused: the first host is still to stop, so the run has not
// ended before it has.
func TestCancelledWhileItsReplacementIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, id, first := eviction(t)
		defer m.stop()
		m.ledger.Hook(func() { m.ledger.Fail = slowly(scheduler.ErrLeaseRefused) })
		m.offer(2, 2000)
		m.evict(id, first, time.Now().Add(time.Minute))
		time.Sleep(500 * time.Millisecond)
		if _, err := m.engine.Cancel(t.Context(), m.read(id), "enough"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r := m.read(id).Runs[0]
		if r.State != scheduler.Running || r.Reason != "being cancelled: enough" {
			t.Errorf("while the first one runs it is %s: %s", r.State, r.Reason)
		}
		m.tellOf(id, r.ID, first, scheduler.Ended, scheduler.Cancelled)
		m.want(id, scheduler.Ended, scheduler.Cancelled, "enough")
	})
}
