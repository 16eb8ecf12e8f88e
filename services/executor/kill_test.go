package executor_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// killer kills a life at the nth call that it counts, before or after the call took effect.
type killer struct {
	w     *world
	at    int64
	after bool
	n     atomic.Int64
	fired atomic.Bool
	done  chan struct{}
}

func (k *killer) hook(string) (before, after error) {
	if err := k.w.killed(); err != nil {
		return err, nil
	}
	if k.n.Add(1) != k.at || k.fired.Swap(true) {
		return nil, nil
	}
	k.w.mu.Lock()
	k.w.dead = errKilled // from here on nothing of this life has any effect
	k.w.mu.Unlock()
	close(k.done)
	if k.after {
		return nil, errKilled
	}
	return errKilled, nil
}

// driverHook is hook for the driver, of whose calls the effective ones count.
func (k *killer) driverHook(c fake.Call) fake.Fault {
	k.w.mu.Lock()
	dead := k.w.dead
	k.w.mu.Unlock()
	if dead != nil {
		return fake.Fault{Err: dead}
	}
	switch c.Method {
	case "Create", "Start", "Stop", "Remove", "Output":
	default:
		return fake.Fault{}
	}
	before, after := k.hook("")
	if before != nil {
		return fake.Fault{Err: before}
	}
	return fake.Fault{Err: after, After: true}
}

// TestKilledAnywhere kills the executor at every write of its journal and at every call that has
// an effect elsewhere, before and after the effect, and starts it again. The job is done once, its
// output is there, and it is paid once.
func TestKilledAnywhere(t *testing.T) {
	kills := 0
	for _, after := range []bool{false, true} {
		for at := int64(1); ; at++ {
			fired := false
			t.Run(fmt.Sprintf("call %d, after %v", at, after), func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) { fired = surviveKill(t, w, at, after) })
			})
			if !fired || t.Failed() {
				break
			}
			kills++
		}
	}
	if kills < 2*15 {
		t.Errorf("only %d places to be killed at", kills)
	}
}

func surviveKill(t *testing.T, w *world, at int64, after bool) (fired bool) {
	starts := atomic.Int64{}
	w.host = fake.NewHost(fake.Options{
		AnyImage: true, Hook: w.driverHook,
		Programs: map[string]fake.Program{"/guest": func(p *fake.Process) int {
			starts.Add(1)
			p.Args = []string{"use", "1000", "out", "hi", "sleep", "70s", "write", "/out/a", "abc"}
			return fake.Guest(p)
		}},
	})
	w.cfg.OfferLife = 10 * time.Minute // offers would be counted too
	agent := w.start()
	ask := w.ask(1)
	lease := w.lease(agent, ask)
	k := &killer{w: w, at: at, after: after, done: make(chan struct{})}
	w.journal.SetHook(k.hook)
	w.ledger.SetHook(func(op string) (error, error) {
		if op != "Charge" {
			return w.killed(), nil
		}
		return k.hook(op)
	})
	w.files.SetHook(k.hook)
	w.setDriver(k.driverHook)
	c := &client{w: w}
	ended := make(chan *executor.Outcome, 1)
	go func() { ended <- c.run(w.task(ask, lease.ID)) }()
	var o *executor.Outcome
	closed := make(chan struct{})
	go func() {
		o = <-ended
		w.waitClosed(ask.Attempt)
		close(closed)
	}()
	select {
	case <-k.done:
		w.kill()
		w.start()
		<-closed
	case <-closed:
	}
	checkSurvivor(t, w, o, lease.ID)
	if n := starts.Load(); n != 1 {
		t.Errorf("the program was started %d times", n)
	}
	return k.fired.Load()
}

func checkSurvivor(t *testing.T, w *world, o *executor.Outcome, lease executor.LeaseID) {
	t.Helper()
	if o.Reason != executor.EndCompleted || len(o.Outputs) != 1 || o.LogCID == "" {
		t.Errorf("outcome %+v", o)
	}
	// The start is dated by who saw it; a life that was killed then did not see it.
	if o.Usage.WallMS != 70_000 || o.Usage.CPUNS != uint64(70*time.Second) {
		t.Errorf("usage %+v, want 70 s of both", o.Usage)
	}
	got := w.ledger.Read(lease)
	if got.Paid != o.Amount || !got.Settled {
		t.Errorf("paid %d, settled %v, want %d", got.Paid, got.Settled, o.Amount)
	}
	if list, err := w.host.Driver("e").List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%d containers left, %v", len(list), err)
	}
	told := w.states()
	ended := strings.Count(fmt.Sprint(told), "STATE_ENDED")
	if ended != 1 {
		t.Errorf("events told %v, want one end", told)
	}
}

// TestHostLost takes the power away under a running program.
func TestHostLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "forever")
		lease := w.lease(agent, ask)
		c := &client{w: w}
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(32 * time.Second)
		<-timer.C
		w.kill()
		w.host.Shutdown()
		timer.Reset(15 * time.Second)
		<-timer.C
		w.start()
		o := <-ended
		if o.Reason != executor.EndHostLost || o.Usage.WallMS < 25_000 || o.Usage.WallMS > 32_000 {
			t.Errorf("outcome %+v, want host-lost with what the last note says", o)
		}
		w.closed(ask.Attempt)
		if paid := w.ledger.Read(lease.ID).Paid; paid != o.Amount || paid == 0 {
			t.Errorf("paid %d, want %d", paid, o.Amount)
		}
	})
}

// TestJournalFullKeepsRunning lets the journal fail for a while: the program goes on, and nothing
// is told that is not written.
func TestJournalFullKeepsRunning(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "sleep", "40s")
		lease := w.lease(agent, ask)
		c := &client{w: w}
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(12*time.Second + 500*time.Millisecond) // between two notes
		<-timer.C
		full := atomic.Bool{}
		full.Store(true)
		w.journal.SetHook(func(string) (error, error) {
			if full.Load() {
				return fmt.Errorf("no space left on device"), nil
			}
			return nil, nil
		})
		timer.Reset(time.Minute)
		<-timer.C
		if r := w.journal.Record(ask.Attempt); r.Phase != executor.PhaseRunning {
			t.Errorf("phase %d while the journal cannot be written", r.Phase)
		}
		full.Store(false)
		o := <-ended
		if o.Reason != executor.EndCompleted || o.Usage.WallMS != 40_000 {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
		if paid := w.ledger.Read(lease.ID).Paid; paid != o.Amount {
			t.Errorf("paid %d, want %d", paid, o.Amount)
		}
	})
}
