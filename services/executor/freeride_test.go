package executor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// lanes is an owner who takes the lane away from his own program, has it go on, and so on.
type lanes struct {
	pays time.Duration // for it to run, each time
	away time.Duration // before its host is asked to go on
	late time.Duration // after that, before the lease is placed
	kill bool          // the executor, after each round
}

// ride plays at most so many rounds. It returns how many there were, how long the program ran until
// then or its end, and how much of that was paid.
func (l *lanes) ride(w *world, most int) (rounds int, ran, paid time.Duration) {
	w.t.Helper()
	starts := w.count()
	agent := w.start()
	began := time.Now()
	ask, lease, _, _ := w.keep(agent, 1, l.pays, "use", "1000", "sleep", "1000h")
	program, leases := ask.Attempt, []executor.SignedLease{lease}
	for ; rounds < most; rounds++ {
		own := w.replace(lease)
		w.passWhile(program, l.away)
		next := w.continuing(ask, own)
		next.Attempt = executor.AttemptID(fmt.Sprintf("c%03x", own.Lease.Epoch))
		next.Terms.PlaceBy = uint64(time.Now().Add(l.late + time.Second).UnixMilli())
		answer, err := agent.Ask(w.t.Context(), next)
		if err != nil {
			w.t.Fatal(err)
		}
		if answer.Lease == nil {
			break
		}
		pass(l.late)
		if err := w.ledger.Place(*answer.Lease); err != nil {
			w.t.Fatal(err)
		}
		_, _ = w.follow(next, *answer.Lease)
		pass(l.pays)
		ask, lease = next, *answer.Lease
		leases = append(leases, lease)
		if l.kill {
			w.kill()
			agent = w.start()
		}
	}
	if rounds < most {
		w.passWhile(program, time.Hour)
	}
	ran = time.Since(began)
	if rounds == most {
		w.stopNow(agent, w.owner, ask)
	}
	w.closed(ask.Attempt)
	for _, s := range leases {
		paid += time.Duration(float64(w.ledger.Read(s.ID).Paid) / float64(s.Lease.Rate) *
			float64(time.Hour))
	}
	if starts.Load() != 1 {
		w.t.Errorf("%d starts", starts.Load())
	}
	return rounds, ran, paid
}

// passWhile lets so much time pass, but no more once the program has ended.
func (w *world) passWhile(program executor.AttemptID, d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end) && w.running(program); {
		pass(time.Second)
	}
}

// TestOwnerTakesHisLaneAgainAndAgain: what a program runs for nothing in all its life is bounded by
// what was paid for it, however its owner divides that up.
func TestOwnerTakesHisLaneAgainAndAgain(t *testing.T) {
	for name, l := range map[string]lanes{
		"for as long as it is held":       {10 * time.Second, 5 * time.Minute, time.Minute, false},
		"before the host knows of it":     {20 * time.Second, 50 * time.Second, 0, false},
		"placed as late as can be":        {10 * time.Second, 30 * time.Second, 5 * time.Minute, false},
		"for a little less than is given": {5 * time.Minute, 58 * time.Second, 0, false},
		"of a host that forgets":          {time.Minute, 2 * time.Minute, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				rounds, ran, paid := l.ride(w, 100)
				c := &w.cfg
				// One hold that was not foreseen to be the last, and the way there and back.
				bound := c.HoldSuperseded + 2*c.ChargeEvery + paid/10 + time.Minute
				if free := ran - paid; free > bound || rounds == 100 {
					t.Errorf("%d rounds: %v of %v were for nothing, want at most %v", rounds, free, ran, bound)
				}
			})
		})
	}
}

// TestHeldWhilePaidFor: who is replaced now and then, and paid for in between, is held each time.
func TestHeldWhilePaidFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		l := lanes{pays: 15 * time.Minute, away: 70 * time.Second, late: 5 * time.Second}
		rounds, ran, paid := l.ride(w, 8)
		if rounds != 8 || paid < 8*l.pays || ran > 9*(l.pays+2*time.Minute) {
			t.Errorf("%d rounds, %v of %v paid", rounds, paid, ran)
		}
	})
}
