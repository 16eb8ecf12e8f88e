// Package memory is an outbox and a set of cursors in memory, complete but for durability: what a
// test, or a service without a disk, uses in place of a store. A hook makes any step fail before
// it took effect, or after.
package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/united-containers/ucn/kit/event"
)

// ErrInjected is what a step fails with when the hook says so.
var ErrInjected = errors.New("injected failure")

// Step names what can fail.
type Step string

// The steps.
const (
	StepAppend  Step = "append"
	StepPending Step = "pending"
	StepSeal    Step = "seal"
	StepSent    Step = "sent"
	StepCursor  Step = "cursor"
	StepCommit  Step = "commit"
)

// Outcome is what the hook wants to happen at a step.
type Outcome int

// The outcomes.
const (
	Succeed    Outcome = iota
	FailBefore         // nothing happens and the step fails
	FailAfter          // it happens, is durable, and the step fails all the same
)

// Tx is a transaction: what is done to it happens at commit, or never.
type Tx struct{ writes []func() }

// Do adds an effect of the caller's own. It must not call the Store.
func (tx *Tx) Do(effect func()) { tx.writes = append(tx.writes, effect) }

// Store is an outbox and cursors. Make it with New. It is safe for concurrent use.
type Store struct {
	mu       sync.Mutex // guards what follows
	hook     func(Step) Outcome
	position uint64
	sent     uint64 // position of the last envelope handed to unsent
	drafts   []event.Draft
	unsent   []event.Unsent
	kept     map[event.Topic][]*event.Envelope
	cursors  map[event.Line]event.Cursor
	changed  chan struct{}
}

var (
	_ event.Outbox[*Tx]  = (*Store)(nil)
	_ event.Queue        = (*Store)(nil)
	_ event.History      = (*Store)(nil)
	_ event.Cursors[*Tx] = (*Store)(nil)
)

// New returns an empty store.
func New() *Store {
	return &Store{
		kept:    map[event.Topic][]*event.Envelope{},
		cursors: map[event.Line]event.Cursor{}, changed: make(chan struct{}, 1),
	}
}

// SetHook makes hook decide every step from now on; nil lets all succeed. hook must not call the
// store.
func (s *Store) SetHook(hook func(Step) Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// step does act as the hook says. s.mu is held.
func (s *Store) step(step Step, act func()) error {
	outcome := Succeed
	if s.hook != nil {
		outcome = s.hook(step)
	}
	if outcome != FailBefore {
		act()
	}
	if outcome != Succeed {
		return fmt.Errorf("%s: %w", step, ErrInjected)
	}
	return nil
}

// Append implements event.Outbox.
func (s *Store) Append(tx *Tx, e event.Event) error {
	if err := e.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.drafts) >= event.MaxQueued {
		return event.ErrFull
	}
	e.Payload = slices.Clone(e.Payload)
	s.position++
	d := event.Draft{Position: s.position, Event: e}
	err := s.step(StepAppend, func() { tx.Do(func() { s.add(d) }) })
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return err
}

// add puts a draft where its position is: transactions commit in any order.
func (s *Store) add(d event.Draft) {
	at, _ := slices.BinarySearchFunc(s.drafts, d, func(a, b event.Draft) int {
		return int(int64(a.Position) - int64(b.Position))
	})
	s.drafts = slices.Insert(s.drafts, at, d)
}

// Pending implements event.Queue.
func (s *Store) Pending(context.Context) (event.Pending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := event.Pending{Heads: map[event.Topic]event.Head{}}
	err := s.step(StepPending, func() {
		p.Drafts = slices.Clone(s.drafts[:min(len(s.drafts), event.MaxPending)])
		p.Unsent = slices.Clone(s.unsent[:min(len(s.unsent), event.MaxPending)])
		for topic, kept := range s.kept {
			p.Heads[topic] = headOf(kept[len(kept)-1])
		}
	})
	return p, err
}

func headOf(e *event.Envelope) event.Head {
	return event.Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash}
}

// Seal implements event.Queue.
func (s *Store) Seal(_ context.Context, sealed []event.Sealed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.step(StepSeal, func() {
		for _, one := range sealed {
			s.drafts = slices.DeleteFunc(s.drafts, func(d event.Draft) bool {
				return d.Position == one.Draft
			})
			s.sent++
			s.unsent = append(s.unsent, event.Unsent{Position: s.sent, Raw: one.Envelope.Raw})
			s.keep(one.Envelope)
		}
	})
}

func (s *Store) keep(e *event.Envelope) {
	kept := append(s.kept[e.Topic()], e)
	s.kept[e.Topic()] = kept[max(len(kept)-event.MaxKept, 0):]
}

// Sent implements event.Queue.
func (s *Store) Sent(_ context.Context, through uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.step(StepSent, func() {
		s.unsent = slices.DeleteFunc(s.unsent, func(u event.Unsent) bool {
			return u.Position <= through
		})
	})
}

// Changed implements event.Queue.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Kept implements event.History.
func (s *Store) Kept(
	_ context.Context, topic event.Topic, behind event.Head,
) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]byte
	for _, e := range s.kept[topic] {
		next := behind.Seq + 1 + uint64(len(out))
		if e.Body.Epoch == behind.Epoch && e.Body.Seq == next && len(out) < event.MaxPending {
			out = append(out, e.Raw)
		}
	}
	return out, nil
}

// Range implements event.History.
func (s *Store) Range(
	_ context.Context, topic event.Topic, epoch uint64,
) (oldest uint64, newest event.Head, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.kept[topic] {
		if newest = headOf(e); oldest == 0 && newest.Epoch == epoch {
			oldest = newest.Seq
		}
	}
	return oldest, newest, nil
}

// Cursor implements event.Cursors.
func (s *Store) Cursor(_ context.Context, line event.Line) (event.Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var c event.Cursor
	err := s.step(StepCursor, func() { c = s.cursors[line] })
	return c, err
}

// SetCursor implements event.Cursors.
func (s *Store) SetCursor(tx *Tx, line event.Line, c event.Cursor) error {
	tx.Do(func() { s.cursors[line] = c })
	return nil
}

// Transact implements event.Cursors; it serves for appending to the outbox as well.
func (s *Store) Transact(_ context.Context, f func(tx *Tx) error) error {
	tx := &Tx{}
	if err := f(tx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.step(StepCommit, func() {
		for _, write := range tx.writes {
			write()
		}
	})
}
