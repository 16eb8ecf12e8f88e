package scheduler

import (
	"sync"

	"github.com/united-containers/ucn/chain/job"
)

// MaxWatchers bounds how many calls may watch one job.
const MaxWatchers = 64

// watchers tells callers that a job changed; what it is now they read from the store. A slow
// caller misses changes in between, never the last one.
type watchers struct {
	mu sync.Mutex
	// jobs holds one channel of capacity 1 per watching call.
	jobs map[job.ID]map[chan struct{}]bool
}

// Watch returns a channel that is ready whenever the job changed, and the function that ends the
// watching. ErrFull: too many watch this job.
func (e *Engine) Watch(id job.ID) (changed <-chan struct{}, stop func(), err error) {
	w := &e.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.jobs[id]) >= MaxWatchers {
		return nil, nil, ErrFull
	}
	if w.jobs == nil {
		w.jobs = map[job.ID]map[chan struct{}]bool{}
	}
	if w.jobs[id] == nil {
		w.jobs[id] = map[chan struct{}]bool{}
	}
	ch := make(chan struct{}, 1)
	w.jobs[id][ch] = true
	return ch, func() { w.leave(id, ch) }, nil
}

func (w *watchers) leave(id job.ID, ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.jobs[id], ch)
	if len(w.jobs[id]) == 0 {
		delete(w.jobs, id)
	}
}

func (w *watchers) watched(id job.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.jobs[id]) > 0
}

func (w *watchers) notify(id job.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.jobs[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
