package executor_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
)

// keep starts a program whose owner wants the original kept, and lets it run a while.
func (w *world) keep(
	agent *executor.Agent, n byte, d time.Duration, args ...string,
) (executor.Ask, executor.SignedLease, *client, <-chan *executor.Outcome) {
	ask := w.ask(n, args...)
	ask.Spec.KeepOriginal = true
	lease := w.lease(agent, ask)
	c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
	go func() { ended <- c.run(w.task(ask, lease.ID)) }()
	pass(d)
	return ask, lease, c, ended
}

// replace has another host's lease take the lane.
func (w *world) replace(old executor.SignedLease) executor.SignedLease {
	w.t.Helper()
	l := old.Lease
	host := key(40)
	l.Agent, l.Epoch = host.Public(), l.Epoch+1
	m := l.TX()
	s := executor.SignedLease{
		Lease: l, ID: executor.LeaseID(m.ID(w.anchor)), Signature: host.Sign(m.Preimage(w.anchor)),
	}
	if err := w.ledger.Place(s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// holds lists what events told of programs that are held, as the time until when.
func (w *world) holds() (list []time.Duration) {
	for _, e := range w.journal.Events() {
		var m jobv1.AttemptStatus
		if e.Type == executor.TypeAttemptChanged && canon.Unmarshal(e.Payload, &m) == nil &&
			m.HeldUntil != 0 {
			if m.State != jobv1.State_STATE_RUNNING || !strings.Contains(m.Reason, "superseded") {
				w.t.Errorf("a hold is told as %v %q", m.State, m.Reason)
			}
			until := time.UnixMilli(int64(m.HeldUntil))
			list = append(list, until.Sub(time.UnixMilli(int64(m.Time))))
		}
	}
	return list
}

// running tells whether the attempt's program runs.
func (w *world) running(id executor.AttemptID) bool {
	w.t.Helper()
	list, err := w.host.Driver("e").List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range list {
		if c.Info().Attempt == id {
			s, err := c.State(w.t.Context())
			return err == nil && s == executor.StateRunning
		}
	}
	return false
}

// over tells whether the outcome is there.
func over(ended <-chan *executor.Outcome) bool {
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// checkPaidUntil wants a lease paid for at most what ran until its end, and not much less.
func (w *world) checkPaidUntil(o *executor.Outcome, id executor.LeaseID, slack time.Duration) {
	w.t.Helper()
	got := w.ledger.Read(id)
	ran := got.End.Sub(got.From)
	most := uint64(ran.Milliseconds())
	least := uint64(max(ran-slack, 0).Milliseconds())
	if o.Usage.WallMS > most || o.Usage.WallMS < least {
		w.t.Errorf("%d ms of %v are asked for, want %d to %d", o.Usage.WallMS, ran, least, most)
	}
	if got.Paid != o.Amount || o.Amount == 0 || !got.Settled {
		w.t.Errorf("paid %d of %d, settled %v", got.Paid, o.Amount, got.Settled)
	}
}

// TestHeldWhenSuperseded: a program whose owner wants the original kept goes on when another lease
// took the lane, for as long as it is told, and nobody pays for that.
func TestHeldWhenSuperseded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, lease, c, ended := w.keep(agent, 1, 150*time.Second, "use", "1000", "sleep", "45m")
		w.replace(lease)
		pass(2 * w.cfg.ChargeEvery)
		if got := w.holds(); !slices.Equal(got, []time.Duration{w.cfg.HoldSuperseded}) {
			t.Fatalf("holds %v were told", got)
		}
		s, err := agent.Stats(t.Context(), executor.StatsAsk{From: w.owner, Job: ask.Job})
		if ran := uint64(150_000); err != nil || s.Usage.WallMS > ran || s.Usage.WallMS < ran-10_000 {
			t.Errorf("usage %+v, %v; want what ran until the lease's end", s.Usage, err)
		}
		pass(w.cfg.HoldSuperseded - 2*w.cfg.ChargeEvery)
		if !w.running(ask.Attempt) {
			t.Fatal("the program ended before the time told")
		}
		o := <-ended
		if o.Reason != executor.EndCancelled || !strings.Contains(o.Message, "on the chain") {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
		w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
		for i, n := range c.notes[1:] {
			if n.Note.Note.Upto < c.notes[i].Note.Note.Upto {
				t.Errorf("a note went back from %+v to %+v", c.notes[i].Note.Note, n.Note.Note)
			}
		}
		last := c.statuses[len(c.statuses)-1]
		if !last.HeldUntil.IsZero() {
			t.Errorf("it ended, and is held until %v", last.HeldUntil)
		}
		again := &client{w: w} // who comes late is not told that it went back either
		if o := again.run(w.task(ask, lease.ID)); len(again.notes) != 0 || o.Amount == 0 {
			t.Errorf("told later: %+v, notes %+v", o, again.notes)
		}
	})
}

// TestNotHeld ends programs whose lease is over as ever.
func TestNotHeld(t *testing.T) {
	replaced := func(w *world, l executor.SignedLease) { w.replace(l) }
	for name, tt := range map[string]struct {
		policy bool
		hold   time.Duration
		end    func(*world, executor.SignedLease)
	}{
		"another policy":          {false, time.Hour, replaced},
		"a host that never holds": {true, 0, replaced},
		"ended by its owner": {true, time.Hour, func(w *world, l executor.SignedLease) {
			w.ledger.End(l.ID)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.cfg.HoldSuperseded = tt.hold
				agent := w.start()
				ask := w.ask(1, "use", "1000", "sleep", "45m")
				ask.Spec.KeepOriginal = tt.policy
				lease := w.lease(agent, ask)
				c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
				go func() { ended <- c.run(w.task(ask, lease.ID)) }()
				pass(30 * time.Second)
				tt.end(w, lease)
				pass(w.cfg.ChargeEvery + 20*time.Second)
				if !over(ended) || len(w.holds()) != 0 {
					t.Errorf("it goes on, holds %v were told", w.holds())
				}
			})
		})
	}
}

// TestHeldNoLongerThanTheLease: the hold ends with the lease's own time.
func TestHeldNoLongerThanTheLease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.HoldSuperseded = time.Hour
		agent := w.start()
		ask := w.ask(1, "use", "1000", "sleep", "45m")
		ask.Spec.KeepOriginal = true
		ask.Terms.Until = uint64(time.Now().Add(4 * time.Minute).UnixMilli())
		began := time.Now()
		lease := w.lease(agent, ask)
		c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(w.task(ask, lease.ID)) }()
		pass(30 * time.Second)
		w.replace(lease)
		<-ended
		if late := time.Since(began) - 4*time.Minute; late < -10*time.Second || late > 12*time.Second {
			t.Errorf("it ended %v after its lease", late)
		}
	})
}

// TestHeldProgramEnds: how a program ends while it is held is its outcome, its outputs are stored,
// and it is paid until its lease's end; whoever may end it at other times may do so now.
func TestHeldProgramEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		end  func(*world, *executor.Agent, executor.Ask)
		want executor.EndReason
	}{
		"by itself": {[]string{"use", "1000", "sleep", "3m", "write", "/out/a", "abc"}, nil,
			executor.EndCompleted},
		"with a code": {[]string{"use", "1000", "sleep", "3m", "exit", "3"}, nil, executor.EndFailed},
		"stopped by its owner": {[]string{"use", "1000", "forever"},
			func(w *world, a *executor.Agent, ask executor.Ask) {
				w.stopNow(a, w.owner, ask)
			}, executor.EndCancelled},
		"stopped by its scheduler": {[]string{"use", "1000", "forever"},
			func(w *world, a *executor.Agent, ask executor.Ask) {
				w.stopNow(a, w.asker, ask)
			}, executor.EndCancelled},
		"evicted": {[]string{"use", "1000", "forever"},
			func(w *world, a *executor.Agent, ask executor.Ask) {
				if _, err := a.Evict(w.t.Context(), ask.Attempt, 20*time.Second, ""); err != nil {
					w.t.Error(err)
				}
			}, executor.EndEvicted},
		"drained": {[]string{"use", "1000", "forever"},
			func(w *world, a *executor.Agent, ask executor.Ask) {
				if _, err := a.Drain(w.t.Context(), "", 20*time.Second); err != nil {
					w.t.Error(err)
				}
			}, executor.EndEvicted},
		"beyond its run time": {[]string{"use", "1000", "forever"},
			func(w *world, a *executor.Agent, ask executor.Ask) {}, executor.EndFailed},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.cfg.HoldSuperseded = time.Hour
				agent := w.start()
				ask := w.ask(1, tt.args...)
				ask.Spec.KeepOriginal, ask.Spec.RunTime = true, 4*time.Minute
				lease := w.lease(agent, ask)
				c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
				go func() { ended <- c.run(w.task(ask, lease.ID)) }()
				pass(80 * time.Second)
				w.replace(lease)
				pass(65 * time.Second)
				if len(w.holds()) != 1 {
					t.Fatal("it is not held")
				}
				if tt.end != nil {
					tt.end(w, agent, ask)
				}
				o := <-ended
				if o.Reason != tt.want || tt.want == executor.EndCompleted && len(o.Outputs) != 1 {
					t.Errorf("outcome %+v, want %s", o, tt.want)
				}
				w.closed(ask.Attempt)
				w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
			})
		})
	}
}

func (w *world) stopNow(a *executor.Agent, from executor.Peer, ask executor.Ask) {
	err := a.Stop(w.t.Context(), executor.StopAsk{From: from, Job: ask.Job, Attempt: ask.Attempt})
	if err != nil {
		w.t.Error(err)
	}
}

// TestHeldAfterLongSilence: while the host cannot look at the chain it remembers enough to ask for
// what ran until the end of its lease, and loses little.
func TestHeldAfterLongSilence(t *testing.T) {
	const cut, silence = 2 * time.Minute, 40 * time.Minute
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "forever")
		ask.Spec.KeepOriginal = true
		ask.Terms.Trust = ask.Terms.Budget // its owner is away
		lease := w.lease(agent, ask)
		c, ended := &client{w: w, away: true}, make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(w.task(ask, lease.ID)) }()
		pass(cut)
		away := atomic.Bool{}
		away.Store(true)
		w.ledger.SetHook(func(string) (error, error) {
			if away.Load() {
				return errors.New("the ledger is away"), nil
			}
			return nil, nil
		})
		pass(silence / 2)
		w.replace(lease)
		pass(silence / 4)
		w.kill() // what was remembered is on disk
		w.start()
		pass(silence / 4)
		if over(ended) || len(w.holds()) != 0 {
			t.Fatal("it ended, or is held, while nobody knows of its lease")
		}
		away.Store(false)
		pass(2 * w.cfg.ChargeEvery)
		if len(w.holds()) != 1 {
			t.Fatal("it is not held")
		}
		if marks := len(w.journal.Record(ask.Attempt).Marks); marks != 0 {
			t.Errorf("%d marks are kept for nothing", marks)
		}
		o := <-ended
		w.closed(ask.Attempt)
		w.checkPaidUntil(o, lease.ID, silence/16)
	})
}

// TestHeldOverRestarts: the next life goes on with the hold, and ends it at the time told.
func TestHeldOverRestarts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, lease, _, ended := w.keep(agent, 1, 70*time.Second, "use", "1000", "forever")
		w.replace(lease)
		pass(70 * time.Second)
		until := w.journal.Record(ask.Attempt).Hold.Until
		w.kill()
		pass(10 * time.Second)
		w.start()
		o := <-ended
		if late := time.Since(until); late < -2*time.Second || late > 5*time.Second {
			t.Errorf("it ended %v after the time told", late)
		}
		w.closed(ask.Attempt)
		w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
	})
}

// TestHeldThoughNothingCanBeWritten: a full disk makes no hold longer, and none shorter.
func TestHeldThoughNothingCanBeWritten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, lease, _, ended := w.keep(agent, 1, 50*time.Second, "use", "1000", "forever")
		full := atomic.Bool{}
		full.Store(true)
		w.journal.SetHook(func(string) (error, error) {
			if full.Load() {
				return errors.New("no space left on device"), nil
			}
			return nil, nil
		})
		w.replace(lease)
		pass(w.cfg.HoldSuperseded)
		if !w.running(ask.Attempt) || len(w.holds()) != 0 {
			t.Fatalf("it does not run, or told holds %v", w.holds())
		}
		pass(w.cfg.ChargeEvery + 20*time.Second)
		if w.running(ask.Attempt) {
			t.Error("it is held for longer than is allowed")
		}
		full.Store(false)
		o := <-ended
		w.closed(ask.Attempt)
		w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
	})
}

// TestHeldWhenAsked: a host that was silent looks at the chain as soon as somebody asks it how the
// attempt stands.
func TestHeldWhenAsked(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.ChargeEvery = time.Hour
		agent := w.start()
		ask, lease, _, ended := w.keep(agent, 1, 30*time.Second, "use", "1000", "forever")
		w.replace(lease)
		pass(10 * time.Second)
		if len(w.holds()) != 0 {
			t.Fatal("it knows already")
		}
		task := w.task(ask, lease.ID)
		task.From = w.asker
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := agent.Task(ctx, task, func(executor.Update) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) || len(w.holds()) != 1 {
			t.Errorf("the scheduler was told %v, holds %v", err, w.holds())
		}
		<-ended
	})
}

// TestHeldAfterStandingStill: a host that was frozen looks at the chain by itself, with nobody to
// tell it that it was missed.
func TestHeldAfterStandingStill(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.ChargeEvery = time.Hour
		var stood atomic.Int64 // what its clock is ahead of the last turn, as after a freeze
		w.now = func() time.Time { return time.Now().Add(time.Duration(stood.Load())) }
		agent := w.start()
		_, lease, _, ended := w.keep(agent, 1, 30*time.Second, "use", "1000", "forever")
		w.replace(lease)
		pass(10 * time.Second)
		if len(w.holds()) != 0 {
			t.Fatal("it knows already")
		}
		stood.Store(int64(20 * time.Second))
		pass(3 * time.Second)
		if len(w.holds()) != 1 {
			t.Errorf("holds %v", w.holds())
		}
		<-ended
	})
}

// TestEndedUnawares: a program ends before its host hears that another lease took the lane. What it
// used after that is nobody's to pay.
func TestEndedUnawares(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.ChargeEvery = time.Hour
		agent := w.start()
		ask, lease, _, ended := w.keep(agent, 1, 30*time.Second, "use", "1000", "sleep", "90s")
		w.replace(lease)
		o := <-ended
		if o.Reason != executor.EndCompleted || len(w.holds()) != 0 {
			t.Errorf("outcome %+v, holds %v", o, w.holds())
		}
		w.closed(ask.Attempt)
		w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
	})
}

// TestHoldsThatAreTooShort: a hold that ends before a scheduler can turn back to its host is
// refused by name; none at all is not.
func TestHoldsThatAreTooShort(t *testing.T) {
	for hold, good := range map[time.Duration]bool{
		0: true, executor.MinHold: true, executor.MaxHold: true,
		-time.Second: false, time.Second: false, executor.MinHold - 1: false, executor.MaxHold + 1: false,
	} {
		cfg := executor.DefaultConfig()
		cfg.HoldSuperseded = hold
		err := cfg.Validate()
		if good != (err == nil) || err != nil && !strings.Contains(err.Error(), "hold_superseded") {
			t.Errorf("a hold of %v: %v", hold, err)
		}
	}
}
