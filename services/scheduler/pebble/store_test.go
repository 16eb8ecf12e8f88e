package pebble_test

import (
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/united-containers/ucn/services/scheduler"
	store "github.com/united-containers/ucn/services/scheduler/pebble"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

func open(t *testing.T, fs vfs.FS) *pebble.DB {
	t.Helper()
	db, err := pebble.Open("db", &pebble.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestStore(t *testing.T) {
	schedulertest.TestStore(t, func(t *testing.T) scheduler.Store {
		db := open(t, vfs.NewMem())
		t.Cleanup(func() { db.Close() })
		return store.New(db, nil)
	})
}

func TestSaveOutlivesPowerLoss(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewCrashableMem()
	db := open(t, fs)
	j := schedulertest.NewJob(1, 1)
	if err := store.New(db, nil).Save(ctx, scheduler.Change{Job: j}); err != nil {
		t.Fatal(err)
	}
	lost := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, lost)
	defer db.Close()
	if _, err := store.New(db, nil).Job(ctx, j.ID); err != nil {
		t.Errorf("after power loss: %v, want the job that was saved", err)
	}
}

func TestNoEventNoChange(t *testing.T) {
	ctx := context.Background()
	db := open(t, vfs.NewMem())
	defer db.Close()
	full := errors.New("outbox is full")
	s := store.New(db, func(*pebble.Batch, *scheduler.Event) error { return full })
	j := schedulertest.NewJob(1, 1)
	change := scheduler.Change{Job: j, Event: &scheduler.Event{Type: "job.submitted", Job: j}}
	if err := s.Save(ctx, change); !errors.Is(err, full) {
		t.Fatalf("Save = %v, want the outbox's error", err)
	}
	if _, err := s.Job(ctx, j.ID); !errors.Is(err, scheduler.ErrNotFound) {
		t.Errorf("job after a failed save: %v, want ErrNotFound", err)
	}
}

func TestNoRoomNoWrite(t *testing.T) {
	ctx := context.Background()
	db := open(t, vfs.NewMem())
	defer db.Close()
	full := errors.New("no room")
	s := store.New(db, nil)
	s.KeepRoom(func() error { return full })
	j := schedulertest.NewJob(1, 1)
	if err := s.Save(ctx, scheduler.Change{Job: j}); !errors.Is(err, full) {
		t.Fatalf("Save = %v, want the guard's error", err)
	}
	if _, err := s.Job(ctx, j.ID); !errors.Is(err, scheduler.ErrNotFound) {
		t.Errorf("job after a refused save: %v, want ErrNotFound", err)
	}
}
