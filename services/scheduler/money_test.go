package scheduler_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/scheduler"
)

// TestMoneyIsTheOwnersAffair: a run that waits for money says so whatever hosts offer, names none
// of them, and tells it once for each time that the escrow was looked at.
func TestMoneyIsTheOwnersAffair(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*scheduler.Spec)
		spoil  func(*scheduler.Escrow)
		want   string
	}{
		"array": {array(4, 1), func(s *scheduler.Escrow) { s.Unreserved = 0 },
			"waiting: the escrow does not pay for this job: nothing in it is free to promise; top it up"},
		"always": {func(s *scheduler.Spec) { s.Always = true },
			func(s *scheduler.Escrow) { s.Unreserved = 0 },
			"waiting: exhausted: 0 grains are free for it, and 1m0s cost 16; top its escrow up"},
		"rate": {array(4, 1), func(s *scheduler.Escrow) { s.MaxRate = 3 }, // that of the cheapest is told
			"waiting: the escrow does not pay for this job: its max_rate leaves no room for 1000 grains " +
				"per hour"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { outOfMoney(t, tt.change, tt.spoil, tt.want) })
		})
	}
}

func outOfMoney(
	t *testing.T, change func(*scheduler.Spec), spoil func(*scheduler.Escrow), want string,
) {
	m := newMarket(t)
	defer m.stop()
	j := m.submitSpec(change)
	synctest.Wait() // else a look that is under way is told of, and not counted
	m.ledger.Change(j.Escrow, spoil)
	var looks, told atomic.Int32
	m.ledger.Hook(func() {
		m.ledger.Fail = func(method string) error {
			if method == "Escrow" {
				looks.Add(1)
			}
			return nil
		}
	})
	changed, leave, err := m.engine.Watch(j.ID)
	if err != nil {
		t.Fatal(err)
	}
	over, counted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(counted)
		for {
			select {
			case <-changed:
				told.Add(1)
			case <-over:
				return
			}
		}
	}()
	m.offers(10*time.Minute, 1, 2, 3)
	leave()
	close(over)
	<-counted
	shown, err := m.engine.Job(t.Context(), j.Owner, j.ID)
	if err != nil {
		t.Fatal(err)
	}
	if why := shown.Runs[0].Reason; !strings.HasPrefix(why, want) || strings.Contains(why, "host-") {
		t.Errorf("it says %q, want %q", why, want)
	}
	if looks.Load() < 5 || told.Load() > looks.Load() {
		t.Errorf("it told %d times of %d looks at the escrow", told.Load(), looks.Load())
	}
}
