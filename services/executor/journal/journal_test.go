package journal_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/united-containers/ucn/kit/event"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
	"github.com/united-containers/ucn/services/executor/journal"
)

func open(t *testing.T, dir string, fs vfs.FS) (*journal.Journal, *events.Outbox) {
	t.Helper()
	var outbox *events.Outbox
	j, err := journal.Open(dir, journal.Options{FS: fs},
		func(db *pebble.DB) (_ journal.Outbox, err error) {
			outbox, err = events.NewOutbox(db, "out/")
			return outbox, err
		})
	if err != nil {
		t.Fatal(err)
	}
	return j, outbox
}

func TestJournal(t *testing.T) {
	agenttest.TestJournal(t, func(t *testing.T) agenttest.Opener {
		dir := t.TempDir()
		return func(t *testing.T) (executor.Journal, func()) {
			j, _ := open(t, dir, nil)
			return j, func() {
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func attempt(n byte) executor.Record {
	return executor.Record{
		Ask:   executor.Ask{Attempt: executor.AttemptID([]byte{'a', 'a' + n})},
		Phase: executor.PhaseAsked, Asked: time.Unix(int64(n), 0),
	}
}

func changed(n byte) event.Event {
	return event.Event{
		Topic: event.TopicJob, Type: "attempt.changed", Time: time.Unix(1, 0), Payload: []byte{n},
	}
}

// TestPowerLoss cuts the power after each save: what was answered is there, record and event.
func TestPowerLoss(t *testing.T) {
	disk := vfs.NewCrashableMem()
	j, _ := open(t, "journal", disk)
	for n := range byte(5) {
		if err := j.Save(t.Context(), attempt(n), changed(n)); err != nil {
			t.Fatal(err)
		}
		after := disk.CrashClone(vfs.CrashCloneCfg{})
		again, outbox := open(t, "journal", after)
		records, err := again.Unclosed(t.Context())
		if err != nil || len(records) != int(n)+1 {
			t.Errorf("%d records after %d saves and a power loss, %v", len(records), n+1, err)
		}
		pending, err := outbox.Pending(t.Context())
		if err != nil || len(pending.Drafts) != int(n)+1 {
			t.Errorf("%d events after %d saves and a power loss, %v", len(pending.Drafts), n+1, err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// TestWordSurvivesPowerLoss: what the operator set is there with its event, or neither.
func TestWordSurvivesPowerLoss(t *testing.T) {
	disk := vfs.NewCrashableMem()
	j, _ := open(t, "journal", disk)
	told := event.Event{Topic: event.TopicOperator, Type: "policy.changed", Time: time.Unix(1, 0)}
	for n := uint64(1); n < 4; n++ {
		word := executor.HostState{Set: &executor.PolicySet{Version: n}}
		if err := j.SaveHost(t.Context(), word, told); err != nil {
			t.Fatal(err)
		}
		bad := told
		bad.Payload = make([]byte, event.MaxPayload+1)
		word.Set = &executor.PolicySet{Version: 99}
		if err := j.SaveHost(t.Context(), word, bad); !errors.Is(err, event.ErrOversized) {
			t.Errorf("SaveHost = %v, want ErrOversized", err)
		}
		again, outbox := open(t, "journal", disk.CrashClone(vfs.CrashCloneCfg{}))
		got, err := again.Host(t.Context())
		if err != nil || got.Set == nil || got.Set.Version != n {
			t.Errorf("after %d words and a power loss: %+v, %v", n, got.Set, err)
		}
		pending, err := outbox.Pending(t.Context())
		if err != nil || len(pending.Drafts) != int(n) {
			t.Errorf("%d events after %d words, %v", len(pending.Drafts), n, err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// TestRefusedEventSavesNothing gives up the record with its event.
func TestRefusedEventSavesNothing(t *testing.T) {
	j, _ := open(t, t.TempDir(), nil)
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	bad := changed(1)
	bad.Payload = make([]byte, event.MaxPayload+1)
	if err := j.Save(t.Context(), attempt(1), bad); !errors.Is(err, event.ErrOversized) {
		t.Errorf("Save = %v, want ErrOversized", err)
	}
	err := j.SaveBoth(t.Context(), attempt(1), attempt(2), changed(1), bad)
	if !errors.Is(err, event.ErrOversized) {
		t.Errorf("SaveBoth = %v, want ErrOversized", err)
	}
	if _, err := j.Get(t.Context(), attempt(1).Ask.Attempt); !errors.Is(err, executor.ErrNoAttempt) {
		t.Errorf("the record of a refused event: %v", err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, nil)
	if _, err := journal.Open(dir, journal.Options{}, nil); err == nil {
		t.Error("two processes hold one journal")
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// TestPagesAreBounded: many long records do not come at once, and all of them come.
func TestPagesAreBounded(t *testing.T) {
	j, _ := open(t, t.TempDir(), nil)
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	const many, long = 9, 1 << 20
	for n := range byte(many) {
		r := attempt(n)
		r.Phase, r.Held = executor.PhaseClosed, true
		r.Ask.Spec.Args = []string{strings.Repeat("x", long)}
		if err := j.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	var last executor.Record
	for what, next := range map[string]func() ([]executor.Record, error){
		"list": func() ([]executor.Record, error) { return j.List(t.Context(), last.Asked, 1000) },
		"held": func() ([]executor.Record, error) {
			return j.Held(t.Context(), last.Ask.Attempt, 1000)
		},
	} {
		found := map[executor.AttemptID]bool{}
		last = executor.Record{}
		for {
			page, err := next()
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			if len(page) > 5 {
				t.Errorf("%s: a page of %d MiB", what, len(page))
			}
			for _, last = range page {
				found[last.Ask.Attempt] = true
			}
		}
		if len(found) != many {
			t.Errorf("%s: %d of %d came", what, len(found), many)
		}
	}
}
