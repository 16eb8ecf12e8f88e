package state

import (
	"container/heap"
	"slices"

	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// dues counts delays that run on the accrual clock, by when they are over: the notices of bonds,
// holdbacks that wait for a word, and what else waits for time to pass. Blocks must go on coming
// while one runs, and not after it, or what nobody cares to collect would keep a chain awake for
// ever. It is derived, so no leaf holds it; there are never more counts than records that wait.
type dues struct {
	count map[tx.Millis]int
	// order holds every time that has a count, and some that had one.
	order timeHeap
}

// staleDues is how many times without a count are kept beside as many as have one.
const staleDues = 64

// dueChange adds delays that end at a time, or takes them back.
type dueChange struct {
	at tx.Millis
	by int
}

// change books a change of what is not over by an accrual time. What was over before was forgotten
// then, so taking it back changes nothing.
func (d *dues) change(c dueChange, accrual tx.Millis) {
	if c.at <= accrual {
		return
	}
	if d.count == nil {
		d.count = map[tx.Millis]int{}
	}
	before := d.count[c.at]
	if before == 0 {
		heap.Push(&d.order, c.at)
	}
	if d.count[c.at] = before + c.by; d.count[c.at] == 0 {
		delete(d.count, c.at)
	}
	if len(d.order) > 2*len(d.count)+staleDues {
		d.order = d.order[:0]
		for at := range d.count {
			d.order = append(d.order, at)
		}
		heap.Init(&d.order)
	}
}

// pass forgets what is over.
func (d *dues) pass(accrual tx.Millis) {
	for len(d.order) > 0 && d.order[0] <= accrual {
		delete(d.count, d.order[0])
		heap.Pop(&d.order)
	}
}

// changeDue notes that a record's delay was before and is after; 0 stands for none.
func (x *Execution) changeDue(before, after tx.Millis) {
	if before == after {
		return
	}
	if before != 0 {
		x.dues = append(x.dues, dueChange{before, -1})
	}
	if after != 0 {
		x.dues = append(x.dues, dueChange{after, 1})
	}
}

// noticeDue is when the notice of a bond is over, 0 without notice.
func noticeDue(e *tx.Escrow) tx.Millis {
	if e.Noticed == 0 {
		return 0
	}
	return e.NoticeDue
}

// holdbackDue is when silence accepts what a settled lease withholds, 0 if nothing waits for that.
// A lease that is not settled keeps blocks coming by itself.
func holdbackDue(l *tx.LeaseState, live bool) tx.Millis {
	waits := live && l.Settled && l.Withheld > 0 &&
		l.Holdback == chainv1.Holdback_HOLDBACK_UNSPECIFIED
	if !waits {
		return 0
	}
	return windowEnd(l, holdbackWindow)
}

// timeHeap implements heap.Interface, the earliest first.
type timeHeap []tx.Millis

func (h timeHeap) Len() int           { return len(h) }
func (h timeHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h timeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *timeHeap) Push(v any) { *h = append(*h, v.(tx.Millis)) }

// Pop implements heap.Interface.
func (h *timeHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = slices.Delete(*h, len(*h)-1, len(*h))
	return last
}
