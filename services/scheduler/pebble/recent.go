package pebble

import "sync"

// maxRecent bounds the bytes of one of the two generations of recent values.
const maxRecent = 4 << 20

// recent holds records that were written lately: a job that is being placed is read and written
// several times within a second. What was committed is put, so what it holds is what is on disk.
// A value stays until as much again was written, twice at most.
type recent struct {
	mu         sync.Mutex
	young, old map[string][]byte
	bytes      int // of young
}

func (r *recent) get(key []byte) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if value, ok := r.young[string(key)]; ok {
		return value, true
	}
	value, ok := r.old[string(key)]
	return value, ok
}

func (r *recent) put(key, value []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || r.bytes > maxRecent {
		r.old, r.young, r.bytes = r.young, map[string][]byte{}, 0
	}
	r.young[string(key)] = value
	r.bytes += len(key) + len(value)
}

func (r *recent) drop(key []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, string(key))
	delete(r.old, string(key))
}
