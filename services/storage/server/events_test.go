package server_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/event/memory"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/server"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// speaker says things as a storage service does.
type speaker struct {
	eventtest.Instance
	history *memory.Store
	head    event.Head
}

func (s *speaker) say(t *testing.T, a storage.Account, c cid.CID, what storage.What) {
	t.Helper()
	e, err := server.EventOf(storage.Event{
		Time: time.Now(), What: what, Account: a, File: keyOf(a).Blind(c),
	}, eventtest.Chain)
	if err != nil {
		t.Fatal(err)
	}
	s.seal(t, e)
}

// sayMany says that several references ended in one write.
func (s *speaker) sayMany(t *testing.T, a storage.Account, cs ...cid.CID) {
	t.Helper()
	told := storage.Event{Time: time.Now(), What: storage.RefRemoved, Account: a}
	for _, c := range cs {
		told.Files = append(told.Files, keyOf(a).Blind(c))
	}
	e, err := server.EventOf(told, eventtest.Chain)
	if err != nil {
		t.Fatal(err)
	}
	s.seal(t, e)
}

func (s *speaker) seal(t *testing.T, e event.Event) {
	t.Helper()
	signed := s.Sign(t, e, s.head)
	if err := s.history.Seal(t.Context(), []event.Sealed{{Envelope: signed}}); err != nil {
		t.Fatal(err)
	}
	s.head = event.Head{Epoch: signed.Body.Epoch, Seq: signed.Body.Seq, Hash: signed.Hash}
}

func keyOf(a storage.Account) cid.BlindKey { return cid.BlindKey{7}.Of(a[:]) }

func speaking(t *testing.T) (*speaker, rig) {
	t.Helper()
	s := &speaker{Instance: eventtest.NewOperator(1).Instance(t, "storage"), history: memory.New()}
	r := newRigWith(t, server.Config{}, func(d *server.Deps) {
		d.Told = &server.Told{History: s.history, Key: keyOf, Certificate: s.Certificate}
		d.Operator = storagetest.Bob()
	})
	return s, r
}

// said reads all pages and returns what each event tells, in order.
func said(t *testing.T, r rig, who string, m *storagev1.ListEventsRequest) (what []storagev1.What) {
	t.Helper()
	for range 100 {
		page, err := r.client.ListEvents(as(t, who, "file"), m)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range page.GetEnvelopes() {
			e, err := event.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			change := &storagev1.FileChange{}
			if e.Type() == server.TypeFileChanged {
				if err := e.Payload(change); err != nil {
					t.Error(err)
				}
			}
			what = append(what, change.GetWhat())
		}
		m.PageToken = page.GetNextPageToken()
		if page.GetDone() {
			return what
		}
	}
	t.Fatal("the pages never end")
	return nil
}

// TestEventsOfAnAccount: everybody is shown their own, the operator all, and the last token goes on
// where what is said later begins.
func TestEventsOfAnAccount(t *testing.T) {
	s, r := speaking(t)
	one, two, three := cid.OfFile([32]byte{1}), cid.OfFile([32]byte{2}), cid.OfFile([32]byte{3})
	const (
		kept    = storagev1.What_WHAT_KEPT
		removed = storagev1.What_WHAT_REMOVED
		expired = storagev1.What_WHAT_EXPIRED
	)
	s.say(t, storagetest.Alice(), one, storage.RefKept)
	s.say(t, storagetest.Bob(), one, storage.RefKept)
	s.say(t, storagetest.Alice(), two, storage.RefKept)
	s.say(t, storagetest.Alice(), one, storage.RefRemoved)
	s.sayMany(t, storagetest.Alice(), two, three)
	e := eventtest.Event(server.TopicFiles, 1)
	e.Time = time.Now()
	s.seal(t, e)
	own := &storagev1.ListEventsRequest{}
	for _, c := range []struct {
		name, who string
		ask       *storagev1.ListEventsRequest
		want      []storagev1.What
	}{
		{"own", "alice", own, []storagev1.What{kept, kept, removed, removed}},
		{"of one file", "alice", &storagev1.ListEventsRequest{Cid: one.String()},
			[]storagev1.What{kept, removed}},
		{"of a file that went with another", "alice",
			&storagev1.ListEventsRequest{Cid: three.String()}, []storagev1.What{removed}},
		{"of a file that is another's", "bob", &storagev1.ListEventsRequest{Cid: two.String()}, nil},
		{"all", "bob", &storagev1.ListEventsRequest{All: true},
			[]storagev1.What{kept, kept, kept, removed, removed, 0}},
	} {
		if d := cmp.Diff(c.want, said(t, r, c.who, c.ask)); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, d)
		}
	}
	s.head.Epoch, s.head.Seq = 3, 0 // restored twice, and nothing said in between
	s.say(t, storagetest.Alice(), two, storage.RefExpired)
	if d := cmp.Diff([]storagev1.What{expired}, said(t, r, "alice", own)); d != "" {
		t.Errorf("said later (-want +got)\n%s", d)
	}
}

// TestEventsThatAreNotKeptAreMissed: a page tells of what was said before it and is gone,
// and of the oldest that is kept.
func TestEventsThatAreNotKeptAreMissed(t *testing.T) {
	s, r := speaking(t)
	list := func(token string) *storagev1.ListEventsResponse {
		page, err := r.client.ListEvents(alice(t), &storagev1.ListEventsRequest{PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	tells := func(name string, m *storagev1.ListEventsResponse, epoch, seq uint64, gap bool) {
		t.Helper()
		if m.GetOldestEpoch() != epoch || m.GetOldestSeq() != seq || m.GetGap() != gap {
			t.Errorf("%s: the oldest is %d of epoch %d, gap %t", name, m.GetOldestSeq(),
				m.GetOldestEpoch(), m.GetGap())
		}
	}
	before := list("")
	tells("nothing said", before, 0, 0, false)
	s.head = event.Head{Epoch: 1, Seq: 100} // what was said before is not kept
	s.say(t, storagetest.Alice(), cid.OfFile([32]byte{1}), storage.RefKept)
	tells("from the beginning", list(""), 1, 101, true)
	later := list(before.GetNextPageToken())
	tells("from where events were said later", later, 1, 101, true)
	tells("the end", list(later.GetNextPageToken()), 1, 101, false)
	s.say(t, storagetest.Bob(), cid.OfFile([32]byte{1}), storage.RefKept)
	tells("without a gap", list(later.GetNextPageToken()), 1, 101, false)

	s, r = speaking(t)
	s.say(t, storagetest.Alice(), cid.OfFile([32]byte{1}), storage.RefKept)
	tells("whole", list(""), 1, 1, false)
}

func TestEventsAreRefused(t *testing.T) {
	s, r := speaking(t)
	s.say(t, storagetest.Alice(), cid.OfFile([32]byte{1}), storage.RefKept)
	page, err := r.client.ListEvents(alice(t), &storagev1.ListEventsRequest{})
	if err != nil || len(page.GetKey()) != 32 {
		t.Fatal(page, err)
	}
	ask := func(who string, m *storagev1.ListEventsRequest) error {
		_, err := r.client.ListEvents(as(t, who, "file"), m)
		return err
	}
	silent := newRig(t, server.Config{})
	_, told := silent.client.ListEvents(alice(t), &storagev1.ListEventsRequest{})
	token := page.GetNextPageToken()
	check(t, []refusal{
		{"all", ask("alice", &storagev1.ListEventsRequest{All: true}), storage.ReasonNotOperator,
			fault.PermissionDenied},
		{"all of a file", ask("bob", &storagev1.ListEventsRequest{All: true, Cid: anyFile()}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"no CID", ask("alice", &storagev1.ListEventsRequest{Cid: "x"}), storage.ReasonBad,
			fault.InvalidArgument},
		{"a token of another query", ask("alice", &storagev1.ListEventsRequest{Cid: anyFile(),
			PageToken: token}), storage.ReasonBadRequest, fault.InvalidArgument},
		{"a cut token", ask("alice", &storagev1.ListEventsRequest{PageToken: token[1:]}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"a service that is silent", told, storage.ReasonSilent, fault.FailedPrecondition},
	})
	if _, err := r.client.ListEvents(as(t, "alice", "file:read:"+anyFile()),
		&storagev1.ListEventsRequest{}); !errors.Is(err, storage.ReasonForbidden) {
		t.Errorf("with a token for one file: %v", err)
	}
}
