package executor_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// idle runs a program that uses a tenth of the core that it reserves, for a while: the rate of its
// lease would let ten times as much be charged as it uses. With args it does these.
func (w *world) idle(
	agent *executor.Agent, d time.Duration, change func(*executor.Ask), args ...string,
) (executor.Ask, executor.SignedLease, *client, <-chan *executor.Outcome) {
	w.t.Helper()
	ask := w.ask(1, append([]string{"use", "100"}, args...)...)
	if change != nil {
		change(&ask)
	}
	lease := w.lease(agent, ask)
	c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
	go func() { ended <- c.run(w.task(ask, lease.ID)) }()
	pass(d)
	return ask, lease, c, ended
}

// TestBilledUntilTheLeaseEnds: whoever ended the lease, and whatever the host hears late, it asks
// for nothing that was used after the end.
func TestBilledUntilTheLeaseEnds(t *testing.T) {
	ended := func(w *world, l executor.SignedLease) { w.ledger.End(l.ID) }
	replaced := func(w *world, l executor.SignedLease) { w.replace(l) }
	for name, tt := range map[string]struct {
		args   []string
		change func(*world)
		ask    func(*executor.Ask)
		end    func(*world, executor.SignedLease)
	}{
		"by its owner":         {args: []string{"forever"}, end: ended},
		"by another lease":     {args: []string{"forever"}, end: replaced},
		"before the program":   {args: []string{"sleep", "110s"}, end: ended},
		"and the program slow": {args: []string{"deaf"}, end: replaced},
		"and hardly trusted": {
			args: []string{"forever"}, end: ended,
			ask: func(a *executor.Ask) { a.Terms.Trust = 1_500_000 }, // some 5 s at the lease's rate
		},
		"by nobody's word, hardly trusted": {
			args: []string{"use", "300", "sleep", "110s"}, end: ended,
			change: func(w *world) { w.cfg.ChargeEvery = time.Hour },
			ask:    func(a *executor.Ask) { a.Terms.Trust = 1_500_000 },
		},
		"of a host that never holds": {
			args: []string{"forever"}, end: replaced,
			change: func(w *world) { w.cfg.HoldSuperseded = 0 },
			ask:    func(a *executor.Ask) { a.Spec.KeepOriginal = true },
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				if tt.change != nil {
					tt.change(w)
				}
				agent := w.start()
				ask, lease, c, over := w.idle(agent, 65*time.Second, tt.ask, tt.args...)
				tt.end(w, lease)
				o := <-over
				w.closed(ask.Attempt)
				w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
				for i, n := range c.notes[1:] {
					if n.Note.Note.Upto < c.notes[i].Note.Note.Upto {
						t.Errorf("a note went back from %+v to %+v", c.notes[i].Note.Note, n.Note.Note)
					}
				}
			})
		})
	}
}

// TestBilledToItsEndWhenThatCameFirst: a lease that ended after the program did cuts nothing.
func TestBilledToItsEndWhenThatCameFirst(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hang = true // storing takes until it is given up
		agent := w.start()
		ask, lease, _, over := w.idle(agent, 40*time.Second, nil,
			"write", "/out/a", "abc", "sleep", "33s")
		w.ledger.End(lease.ID)
		o := <-over
		if o.Usage.WallMS != 33_000 || o.Reason != executor.EndCompleted {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
		if got := w.ledger.Read(lease.ID); got.Paid != o.Amount {
			t.Errorf("paid %d of %d", got.Paid, o.Amount)
		}
	})
}

// TestBilledWhenTheChainIsBack: the chain is away when a program ends whose lease had ended before.
// The end is told at once; the bill waits for the chain, and is right then.
func TestBilledWhenTheChainIsBack(t *testing.T) {
	for name, restart := range map[string]bool{"": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				ask, lease, c, over := w.idle(agent, 65*time.Second, nil, "sleep", "3m")
				w.ledger.End(lease.ID)
				var away atomic.Bool
				away.Store(true)
				w.ledger.SetHook(func(string) (error, error) {
					if away.Load() {
						return errors.New("the ledger is away"), nil
					}
					return w.killed(), nil
				})
				o := <-over
				if o.Reason != executor.EndCompleted || o.Usage.WallMS != 180_000 {
					t.Errorf("outcome %+v", o)
				}
				pass(time.Minute)
				if restart {
					w.kill()
					w.start()
				}
				away.Store(false)
				r := w.closed(ask.Attempt)
				w.checkPaidUntil(r.Outcome, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
				told := len(c.notes)
				again := &client{w: w} // who comes late is not told that it went back
				again.run(w.task(ask, lease.ID))
				if len(again.notes) != 0 || told < 2 {
					t.Errorf("told %d notes, and later %+v", told, again.notes)
				}
			})
		})
	}
}

// TestBilledOverAHostThatWasDown: the lease's own time ends while the host is down, and its program
// goes on.
func TestBilledOverAHostThatWasDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, lease, _, over := w.idle(agent, 65*time.Second, func(a *executor.Ask) {
			a.Terms.Until = uint64(time.Now().Add(2 * time.Minute).UnixMilli())
		}, "forever")
		w.kill()
		pass(10 * time.Minute)
		w.start()
		o := <-over
		if o.Reason != executor.EndExpired {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
		if most := uint64(120_000); o.Usage.WallMS > most || o.Usage.WallMS < 55_000 {
			t.Errorf("%d ms are asked for, of a lease of %d that was seen for 65,000", o.Usage.WallMS,
				most)
		}
		if got := w.ledger.Read(lease.ID); got.Paid != o.Amount {
			t.Errorf("paid %d of %d", got.Paid, o.Amount)
		}
	})
}

// TestBilledOverAnUpgrade: the program before this one remembered its last note alone, and the
// lease ends before this one has noted anything.
func TestBilledOverAnUpgrade(t *testing.T) {
	for name, down := range map[string]bool{"while the host is down": true, "at once": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.cfg.ChargeEvery = time.Hour
				agent := w.start()
				ask, lease, _, over := w.idle(agent, 65*time.Second, nil, "forever")
				w.kill()
				pass(time.Second) // the lease ends after the last note, which may be of this moment
				r := w.journal.Record(ask.Attempt)
				r.Marks = nil
				if err := w.journal.Save(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				if down {
					w.ledger.End(lease.ID)
					pass(time.Minute)
				}
				w.start()
				if !down {
					w.ledger.End(lease.ID)
				}
				o := <-over
				w.closed(ask.Attempt)
				w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick+time.Second)
			})
		})
	}
}

// TestBilledUpToItsTime: a program that is stopped since its lease ends is paid for what it used
// until then, to the tick, though it takes its time to go.
func TestBilledUpToItsTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		began := time.Now()
		ask, _, _, over := w.idle(agent, time.Second, func(a *executor.Ask) {
			a.Terms.Until = uint64(began.Add(2 * time.Minute).UnixMilli())
		}, "deaf")
		o := <-over
		w.closed(ask.Attempt)
		least := uint64((2*time.Minute - 3*w.cfg.Tick).Milliseconds())
		if o.Reason != executor.EndExpired || o.Usage.WallMS < least || o.Usage.WallMS > 120_000 {
			t.Errorf("outcome %+v, want at least %d ms and no more than the lease's 120,000", o, least)
		}
	})
}

// TestNothingIsChargedUnseen: while leases cannot be read nothing is charged, and what was used is
// paid when they can.
func TestNothingIsChargedUnseen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		var blind atomic.Bool
		w.ledger.SetHook(func(call string) (error, error) {
			if blind.Load() && strings.HasPrefix(call, "Lease") {
				return errors.New("leases cannot be read"), nil
			}
			return nil, nil
		})
		ask, lease, _, over := w.idle(agent, 65*time.Second, nil, "sleep", "5m")
		charges := w.ledger.Read(lease.ID).Charges
		blind.Store(true)
		pass(3 * time.Minute)
		if got := w.ledger.Read(lease.ID).Charges; got != charges || charges == 0 {
			t.Errorf("%d charges, %d before", got, charges)
		}
		blind.Store(false)
		o := <-over
		w.closed(ask.Attempt)
		if got := w.ledger.Read(lease.ID); got.Paid != o.Amount || o.Usage.WallMS != 300_000 {
			t.Errorf("paid %d, outcome %+v", got.Paid, o)
		}
	})
}

// TestRefusedStaysFree: a program that could not be started owes nothing, not even what its first
// note said, whenever its lease ended.
func TestRefusedStaysFree(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Prices = executor.Prices{Model: executor.PriceLinear, Run: 1000, CoreHour: ucn}
		agent := w.start()
		var held atomic.Bool
		held.Store(true)
		w.setDriver(func(c fake.Call) fake.Fault {
			if c.Method == "Wait" && held.Load() {
				return fake.Fault{Err: errors.New("the engine hangs")}
			}
			return fake.Fault{}
		})
		ask, lease, _, over := w.idle(agent, time.Second, func(a *executor.Ask) {
			a.Spec.Command = []string{"/no"}
		})
		w.ledger.End(lease.ID)
		pass(time.Second)
		held.Store(false)
		o := <-over
		w.closed(ask.Attempt)
		got := w.ledger.Read(lease.ID)
		if o.Reason != executor.EndRefused || got.Paid != 0 || !got.Settled {
			t.Errorf("outcome %+v, paid %d, settled %v", o, got.Paid, got.Settled)
		}
	})
}
