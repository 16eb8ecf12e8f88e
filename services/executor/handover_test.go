package executor_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// TestWatchedUntilHandedOver: while a program cannot be handed over to the attempt that continues
// it, it is looked after as ever: its end is seen, and so are its bounds.
func TestWatchedUntilHandedOver(t *testing.T) {
	unmeasured := errors.New("the engine does not answer")
	remove := func(w *world, id executor.AttemptID) {
		list, err := w.host.Driver("e").List(w.t.Context())
		if err != nil {
			w.t.Error(err)
		}
		for _, c := range list {
			if c.Info().Attempt == id {
				if err := c.Remove(context.Background()); err != nil {
					w.t.Error(err)
				}
			}
		}
	}
	for name, tt := range map[string]struct {
		args  []string
		limit time.Duration // run time; the handing over is tried from 95 s on
		usage error         // of measuring
		then  func(*world, executor.AttemptID)
		want  executor.EndReason
		after time.Duration // of the first try
	}{
		"it exits": {[]string{"sleep", "2m", "exit", "0"}, 0, nil, nil,
			executor.EndCompleted, 25 * time.Second},
		"it exits, and cannot be measured": {[]string{"sleep", "2m", "exit", "0"}, 0, unmeasured, nil,
			executor.EndCompleted, 25 * time.Second},
		"run time": {[]string{"forever"}, 2 * time.Minute, nil, nil,
			executor.EndFailed, 25 * time.Second},
		"run time, and it cannot be measured": {[]string{"forever"}, 2 * time.Minute, unmeasured, nil,
			executor.EndFailed, 25 * time.Second},
		"it is lost": {[]string{"forever"}, 0, nil, remove, executor.EndHostLost, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				old := w.ask(1, append([]string{"use", "1000"}, tt.args...)...)
				old.Spec.KeepOriginal, old.Spec.RunTime = true, tt.limit
				lease := w.lease(agent, old)
				_, ended := w.follow(old, lease)
				pass(90 * time.Second)
				b := w.replace(lease)
				pass(5 * time.Second)
				ask := w.continuing(old, b)
				next := w.lease(agent, ask)
				tries := w.failHandovers(tt.usage)
				_, goesOn := w.follow(ask, next)
				pass(time.Millisecond)
				if tries.Load() == 0 && tt.usage == nil {
					t.Fatal("it is not handed over at once")
				}
				began := time.Now()
				if tt.then != nil {
					tt.then(w, old.Attempt)
				}
				o := <-ended
				if late := time.Since(began) - tt.after; o.Reason != tt.want ||
					late < -time.Second || late > 10*time.Second {
					t.Errorf("outcome %+v, %v late", o, late)
				}
				if o := <-goesOn; o.Reason != executor.EndRefused || o.Amount != 0 ||
					time.Since(began) > tt.after+10*time.Second {
					t.Errorf("what waited ended as %+v after %v", o, time.Since(began))
				}
				w.closed(old.Attempt)
				w.closed(ask.Attempt)
				w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
			})
		})
	}
}

// failHandovers has no handing over succeed, and counts those that came to be written down.
func (w *world) failHandovers(usage error) *atomic.Int64 {
	tries := &atomic.Int64{}
	w.journal.SetHook(func(op string) (error, error) {
		if op == "SaveBoth" {
			tries.Add(1)
			return errFull, nil
		}
		return w.killed(), nil
	})
	if usage != nil {
		w.setDriver(func(c fake.Call) fake.Fault {
			if c.Method == "Usage" {
				return fake.Fault{Err: usage}
			}
			return fake.Fault{}
		})
	}
	return tries
}

// TestHandedOverLater: what could not be handed over at first is once it can be.
func TestHandedOverLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		starts := w.count()
		agent := w.start()
		old, lease, _, ended := w.keep(agent, 1, time.Minute, "use", "1000", "sleep", "4m")
		ask := w.continuing(old, w.replace(lease))
		next := w.lease(agent, ask)
		tries := w.failHandovers(nil)
		_, goesOn := w.follow(ask, next)
		pass(30*time.Second + w.cfg.Tick/2)
		if n := tries.Load(); n < 20 || n > 40 || over(ended) {
			t.Errorf("%d tries in 30 s", n)
		}
		w.journal.SetHook(nil)
		pass(w.cfg.Tick)
		if !over(ended) || over(goesOn) {
			t.Error("it is not handed over")
		}
		o := <-goesOn
		w.closed(old.Attempt)
		w.closed(ask.Attempt)
		// 4 min of program, of which 90 s were the original's or nobody's.
		if o.Reason != executor.EndCompleted || starts.Load() != 1 || o.Usage.WallMS > 150_000 ||
			o.Usage.WallMS < 147_000 {
			t.Errorf("outcome %+v after %d starts", o, starts.Load())
		}
		want := []string{"STARTING for a1", "RUNNING for a1", "ENDED for a1"}
		if got := w.told(ask.Attempt); !slices.Equal(got, want) {
			t.Errorf("it was told as %q, want %q", got, want)
		}
		w.checkAllGone(old.Attempt, agent)
	})
}

// TestAskersCostNoFees: whoever delivers a task again and again has the host look at the chain, not
// charge, which costs it a fee.
func TestAskersCostNoFees(t *testing.T) {
	did := func(ask bool) (charges, looks int64) {
		inWorld(t, func(t *testing.T, w *world) {
			agent := w.start()
			old, lease, _, ended := w.keep(agent, 1, 10*time.Second, "use", "1000", "sleep", "45m")
			var charged, looked atomic.Int64
			w.ledger.SetHook(func(op string) (error, error) {
				switch op {
				case "Charge":
					charged.Add(1)
				case "Lease":
					looked.Add(1)
				}
				return w.killed(), nil
			})
			for range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				if ask {
					err := agent.Task(ctx, w.task(old, lease.ID), func(executor.Update) error { return nil })
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
				}
				cancel()
				pass(time.Second)
			}
			charges, looks = charged.Load(), looked.Load()
			w.stopNow(agent, w.owner, old)
			<-ended
			w.closed(old.Attempt)
		})
		return charges, looks
	}
	charges, looks := did(false)
	asked, lookedAsked := did(true)
	if charges < 4 || asked > charges+1 || lookedAsked < looks+50 || lookedAsked > looks+170 {
		t.Errorf("charged %d times and looked %d times; when asked each second %d and %d times",
			charges, looks, asked, lookedAsked)
	}
}

// TestNoLowerNoteAfterRestart: a client that saw a note of an earlier life is not sent the lower
// one of a lease that was superseded meanwhile.
func TestNoLowerNoteAfterRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "sleep", "45m")
		ask.Spec.KeepOriginal, ask.Terms.Trust = true, ucn
		lease := w.lease(agent, ask)
		var notes []executor.Note
		join := func(agent *executor.Agent, d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			err := agent.Task(ctx, w.task(ask, lease.ID), func(u executor.Update) error {
				if u.Note != nil {
					notes = append(notes, u.Note.Note.Note)
				}
				return nil
			})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		join(agent, 20*time.Second)
		go join(agent, 30*time.Second) // the host does not look at the chain again meanwhile
		pass(time.Second)
		w.replace(lease)
		pass(30 * time.Second)
		w.kill()
		agent = w.start()
		pass(w.cfg.ChargeEvery + 5*time.Second)
		n := len(notes)
		if len(w.holds()) != 1 || n < 5 {
			t.Fatalf("holds %v, %d notes", w.holds(), n)
		}
		join(agent, 5*time.Second)
		for _, x := range notes[n:] {
			if x.Upto < notes[n-1].Upto || x.Cumulative < notes[n-1].Cumulative {
				t.Errorf("told %d grains up to %d, before %d up to %d", x.Cumulative, x.Upto,
					notes[n-1].Cumulative, notes[n-1].Upto)
			}
		}
		w.stopNow(agent, w.owner, ask)
		w.closed(ask.Attempt)
	})
}
