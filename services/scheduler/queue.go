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
// holds a window of each owner's runs; the rest stays in the store. A window in which nothing can
// be placed gives way to the next one, so that runs no host can take hold no others up. Used from
// one goroutine.
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
	// last is the place up to which the store was read; more tells that it has refs behind it, past
	// that refs before the window were passed over.
	last Cursor
	more bool
	past bool
}

// verdict is what came of trying a run.
type verdict int

const (
	notNow    verdict = iota // it does not fit anywhere: it stays, and the owner's next is tried
	gone                     // it does not wait under this ref: it leaves the line
	taken                    // it is being placed: it leaves the line, and the owner's turn is over
	nobodyNow                // nothing can be placed for anybody: the owner keeps its turn
)

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
	if len(l.refs) == 0 && !l.more && l.past { // once round: begin with the oldest again
		l.last, l.more, l.past = Cursor{}, true, false
	}
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

// insert keeps the line sorted; a ref takes the place of an earlier one of its run.
func (l *line) insert(ref Ref) {
	l.remove(ref.Run)
	at, _ := slices.BinarySearchFunc(l.refs, ref, compareRefs)
	l.refs = slices.Insert(l.refs, at, ref)
}

func (l *line) remove(run RunID) {
	l.refs = slices.DeleteFunc(l.refs, func(r Ref) bool { return r.Run == run })
}

// add puts a run that was just saved as pending into its owner's line.
func (q *queue) add(owner sig.AccountID, ref Ref) {
	i := slices.IndexFunc(q.lines, func(l *line) bool { return l.owner == owner })
	if i < 0 {
		q.lines = append(q.lines, &line{owner: owner, refs: []Ref{ref}})
		return
	}
	l := q.lines[i]
	if l.more && compareRefs(ref, Ref{Time: l.last.Time, Job: l.last.Job}) > 0 {
		l.remove(ref.Run)
		return // the store gives it when its turn comes
	}
	l.insert(ref)
	if len(l.refs) > 2*window { // the store has them all
		l.refs = l.refs[:window]
		l.last, l.more = l.refs[window-1].Cursor(), true
	}
}

func compareRefs(a, b Ref) int {
	if c := a.Time.Compare(b.Time); c != 0 {
		return c
	}
	return bytes.Compare(a.Job[:], b.Job[:])
}

// turn goes once round the owners, beginning with the one whose turn it is. For each it calls try
// with the oldest runs that are due until one is taken. It returns how many were taken and when
// the next run that is held back becomes due (zero = none).
func (q *queue) turn(ctx context.Context, now time.Time, try func(Ref) verdict) (
	n int, due time.Time, err error,
) {
	start := q.next
	for i := range q.lines {
		at := (start + i) % len(q.lines)
		l := q.lines[at]
		if err := q.refill(ctx, l); err != nil {
			return n, due, err
		}
		got, wait := l.turn(now, try)
		if !wait.IsZero() && (due.IsZero() || wait.Before(due)) {
			due = wait
		}
		if got == taken {
			n++
			q.next = (at + 1) % len(q.lines)
		}
		if got == nobodyNow {
			break
		}
	}
	q.dropEmpty()
	return n, due, nil
}

// turn tries the line's runs and returns what the turn came to: taken, nobodyNow, or notNow.
func (l *line) turn(now time.Time, try func(Ref) verdict) (got verdict, due time.Time) {
	for _, ref := range slices.Clone(l.refs) {
		if ref.Time.After(now) {
			l.again()
			return notNow, ref.Time
		}
		switch v := try(ref); v {
		case gone:
			l.remove(ref.Run)
		case taken:
			l.remove(ref.Run)
			l.again()
			return taken, due
		case nobodyNow:
			return nobodyNow, due
		}
	}
	if l.more { // the whole window does not fit now: look at the next one
		l.refs, l.past = nil, true
		return notNow, due
	}
	l.again()
	return notNow, due
}

// again goes back to the oldest runs if some were passed over.
func (l *line) again() {
	if l.past {
		l.refs, l.more = nil, false
	}
}

// dropEmpty forgets owners without runs, and keeps the turn where it is.
func (q *queue) dropEmpty() {
	before := 0
	kept := q.lines[:0]
	for i, l := range q.lines {
		switch {
		case len(l.refs) > 0 || l.more || l.past:
			kept = append(kept, l)
		case i < q.next:
			before++
		}
	}
	clear(q.lines[len(kept):])
	q.lines, q.next = kept, q.next-before
	if q.next >= len(kept) {
		q.next = 0
	}
}
