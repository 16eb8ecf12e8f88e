package journal_test

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
	"github.com/united-containers/ucn/services/executor/journal"
)

// openGuarded opens a journal as an executor does: it and its outbox look at the free space.
func openGuarded(dir string) (*journal.Journal, *events.Outbox, error) {
	room := space.Guard{Dir: filepath.Dir(dir)}.Check
	var outbox *events.Outbox
	j, err := journal.Open(dir, journal.Options{Room: room},
		func(db *pebble.DB) (_ journal.Outbox, err error) {
			if outbox, err = events.NewOutbox(db, "out/"); err == nil {
				outbox.KeepRoom(room)
			}
			return outbox, err
		})
	return j, outbox, err
}

// TestJournalOnAFullDisk: on a disk that others filled to its last byte nothing is written and
// nothing ends the process: saves, events and the signing of those that wait are refused with
// ENOSPC, reads go on. With room again all goes on in the same process, with what was acknowledged
// and nothing else; a start on the full disk is refused, and one after it finds the same.
func TestJournalOnAFullDisk(t *testing.T) {
	disk, inside := kittest.SmallDisk(t, space.Reserve+48<<20)
	if !inside {
		return
	}
	dir, others := filepath.Join(disk, "journal"), filepath.Join(disk, "others")
	j, outbox, err := openGuarded(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, signer := t.Context(), eventtest.NewOperator(1).Instance(t, "executor").Signer
	for n := range byte(3) {
		if err := j.Save(ctx, attempt(n), changed(n)); err != nil {
			t.Fatal(err)
		}
	}
	seal := func() error {
		pending, err := outbox.Pending(ctx)
		if err != nil {
			return err
		}
		head, sealed := pending.Heads[event.TopicJob], []event.Sealed{}
		for _, d := range pending.Drafts {
			e, err := signer.Sign(d.Event, head)
			if err != nil {
				return err
			}
			head = event.Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash}
			sealed = append(sealed, event.Sealed{Draft: d.Position, Envelope: e})
		}
		return outbox.Seal(ctx, sealed)
	}
	kittest.Occupy(t, others)
	for name, err := range map[string]error{
		"save": j.Save(ctx, attempt(9), changed(9)), "publish": j.Publish(ctx, changed(8)),
		"seal": seal(), "sent": outbox.Sent(ctx, 1),
	} {
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s on a full disk: %v", name, err)
		}
	}
	holds := func(records, drafts int) {
		t.Helper()
		all, err := j.Unclosed(ctx)
		pending, asked := outbox.Pending(ctx)
		if err != nil || asked != nil || len(all) != records || len(pending.Drafts) != drafts {
			t.Errorf("%d records, %v, %d events wait, %v; want %d and %d", len(all), err,
				len(pending.Drafts), asked, records, drafts)
		}
	}
	holds(3, 3)
	makeRoom := func() {
		t.Helper()
		if err := os.Remove(others); err != nil {
			t.Fatal(err)
		}
	}
	makeRoom()
	if err := errors.Join(j.Save(ctx, attempt(3), changed(3)), seal(),
		outbox.Sent(ctx, 4)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	holds(4, 0)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	kittest.Occupy(t, others)
	if _, _, err := openGuarded(dir); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a start on a full disk: %v", err)
	}
	makeRoom()
	if j, outbox, err = openGuarded(dir); err != nil {
		t.Fatal(err)
	}
	holds(4, 0)
	if kept, err := outbox.Kept(ctx, event.TopicJob, event.Head{Epoch: 1}); err != nil ||
		len(kept) != 4 {
		t.Errorf("%d events are kept, %v", len(kept), err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
