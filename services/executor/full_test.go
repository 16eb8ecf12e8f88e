package executor_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// TestFullDiskKillsNoPaidContainer: the disk of the journal, or that of the storage, has no room
// for ten minutes of a job of thirty. What runs runs on and is started once; what is asked for
// meanwhile is not promised when the promise cannot be written down; all of the time is paid, once.
func TestFullDiskKillsNoPaidContainer(t *testing.T) {
	for _, which := range []string{"journal", "storage", "both"} {
		t.Run(which, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { fullDisk(t, w, which) })
		})
	}
}

var errFull = fmt.Errorf("write: %w", unix.ENOSPC)

// fill makes journal and storage refuse writes, or take them again.
func (w *world) fill(journal, files bool) {
	hook := func(full bool) func(string) (error, error) {
		return func(op string) (error, error) {
			writes := op == "Save" || op == "Publish" || op == "Put"
			if err := w.killed(); err != nil || !full || !writes {
				return err, nil
			}
			return errFull, nil
		}
	}
	w.journal.SetHook(hook(journal))
	w.files.SetHook(hook(files))
}

func fullDisk(t *testing.T, w *world, which string) {
	var starts atomic.Int64
	w.host = fake.NewHost(fake.Options{
		AnyImage: true, Hook: w.driverHook,
		Programs: map[string]fake.Program{"/guest": func(p *fake.Process) int {
			starts.Add(1)
			p.Args = []string{"use", "1000", "sleep", "30m", "write", "/out/a", "abc"}
			return fake.Guest(p)
		}},
	})
	agent := w.start()
	ask, second := w.ask(1), w.ask(2)
	ask.Terms.Budget, ask.Terms.Trust = 10*ucn, 10*ucn
	lease := w.lease(agent, ask)
	c := &client{w: w}
	ended := make(chan *executor.Outcome, 1)
	go func() { ended <- c.run(w.task(ask, lease.ID)) }()
	pass(25 * time.Minute)
	w.fill(which != "storage", which != "journal")
	pass(3 * time.Minute)
	answer, err := agent.Ask(t.Context(), second)
	if promised := err == nil && answer.Lease != nil; promised && which != "storage" {
		t.Error("a lease was promised that is written nowhere")
	}
	pass(7 * time.Minute) // the program has ended meanwhile
	w.fill(false, false)
	o := <-ended
	w.closed(ask.Attempt)
	got := w.ledger.Read(lease.ID)
	if o.Reason != executor.EndCompleted || len(o.Outputs) != 1 || starts.Load() != 1 {
		t.Errorf("outcome %+v after %d starts", o, starts.Load())
	}
	if o.Usage.WallMS != uint64((30*time.Minute).Milliseconds()) || got.Paid != o.Amount ||
		!got.Settled {
		t.Errorf("usage %+v, amount %d, lease %+v", o.Usage, o.Amount, got)
	}
}
