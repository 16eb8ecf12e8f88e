package executor_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/clock"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// TestTheHostsClockJumps: by three hours, both ways, in the middle of a paid job whose lease ends
// in one, and is mended later. The container is started once and runs to its end; its time is paid
// once, and no more than passed.
func TestTheHostsClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		t.Run(fmt.Sprint(jump), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { hostsClockJumps(t, w, jump) })
		})
	}
}

func hostsClockJumps(t *testing.T, w *world, jump time.Duration) {
	var off, starts atomic.Int64
	began := time.Now()
	w.now = clock.New(clock.Deps{
		Wall:    func() time.Time { return time.Now().Add(time.Duration(off.Load())) },
		Elapsed: func() time.Duration { return time.Since(began) },
	}).Now
	w.host = fake.NewHost(fake.Options{
		AnyImage: true, Hook: w.driverHook,
		Programs: map[string]fake.Program{"/guest": func(p *fake.Process) int {
			starts.Add(1)
			p.Args = []string{"use", "1000", "sleep", "30m", "write", "/out/a", "abc"}
			return fake.Guest(p)
		}},
	})
	agent := w.start()
	ask := w.ask(1)
	ask.Terms.Budget, ask.Terms.Trust = 10*ucn, 10*ucn
	ask.Terms.Until = uint64(time.Now().Add(time.Hour).UnixMilli())
	lease := w.lease(agent, ask)
	c := &client{w: w}
	ended := make(chan *executor.Outcome, 1)
	go func() { ended <- c.run(w.task(ask, lease.ID)) }()
	pass(5 * time.Minute)
	off.Store(int64(jump))
	pass(time.Minute)
	second := w.ask(2, "sleep", "1m") // a host whose clock jumped still takes what others ask
	other := w.lease(agent, second)
	d := &client{w: w}
	if o := d.run(w.task(second, other.ID)); o.Reason != executor.EndCompleted {
		t.Errorf("a job that came after the jump ended as %+v", o)
	}
	pass(10 * time.Minute)
	off.Store(0)
	o := <-ended
	w.closed(ask.Attempt)
	got := w.ledger.Read(lease.ID)
	if o.Reason != executor.EndCompleted || starts.Load() != 2 {
		t.Errorf("outcome %+v after %d starts", o, starts.Load())
	}
	if o.Usage.WallMS != uint64((30*time.Minute).Milliseconds()) || got.Paid != o.Amount ||
		!got.Settled {
		t.Errorf("usage %+v, amount %d, lease %+v", o.Usage, o.Amount, got)
	}
}
