package bus

import (
	"sync"
	"time"
)

// replays remembers request ids. Ids live in two generations: the younger one takes new ids for a
// span, then becomes the older one. So each id is remembered for at least one span and the memory
// is two generations, without a timer per id.
type replays struct {
	most  int           // ids in one generation
	share int           // of them from one caller, so that none keeps others out
	span  time.Duration // at least as long as any request can be valid

	mu    sync.Mutex // guards what follows
	young map[requestID]struct{}
	old   map[requestID]struct{}
	by    map[string]int // how many of young are whose
	since time.Time      // when young began
}

func newReplays(most int, span time.Duration) *replays {
	return &replays{
		most: most, share: max(most/callerShare, 1), span: span,
		young: map[requestID]struct{}{}, by: map[string]int{},
	}
}

// add remembers an id of a caller. fresh is false if it was there already; full means that there is
// no room, and then nothing is known about id.
func (r *replays) add(id requestID, who string, now time.Time) (fresh, full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch age := now.Sub(r.since); {
	case age < 0: // the clock was set back: forget nothing
		r.since = now
	case age >= r.span:
		r.old, r.young, r.since = r.young, map[requestID]struct{}{}, now
		r.by = map[string]int{}
	}
	_, inYoung := r.young[id]
	_, inOld := r.old[id]
	if inYoung || inOld {
		return false, false
	}
	if len(r.young) >= r.most || r.by[who] >= r.share {
		return false, true
	}
	r.young[id] = struct{}{}
	r.by[who]++
	return true, false
}
