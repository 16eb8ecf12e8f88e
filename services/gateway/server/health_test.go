package server

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestManyWhoAskAreOneQuestion: who asks often, or asks and leaves, neither makes the gateway ask
// everybody again nor spoils the answer; after a second it is asked anew.
func TestManyWhoAskAreOneQuestion(t *testing.T) {
	peers, want := []Peer{{Name: "ledger"}, {Name: "storage"}}, []string{serving, serving}
	var clock, asked atomic.Int64
	now := func() time.Time { return time.Unix(1000, clock.Load()) }
	held := make(chan struct{})
	r := ready{check: func(ctx context.Context, _ Peer) string {
		asked.Add(1)
		select {
		case <-held:
			return serving
		case <-ctx.Done():
			return noAnswer
		}
	}}
	gone, leave := context.WithCancel(t.Context())
	leave()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if said := r.ask(gone, now, peers); !slices.Equal(said, want) {
				t.Errorf("said %v", said)
			}
		})
	}
	close(held)
	all.Wait()
	if n := asked.Load(); n != 2 {
		t.Errorf("50 questions made %d, want 2", n)
	}
	for _, step := range []time.Duration{knownReady, 2 * knownReady, -time.Hour} {
		clock.Add(int64(step))
		before := asked.Load()
		if said := r.ask(t.Context(), now, peers); !slices.Equal(said, want) ||
			asked.Load() != before+2 {
			t.Errorf("after %v: %v, asked %d times", step, said, asked.Load()-before)
		}
	}
}
