package executor_test

import (
	"testing"
	"time"
)

// TestHoldbackIsFetched: what an owner holds back comes to the host a day after the end, without
// the owner, also when the executor is killed in between and the ledger is away for a while.
func TestHoldbackIsFetched(t *testing.T) {
	for name, killed := range map[string]bool{"executor lives": false, "executor is killed": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { fetchHoldback(t, w, killed) })
		})
	}
}

func fetchHoldback(t *testing.T, w *world, killed bool) {
	agent := w.start()
	ask := w.ask(1, "use", "1000", "sleep", "10m")
	ask.Terms.Budget, ask.Terms.Trust = ucn, ucn
	ask.Terms.Holdback = ucn / 5
	lease := w.lease(agent, ask)
	if lease.Lease.Holdback != ask.Terms.Holdback {
		t.Fatalf("the lease holds %d back, want %d", lease.Lease.Holdback, ask.Terms.Holdback)
	}
	c := &client{w: w}
	o := c.run(w.task(ask, lease.ID))
	w.closed(ask.Attempt)
	held := min(o.Amount, ask.Terms.Holdback)
	if got := w.ledger.Read(lease.ID); got.Held != held || got.Paid != o.Amount-held {
		t.Fatalf("paid %d, held %d of %d", got.Paid, got.Held, o.Amount)
	}
	pass(12 * time.Hour)
	if killed {
		w.kill()
		w.start()
	}
	pass(11 * time.Hour)
	if got := w.ledger.Read(lease.ID); got.Held != held {
		t.Errorf("%d held before the day is over, want %d", got.Held, held)
	}
	w.leave(c, true)
	pass(2 * time.Hour)
	w.leave(c, false)
	pass(time.Hour)
	if got := w.ledger.Read(lease.ID); got.Held != 0 || got.Paid != o.Amount {
		t.Errorf("after a day paid %d of %d, held %d", got.Paid, o.Amount, got.Held)
	}
	if list, err := w.journal.Held(t.Context(), "", 9); err != nil || len(list) != 0 {
		t.Errorf("the journal remembers %d holdbacks, %v", len(list), err)
	}
}
