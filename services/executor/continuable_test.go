package executor_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// TestNotContinuable declines by name what cannot go on, and holds nothing for it.
func TestNotContinuable(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*world, *executor.Agent, *executor.Ask)
		want  executor.DeclineCode
		says  string
	}{
		"unknown": {func(_ *world, _ *executor.Agent, a *executor.Ask) {
			a.Continues = "ff"
		}, executor.DeclineNotContinuable, "not here"},
		"of another job": {func(w *world, _ *executor.Agent, a *executor.Ask) {
			a.Job, a.Terms.Subject = executor.JobID{77}, executor.JobID{77}
			w.openEscrow(a, func(*executor.Escrow) {})
		}, executor.DeclineNotContinuable, "another job"},
		"of another revision": {func(_ *world, _ *executor.Agent, a *executor.Ask) {
			a.Revision[0] ^= 1
		}, executor.DeclineNotContinuable, "another job"},
		"of another run": {func(_ *world, _ *executor.Agent, a *executor.Ask) {
			a.Run = "77"
		}, executor.DeclineNotContinuable, "another run"},
		"of another task": {func(_ *world, _ *executor.Agent, a *executor.Ask) {
			a.Spec.Env = []string{"UCN_TASK_INDEX=3"}
		}, executor.DeclineNotContinuable, "another run or task"},
		"of another slot": {func(_ *world, _ *executor.Agent, a *executor.Ask) {
			a.Terms.Slot++
		}, executor.DeclineNotContinuable, "another slot"},
		"of an epoch before": {func(_ *world, _ *executor.Agent, a *executor.Ask) {
			a.Terms.Epoch = 1
		}, executor.DeclineTerms, "epoch"},
		"stopped": {func(w *world, agent *executor.Agent, a *executor.Ask) {
			old := *a
			old.Attempt = a.Continues
			w.stopNow(agent, w.owner, old)
		}, executor.DeclineNotContinuable, "continues: "},
		"to be evicted": {func(w *world, agent *executor.Agent, a *executor.Ask) {
			if _, err := agent.Evict(w.t.Context(), a.Continues, time.Hour, ""); err != nil {
				w.t.Error(err)
			}
		}, executor.DeclineNotContinuable, "to go"},
		"ended": {func(w *world, agent *executor.Agent, a *executor.Ask) {
			old := *a
			old.Attempt = a.Continues
			w.stopNow(agent, w.owner, old)
			w.closed(a.Continues)
		}, executor.DeclineNotContinuable, "over"},
		"a host that drains": {func(w *world, agent *executor.Agent, _ *executor.Ask) {
			if _, err := agent.Drain(w.t.Context(), "", 0); err != nil {
				w.t.Error(err)
			}
		}, executor.DeclineDraining, "no new work"},
		"an offer of yesterday": {func(_ *world, _ *executor.Agent, a *executor.Ask) {
			a.Offer[0] ^= 1
		}, executor.DeclineOffer, "offer"},
		"too little money": {func(w *world, _ *executor.Agent, a *executor.Ask) {
			w.openEscrow(a, func(e *executor.Escrow) { e.Free = 0 })
			a.Terms.Supersedes = executor.LeaseID{}
		}, executor.DeclineTerms, "free"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				old, lease, _, ended := w.keep(agent, 1, 30*time.Second, "use", "1000", "sleep", "45m")
				ask := w.continuing(old, w.replace(lease))
				tt.spoil(w, agent, &ask)
				answer, err := agent.Ask(t.Context(), ask)
				if err != nil || answer.Declined == nil || answer.Declined.Code != tt.want ||
					!strings.Contains(answer.Declined.Message, tt.says) {
					t.Errorf("answer %+v %+v, %v; want %s %q", answer.Lease, answer.Declined, err, tt.want,
						tt.says)
				}
				w.stopNow(agent, w.owner, old)
				<-ended
			})
		})
	}
}

// TestNotContinuableByLease: an attempt goes on under its own lease while that stands, and is not
// held for another one by a host that never holds, for an owner who wants none, or after the owner
// ended its lease. While the chain cannot be read nothing is answered.
func TestNotContinuableByLease(t *testing.T) {
	away := errors.New("the ledger is away")
	for name, tt := range map[string]struct {
		hold   time.Duration
		policy bool
		end    func(*world, executor.SignedLease)
		want   executor.DeclineCode
		fails  error
	}{
		"stands": {time.Hour, true, func(*world, executor.SignedLease) {}, executor.DeclineTerms, nil},
		"never held": {0, true, func(w *world, l executor.SignedLease) { w.replace(l) },
			executor.DeclineNotContinuable, nil},
		"other policy": {time.Hour, false, func(w *world, l executor.SignedLease) { w.replace(l) },
			executor.DeclineNotContinuable, nil},
		"ended by its owner": {time.Hour, true, func(w *world, l executor.SignedLease) {
			w.ledger.End(l.ID)
		}, executor.DeclineNotContinuable, nil},
		"unread": {time.Hour, true, func(w *world, l executor.SignedLease) {
			w.replace(l)
			w.ledger.SetHook(func(string) (error, error) { return away, nil })
		}, "", away},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.cfg.HoldSuperseded = tt.hold
				agent := w.start()
				old := w.ask(1, "use", "1000", "sleep", "45m")
				old.Spec.KeepOriginal = tt.policy
				lease := w.lease(agent, old)
				_, ended := w.follow(old, lease)
				pass(30 * time.Second)
				tt.end(w, lease)
				ask := w.continuing(old, lease)
				answer, err := agent.Ask(t.Context(), ask)
				if !errors.Is(err, tt.fails) || tt.fails == nil && (answer.Declined == nil ||
					answer.Declined.Code != tt.want) {
					t.Errorf("answer %+v %+v, %v; want %s, %v", answer.Lease, answer.Declined, err, tt.want,
						tt.fails)
				}
				w.ledger.SetHook(nil)
				w.stopNow(agent, w.owner, old)
				<-ended
			})
		})
	}
}

// TestContinuedOnce: one promise at a time, the same answer to the same question, and none after
// the program was handed over.
func TestContinuedOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		old, lease, _, ended := w.keep(agent, 1, 30*time.Second, "use", "1000", "sleep", "45m")
		ask := w.continuing(old, w.replace(lease))
		first, err := agent.Ask(t.Context(), ask)
		again, err2 := agent.Ask(t.Context(), ask)
		if err != nil || err2 != nil || first.Lease == nil || again.Lease == nil ||
			first.Lease.ID != again.Lease.ID {
			t.Fatalf("answers %+v, %v, %+v, %v", first, err, again, err2)
		}
		other := ask
		other.Attempt = "cc"
		answer, err := agent.Ask(t.Context(), other)
		if err != nil || answer.Declined == nil || answer.Declined.Code != executor.DeclineCapacity {
			t.Errorf("a second promise: %+v, %v", answer, err)
		}
		fresh := ask
		fresh.Continues = ""
		answer, err = agent.Ask(t.Context(), fresh)
		if err != nil || answer.Declined == nil || answer.Declined.Code != executor.DeclineInvalid {
			t.Errorf("asked otherwise: %+v, %v", answer, err)
		}
		if err := w.ledger.Place(*first.Lease); err != nil {
			t.Fatal(err)
		}
		_, goesOn := w.follow(ask, *first.Lease)
		<-ended
		other.Offer = w.offer()
		answer, err = agent.Ask(t.Context(), other)
		if err != nil || answer.Declined == nil ||
			answer.Declined.Code != executor.DeclineNotContinuable {
			t.Errorf("a third: %+v, %v", answer, err)
		}
		_, err = agent.Stats(t.Context(), executor.StatsAsk{From: w.owner, Job: ask.Job})
		if err != nil || over(goesOn) {
			t.Errorf("it does not go on: %v", err)
		}
		w.stopNow(agent, w.owner, ask)
		<-goesOn
	})
}

// TestPromiseToContinueLapses: a program waits for a lease that it was promised to, beyond the time
// that it is held for, and ends when that lease was never placed.
func TestPromiseToContinueLapses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		old, lease, _, ended := w.keep(agent, 1, 30*time.Second, "use", "1000", "sleep", "45m")
		b := w.replace(lease)
		pass(65 * time.Second)
		pass(w.cfg.HoldSuperseded - 50*time.Second)
		ask := w.continuing(old, b) // 15 s before the end of the hold
		answer, err := agent.Ask(t.Context(), ask)
		if err != nil || answer.Declined == nil || answer.Declined.Code != executor.DeclineTerms {
			t.Errorf("a promise for 45 s after the hold: %+v, %v", answer, err)
		}
		ask.Terms.PlaceBy -= uint64((15 * time.Second).Milliseconds())
		if answer, err := agent.Ask(t.Context(), ask); err != nil || answer.Lease == nil {
			t.Fatalf("answer %+v, %v", answer.Declined, err)
		}
		pass(50 * time.Second)
		if over(ended) || !w.running(old.Attempt) {
			t.Fatal("it ended before the promise lapsed")
		}
		late := ask
		late.Attempt = "cc"
		answer, err = agent.Ask(t.Context(), late)
		if err != nil || answer.Declined == nil ||
			answer.Declined.Code != executor.DeclineNotContinuable {
			t.Errorf("another promise after the hold: %+v, %v", answer, err)
		}
		pass(time.Minute)
		if !over(ended) {
			t.Error("it goes on though the promise lapsed")
		}
		if r := w.closed(ask.Attempt); r.Outcome.Reason != executor.EndExpired {
			t.Errorf("the promise ended as %+v", r.Outcome)
		}
		w.closed(old.Attempt)
		w.checkAllGone(old.Attempt, agent)
	})
}

// TestNothingLeftToContinue: when the program is over before it can be handed over, or the new
// lease is to be stopped, nothing is due for that.
func TestNothingLeftToContinue(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(w *world, a *executor.Agent, old, ask executor.Ask)
		goes executor.EndReason // of the new lease
	}{
		"it ended": {func(w *world, a *executor.Agent, old, _ executor.Ask) {
			w.stopNow(a, w.owner, old)
		}, executor.EndRefused},
		"power was lost": {func(w *world, a *executor.Agent, old, _ executor.Ask) {
			w.kill()
			w.host.Shutdown()
			w.start()
		}, executor.EndRefused},
		"the new lease is stopped": {func(w *world, a *executor.Agent, _, ask executor.Ask) {
			w.stopNow(a, w.asker, ask)
		}, executor.EndCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				old, lease, _, ended := w.keep(agent, 1, 80*time.Second, "use", "1000", "sleep", "45m")
				ask := w.continuing(old, w.replace(lease))
				next := w.lease(agent, ask)
				tt.end(w, agent, old, ask)
				pass(5 * time.Second)
				c := &client{w: w}
				goesOn := make(chan *executor.Outcome, 1)
				go func() { goesOn <- c.run(w.task(ask, next.ID)) }()
				if o := <-goesOn; o.Reason != tt.goes || o.Amount != 0 {
					t.Errorf("the new lease ended as %+v, want %s", o, tt.goes)
				}
				o := <-ended
				w.closed(old.Attempt)
				w.closed(ask.Attempt)
				w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
				if got := w.ledger.Read(next.ID); got.Paid != 0 || !got.Settled {
					t.Errorf("the new lease paid %+v", got)
				}
			})
		})
	}
}
