package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

// window is how many waiting runs of one owner are held in memory and looked at in one turn.
const window = 64

// queue serves owners in turn: each turn of an owner takes its oldest run that can be placed. It
// holds a window of each owner's runs; the rest stays in the store. Used from one goroutine.
type queue struct {
	store Lister
	lines []*line
	// next is the index of the line whose turn it is.
	next int
}

// line is one owner's runs, oldest first.
type line struct {
	owner sig.AccountID
	refs  []Ref
	// last is the place up to which the store was read; more tells that it has refs behind it.
	last Cursor
	more bool
}

// load fills the queue from the store.
func (q *queue) load(ctx context.Context) error {
	owners, err := q.store.Owners(ctx)
	if err != nil {
		return fmt.Errorf("list owners: %w", err)
	}
	q.lines, q.next = nil, 0
	for _, owner := range owners {
		l := &line{owner: owner, more: true}
		if err := q.refill(ctx, l); err != nil {
			return err
		}
		q.lines = append(q.lines, l)
	}
	return nil
}

func (q *queue) refill(ctx context.Context, l *line) error {
	if !l.more || len(l.refs) > window/2 {
		return nil
	}
	want := window - len(l.refs)
	refs, err := q.store.Pending(ctx, l.owner, l.last, want)
	if err != nil {
		return fmt.Errorf("list pending runs: %w", err)
	}
	for _, ref := range refs {
		l.insert(ref)
		l.last = ref.Cursor()
	}
	l.more = len(refs) == want
	return nil
}

// insert keeps the line sorted and without repeats.
func (l *line) insert(ref Ref) {
	if slices.ContainsFunc(l.refs, func(r Ref) bool { return r.Run == ref.Run }) {
		return
	}
	at, _ := slices.BinarySearchFunc(l.refs, ref, compareRefs)
	l.refs = slices.Insert(l.refs, at, ref)
}

// add puts a run that was just saved as pending into its owner's line.
func (q *queue) add(owner sig.AccountID, ref Ref) {
	i := slices.IndexFunc(q.lines, func(l *line) bool { return l.owner == owner })
	if i < 0 {
		q.lines = append(q.lines, &line{owner: owner, refs: []Ref{ref}})
		return
	}
	l := q.lines[i]
	if l.more && ref.Time.After(l.last.Time) {
		return // the store gives it when its turn comes
	}
	l.insert(ref)
}

func compareRefs(a, b Ref) int {
	if c := a.Time.Compare(b.Time); c != 0 {
		return c
	}
	return bytes.Compare(a.Job[:], b.Job[:])
}

// remove takes a run out that was placed, ended or cancelled.
func (q *queue) remove(owner sig.AccountID, run RunID) {
	for _, l := range q.lines {
		if l.owner == owner {
			l.refs = slices.DeleteFunc(l.refs, func(r Ref) bool { return r.Run == run })
		}
	}
}

// turn goes once round the owners, beginning with the one whose turn it is. For each it calls try
// with the oldest runs that are due until one is taken; try tells whether it took the run and
// whether the owner's turn goes on. It returns how many were taken and when the next run that is
// held back becomes due (zero = none).
func (q *queue) turn(ctx context.Context, now time.Time, try func(Ref) bool) (
	taken int, due time.Time, err error,
) {
	start := q.next
	for i := range q.lines {
		at := (start + i) % len(q.lines)
		l := q.lines[at]
		if err := q.refill(ctx, l); err != nil {
			return taken, due, err
		}
		for _, ref := range slices.Clone(l.refs) {
			if ref.Time.After(now) {
				if due.IsZero() || ref.Time.Before(due) {
					due = ref.Time
				}
				break
			}
			if try(ref) {
				taken++
				l.refs = slices.DeleteFunc(l.refs, func(r Ref) bool { return r.Run == ref.Run })
				q.next = (at + 1) % len(q.lines)
				break
			}
		}
	}
	q.lines = slices.DeleteFunc(q.lines, func(l *line) bool { return len(l.refs) == 0 && !l.more })
	if len(q.lines) > 0 {
		q.next %= len(q.lines)
	}
	return taken, due, nil
}
