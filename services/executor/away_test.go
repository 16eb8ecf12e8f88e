package executor_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// TestControlPlaneAway takes ledger, storage and the owner's client away for an hour of a job of
// 90 minutes, in one case with a kill of the executor in the middle of it. The container runs on,
// is started once, and all of its time is paid, once.
func TestControlPlaneAway(t *testing.T) {
	for name, killed := range map[string]bool{"executor lives": false, "executor is killed": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { surviveOutage(t, w, killed) })
		})
	}
}

func surviveOutage(t *testing.T, w *world, killed bool) {
	var starts atomic.Int64
	w.host = fake.NewHost(fake.Options{
		AnyImage: true, Hook: w.driverHook,
		Programs: map[string]fake.Program{"/guest": func(p *fake.Process) int {
			starts.Add(1)
			p.Args = []string{"use", "1000", "sleep", "90m", "write", "/out/a", "abc"}
			return fake.Guest(p)
		}},
	})
	agent := w.start()
	ask := w.ask(1)
	ask.Terms.Budget, ask.Terms.Trust = 10*ucn, 10*ucn // the owner trusts it for the whole job
	lease := w.lease(agent, ask)
	c := &client{w: w}
	ended := make(chan *executor.Outcome, 1)
	go func() { ended <- c.run(w.task(ask, lease.ID)) }()
	pass(5 * time.Minute)
	before := w.ledger.Read(lease.ID).Paid
	w.leave(c, true)
	pass(30 * time.Minute)
	if killed {
		w.kill()
		w.start()
	}
	pass(30 * time.Minute)
	if list, err := w.host.Driver("e").List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%d containers after an hour alone, %v", len(list), err)
	}
	if paid := w.ledger.Read(lease.ID).Paid; paid != before {
		t.Errorf("paid %d while the ledger was away, %d before", paid, before)
	}
	w.leave(c, false)
	o := <-ended
	w.closed(ask.Attempt)
	got := w.ledger.Read(lease.ID)
	if o.Reason != executor.EndCompleted || len(o.Outputs) != 1 || starts.Load() != 1 {
		t.Errorf("outcome %+v after %d starts", o, starts.Load())
	}
	if o.Usage.WallMS != uint64((90*time.Minute).Milliseconds()) || got.Paid != o.Amount ||
		got.Charges == 0 || !got.Settled {
		t.Errorf("usage %+v, amount %d, lease %+v", o.Usage, o.Amount, got)
	}
}

var errAway = errors.New("away")

// leave takes ledger, storage and the client's signatures away, or brings them back.
func (w *world) leave(c *client, away bool) {
	c.mu.Lock()
	c.away = away
	c.mu.Unlock()
	seam := func(string) (error, error) {
		if err := w.killed(); err != nil || !away {
			return err, nil
		}
		return errAway, nil
	}
	w.ledger.SetHook(seam)
	w.files.SetHook(seam)
}

func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}
