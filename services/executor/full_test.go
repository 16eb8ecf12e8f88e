package executor_test

import (
	"fmt"
	"strings"
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
		for name, trust := range map[string]uint64{"": 0, " with all of the trust": 10 * ucn} {
			t.Run(which+name, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) { fullDisk(t, w, which, trust) })
			})
		}
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

// fullDisk lets a disk be full. Without trust of its own the job has what the host wants at least:
// some seconds beyond the last note that was countersigned.
func fullDisk(t *testing.T, w *world, which string, trust uint64) {
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
	ask.Terms.Budget, ask.Terms.Trust = 10*ucn, trust
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

// TestFullDiskKeepsNotesHonest: whatever the journal refuses, the owner hears newer notes, and each
// that he countersigns counts.
func TestFullDiskKeepsNotesHonest(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		_, lease, c, ended := w.runFor(agent, 1, time.Minute)
		newest := func() executor.Note {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.notes[len(c.notes)-1].Note.Note
		}
		before := newest()
		w.fill(true, false)
		pass(20 * time.Minute)
		last := newest()
		if last.Cumulative <= before.Cumulative {
			t.Errorf("the newest note is of %d, 20 minutes before of %d", last.Cumulative,
				before.Cumulative)
		}
		if err := agent.Acknowledge(t.Context(), lease.ID, w.sign(last)); err != nil {
			t.Errorf("an honest ack: %v", err)
		}
		if got := w.ledger.Read(lease.ID); got.Paid < last.Cumulative/2 {
			t.Errorf("paid %d meanwhile, of %d", got.Paid, last.Cumulative)
		}
		w.fill(false, false)
		if o := <-ended; o.Reason != executor.EndCompleted {
			t.Errorf("outcome %+v", o)
		}
	})
}

// TestFullDiskAndEviction: what an operator told to go goes when he said, though its end cannot be
// written down yet, and for that reason.
func TestFullDiskAndEviction(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, _, _, ended := w.runFor(agent, 1, time.Minute)
		at, err := agent.Evict(t.Context(), ask.Attempt, 5*time.Minute, "the disk is full")
		if err != nil {
			t.Fatal(err)
		}
		w.fill(true, false)
		list, err := w.host.Driver("e").List(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("%d containers, %v", len(list), err)
		}
		exit, err := list[0].Wait(t.Context())
		if late := exit.Ended.Sub(at); err != nil || late < 0 || late > time.Minute {
			t.Errorf("it ended %v after the time told, %v", late, err)
		}
		pass(10 * time.Minute)
		w.fill(false, false)
		o := <-ended
		if o.Reason != executor.EndEvicted || !strings.Contains(o.Message, "the disk is full") {
			t.Errorf("outcome %+v", o)
		}
		if wall := time.Duration(o.Usage.WallMS) * time.Millisecond; wall < 6*time.Minute {
			t.Errorf("paid for %v, want the time up to the end", wall)
		}
	})
}

// TestFullDiskTellsTheTrueReason: a program that its host ends while nothing can be written down
// was ended for what it was ended for.
func TestFullDiskTellsTheTrueReason(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "sleep", "45m")
		ask.Spec.RunTime = 10 * time.Minute
		lease := w.lease(agent, ask)
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- (&client{w: w}).run(w.task(ask, lease.ID)) }()
		pass(time.Minute)
		w.fill(true, false)
		pass(15 * time.Minute)
		w.fill(false, false)
		o := <-ended
		if o.Reason != executor.EndFailed || !strings.Contains(o.Message, "run time limit") {
			t.Errorf("outcome %+v", o)
		}
	})
}
