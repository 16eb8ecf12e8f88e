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

// TestHoldbackByTheChainsClock: what counts is the time in which the chain made blocks. A host
// whose clock is ahead, or whose chain stood still, asks for nothing too early, since each try
// costs a fee, and one whose clock is behind does not wait for longer than the chain does.
func TestHoldbackByTheChainsClock(t *testing.T) {
	for name, tt := range map[string]struct {
		ahead time.Duration // the host's clock
		stood time.Duration // the chain
		over  time.Duration // after the end, when the owner's silence accepts
	}{
		"the host is ahead":   {30 * time.Hour, 0, 24 * time.Hour},
		"the host is behind":  {-40 * time.Hour, 0, 24 * time.Hour},
		"the chain stood":     {0, 10 * time.Hour, 34 * time.Hour},
		"ahead, and it stood": {30 * time.Hour, 10 * time.Hour, 34 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				ask := w.ask(1, "use", "1000", "sleep", "10m")
				ask.Terms.Budget, ask.Terms.Trust, ask.Terms.Holdback = ucn, ucn, ucn/5
				lease := w.lease(agent, ask)
				o := (&client{w: w}).run(w.task(ask, lease.ID))
				w.closed(ask.Attempt)
				w.stop()
				w.now = func() time.Time { return time.Now().Add(tt.ahead) }
				w.ledger.Stand(tt.stood)
				w.start()
				pass(tt.over - time.Hour)
				if w.ledger.Read(lease.ID).Held == 0 {
					t.Error("it was paid before the chain's day was over")
				}
				pass(2 * time.Hour)
				if got := w.ledger.Read(lease.ID); got.Held != 0 || got.Paid != o.Amount {
					t.Errorf("paid %d of %d, held %d", got.Paid, o.Amount, got.Held)
				}
				if n := w.ledger.Early(); n != 0 {
					t.Errorf("%d settlements came too early", n)
				}
			})
		})
	}
}
