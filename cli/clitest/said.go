package clitest

import (
	"context"
	"sync"
	"testing"

	"github.com/united-containers/ucn/kit/event"
)

// said is what the one executor said. It keeps all of it.
type said struct {
	mu   sync.Mutex // guards all
	all  []*event.Envelope
	lies int // envelopes that claim to follow another
}

var _ event.History = (*said)(nil)

// Say lets the executor say something, in order.
func (n *Network) Say(t testing.TB, events ...event.Event) {
	t.Helper()
	n.said.mu.Lock()
	defer n.said.mu.Unlock()
	signer, err := event.NewSigner(n.executor.Key, n.executor.Certificate, n.executor.Service)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		head := event.Head{}
		for _, one := range n.said.all {
			if one.Body.Topic == string(e.Topic) {
				head = event.Head{Epoch: one.Body.Epoch, Seq: one.Body.Seq, Hash: one.Hash}
			}
		}
		if n.said.lies > 0 && head.Seq > 0 {
			n.said.lies--
			head.Hash[0]++
		}
		signed, err := signer.Sign(e, head)
		if err != nil {
			t.Fatal(err)
		}
		n.said.all = append(n.said.all, signed)
	}
}

// Lie makes the next n events that follow one claim to follow another.
func (n *Network) Lie(events int) {
	n.said.mu.Lock()
	defer n.said.mu.Unlock()
	n.said.lies = events
}

// Kept implements event.History.
func (s *said) Kept(
	_ context.Context, topic event.Topic, behind event.Head,
) (kept [][]byte, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.all {
		if e.Body.Topic == string(topic) && e.Body.Epoch == behind.Epoch && e.Body.Seq > behind.Seq &&
			len(kept) < 10 { // so that there are pages
			kept = append(kept, e.Raw)
		}
	}
	return kept, nil
}

// Range implements event.History.
func (s *said) Range(
	_ context.Context, topic event.Topic, epoch uint64,
) (oldest uint64, newest event.Head, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.all {
		if e.Body.Topic != string(topic) {
			continue
		}
		newest = event.Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash}
		if oldest == 0 && newest.Epoch == epoch {
			oldest = newest.Seq
		}
	}
	return oldest, newest, nil
}
