package scheduler

import "time"

// moveAhead is how long before an end that was told the replacement is sought at the earliest: who
// says so long before has the program until then, and an hour is enough to find another.
const moveAhead = time.Hour

// moveLead is how long before its time a run whose host goes stands in its owner's line: what has
// begun comes before what has not, or it would end behind a long queue.
const moveLead = 24 * time.Hour

// leaves notes that the host of an attempt has said when it will ask the program to end. A program
// that is to run for good is then placed elsewhere before; until that lease is on the chain it runs
// on. One that is to come to an end is left alone, as it may be done by then: a replacement would
// begin anew and end what it has.
func (e *Engine) leaves(j *Job, r *Run, a *Attempt, at time.Time) {
	if at.IsZero() || !a.EvictAt.IsZero() && !at.Before(a.EvictAt.Add(-together)) {
		return // an end that was told comes nearer, or stays
	}
	a.EvictAt = at
	if why, _ := j.stops(r); why != "" || !j.Spec.Always {
		return
	}
	now := e.deps.Now()
	from := latest(now, at.Add(-moveAhead))
	if a.Moving { // a nearer end shortens no wait but that for the end itself
		wait := now.Add(r.backoff())
		if r.NotBefore.Before(wait) {
			wait = r.NotBefore
		}
		from = latest(from, wait)
	} else {
		if now.Sub(a.Created) >= steady {
			r.Streak = 0
		}
		if r.Streak > 0 { // it has not been here for long: whoever sends it on soon makes it wait
			from = latest(from, now.Add(r.backoff()))
		}
		r.Streak++
	}
	a.Moving = true
	if a == r.Current() {
		r.NotBefore = from
	}
}

// moving returns the attempt that goes on while another is sought in its place, or nil.
func (r *Run) moving() *Attempt {
	a := r.Current()
	if r.State == Ended || a == nil || a.State == Ended || !a.Moving || !a.Placed || a.Silent {
		return nil
	}
	return a
}

// stay stops the search for replacements: the attempts go on until they end.
func (r *Run) stay() {
	for i := range r.Attempts {
		r.Attempts[i].Moving = false
	}
}

// say is why the run waits. One that runs meanwhile says first why it is to go.
func (r *Run) say(why string) {
	if a := r.moving(); a != nil {
		why = a.Reason + "; its replacement is " + why
	}
	r.Reason = shorten(why)
}

// goesOn tells whether the attempt that another was to replace goes on, as that one has come to
// nothing. Another is sought in its place, unless hosts have failed too often.
func (r *Run) goesOn(failed *Attempt, again bool, now time.Time) bool {
	for i := range r.Attempts {
		old := r.Attempts[i]
		if old.ID == failed.ID || old.State == Ended || old.Silent || !old.Placed {
			continue
		}
		why := "waiting: " + failed.Reason
		if old.Moving { // else it is being stopped, and the run says so
			r.Reason = old.Reason
		}
		old.Moving = old.Moving && again
		r.Attempts = append(append(r.Attempts[:i:i], r.Attempts[i+1:]...), old)
		r.State, r.NotBefore = old.State, now.Add(r.backoff())
		if old.Moving {
			r.say(why)
		}
		return true
	}
	return false
}

// dismiss tells the hosts of attempts that were replaced that their time is over, once the
// replacement runs: until then the program was there. Their leases have ended on the chain, so one
// that is not reached loses nothing but what it does not know to be unpaid.
func (e *Engine) dismiss(j *Job, r *Run) {
	by := r.Current()
	if by.State != Running {
		return
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		if a.State == Ended && a.End == Evicted && !a.Told && a.Moving && a != by {
			e.sendAway(j.ID, a.Host, a.ID, "replaced by "+by.Host.Name)
		}
	}
}
