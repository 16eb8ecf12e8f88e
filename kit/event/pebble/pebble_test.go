package pebble_test

import (
	"strings"
	"testing"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/event/pebble"
)

// open opens a database whose disk forgets, when it is reopened, whatever was not synced.
func open(t *testing.T, disk *vfs.MemFS) eventtest.Store[*db.Batch] {
	t.Helper()
	database, err := db.Open("db", &db.Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	outbox, err := pebble.NewOutbox(database, "events/")
	if err != nil {
		t.Fatal(err)
	}
	cursors, err := pebble.NewCursors(database, "cursors/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return eventtest.Store[*db.Batch]{
		Outbox: outbox, Queue: outbox, History: outbox, Cursors: cursors,
		Reopen: func(t *testing.T) eventtest.Store[*db.Batch] {
			return open(t, disk.CrashClone(vfs.CrashCloneCfg{}))
		},
	}
}

func TestContract(t *testing.T) {
	eventtest.Run(t, func(t *testing.T) eventtest.Store[*db.Batch] {
		return open(t, vfs.NewCrashableMem())
	})
}

func TestNeighboursAreLeftAlone(t *testing.T) {
	database, err := db.Open("db", &db.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	for _, key := range []string{"a", "events", "events.", "events0", "z"} {
		if err := database.Set([]byte(key), []byte("mine"), db.Sync); err != nil {
			t.Fatal(err)
		}
	}
	one, err := pebble.NewOutbox(database, "events/1/")
	if err != nil {
		t.Fatal(err)
	}
	two, err := pebble.NewOutbox(database, "events/2/")
	if err != nil {
		t.Fatal(err)
	}
	batch := database.NewBatch()
	if err := one.Append(batch, eventtest.Event(event.TopicJob, 1)); err != nil {
		t.Fatal(err)
	}
	if err := batch.Commit(db.Sync); err != nil {
		t.Fatal(err)
	}
	p, err := two.Pending(t.Context())
	if err != nil || len(p.Drafts) != 0 {
		t.Errorf("the neighbour sees %v, %v", p, err)
	}
	if p, err = one.Pending(t.Context()); err != nil || len(p.Drafts) != 1 {
		t.Errorf("the outbox sees %v, %v", p, err)
	}
}

func TestPrefixBounds(t *testing.T) {
	for _, prefix := range []string{"", strings.Repeat("x", pebble.MaxPrefix+1)} {
		if _, err := pebble.NewOutbox(nil, prefix); err == nil {
			t.Errorf("outbox with a prefix of %d bytes", len(prefix))
		}
		if _, err := pebble.NewCursors(nil, prefix, nil); err == nil {
			t.Errorf("cursors with a prefix of %d bytes", len(prefix))
		}
	}
}

// TestAnOutboxKeepsWhatItsOwnerWants: the oldest envelopes go, no sooner and no later.
func TestAnOutboxKeepsWhatItsOwnerWants(t *testing.T) {
	outbox := open(t, vfs.NewCrashableMem()).Outbox.(*pebble.Outbox)
	outbox.KeepLast(3)
	signer := eventtest.NewOperator(1).Instance(t, "storage")
	head := event.Head{}
	for seq := uint64(1); seq <= 6; seq++ {
		signed := signer.Sign(t, eventtest.Event(event.TopicJob, int(seq)), head)
		if err := outbox.Seal(t.Context(), []event.Sealed{{Envelope: signed}}); err != nil {
			t.Fatal(err)
		}
		head = event.Head{Epoch: signed.Body.Epoch, Seq: signed.Body.Seq, Hash: signed.Hash}
		oldest, _, err := outbox.Range(t.Context(), event.TopicJob, head.Epoch)
		if want := max(seq, 3) - 2; err != nil || oldest != want {
			t.Errorf("after %d: the oldest is %d, want %d; %v", seq, oldest, want, err)
		}
	}
}
