package scheduler

import (
	"context"
	"time"
)

// fewer is why a lane is stopped that an update left over.
const fewer = "fewer replicas are wanted"

// Update puts another revision of an always job in force, after it was verified: the number of
// lanes, retries and backoff. What runs goes on, lanes beyond the number are stopped, new ones wait
// to be placed. It follows the newest revision of j.
//
// Errors: ErrOvertaken when another revision came first; ErrOver; those of Submit for its bounds;
// the store's.
func (e *Engine) Update(ctx context.Context, j *Job, to Spec, revision []byte) (*Job, error) {
	if err := e.admit(ctx, j.Owner); err != nil {
		return nil, err
	}
	previous := string(j.Newest())
	var failure error
	j, err := e.change(ctx, j.ID, func(j *Job) (string, *Run) {
		state, _, _ := j.State()
		switch {
		case string(j.Newest()) == string(revision):
			return "", nil // repeated
		case string(j.Newest()) != previous:
			failure = ErrOvertaken
			return "", nil
		case state == Ended || j.CancelReason != "":
			failure = ErrOver
			return "", nil
		}
		if failure = e.resize(j, max(to.Lanes, 1)); failure != nil {
			return "", nil
		}
		j.Update, j.Updated = revision, e.deps.Now()
		j.Spec.Lanes, j.Spec.Retries, j.Spec.Backoff = to.Lanes, to.Retries, to.Backoff
		for i := range j.Runs {
			j.Runs[i].Retries, j.Runs[i].Backoff = to.Retries, to.Backoff
		}
		return "job.updated", j.Current()
	})
	if err != nil || failure != nil {
		return nil, firstOf(err, failure)
	}
	e.enqueue(j.Owner, j.Waiting())
	for i := range j.Runs {
		if j.Runs[i].Surplus {
			for k := range j.Runs[i].Attempts {
				e.stop(j, j.Runs[i].Attempts[k].ID)
			}
		}
	}
	return j, nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// Newest returns the signed revision in force. Hosts are given the first one all the same: what
// they run does not change.
func (j *Job) Newest() []byte {
	if j.Update != nil {
		return j.Update
	}
	return j.Revision
}

// resize makes the lanes 0 to n-1 the wanted ones. The record of a lane that is left over stays,
// for its epoch.
func (e *Engine) resize(j *Job, n uint32) error {
	held := map[uint32]bool{}
	for i := range j.Runs {
		r := &j.Runs[i]
		held[r.Slot] = true
		switch {
		case r.Slot >= n:
			e.leave(r)
		case r.Surplus && r.State == Ended && r.End == Cancelled:
			again := Run{Slot: r.Slot, Epoch: r.Epoch, Lease: r.Lease}
			if err := e.begun(j, &again, "waiting: more replicas are wanted"); err != nil {
				return err
			}
			*r = again
		case r.Surplus: // it is placed again once its host has stopped it, unless it was over before
			r.Surplus = false
		}
	}
	for slot := range n {
		if held[slot] {
			continue
		}
		r := Run{Slot: slot}
		if err := e.begun(j, &r, "waiting: more replicas are wanted"); err != nil {
			return err
		}
		j.Runs = append(j.Runs, r)
	}
	return nil
}

// leave stops a lane that is not wanted any more.
func (e *Engine) leave(r *Run) {
	r.stay()
	r.letGo()
	switch {
	case r.Surplus, r.State == Ended:
	case r.Open():
		r.Surplus, r.Reason = true, "being stopped: "+fewer
	default:
		r.Surplus = true
		r.finish(Cancelled, fewer, e.deps.Now())
	}
	r.Surplus = true
}

// stops says why the run is to stop, and since when; empty when it is not.
func (j *Job) stops(r *Run) (reason string, since time.Time) {
	switch {
	case j.CancelReason != "":
		return j.CancelReason, j.Cancelled
	case r.Surplus:
		return fewer, j.Updated
	case r.State == Ended: // another attempt of it has done what was to be done
		return shorten("its run has ended: " + r.Reason), r.Ended
	}
	return "", time.Time{}
}

// wanted counts the lanes that an update left.
func (j *Job) wanted() (n int) {
	for i := range j.Runs {
		if !j.Runs[i].Surplus {
			n++
		}
	}
	return n
}
