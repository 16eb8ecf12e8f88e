package executor_test

import (
	"testing"
	"time"
)

// TestLastChargeWaitsForThePayee: the chain pays no payee without an account less than what opens
// one, and such a last charge is not final. The host is paid once the account is there, also when
// it was killed meanwhile; it gives the lease back when the account never comes.
func TestLastChargeWaitsForThePayee(t *testing.T) {
	for name, tt := range map[string]struct {
		opened, killed bool
	}{
		"the account comes":                    {true, false},
		"it comes, and the executor is killed": {true, true},
		"it never comes":                       {false, false},
		"it never comes, and killed":           {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { awaitPayee(t, w, tt.opened, tt.killed) })
		})
	}
}

func awaitPayee(t *testing.T, w *world, opened, killed bool) {
	w.ledger.Lock(10 * ucn)
	agent := w.start()
	ask := w.ask(1, "use", "1000", "sleep", "1m")
	ask.Terms.Budget, ask.Terms.Trust = ucn, ucn
	lease := w.lease(agent, ask)
	o := (&client{w: w}).run(w.task(ask, lease.ID))
	if o.Amount == 0 {
		t.Fatal("nothing is due")
	}
	window := time.Duration(lease.Lease.ClaimWindow) * time.Millisecond
	pass(window / 2)
	if killed {
		w.kill()
		w.start()
	}
	if got := w.ledger.Read(lease.ID); got.Settled || got.Paid != 0 {
		t.Fatalf("paid %d, settled %t before the payee had an account", got.Paid, got.Settled)
	}
	want := uint64(0)
	if opened {
		w.ledger.Lock(0)
		want = o.Amount
	}
	pass(window/2 + time.Hour)
	got := w.ledger.Read(lease.ID)
	if !got.Settled || got.End.IsZero() || got.Paid != want {
		t.Errorf("paid %d of %d, want %d; settled %t, end %s", got.Paid, o.Amount, want,
			got.Settled, got.End)
	}
	// Each try costs a fee.
	if most := 20 + int(window/time.Hour); got.Charges > most {
		t.Errorf("%d charges within %s, want at most %d", got.Charges, window, most)
	}
	w.closed(ask.Attempt)
}

// TestWaitingForThePayeeTakesNoPlace: jobs that were each too small to open the payee's account,
// and wait for it, keep nobody out; those that run do.
func TestWaitingForThePayeeTakesNoPlace(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ledger.Lock(10 * ucn)
		w.cfg.MaxAttempts = 2
		agent := w.start()
		for n := byte(1); n <= 3; n++ {
			ask := w.ask(n, "use", "1000", "sleep", "1m")
			ask.Terms.Budget, ask.Terms.Trust = ucn, ucn
			lease := w.lease(agent, ask)
			if o := (&client{w: w}).run(w.task(ask, lease.ID)); o.Amount == 0 {
				t.Fatal("nothing is due")
			}
			pass(time.Minute)
			if n == 2 {
				w.kill() // another life counts the same
				agent = w.start()
				pass(time.Minute)
			}
		}
		for n := byte(4); n <= 6; n++ {
			answer, err := agent.Ask(t.Context(), w.ask(n, "sleep", "1m"))
			if err != nil || (answer.Lease != nil) != (n < 6) {
				t.Errorf("question %d: %+v, %v", n, answer, err)
			}
		}
		w.ledger.Lock(0)
		pass(2 * time.Hour) // all are over
		for n := byte(7); n <= 9; n++ {
			answer, err := agent.Ask(t.Context(), w.ask(n, "sleep", "1m"))
			if err != nil || (answer.Lease != nil) != (n < 9) {
				t.Errorf("question %d: %+v, %v", n, answer, err)
			}
		}
	})
}
