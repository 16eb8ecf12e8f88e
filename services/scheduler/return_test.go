package scheduler_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestFlapping: a host pretends to be silent and returns, again and again. It moves the lane ever
// more rarely, and at no time are two leases of it open.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		const hours = 6
		for range hours * 60 { // a minute each
			o.offer(2, 2000)
			time.Sleep(20 * time.Second)
			r := o.run()
			a := *r.Current()
			if a.State == scheduler.Leased {
				o.tellOf(o.id, r.ID, a, scheduler.Running, 0)
			}
			o.silence("host-1", a.Host.Name == "host-1") // gone whenever it has the lane
			for _, k := range o.run().Attempts {
				if k.Kept && k.Host.Name == "host-1" {
					o.holds(k, time.Now().Add(time.Hour))
				}
			}
			if !o.silent["host-1"] {
				o.offer(1, 1000)
			}
			if open := o.ledger.Open(); open > 1 {
				t.Fatalf("%d leases are open", open)
			}
			time.Sleep(40 * time.Second)
		}
		moves := o.ledger.Placed() / 2
		t.Logf("%d moves in %d hours", moves, hours)
		if moves < 3 || moves > 12 {
			t.Errorf("the lane was moved to and fro %d times in %d hours", moves, hours)
		}
		checkPaid(t, o.ledger)
	})
}

// TestOriginalOfSeveral: several hosts fall silent one after the other. The oldest program that
// returns has the lane, and no younger one takes it back.
func TestOriginalOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		second := o.replaced()
		o.silence("host-2", true)
		o.offers(2*time.Minute, 3)
		third := o.wantLane(o.id, 0, scheduler.Leased, "host-3")
		o.tell(o.id, 0, scheduler.Running, 0)
		o.silence("host-2", false)
		o.offer(2, 2000)
		o.holds(second, time.Now().Add(hold))
		o.wantLane(o.id, 0, scheduler.Leased, "host-2")
		o.tell(o.id, 0, scheduler.Running, 0)
		if !o.attempt(o.first.ID).Kept || o.stops(third.ID) != 1 || o.stops(o.first.ID) != 0 {
			t.Fatal("the second goes on: the first is to be kept, the third to be stopped")
		}
		o.returns()
		fifth := o.wantLane(o.id, 0, scheduler.Leased, "host-1")
		if fifth.Continues != o.first.ID {
			t.Fatalf("the lane's newest is %+v", fifth)
		}
		o.tell(o.id, 0, scheduler.Running, 0)
		o.offers(time.Minute, 1, 2, 3)
		o.wantLane(o.id, 0, scheduler.Running, "host-1")
		for _, a := range o.run().Attempts {
			if a.Kept {
				t.Errorf("%s is kept beside the original", a.Host.Name)
			}
		}
		// The original falls silent once more, and comes back once more.
		o.silence("host-1", true)
		o.offers(2*time.Minute, 2, 3)
		o.wantLane(o.id, 0, scheduler.Leased, "host-3") // the second was silent within the hour
		o.tell(o.id, 0, scheduler.Running, 0)
		o.silence("host-1", false)
		o.offer(1, 1000)
		o.holds(fifth, time.Now().Add(hold))
		o.offers(time.Minute, 1, 3)
		last := o.wantLane(o.id, 0, scheduler.Leased, "host-1")
		if last.Continues != fifth.ID || last.Origin != 1 {
			t.Errorf("it goes on with %+v", last)
		}
		checkPaid(t, o.ledger)
	})
}

// TestOriginalIsRefused: the chain does not take the original's lease, or its fate is not known, be
// it that the scheduler is started again in between. The replacement runs on, or has gone.
func TestOriginalIsRefused(t *testing.T) {
	lost := errors.New("the answer was lost")
	placing := func(m *market, err error) { m.ledger.Fail = once("PlaceLease", err) }
	for name, spoil := range map[string]func(*market){
		"refused":            func(m *market) { placing(m, scheduler.ErrLeaseRefused) },
		"not placed":         func(m *market) { placing(m, scheduler.ErrNotPlaced) },
		"lost before":        func(m *market) { placing(m, lost) },
		"lost after":         func(m *market) { m.ledger.FailAfter = once("PlaceLease", lost) },
		"not written":        func(m *market) { m.store.Fail = notWritten("attempt.leased") },
		"asking not written": func(m *market) { m.store.Fail = notWritten("attempt.asked") },
		"return not written": func(m *market) { m.store.Fail = notWritten("attempt.back") },
	} {
		for n := range 4 {
			alone, restart := n&1 != 0, n&2 != 0 // the replacement ends meanwhile; the scheduler does
			t.Run(fmt.Sprintf("%s, alone %v, restart %v", name, alone, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := newOriginal(t, always)
					defer func() { o.stop() }()
					second := o.replaced()
					spoil(o.market)
					o.silence("host-1", false)
					o.offer(1, 1000)
					held := scheduler.Report{
						Job: o.id, Run: o.run().ID, Attempt: o.first.ID, Executor: o.first.Host.Executor,
						State: scheduler.Running, Time: time.Now(), HeldUntil: time.Now().Add(hold), Ran: true,
					}
					for o.engine.Report(t.Context(), held) != nil { // it comes again
						time.Sleep(time.Second)
					}
					synctest.Wait()
					if alone {
						o.tellOf(o.id, o.run().ID, second, scheduler.Ended, scheduler.Failed)
					}
					if restart {
						o.stop()
						o.start()
						o.offer(1, 1000)
					}
					o.offers(time.Minute, 1, 2)
					third := o.wantLane(o.id, 0, scheduler.Leased, "host-1")
					if third.Continues != o.first.ID {
						t.Errorf("the lane's newest goes on with nothing: %+v", third)
					}
					o.tell(o.id, 0, scheduler.Running, 0)
					if open := o.ledger.Open(); open != 1 {
						t.Errorf("%d leases are open", open)
					}
					checkPaid(t, o.ledger)
				})
			})
		}
	}
}

// notWritten makes the first change of a kind fail.
func notWritten(kind string) func(scheduler.Change) error {
	done := false
	return func(c scheduler.Change) error {
		if c.Event == nil || c.Event.Type != kind || done {
			return nil
		}
		done = true
		return errors.New("disk")
	}
}

// TestOriginalComesTooLate: the replacement completes a task while the original's lease is on its
// way; that is the task's end, and the original is stopped.
func TestOriginalComesTooLate(t *testing.T) {
	for name, change := range map[string]func(*scheduler.Spec){
		"once": func(*scheduler.Spec) {}, "array": array(2, 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOriginal(t, change)
				defer o.stop()
				second := o.replaced()
				o.ledger.Hook(func() { o.ledger.Fail = slowly(nil) })
				run := o.run().ID
				o.returns()
				time.Sleep(500 * time.Millisecond)
				o.tellOf(o.id, run, second, scheduler.Ended, scheduler.Completed)
				if s, _, _ := o.read(o.id).State(); name == "array" && s == scheduler.Ended {
					t.Error("the array has ended before its second task")
				}
				o.ledger.Hook(func() { o.ledger.Fail = nil })
				o.offers(3*time.Minute, 2)
				if name == "array" {
					r := o.run()
					if r.Task != 1 || r.State != scheduler.Leased {
						t.Fatalf("task %d is %s: %s", r.Task, r.State, r.Reason)
					}
					o.tell(o.id, 0, scheduler.Ended, scheduler.Completed)
				}
				o.want(o.id, scheduler.Ended, scheduler.Completed, "")
				for _, a := range o.asked { // whatever was asked for in vain
					if a.Continues == o.first.ID && o.stops(a.Attempt) == 0 {
						t.Error("the original is not stopped")
					}
				}
				if open := o.ledger.Open(); name == "once" && open != 0 {
					t.Errorf("%d leases are open", open)
				}
				checkPaid(t, o.ledger)
			})
		})
	}
}

// TestOthersKeepNothing: hosts that keep programs nobody waits for are told to stop them.
func TestOthersKeepNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		o.replaced()
		unknown := o.first
		unknown.ID = scheduler.AttemptID{7}
		o.silence("host-1", false)
		o.offer(1, 1000)
		o.holds(unknown, time.Now().Add(hold))
		if o.stops(unknown.ID) != 1 {
			t.Error("a program of an attempt that is not known is kept")
		}
		liar := o.first
		liar.Host.Executor = sig.PublicKey{9}
		o.holds(liar, time.Now().Add(hold))
		if o.continued(o.first.ID) != 0 || o.stops(o.first.ID) != 0 {
			t.Error("another host's word about the first was heard")
		}
	})
}

// TestOriginalLingers: a host that returns, has the lease that goes on with its program, and never
// does, does not keep the lane: the replacement, which is held meanwhile, goes on.
func TestOriginalLingers(t *testing.T) {
	for name, says := range map[string]bool{"starting for ever": true, "nothing": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOriginal(t, always)
				defer o.stop()
				second := o.replaced()
				o.returns()
				o.wantLane(o.id, 0, scheduler.Leased, "host-1")
				if says {
					o.tell(o.id, 0, scheduler.Starting, 0)
				}
				o.holds(second, time.Now().Add(hold))
				o.offers(3*time.Minute, 1, 2, 3)
				a := o.wantLane(o.id, 0, scheduler.Leased, "host-2")
				if a.Continues != second.ID {
					t.Errorf("the replacement does not go on: %+v", a)
				}
				o.tell(o.id, 0, scheduler.Running, 0)
				o.offers(30*time.Minute, 1, 2, 3)
				o.wantLane(o.id, 0, scheduler.Running, "host-2")
				if n := o.continued(o.first.ID); n != 1 {
					t.Errorf("the first was asked to go on %d times", n)
				}
				checkPaid(t, o.ledger)
			})
		})
	}
}

// TestOriginalLingersUnderAShortHold: how long the host that returned is waited for follows from
// how long the replacement's says that it holds its program, which it gives up then.
func TestOriginalLingersUnderAShortHold(t *testing.T) {
	for name, tt := range map[string]struct {
		hold   time.Duration
		begins time.Duration // when the original is seen to run; negative = never
		host   string
	}{
		"never begins":                   {time.Minute, -1, "host-2"},
		"never begins, held for long":    {hold, -1, "host-2"},
		"begins":                         {time.Minute, 25 * time.Second, "host-1"},
		"begins late, held for long":     {hold, 80 * time.Second, "host-1"},
		"begins, held for no time":       {10 * time.Second, 80 * time.Second, "host-1"},
		"never begins, held for no time": {10 * time.Second, -1, "host-2"}, // anew
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOriginal(t, always)
				defer o.stop()
				second := o.replaced()
				o.returns()
				o.wantLane(o.id, 0, scheduler.Leased, "host-1")
				over := time.Now().Add(tt.hold)
				o.hosts.Hook(func() {
					o.hosts.OnAsk = func(_ scheduler.Host, a scheduler.Ask, _ *tx.Lease) error {
						if a.Continues == second.ID && time.Now().After(over) {
							return fmt.Errorf("%w: %w", scheduler.ErrDeclined, scheduler.ErrNotContinuable)
						}
						return nil
					}
				})
				o.holds(second, over)
				for began := time.Now(); time.Since(began) < 4*time.Minute; time.Sleep(5 * time.Second) {
					for n := byte(1); n <= 3; n++ {
						o.offer(n, uint64(n)*1000)
					}
					run := o.run()
					back := run.Current().Host.Name == "host-1"
					if run.State == scheduler.Leased && (!back || time.Since(began) == tt.begins) {
						o.tell(o.id, 0, scheduler.Running, 0)
					}
				}
				a := o.wantLane(o.id, 0, scheduler.Running, tt.host)
				want := tt.host == "host-2" && tt.hold >= time.Minute
				if got := a.Continues == second.ID; got != want {
					t.Errorf("the replacement goes on: %v, want %v", got, want)
				}
				checkPaid(t, o.ledger)
			})
		})
	}
}
