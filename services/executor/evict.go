package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/kit/fault"
)

// Eviction is a host's word that an attempt is to go.
type Eviction struct {
	At     time.Time // when the program is asked to end
	Told   time.Time // when this was said
	Reason string    // for the owner, at most MaxDrainReason bytes
}

// Bounds of evictions.
const (
	// MinNotice is the shortest notice that is paid up to the end: less is none, as nothing can be
	// placed elsewhere meanwhile.
	MinNotice = 10 * time.Second
	// MaxNotice of one attempt.
	MaxNotice = 24 * time.Hour
	// MaxDrain of a whole host.
	MaxDrain = 366 * 24 * time.Hour

	maxEvictWait = time.Minute // between two looks at the clock: it may be set
	maxStatuses  = 32          // beyond it a late client is not told of every eviction
)

// noticed tells whether the owner had time to place the program elsewhere.
func (e *Eviction) noticed() bool { return e != nil && e.At.Sub(e.Told) >= MinNotice }

func (e *Eviction) words() string {
	s := "the host's operator wants it gone"
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// evictAt returns when the program is asked to go, zero if it may stay.
func (r *Record) evictAt() time.Time {
	if r.Evict == nil {
		return time.Time{}
	}
	return r.Evict.At
}

// Evict ends an attempt after the notice given: owner and scheduler are told at once, and that is
// on disk when it returns with the time at which the program is asked to end. A second word can
// bring it nearer, not put it off, since the replacement may have been placed.
func (a *Agent) Evict(
	ctx context.Context, id AttemptID, notice time.Duration, reason string,
) (time.Time, error) {
	switch {
	case notice < 0 || notice > MaxNotice:
		return time.Time{}, fault.New(fault.InvalidArgument, ReasonBadArgument,
			"notice is %v, allowed 0 to %v", notice, MaxNotice)
	case len(reason) > MaxDrainReason:
		return time.Time{}, badReason(reason)
	}
	t := a.find(id)
	if t == nil {
		if _, err := a.deps.Journal.Get(ctx, id); err != nil {
			return time.Time{}, orNoAttempt(err)
		}
		return time.Time{}, ErrOver
	}
	now := a.deps.Now()
	err := t.tellToGo(context.WithoutCancel(ctx), Eviction{now.Add(notice), now, reason})
	if err != nil {
		return time.Time{}, err
	}
	wake(a.evicting)
	r := t.view().rec
	if r.Phase == 0 || r.Phase >= PhaseEnded {
		return time.Time{}, ErrOver
	}
	return r.evictAt(), nil
}

func badReason(reason string) error {
	return fault.New(fault.InvalidArgument, ReasonBadArgument, "reason has %d bytes, at most %d",
		len(reason), MaxDrainReason)
}

// tellToGo writes the eviction down with the event that tells of it, unless an earlier end was told
// already or the attempt is over.
func (t *attempt) tellToGo(ctx context.Context, e Eviction) error {
	if r := t.view().rec; !r.mayGo(&e) {
		return nil
	}
	why := fmt.Sprintf("to be evicted at %s: %s", e.At.UTC().Format(time.RFC3339), e.words())
	return t.update(ctx, why, func(r *Record) {
		if r.mayGo(&e) {
			r.Evict = &e
		}
	})
}

// mayGo tells whether the eviction says something new. An attempt without a phase was not written
// down and never will be.
func (r *Record) mayGo(e *Eviction) bool {
	living := r.Phase > 0 && r.Phase < PhaseEnded
	return living && (r.Evict == nil || e.At.Before(r.Evict.At))
}

// evictDue sees to it that everything that is to go is told so, and goes in time. What the operator
// said before a restart is found in the journal.
func (a *Agent) evictDue(ctx context.Context) {
	for ctx.Err() == nil {
		next, err := a.evictTurn(ctx)
		now := a.deps.Now()
		if err != nil && ctx.Err() == nil {
			a.deps.Log.WarnContext(ctx, "cannot write an eviction down", "error", err)
			next = now.Add(lastBackoff)
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(min(max(next.Sub(now), time.Millisecond), maxEvictWait))
		}
		select {
		case <-ctx.Done():
		case <-due:
		case <-a.evicting:
		}
	}
}

// evictTurn does what is due and returns when the next is, zero if nothing is to go.
func (a *Agent) evictTurn(ctx context.Context) (next time.Time, err error) {
	a.mu.Lock()
	state := a.state
	a.mu.Unlock()
	for _, t := range a.snapshot() {
		now := a.deps.Now()
		if state.Draining && !state.EvictAt.IsZero() {
			e := Eviction{state.EvictAt, now, state.Reason}
			err = errors.Join(err, t.tellToGo(ctx, e)) // those that were told go all the same
		}
		r := t.view().rec
		switch at := r.evictAt(); {
		case at.IsZero() || r.Phase >= PhaseEnded || r.Stop != nil:
		case now.Before(at):
			if next.IsZero() || at.Before(next) {
				next = at
			}
		default:
			err = errors.Join(err, t.endIt(ctx, StopCause{
				Reason: EndEvicted, Message: r.Evict.words(), Grace: a.cfg.StopGrace,
			}))
		}
	}
	return next, err
}

// wake nudges a loop that holds one nudge.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// lastWord is the note that ends an attempt: what was metered, but of one that was evicted without
// notice no more than was noted before.
func (t *attempt) lastWord(r *Record, tally *Tally, o *Outcome) SignedNote {
	switch {
	case r.Cut != nil:
		note := r.Note
		note.Final = true
		return note
	case o.Reason != EndEvicted || r.Evict.noticed():
		return t.sign(r, tally, true)
	case r.Note.Note.Lease != t.lease.ID:
		return t.zeroNote(r)
	}
	note := r.Note
	note.Final = true
	return note
}
