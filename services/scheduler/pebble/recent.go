package pebble

import (
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/services/scheduler"
)

// held is what the store holds of a job. What is in it is shared and never changed.
type held struct {
	// look is when somebody must look at the job; zero = never.
	look time.Time
	// revision is the checksum of the signed revision.
	revision uint32
	// job is nil when the store does not hold it.
	job *scheduler.Job
	// waiting are the job's entries in the queue, open whether one of its attempts has not ended.
	waiting []scheduler.Ref
	open    bool
	// bytes is about what it takes in memory.
	bytes int
}

// holdOf is what is held of a job of which a record of so many bytes is on disk.
func holdOf(j *scheduler.Job, look time.Time, revision uint32, bytes int) held {
	return held{
		look: look, revision: revision, job: j, waiting: j.Waiting(), open: j.Live(),
		bytes: heldAtLeast + heldPerByte*bytes + len(j.Revision),
	}
}

// What a held job takes: a record unfolds to about three times its bytes.
const (
	heldAtLeast = 1 << 10
	heldPerByte = 3
)

// maxRecent bounds the bytes of one of the two generations of recent jobs.
const maxRecent = 8 << 20

// stamps is into how many counters the jobs are spread.
const stamps = 1024

// recent holds jobs that were read or written lately: one that is being placed is read and written
// several times within a second. What it holds is what is on disk. A job stays until as much again
// was put, twice at most.
type recent struct {
	mu         sync.Mutex
	young, old map[job.ID]held
	bytes      int // of young
	// stamp counts what was written of the jobs of a counter, so that what was read before a write
	// is not put behind it.
	stamp [stamps]uint64
}

func stampOf(id job.ID) int { return int(id[0])<<2 | int(id[1])>>6 }

// get returns what is held of a job, and the stamp under which it may be filled in when it is not.
func (r *recent) get(id job.ID) (h held, stamp uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h, ok = r.young[id]; !ok {
		h, ok = r.old[id]
	}
	return h, r.stamp[stampOf(id)], ok
}

// put takes what was committed.
func (r *recent) put(h held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamp[stampOf(h.job.ID)]++
	r.keep(h)
}

// fill takes what was read, unless something of the job was written since the stamp was got.
func (r *recent) fill(h held, stamp uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stamp[stampOf(h.job.ID)] == stamp {
		r.keep(h)
	}
}

func (r *recent) keep(h held) {
	if r.young == nil || r.bytes > maxRecent {
		r.old, r.young, r.bytes = r.young, map[job.ID]held{}, 0
	}
	r.bytes += h.bytes - r.young[h.job.ID].bytes
	r.young[h.job.ID] = h
}

// drop forgets a job whose newest record is not known.
func (r *recent) drop(id job.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamp[stampOf(id)]++
	r.bytes -= r.young[id].bytes
	delete(r.young, id)
	delete(r.old, id)
}
