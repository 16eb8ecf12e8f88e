package scheduler

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

// Bounds of what the queue holds in memory and looks at.
const (
	// maxWindow is how many waiting runs of one owner are held; with many owners it is less, so that
	// all windows together hold at most maxHeld runs, and minWindow for each.
	maxWindow = 64
	minWindow = 2
	maxHeld   = 32_768
	// maxDebts is how many owners are remembered whose runs are all placed.
	maxDebts = 65_536
	// maxTaken runs are placed in one round before newly come ones are looked at.
	maxTaken = 256
	// maxAgain is how often those that were passed over come first again in one round.
	maxAgain = 16
)

// queue shares hosts among owners: whoever has had least, for what it pays, comes first (start-time
// fair queueing), and of an owner the run that stands first in its line. It holds the first runs of
// each owner; the rest stays in the store. Runs that fit nowhere hold no others up: behind a window
// of them the queue looks on, a piece in each round. Used from one goroutine.
type queue struct {
	store Lister
	lines map[sig.AccountID]*line
	order order
	// clock is the share of the line that was served last: new lines begin there.
	clock float64
	// debts are the shares of owners that were served ahead of the clock and have no line now.
	debts map[sig.AccountID]float64
	// skip tells shapes that fit nowhere now; nil = none. freed counts what may have made room;
	// nil = nothing does.
	skip  func(Shape) bool
	freed func() uint64
}

// line is one owner's waiting runs, in their order.
type line struct {
	owner sig.AccountID
	// share is what was placed for the owner, by size and bid, on the queue's clock.
	share float64
	at    int // in the heap
	head  []Ref
	// last is the place up to which the store was read; more tells that it has refs behind it.
	last Place
	more bool
	// scout is how far was looked behind the head in search of what fits; zero = not yet.
	scout Place
}

// order is a heap of lines: the least share first, then the one whose first run stands first.
type order []*line

func (o order) Len() int { return len(o) }

func (o order) Less(i, j int) bool {
	if o[i].share != o[j].share {
		return o[i].share < o[j].share
	}
	return o[i].first().Compare(o[j].first()) < 0
}

func (o order) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].at, o[j].at = i, j
}

// Push implements heap.Interface.
func (o *order) Push(x any) {
	l := x.(*line)
	l.at = len(*o)
	*o = append(*o, l)
}

// Pop implements heap.Interface.
func (o *order) Pop() any {
	old := *o
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*o = old[:len(old)-1]
	return l
}

func (l *line) first() time.Time {
	if len(l.head) == 0 {
		return l.last.Order
	}
	return l.head[0].Order
}

// verdict is what came of trying a run.
type verdict int

const (
	notNow     verdict = iota // it does not fit anywhere: it stays, and the owner's next is tried
	gone                      // it does not wait under this ref: it leaves the line
	taken                     // it is being placed: it leaves the line
	nobodyNow                 // nothing can be placed for anybody
	passedOver                // room was made for others that stand before it
)

// load fills the queue from the store.
func (q *queue) load(ctx context.Context) error {
	owners, err := q.store.Owners(ctx)
	if err != nil {
		return fmt.Errorf("list owners: %w", err)
	}
	q.lines, q.order, q.debts = map[sig.AccountID]*line{}, nil, nil
	for _, owner := range owners {
		q.enter(&line{owner: owner, more: true})
	}
	return nil
}

func (q *queue) enter(l *line) {
	if q.lines == nil {
		q.lines = map[sig.AccountID]*line{}
	}
	l.share = max(q.clock, q.debts[l.owner])
	delete(q.debts, l.owner)
	q.lines[l.owner] = l
	heap.Push(&q.order, l)
}

// window is how many runs of an owner are held at the moment.
func (q *queue) window() int {
	return min(maxWindow, max(minWindow, maxHeld/max(1, len(q.lines))))
}

func (q *queue) refill(ctx context.Context, l *line) error {
	window := q.window()
	if !l.more || len(l.head) > window/2 {
		return nil
	}
	page, err := q.store.Pending(ctx, PendingQuery{
		Owner: l.owner, After: l.last, Limit: window - len(l.head),
	})
	if err != nil {
		return fmt.Errorf("list pending runs: %w", err)
	}
	for _, ref := range page.Refs {
		l.insert(ref)
	}
	l.last, l.more = page.Next, page.More
	return nil
}

// insert keeps the line sorted; a ref takes the place of an earlier one of its run.
func (l *line) insert(ref Ref) {
	l.remove(ref.Run)
	at, _ := slices.BinarySearchFunc(l.head, ref, func(a, b Ref) int {
		return a.Place().Compare(b.Place())
	})
	l.head = slices.Insert(l.head, at, ref)
}

func (l *line) remove(run RunID) {
	l.head = slices.DeleteFunc(l.head, func(r Ref) bool { return r.Run == run })
}

// add puts a run that was just saved as pending into its owner's line.
func (q *queue) add(owner sig.AccountID, ref Ref) {
	l := q.lines[owner]
	if l == nil {
		q.enter(&line{owner: owner, head: []Ref{ref}})
		return
	}
	if l.more && ref.Place().Compare(l.last) > 0 {
		l.remove(ref.Run)
		return // the store gives it when its turn comes
	}
	l.insert(ref)
	if window := q.window(); len(l.head) > 2*window { // the store has them all
		l.head = slices.Clone(l.head[:window])
		l.last, l.more = l.head[window-1].Place(), true
	}
	heap.Fix(&q.order, l.at)
}

// round serves owners, the one with the least share first, until each has nothing that can be
// placed. It returns how many runs were taken and when the next run that is held back becomes due
// (zero = none is known).
func (q *queue) round(ctx context.Context, now time.Time, try func(Ref) verdict) (
	n int, due time.Time, err error,
) {
	var idle []*line
	defer func() { q.settle(idle) }()
	freed, again := q.room(), 0
	// Once room is made, those that were passed over come first; so often that a market in which
	// room is made all the time still gets round to everybody.
	inTurn := func(ref Ref) verdict {
		if len(idle) > 0 && again < maxAgain && q.room() != freed {
			return passedOver
		}
		return try(ref)
	}
	for len(q.order) > 0 && n < maxTaken {
		l := q.order[0]
		if err := q.refill(ctx, l); err != nil {
			return n, due, err
		}
		got, ref, wait := l.turn(now, inTurn)
		deep := got == notNow && l.more
		if deep {
			got, ref, err = q.look(ctx, l, now, inTurn)
		}
		if err != nil {
			return n, due, err
		}
		switch got {
		case taken:
			n++
			q.clock = max(q.clock, l.share)
			l.share += charge(ref.Size, ref.Bid)
			heap.Fix(&q.order, 0)
			if deep { // that took a while: others may have come, or may fit now
				return n, due, nil
			}
		case passedOver:
			heap.Fix(&q.order, 0)
			q.settle(idle)
			idle, freed, again = nil, q.room(), again+1
		case nobodyNow:
			heap.Fix(&q.order, 0)
			return n, due, nil
		default:
			idle = append(idle, heap.Pop(&q.order).(*line))
			if !wait.IsZero() && (due.IsZero() || wait.Before(due)) {
				due = wait
			}
		}
	}
	return n, due, nil
}

func (q *queue) room() uint64 {
	if q.freed == nil {
		return 0
	}
	return q.freed()
}

// settle ends a round: lines in which nothing could be placed come back, those that are empty go.
func (q *queue) settle(idle []*line) {
	for _, l := range idle {
		if len(l.head) > 0 || l.more {
			l.share = max(l.share, q.clock) // what it could not use it does not catch up
			heap.Push(&q.order, l)
			continue
		}
		delete(q.lines, l.owner)
		if l.share > q.clock {
			q.owe(l)
		}
	}
}

// owe remembers what an owner had ahead of others, so that coming back does not make it new.
func (q *queue) owe(l *line) {
	if q.debts == nil {
		q.debts = map[sig.AccountID]float64{}
	}
	if len(q.debts) >= maxDebts {
		for owner, share := range q.debts {
			if share <= q.clock {
				delete(q.debts, owner)
			}
		}
	}
	if len(q.debts) < maxDebts {
		q.debts[l.owner] = l.share
	}
}

// turn tries the runs at the head of the line until one is taken.
func (l *line) turn(now time.Time, try func(Ref) verdict) (got verdict, at Ref, due time.Time) {
	for _, ref := range slices.Clone(l.head) {
		if ref.heldBack(now) {
			if due.IsZero() || ref.Due.Before(due) {
				due = ref.Due
			}
			continue
		}
		switch v := try(ref); v {
		case gone:
			l.remove(ref.Run)
		case taken, nobodyNow, passedOver:
			if v == taken {
				l.remove(ref.Run)
			}
			return v, ref, due
		}
	}
	return notNow, Ref{}, due
}

// look tries a piece of what stands behind the head, shapes that fit nowhere left out; the next
// call goes on from there and, from the end, begins again.
func (q *queue) look(ctx context.Context, l *line, now time.Time, try func(Ref) verdict) (
	got verdict, at Ref, err error,
) {
	from := l.scout
	if from.Compare(l.last) < 0 {
		from = l.last
	}
	page, err := q.store.Pending(ctx, PendingQuery{
		Owner: l.owner, After: from, Limit: maxWindow, Skip: q.skip,
	})
	if err != nil {
		return notNow, at, fmt.Errorf("look behind the head of a line: %w", err)
	}
	for _, ref := range page.Refs {
		if ref.heldBack(now) {
			continue
		}
		v := try(ref)
		if v == passedOver {
			return v, ref, nil
		}
		l.scout = ref.Place()
		if v != notNow && v != gone {
			return v, ref, nil
		}
	}
	if l.scout = page.Next; !page.More {
		l.scout = Place{}
	}
	return notNow, at, nil
}
