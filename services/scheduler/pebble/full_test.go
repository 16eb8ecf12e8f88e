package pebble_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/space"
	"github.com/united-containers/ucn/services/scheduler"
	store "github.com/united-containers/ucn/services/scheduler/pebble"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// TestStoreOnAFullDisk: on a disk that others filled to its last byte a change is refused with
// ENOSPC, with its event, and nothing ends the process; with room again it goes on, and a start
// finds what was acknowledged and nothing else.
func TestStoreOnAFullDisk(t *testing.T) {
	disk, inside := kittest.SmallDisk(t, space.Reserve+48<<20)
	if !inside {
		return
	}
	room := space.Guard{Dir: disk}.Check
	var db *pebble.DB
	var outbox *events.Outbox
	start := func() *store.Store {
		t.Helper()
		var err error
		if db, err = pebble.Open(filepath.Join(disk, "jobs"), &pebble.Options{}); err != nil {
			t.Fatal(err)
		}
		if outbox, err = events.NewOutbox(db, "out/"); err != nil {
			t.Fatal(err)
		}
		outbox.KeepRoom(room)
		s := store.New(db, func(b *pebble.Batch, _ *scheduler.Event) error {
			return outbox.Append(b, eventtest.Event(event.TopicJob, 1))
		})
		s.KeepRoom(room)
		return s
	}
	s, ctx, others := start(), t.Context(), filepath.Join(disk, "others")
	change := func(n byte) scheduler.Change {
		j := schedulertest.NewJob(n, 1+int(n))
		return scheduler.Change{Job: j, Event: &scheduler.Event{Type: "job.submitted", Job: j}}
	}
	holds := func(drafts int, jobs ...byte) {
		t.Helper()
		for n := range byte(4) {
			_, err := s.Job(ctx, schedulertest.NewJob(n, 1+int(n)).ID)
			if want := n < byte(len(jobs)) && jobs[n] == 1; want != (err == nil) ||
				!want && !errors.Is(err, scheduler.ErrNotFound) {
				t.Errorf("job %d: %v", n, err)
			}
		}
		if p, err := outbox.Pending(ctx); err != nil || len(p.Drafts) != drafts {
			t.Errorf("%d events wait, %v, want %d", len(p.Drafts), err, drafts)
		}
	}
	if err := s.Save(ctx, change(0)); err != nil {
		t.Fatal(err)
	}
	kittest.Occupy(t, others)
	if err := s.Save(ctx, change(1)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a save on a full disk: %v", err)
	}
	if err := outbox.Seal(ctx, nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("signing on a full disk: %v", err)
	}
	holds(1, 1)
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(ctx, change(2)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	holds(2, 1, 0, 1)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = start()
	holds(2, 1, 0, 1)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
