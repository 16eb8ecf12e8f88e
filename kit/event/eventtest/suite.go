// Package eventtest holds the contract suite of outboxes and cursors, and builders of identities
// and envelopes for tests.
package eventtest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/event"
)

// Store is one store under test.
type Store[Tx any] struct {
	Outbox  event.Outbox[Tx]
	Queue   event.Queue
	History event.History
	Cursors event.Cursors[Tx] // its Transact serves for Outbox too
	// Reopen returns the store as it is after the process was killed and started again. The old
	// one is not used any more.
	Reopen func(t *testing.T) Store[Tx]
}

// Run checks everything that the contracts of event.Outbox, Queue, History and Cursors promise.
// open returns an empty store.
func Run[Tx any](t *testing.T, open func(t *testing.T) Store[Tx]) {
	t.Run("commit", func(t *testing.T) { testCommit(t, open(t)) })
	t.Run("abort", func(t *testing.T) { testAbort(t, open(t)) })
	t.Run("invalid", func(t *testing.T) { testInvalid(t, open(t)) })
	t.Run("seal", func(t *testing.T) { testSeal(t, open(t)) })
	t.Run("late commit", func(t *testing.T) { testLateCommit(t, open(t)) })
	t.Run("bounds", func(t *testing.T) { testBounds(t, open(t)) })
	t.Run("parallel", func(t *testing.T) { testParallel(t, open(t)) })
	t.Run("history", func(t *testing.T) { testHistory(t, open(t)) })
	t.Run("cursors", func(t *testing.T) { testCursors(t, open(t)) })
}

// Event returns a small event whose payload tells n.
func Event(topic event.Topic, n int) event.Event {
	return event.Event{
		Topic: topic, Type: "attempt.changed", Time: time.UnixMilli(int64(1000 + n)),
		Payload: fmt.Appendf(nil, "%d", n), Chain: "main",
	}
}

func appendAll[Tx any](t *testing.T, s Store[Tx], events ...event.Event) {
	t.Helper()
	err := s.Cursors.Transact(t.Context(), func(tx Tx) error {
		for _, e := range events {
			if err := s.Outbox.Append(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func pending[Tx any](t *testing.T, s Store[Tx]) event.Pending {
	t.Helper()
	p, err := s.Queue.Pending(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sealAll signs every draft and returns the envelopes.
func sealAll[Tx any](t *testing.T, s Store[Tx], signer *event.Signer) []*event.Envelope {
	t.Helper()
	p := pending(t, s)
	var sealed []event.Sealed
	var out []*event.Envelope
	for _, d := range p.Drafts {
		e, err := signer.Sign(d.Event, p.Heads[d.Event.Topic])
		if err != nil {
			t.Fatal(err)
		}
		p.Heads[d.Event.Topic] = event.Head{
			Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash,
		}
		sealed = append(sealed, event.Sealed{Draft: d.Position, Envelope: e})
		out = append(out, e)
	}
	if err := s.Queue.Seal(t.Context(), sealed); err != nil {
		t.Fatal(err)
	}
	return out
}

func draftEvents(p event.Pending) []event.Event {
	var events []event.Event
	for _, d := range p.Drafts {
		events = append(events, d.Event)
	}
	return events
}

func unsentBytes(p event.Pending) []string {
	var raws []string
	for _, u := range p.Unsent {
		raws = append(raws, string(u.Raw))
	}
	return raws
}

func rawOf(envelopes []*event.Envelope) []string {
	var raws []string
	for _, e := range envelopes {
		raws = append(raws, string(e.Raw))
	}
	return raws
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got)\n%s", what, d)
	}
}

func testCommit[Tx any](t *testing.T, s Store[Tx]) {
	want := []event.Event{
		Event(event.TopicJob, 1), Event(event.TopicMarket, 2), Event(event.TopicJob, 3),
	}
	appendAll(t, s, want[:2]...)
	<-s.Queue.Changed()
	appendAll(t, s, want[2])
	same(t, "drafts", want, draftEvents(pending(t, s)))
	s = s.Reopen(t)
	same(t, "drafts after a restart", want, draftEvents(pending(t, s)))
	appendAll(t, s, Event(event.TopicJob, 4))
	same(t, "drafts after another", append(want, Event(event.TopicJob, 4)),
		draftEvents(pending(t, s)))
}

func testAbort[Tx any](t *testing.T, s Store[Tx]) {
	stop := errors.New("stop")
	err := s.Cursors.Transact(t.Context(), func(tx Tx) error {
		return errors.Join(s.Outbox.Append(tx, Event(event.TopicJob, 1)), stop,
			s.Cursors.SetCursor(tx, event.Line{Topic: event.TopicJob}, event.Cursor{}))
	})
	if !errors.Is(err, stop) {
		t.Errorf("error %v, want the function's own", err)
	}
	if p := pending(t, s); len(p.Drafts) != 0 {
		t.Errorf("an aborted transaction said %v", p.Drafts)
	}
}

func testInvalid[Tx any](t *testing.T, s Store[Tx]) {
	bad := Event("weather", 1)
	big := Event(event.TopicJob, 1)
	big.Payload = make([]byte, event.MaxPayload+1)
	for _, c := range []struct {
		e    event.Event
		want error
	}{{bad, event.ErrMalformed}, {big, event.ErrOversized}} {
		err := s.Cursors.Transact(t.Context(), func(tx Tx) error {
			return s.Outbox.Append(tx, c.e)
		})
		if !errors.Is(err, c.want) {
			t.Errorf("error %v, want %v", err, c.want)
		}
	}
}

func testSeal[Tx any](t *testing.T, s Store[Tx]) {
	signer := NewOperator(1).Instance(t, "executor").Signer
	appendAll(t, s, Event(event.TopicJob, 1), Event(event.TopicMoney, 2), Event(event.TopicJob, 3))
	first := sealAll(t, s, signer)
	s = s.Reopen(t)
	p := pending(t, s)
	same(t, "drafts", 0, len(p.Drafts))
	same(t, "unsent", rawOf(first), unsentBytes(p))
	same(t, "head", event.Head{Epoch: 1, Seq: 2, Hash: first[2].Hash}, p.Heads[event.TopicJob])
	if err := s.Queue.Sent(t.Context(), p.Unsent[1].Position); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, Event(event.TopicJob, 4))
	second := sealAll(t, s, signer)
	same(t, "unsent after some were sent", rawOf([]*event.Envelope{first[2], second[0]}),
		unsentBytes(pending(t, s)))
	s = s.Reopen(t)
	p = pending(t, s)
	if err := s.Queue.Sent(t.Context(), p.Unsent[len(p.Unsent)-1].Position); err != nil {
		t.Fatal(err)
	}
	s = s.Reopen(t)
	free, err := signer.Sign(Event(event.TopicJob, 5), pending(t, s).Heads[event.TopicJob])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Queue.Seal(t.Context(), []event.Sealed{{Envelope: free}}); err != nil {
		t.Fatal(err)
	}
	p = pending(t, s)
	same(t, "an envelope without draft", string(free.Raw), unsentBytes(p)[len(p.Unsent)-1])
}

// testLateCommit: a transaction that appended first and commits last is neither lost nor does its
// envelope overtake those signed before it.
func testLateCommit[Tx any](t *testing.T, s Store[Tx]) {
	signer := NewOperator(1).Instance(t, "executor").Signer
	appended, commit := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.Cursors.Transact(t.Context(), func(tx Tx) error {
			err := s.Outbox.Append(tx, Event(event.TopicJob, 1))
			close(appended)
			<-commit
			return err
		})
	}()
	<-appended
	appendAll(t, s, Event(event.TopicJob, 2))
	early := sealAll(t, s, signer)
	close(commit)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	late := sealAll(t, s, signer)
	same(t, "unsent", rawOf(append(early, late...)), unsentBytes(pending(t, s)))
	same(t, "seq of the late one", uint64(2), late[0].Body.Seq)
}

func testBounds[Tx any](t *testing.T, s Store[Tx]) {
	var events []event.Event
	for i := range event.MaxPending + 1 {
		events = append(events, Event(event.TopicJob, i))
	}
	appendAll(t, s, events...)
	same(t, "drafts at once", events[:event.MaxPending], draftEvents(pending(t, s)))
	sealAll(t, s, NewOperator(1).Instance(t, "executor").Signer)
	same(t, "drafts left", events[event.MaxPending:], draftEvents(pending(t, s)))
	same(t, "unsent at once", event.MaxPending, len(pending(t, s).Unsent))
}

func testParallel[Tx any](t *testing.T, s Store[Tx]) {
	const writers, each = 8, 20
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				err := s.Cursors.Transact(t.Context(), func(tx Tx) error {
					return s.Outbox.Append(tx, Event(event.TopicJob, w*each+i))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	next := map[int]int{}
	for _, e := range draftEvents(pending(t, s)) {
		n := int(e.Time.UnixMilli()) - 1000
		if n%each != next[n/each] {
			t.Fatalf("writer %d: event %d came out of order", n/each, n%each)
		}
		next[n/each]++
	}
	same(t, "writers", writers, len(next))
	same(t, "events of writer 0", each, next[0])
}

func testHistory[Tx any](t *testing.T, s Store[Tx]) {
	appendAll(t, s, Event(event.TopicJob, 1), Event(event.TopicMoney, 2),
		Event(event.TopicJob, 3), Event(event.TopicJob, 4))
	all := sealAll(t, s, NewOperator(1).Instance(t, "executor").Signer)
	p := pending(t, s)
	if err := s.Queue.Sent(t.Context(), p.Unsent[len(p.Unsent)-1].Position); err != nil {
		t.Fatal(err)
	}
	s = s.Reopen(t)
	for _, c := range []struct {
		behind event.Head
		want   []string
	}{
		{event.Head{Epoch: 1}, rawOf([]*event.Envelope{all[0], all[2], all[3]})},
		{event.Head{Epoch: 1, Seq: 2}, rawOf(all[3:])},
		{event.Head{Epoch: 1, Seq: 3}, nil},
		{event.Head{Epoch: 2}, nil},
	} {
		kept, err := s.History.Kept(t.Context(), event.TopicJob, c.behind)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, raw := range kept {
			got = append(got, string(raw))
		}
		same(t, fmt.Sprintf("behind %d of epoch %d", c.behind.Seq, c.behind.Epoch), c.want, got)
	}
	oldest, newest, err := s.History.Range(t.Context(), event.TopicJob, 1)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "oldest", uint64(1), oldest)
	same(t, "newest", event.Head{Epoch: 1, Seq: 3, Hash: all[3].Hash}, newest)
	if oldest, _, err = s.History.Range(t.Context(), event.TopicJob, 2); err != nil || oldest != 0 {
		t.Errorf("oldest of an epoch without events: %d, %v", oldest, err)
	}
}

func testCursors[Tx any](t *testing.T, s Store[Tx]) {
	a := event.Line{Instance: [32]byte{1}, Topic: event.TopicJob}
	b := event.Line{Instance: [32]byte{1}, Topic: event.TopicMoney}
	at := event.Cursor{Head: event.Head{Epoch: 2, Seq: 9, Hash: [32]byte{3}}, Last: []byte("raw")}
	set := func(line event.Line, c event.Cursor) {
		t.Helper()
		err := s.Cursors.Transact(t.Context(), func(tx Tx) error {
			return s.Cursors.SetCursor(tx, line, c)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(line event.Line) event.Cursor {
		t.Helper()
		c, err := s.Cursors.Cursor(t.Context(), line)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	same(t, "new line", event.Cursor{}, read(a))
	set(a, event.Cursor{Head: event.Head{Epoch: 1, Seq: 1}, Last: []byte("old")})
	set(a, at)
	same(t, "cursor", at, read(a))
	same(t, "other topic", event.Cursor{}, read(b))
	s = s.Reopen(t)
	same(t, "cursor after a restart", at, read(a))
	forked := at
	forked.Fork = []byte("proof")
	set(a, forked)
	s = s.Reopen(t)
	same(t, "cursor of a forked line", forked, read(a))
	set(a, at)
	same(t, "cursor of a line that was opened again", at, read(a))
	same(t, "drafts", 0, len(pending(t, s).Drafts))
}
