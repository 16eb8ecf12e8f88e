package scheduler_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestOldestProgramsAreKept: beyond scheduler.MaxKept the younger ones are let go, and told.
func TestOldestProgramsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		lane := []scheduler.Attempt{o.first}
		for n := byte(2); n <= scheduler.MaxKept+3; n++ {
			o.silence(fmt.Sprintf("host-%d", n-1), true)
			o.offers(2*time.Minute, n)
			lane = append(lane, o.wantLane(o.id, 0, scheduler.Leased, fmt.Sprintf("host-%d", n)))
			o.tell(o.id, 0, scheduler.Running, 0)
		}
		for i, a := range lane {
			if kept := o.attempt(a.ID).Kept; kept != (i < scheduler.MaxKept) {
				t.Errorf("program %d of %d is kept: %v", i+1, len(lane), kept)
			}
		}
		dropped := lane[scheduler.MaxKept]
		o.silence(dropped.Host.Name, false)
		o.offer(scheduler.MaxKept+1, 5000)
		o.holds(dropped, time.Now().Add(hold))
		if o.stops(dropped.ID) != 1 || o.continued(dropped.ID) != 0 {
			t.Errorf("the one too many was stopped %d times", o.stops(dropped.ID))
		}
	})
}

// TestKeptIsNotForgotten: an always job remembers few attempts, and those that are kept.
func TestKeptIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		o.replaced()
		for range scheduler.KeptAttempts + 3 {
			o.tell(o.id, 0, scheduler.Ended, scheduler.Completed)
			for n := 0; n < 60 && o.run().State != scheduler.Leased; n++ {
				o.offers(20*time.Second, 2)
			}
			o.tell(o.id, 0, scheduler.Running, 0)
		}
		if n := len(o.run().Attempts); n > scheduler.KeptAttempts {
			t.Errorf("%d attempts are remembered", n)
		}
		o.returns()
		o.wantLane(o.id, 0, scheduler.Leased, "host-1")
	})
}

// TestReplacementIsNotPreferred: while the original's lease is there and its program not yet seen
// to run, the replacement's host says that it keeps its own.
func TestReplacementIsNotPreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		second := o.replaced()
		o.returns()
		time.Sleep(100 * time.Millisecond)
		o.holds(second, time.Now().Add(hold))
		o.offers(20*time.Second, 1, 2)
		o.wantLane(o.id, 0, scheduler.Leased, "host-1")
		if n := o.continued(second.ID); n != 0 {
			t.Errorf("the replacement was asked to go on %d times", n)
		}
		o.tell(o.id, 0, scheduler.Running, 0)
		o.holds(o.first, time.Now().Add(hold)) // told late: it was handed over by then
		if o.stops(o.first.ID) != 0 || o.stops(second.ID) == 0 {
			t.Errorf("stopped are %v", o.stopped)
		}
	})
}

// TestReplacementReturns: the original's lease comes to nothing before its program is seen to run,
// and that of the replacement, which was kept so long, goes on.
func TestReplacementReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		second := o.replaced()
		o.returns()
		o.wantLane(o.id, 0, scheduler.Leased, "host-1")
		o.tellOf(o.id, o.run().ID, o.first, scheduler.Ended, scheduler.Failed)
		o.tell(o.id, 0, scheduler.Ended, scheduler.Refused)
		time.Sleep(100 * time.Millisecond)
		o.offer(2, 2000)
		o.holds(second, time.Now().Add(hold))
		if a := o.wantLane(o.id, 0, scheduler.Leased, "host-2"); a.Continues != second.ID {
			t.Errorf("it begins anew: %+v", a)
		}
		checkPaid(t, o.ledger)
	})
}

// TestOriginalWaitsForALeaseInDoubt: nobody knows whether another one's lease is on the chain.
func TestOriginalWaitsForALeaseInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		o.replaced()
		o.ledger.Hook(func() {
			o.ledger.FailAfter = once("PlaceLease", errors.New("the answer was lost"))
		})
		o.tell(o.id, 0, scheduler.Ended, scheduler.Failed)
		time.Sleep(time.Second)
		r := o.run()
		if a := r.Current(); a.Placed || a.State != scheduler.Pending {
			t.Fatalf("it is known: %+v", a)
		}
		o.returns()
		if n := o.continued(o.first.ID); n != 0 {
			t.Errorf("the original's host was asked %d times", n)
		}
		o.offers(time.Minute, 1, 2)
		if a := o.wantLane(o.id, 0, scheduler.Leased, "host-1"); a.Continues != o.first.ID {
			t.Errorf("it begins anew: %+v", a)
		}
		checkPaid(t, o.ledger)
	})
}

// TestGoneAgain: a host that returned is gone when it is asked. It is not asked again before it is
// heard.
func TestGoneAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		o.replaced()
		o.offer(1, 1000)
		o.holds(o.first, time.Now().Add(hold))
		o.offers(3*time.Minute, 2)
		if n := o.continued(o.first.ID); n != 1 {
			t.Errorf("a host that is gone was asked %d times", n)
		}
		o.silence("host-1", false)
		o.offers(time.Minute, 1, 2)
		o.wantLane(o.id, 0, scheduler.Leased, "host-1")
	})
}

// TestNoNewProgramBesideTheKept: the replacement ends, and the only host that offers is the one
// that keeps the original but has no room for its lease now. It is not asked to begin anew.
func TestNoNewProgramBesideTheKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		second := o.replaced()
		o.hosts.Hook(func() {
			o.hosts.OnAsk = func(h scheduler.Host, a scheduler.Ask, _ *tx.Lease) error {
				if a.Continues == (scheduler.AttemptID{}) && h.Name == "host-1" {
					return nil
				}
				return fmt.Errorf("%w: CAPACITY", scheduler.ErrDeclined)
			}
		})
		o.returns()
		o.tellOf(o.id, o.run().ID, second, scheduler.Ended, scheduler.Evicted)
		o.offers(time.Minute, 1)
		if r := o.run(); r.State != scheduler.Pending {
			t.Errorf("it is %s on %s", r.State, r.Current().Host.Name)
		}
	})
}

// TestToldToGoIsNotKept: a host said that it will end the program, and falls silent.
func TestToldToGoIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		o.silence("host-1", true)
		o.evict(o.id, o.first, time.Now().Add(20*time.Minute))
		o.offers(2*time.Minute, 1) // nobody else is there
		o.offers(5*time.Minute, 2)
		if a := o.attempt(o.first.ID); a.State != scheduler.Ended || a.Kept {
			t.Errorf("the first is %s, kept %v", a.State, a.Kept)
		}
	})
}

// TestStoppedAtOnce: cancelled, both hosts are told at once, and what the replacement says of
// itself after the original has completed brings nothing back.
func TestStoppedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, func(*scheduler.Spec) {})
		defer o.stop()
		second := o.replaced()
		o.silence("host-1", false)
		o.tellOf(o.id, o.run().ID, o.first, scheduler.Ended, scheduler.Completed)
		o.tellOf(o.id, o.run().ID, second, scheduler.Running, 0)
		if r := o.run(); r.State != scheduler.Ended || r.End != scheduler.Completed {
			t.Errorf("it is %s: %s", r.State, r.Reason)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		second := o.replaced()
		o.silence("host-1", false)
		if _, err := o.engine.Cancel(t.Context(), o.read(o.id), "enough"); err != nil {
			t.Fatal(err)
		}
		if o.stops(o.first.ID) != 1 || o.stops(second.ID) != 1 {
			t.Errorf("stopped are %v", o.stopped)
		}
	})
}

// TestReplacementFailsMeanwhile: the only one that a run may have ends while the original's lease
// is on its way, which the chain refuses. That end counts.
func TestReplacementFailsMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, func(*scheduler.Spec) {})
		defer o.stop()
		second := o.replaced()
		o.ledger.Hook(func() { o.ledger.Fail = slowly(scheduler.ErrLeaseRefused) })
		run := o.run().ID
		o.returns()
		time.Sleep(500 * time.Millisecond)
		o.tellOf(o.id, run, second, scheduler.Ended, scheduler.Failed)
		time.Sleep(time.Second)
		o.want(o.id, scheduler.Ended, scheduler.Failed, "")
	})
}
