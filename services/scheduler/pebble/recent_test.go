package pebble

import (
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// TestOldReadNotHeld: what was read before a write is not held after it.
func TestOldReadNotHeld(t *testing.T) {
	var r recent
	j := schedulertest.NewJob(1, 1)
	old := holdOf(j, j.Submitted, 1, 100)
	_, stamp, _ := r.get(j.ID)
	r.put(holdOf(j, j.Submitted, 2, 100))
	r.fill(old, stamp)
	if h, _, ok := r.get(j.ID); !ok || h.revision != 2 {
		t.Errorf("holds revision %d (%t), want the one that was written", h.revision, ok)
	}
	_, stamp, _ = r.get(j.ID)
	r.drop(j.ID)
	r.fill(old, stamp)
	if _, _, ok := r.get(j.ID); ok {
		t.Error("holds a read from before a write whose end is not known")
	}
}

// TestRecentIsBounded: however much is put, only the newest stay.
func TestRecentIsBounded(t *testing.T) {
	var r recent
	const each = maxRecent / 64
	for n := range 1000 {
		r.put(holdOf(schedulertest.NewJob(1, n), schedulertest.Start(), 1, each/heldPerByte))
	}
	if n := len(r.young) + len(r.old); n > 2*66 {
		t.Errorf("holds %d jobs of %d bytes, more than two generations of %d", n, each, maxRecent)
	}
	if _, _, ok := r.get(schedulertest.NewJob(1, 999).ID); !ok {
		t.Error("the newest job is not held")
	}
}

// TestNotHeldWhenNotWritten: a write that failed leaves nothing in memory that is not on disk.
func TestNotHeldWhenNotWritten(t *testing.T) {
	ctx := context.Background()
	full := errors.New("no space left")
	db, err := pebble.Open("db", &pebble.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := New(db, nil)
	j := schedulertest.NewJob(1, 1)
	if err := s.Save(ctx, scheduler.Change{Job: j}); err != nil {
		t.Fatal(err)
	}
	s.append = func(*pebble.Batch, *scheduler.Event) error { return full }
	changed := j.Clone()
	changed.Current().Reason = "changed"
	err = s.Save(ctx, scheduler.Change{Job: changed, Event: &scheduler.Event{Job: changed}})
	if !errors.Is(err, full) {
		t.Fatalf("Save = %v, want the outbox's error", err)
	}
	if got, err := s.Job(ctx, j.ID); err != nil || got.Current().Reason != "" {
		t.Errorf("reads %+v, %v, want what is on disk", got, err)
	}
}
