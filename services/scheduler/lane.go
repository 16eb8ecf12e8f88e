package scheduler

import (
	"context"
	"fmt"
	"time"
)

// TasksPerChunk is how many tasks of an array one record holds: one byte for each, its EndReason,
// 0 before it ended.
const TasksPerChunk = 1024

// lanes makes the runs a new job begins with: one per lane, waiting.
func (e *Engine) lanes(j *Job) error {
	lanes := max(j.Spec.Lanes, 1)
	if j.Spec.Tasks > 0 {
		lanes = min(lanes, j.Spec.Tasks)
		j.Array.Next = lanes
	}
	for slot := range lanes {
		r := Run{Slot: slot}
		if j.Spec.Tasks > 0 {
			r.Task = slot
		}
		if err := e.begun(j, &r, "waiting: just submitted"); err != nil {
			return err
		}
		j.Runs = append(j.Runs, r)
	}
	return nil
}

// begun gives a run its id and lets it wait.
func (e *Engine) begun(j *Job, r *Run, reason string) error {
	r.State, r.Reason, r.Created = Pending, reason, e.deps.Now()
	r.Retries, r.Backoff = j.Spec.Retries, j.Spec.Backoff
	return e.draw(r.ID[:])
}

// advance counts the tasks of an array that have ended and gives their lanes the next ones. It
// returns the chunks of the array's record that changed.
func (e *Engine) advance(ctx context.Context, j *Job) (map[uint32][]byte, error) {
	if j.Spec.Tasks == 0 {
		return nil, nil
	}
	chunks := map[uint32][]byte{}
	for i := range j.Runs {
		r := &j.Runs[i]
		if r.State != Ended {
			continue
		}
		if !r.Counted {
			if err := e.count(ctx, j, r, chunks); err != nil {
				return nil, err
			}
		}
		if r.Open() { // what ran beside the one that completed it is being stopped
			continue
		}
		if j.CancelReason != "" || j.Array.Closed || j.Array.Next >= j.Spec.Tasks {
			continue
		}
		next := Run{Slot: r.Slot, Epoch: r.Epoch, Lease: r.Lease, Task: j.Array.Next}
		if err := e.begun(j, &next, fmt.Sprintf("waiting: task %d comes next", next.Task)); err != nil {
			return nil, err
		}
		j.Array.Next++
		*r = next
	}
	return chunks, nil
}

// count writes down how the run's task ended.
func (e *Engine) count(ctx context.Context, j *Job, r *Run, chunks map[uint32][]byte) error {
	at := r.Task / TasksPerChunk
	if chunks[at] == nil {
		held, err := e.deps.Store.Tasks(ctx, j.ID, at)
		if err != nil {
			return fmt.Errorf("read the tasks of an array: %w", err)
		}
		chunks[at] = make([]byte, TasksPerChunk)
		copy(chunks[at], held)
	}
	chunks[at][r.Task%TasksPerChunk] = byte(r.End)
	r.Counted = true
	if r.End == Completed {
		j.Array.Completed++
	} else {
		j.Array.Failed++
	}
	return nil
}

// EndedTask is a task of an array and how it ended.
type EndedTask struct {
	Index uint32
	End   EndReason
}

// maxTaskChunks is how many chunks are read for one page of tasks.
const maxTaskChunks = 64

// FailedTasks lists tasks of the job's array from an index on that ended otherwise than completed,
// at most limit. next is where to go on; the array's size when there are no more.
func (e *Engine) FailedTasks(ctx context.Context, j *Job, from uint32, limit int) (
	tasks []EndedTask, next uint32, err error,
) {
	for range maxTaskChunks {
		if from >= j.Spec.Tasks || len(tasks) >= limit {
			break
		}
		chunk, err := e.deps.Store.Tasks(ctx, j.ID, from/TasksPerChunk)
		if err != nil {
			return nil, 0, fmt.Errorf("read the tasks of an array: %w", err)
		}
		end := min((from/TasksPerChunk+1)*TasksPerChunk, j.Spec.Tasks)
		for ; from < end && len(tasks) < limit; from++ {
			if chunk == nil {
				from = end
				break
			}
			if ended := EndReason(chunk[from%TasksPerChunk]); ended > Completed {
				tasks = append(tasks, EndedTask{Index: from, End: ended})
			}
		}
	}
	return tasks, min(from, j.Spec.Tasks), nil
}

// Counts returns how many runs are in each state. An array's lane whose task has ended while a
// replacement of it is still being stopped runs until that is over.
func (j *Job) Counts() (n [Ended + 1]uint32) {
	for i := range j.Runs {
		r := &j.Runs[i]
		if r.State == Ended && j.Spec.Tasks > 0 && r.Open() {
			n[Running]++
			continue
		}
		n[r.State]++
	}
	return n
}

// State tells how a job stands: of one run as that does; of several as the one that is furthest on
// its way, and ended once all have.
func (j *Job) State() (State, EndReason, string) {
	if len(j.Runs) == 1 && j.Spec.Tasks == 0 {
		r := j.Current()
		return r.State, r.End, r.Reason
	}
	n := j.Counts()
	state := Ended
	for _, s := range []State{Running, Asleep, Starting, Leased, Pending} {
		if n[s] > 0 {
			state = s
			break
		}
	}
	if state != Ended {
		return state, 0, j.progress(n)
	}
	end, reason := j.ending()
	return state, end, reason
}

// progress says in a sentence how far a job of several runs is.
func (j *Job) progress(n [Ended + 1]uint32) string {
	if j.CancelReason != "" {
		return "being cancelled: " + j.CancelReason
	}
	text := fmt.Sprintf("%d of %d replicas run", n[Running], j.wanted())
	if j.Spec.Tasks > 0 {
		text = fmt.Sprintf("%d of %d tasks completed, %d failed, %d run", j.Array.Completed,
			j.Spec.Tasks, j.Array.Failed, n[Running])
	}
	for i := range j.Runs { // the first that waits
		if r := &j.Runs[i]; r.State == Pending || r.moving() != nil {
			return shorten(text + "; " + r.Reason)
		}
	}
	return text
}

// ending says how a job of several runs ended: by the first that did not complete.
func (j *Job) ending() (EndReason, string) {
	if j.CancelReason != "" {
		return Cancelled, j.CancelReason
	}
	if j.Spec.Tasks > 0 && j.Array.Failed > 0 && !j.Array.Closed {
		return Failed, fmt.Sprintf("%d of %d tasks failed", j.Array.Failed, j.Spec.Tasks)
	}
	for i := range j.Runs {
		if r := &j.Runs[i]; r.End != Completed && !r.Surplus {
			return r.End, r.Reason
		}
	}
	if j.Spec.Tasks > 0 {
		return Completed, fmt.Sprintf("%d tasks completed", j.Array.Completed)
	}
	return Completed, fmt.Sprintf("%d replicas completed", len(j.Runs))
}

// lostAfter is the silence after which a host of the job counts as lost.
func (e *Engine) lostAfter(j *Job) time.Duration {
	if j.Spec.LostAfter > 0 {
		return j.Spec.LostAfter
	}
	return e.policy.LostAfter
}
