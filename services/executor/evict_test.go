package executor_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
)

// runFor starts a program that would run for 45 minutes and lets it run a while.
func (w *world) runFor(
	agent *executor.Agent, n byte, d time.Duration,
) (executor.Ask, executor.SignedLease, *client, <-chan *executor.Outcome) {
	ask := w.ask(n, "use", "1000", "sleep", "45m")
	lease := w.lease(agent, ask)
	c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
	go func() { ended <- c.run(w.task(ask, lease.ID)) }()
	pass(d)
	return ask, lease, c, ended
}

// evictions lists the ends that events told of ahead.
func (w *world) evictions() (list []string) {
	for _, e := range w.journal.Events() {
		var m jobv1.AttemptStatus
		if e.Type == executor.TypeAttemptChanged && canon.Unmarshal(e.Payload, &m) == nil &&
			m.EvictAt != 0 && m.Outcome == nil {
			at := time.UnixMilli(int64(m.EvictAt)).Sub(time.UnixMilli(int64(m.Time)))
			list = append(list, fmt.Sprintf("%s in %v", m.State, at))
		}
	}
	return list
}

// TestEvictWithNotice: everybody is told at once, the program goes at the time told and not
// before, and is paid up to there.
func TestEvictWithNotice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, lease, c, ended := w.runFor(agent, 1, time.Minute)
		told := time.Now()
		at, err := agent.Evict(t.Context(), ask.Attempt, 10*time.Minute, "a new fan")
		if err != nil || !at.Equal(told.Add(10*time.Minute)) {
			t.Fatalf("evicted at %v, %v", at, err)
		}
		if got := fmt.Sprint(w.evictions()); got != "[STATE_RUNNING in 10m0s]" {
			t.Errorf("events told %s", got)
		}
		again, err := agent.Evict(t.Context(), ask.Attempt, time.Hour, "")
		if err != nil || !again.Equal(at) {
			t.Errorf("a later word puts it off to %v, %v", again, err)
		}
		pass(9 * time.Minute)
		select {
		case o := <-ended:
			t.Fatalf("it ended before its time: %+v", o)
		default:
		}
		o := <-ended
		if late := time.Since(at); late < 0 || late > 15*time.Second {
			t.Errorf("it ended %v after the time told", late)
		}
		if o.Reason != executor.EndEvicted || !strings.Contains(o.Message, "a new fan") ||
			o.Usage.WallMS < uint64((11*time.Minute).Milliseconds()) {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
		if got := w.ledger.Read(lease.ID); got.Paid != o.Amount || o.Amount == 0 {
			t.Errorf("paid %d of %d", got.Paid, o.Amount)
		}
		seen := false
		for _, s := range c.statuses {
			seen = seen || s.State == executor.AttemptRunning && s.EvictAt.Equal(at) &&
				strings.Contains(s.Reason, "a new fan")
		}
		if !seen {
			t.Errorf("the owner was told %+v", c.statuses)
		}
		_, err = agent.Evict(t.Context(), ask.Attempt, 0, "")
		if !errors.Is(err, executor.ErrOver) {
			t.Errorf("evicting what is over: %v", err)
		}
	})
}

// TestEvictWithoutNotice: what was used since the last note is the host's loss.
func TestEvictWithoutNotice(t *testing.T) {
	for _, notice := range []time.Duration{0, executor.MinNotice - time.Millisecond} {
		inWorld(t, func(t *testing.T, w *world) {
			w.cfg.NoteEvery = 40 * time.Second
			agent := w.start()
			ask, lease, c, ended := w.runFor(agent, 1, 75*time.Second)
			if _, err := agent.Evict(t.Context(), ask.Attempt, notice, ""); err != nil {
				t.Fatal(err)
			}
			o := <-ended
			w.closed(ask.Attempt)
			got := w.ledger.Read(lease.ID)
			noted := c.notes[len(c.notes)-1].Note
			most := uint64((75*time.Second + notice).Milliseconds())
			if o.Reason != executor.EndEvicted || o.Amount != noted.Note.Cumulative ||
				got.Paid != o.Amount || o.Amount == 0 || !got.Settled || o.Usage.WallMS > most {
				t.Errorf("outcome %+v, paid %d, last note %+v", o, got.Paid, noted.Note)
			}
		})
	}
}

// TestReplacedBeforeItsEnd: the scheduler stops an attempt that is to go. Once another host has the
// lane it went as evicted, before that, or if nobody knows, as cancelled.
func TestReplacedBeforeItsEnd(t *testing.T) {
	away := errors.New("the ledger is away")
	for name, tt := range map[string]struct {
		replaced, away bool
		want           executor.EndReason
	}{
		"replaced": {true, false, executor.EndEvicted},
		"stopped":  {false, false, executor.EndCancelled},
		"unknown":  {true, true, executor.EndCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				ask, lease, _, ended := w.runFor(agent, 1, 30*time.Second)
				if _, err := agent.Evict(t.Context(), ask.Attempt, time.Hour, "a new fan"); err != nil {
					t.Fatal(err)
				}
				if tt.replaced {
					w.ledger.End(lease.ID)
				}
				if tt.away {
					w.ledger.SetHook(func(string) (error, error) { return away, nil })
				}
				stop := executor.StopAsk{From: w.asker, Job: ask.Job, Attempt: ask.Attempt,
					Reason: "replaced by host-2"}
				if err := agent.Stop(t.Context(), stop); err != nil {
					t.Fatal(err)
				}
				w.ledger.SetHook(nil)
				o := <-ended
				if o.Reason != tt.want || o.Usage.WallMS > uint64(time.Minute.Milliseconds()) {
					t.Errorf("outcome %s %q after %d ms, want %s", o.Reason, o.Message, o.Usage.WallMS,
						tt.want)
				}
				w.closed(ask.Attempt)
				if got := w.ledger.Read(lease.ID); got.Paid == 0 || !got.Settled {
					t.Errorf("lease %+v", got)
				}
			})
		})
	}
}

// TestEvictBeforeTheProgramRan costs nothing.
func TestEvictBeforeTheProgramRan(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		lease := w.lease(agent, ask)
		if _, err := agent.Evict(t.Context(), ask.Attempt, time.Minute, ""); err != nil {
			t.Fatal(err)
		}
		if r := w.closed(ask.Attempt); r.Outcome.Reason != executor.EndEvicted {
			t.Errorf("outcome %+v", r.Outcome)
		}
		if got := w.ledger.Read(lease.ID); got.Paid != 0 || !got.Settled {
			t.Errorf("lease %+v", got)
		}
		if got := fmt.Sprint(w.evictions()); got != "[]" {
			t.Errorf("events told %s", got)
		}
	})
}

// TestEvictRefusals: what makes no sense changes nothing.
func TestEvictRefusals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, _, _, ended := w.runFor(agent, 1, time.Second)
		for name, tt := range map[string]struct {
			id     executor.AttemptID
			notice time.Duration
			reason string
			want   error
		}{
			"unknown":         {"ff", 0, "", executor.ErrNoAttempt},
			"negative notice": {ask.Attempt, -1, "", executor.ReasonBadArgument},
			"long notice":     {ask.Attempt, executor.MaxNotice + 1, "", executor.ReasonBadArgument},
			"long reason":     {ask.Attempt, 0, strings.Repeat("x", 201), executor.ReasonBadArgument},
		} {
			if _, err := agent.Evict(t.Context(), tt.id, tt.notice, tt.reason); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
		}
		for _, d := range []time.Duration{-1, executor.MaxDrain + 1} {
			_, err := agent.Drain(t.Context(), "", d)
			if !errors.Is(err, executor.ReasonBadArgument) {
				t.Errorf("a drain until %v: %v", d, err)
			}
		}
		if o := <-ended; o.Reason != executor.EndCompleted || len(w.evictions()) != 0 {
			t.Errorf("outcome %+v, told %v", o, w.evictions())
		}
	})
}

// TestDrainWithDeadline evicts all that is here at the deadline, whatever restarts in between; a
// second drain can bring it nearer, and undraining keeps nobody.
func TestDrainWithDeadline(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, lease, _, ended := w.runFor(agent, 1, time.Minute)
		_, _, _, other := w.runFor(agent, 2, time.Second)
		began := time.Now()
		for _, d := range []time.Duration{30 * time.Minute, 20 * time.Minute, 40 * time.Minute} {
			if left, err := agent.Drain(t.Context(), "moving", d); err != nil || left != 2 {
				t.Fatalf("%d left, %v", left, err)
			}
			if at := agent.State().EvictAt; !at.Equal(began.Add(d)) {
				t.Errorf("the deadline is %v", at)
			}
			pass(0)
		}
		pass(5 * time.Minute)
		w.kill()
		pass(10 * time.Second)
		agent = w.start()
		if err := agent.Undrain(t.Context()); err != nil {
			t.Fatal(err)
		}
		o := <-ended
		if at := time.Since(began); at < 20*time.Minute || at > 21*time.Minute {
			t.Errorf("it went after %v", at)
		}
		w.closed(ask.Attempt)
		if got := w.ledger.Read(lease.ID); o.Reason != executor.EndEvicted || got.Paid != o.Amount {
			t.Errorf("outcome %+v, paid %d", o, got.Paid)
		}
		if o := <-other; o.Reason != executor.EndEvicted {
			t.Errorf("outcome %+v", o)
		}
	})
}

// TestReplacedBeforeItsEviction: when the replacement has taken the slot, the old one goes, and is
// evicted, not cancelled.
func TestReplacedBeforeItsEviction(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.ChargeEvery = time.Second
		agent := w.start()
		ask, lease, _, ended := w.runFor(agent, 1, time.Minute)
		if _, err := agent.Evict(t.Context(), ask.Attempt, 20*time.Minute, ""); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		began := time.Now()
		w.ledger.End(lease.ID)
		o := <-ended
		if o.Reason != executor.EndEvicted || time.Since(began) > 5*time.Minute {
			t.Errorf("outcome %+v after %v", o, time.Since(began))
		}
	})
}

// TestKilledWhileEvicting kills the executor at every write and effect of an eviction, before and
// after it; the next life goes on: everybody is told, and it is paid once.
func TestKilledWhileEvicting(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := int64(1); at < 40; at++ {
			fired := false
			inWorld(t, func(t *testing.T, w *world) { fired = evictedDespiteKill(t, w, at, after) })
			if !fired || t.Failed() {
				if at < 5 {
					t.Errorf("only %d places to be killed at", at)
				}
				break
			}
		}
	}
}

func evictedDespiteKill(t *testing.T, w *world, at int64, after bool) bool {
	agent := w.start()
	ask, lease, _, ended := w.runFor(agent, 1, time.Minute)
	k := &killer{w: w, at: at, after: after, done: make(chan struct{})}
	w.journal.SetHook(k.hook)
	w.ledger.SetHook(func(op string) (error, error) {
		if op != "Charge" {
			return w.killed(), nil
		}
		return k.hook(op)
	})
	w.setDriver(k.driverHook)
	revived := make(chan struct{})
	go func() {
		defer close(revived)
		select {
		case <-k.done:
			w.kill()
			w.start()
		case <-t.Context().Done():
		}
	}()
	for n := 0; ; n++ { // the operator repeats what failed
		w.mu.Lock()
		l := w.life
		w.mu.Unlock()
		if l != nil {
			_, err := l.agent.Drain(t.Context(), "", time.Minute)
			w.mu.Lock()
			same := w.life == l // what a killed one said does not count
			w.mu.Unlock()
			if err == nil && same {
				break
			}
		}
		pass(100 * time.Millisecond)
	}
	o := <-ended
	w.closed(ask.Attempt)
	got := w.ledger.Read(lease.ID)
	if o.Reason != executor.EndEvicted || got.Paid != o.Amount || !got.Settled ||
		len(w.evictions()) == 0 {
		t.Errorf("call %d, after %v: outcome %+v, paid %d, told %v", at, after, o, got.Paid,
			w.evictions())
	}
	if k.fired.Load() {
		<-revived
	}
	return k.fired.Load()
}
