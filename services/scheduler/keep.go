package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/job"
)

// Hold is what is known of a program whose lease is over by another of its lane and which its host
// may keep for a lease that goes on with it. It is nobody's to pay meanwhile.
type Hold struct {
	// Until is until when the host keeps it, by the host's clock; zero: it has not said that it does.
	Until time.Time
	// Back is when the host was heard again, zero while it is not; what came before Quiet is no sign
	// of it.
	Back, Quiet time.Time
	// AskFrom is when the host is asked next, Asks how often that came to nothing.
	AskFrom time.Time
	Asks    uint32
	// Returns counts how often in a row the program was gone on with after a silence.
	Returns uint32
	// Dismiss: it is kept for nothing any more, and its host is to be told to stop it.
	Dismiss bool
}

// How long a host that keeps a program waits to be asked again when it did not give a lease or did
// not answer; twice as long each time.
const (
	minAskAgain = 5 * time.Second
	maxAskAgain = time.Minute
)

// How long a host has to go on with the program that it kept: a moment, when all is well.
const (
	goOnWithin = 90 * time.Second
	// goOnMargin is how long before the end of its hold what it took the place of must be turned to:
	// a sweep, a question to each of the two hosts, the end of the one's lease, and a sweep again.
	goOnMargin = 20 * time.Second
	// goOnAtLeast is what the host has however short that hold is. Hosts hold for a minute at least,
	// if they do at all.
	goOnAtLeast = 30 * time.Second
)

// lingers tells whether the attempt is to go on with a kept program, and was not seen to.
func (a *Attempt) lingers() bool { return a.Origin != 0 && !a.Began && a.Placed }

// goOnBy is until when an attempt that lingers, and had the time since then, is waited for: no
// longer than the younger programs that it took the place of are held, by what their hosts say.
func (r *Run) goOnBy(a *Attempt, since time.Time) time.Time {
	by, least := since.Add(goOnWithin), since.Add(goOnAtLeast)
	for i := range r.Attempts {
		younger := &r.Attempts[i]
		until := younger.Hold.Until
		if !younger.Kept || younger.origin() <= a.origin() || !until.After(least) {
			continue
		}
		if until = until.Add(-goOnMargin); until.Before(by) {
			by = until
		}
	}
	return latest(by, least)
}

// steadyHost is how long a host must have been heard under one lease for its silence to count as
// the first again.
const steadyHost = time.Hour

// origin is the lane's epoch at which the attempt's program began: of two programs the lower is the
// original.
func (a *Attempt) origin() uint64 {
	if a.Origin != 0 {
		return a.Origin
	}
	return a.Lease.Lease.Epoch
}

// begun tells that the attempt's program runs, be it asleep.
func (a *Attempt) begun() bool { return a.State == Running || a.State == Asleep }

// keep remembers an attempt that has just ended, as another of its lane was leased, for its
// program, with which its host may return. Beyond MaxKept the youngest program is let go.
func (r *Run) keep(a *Attempt) {
	a.Kept = true
	if a.Heard.Sub(a.Created) >= steadyHost {
		a.Hold.Returns = 0
	}
	a.Hold = Hold{Until: a.Hold.Until, Returns: a.Hold.Returns, Quiet: a.Ended}
	n, youngest := 0, a
	for i := range r.Attempts {
		if k := &r.Attempts[i]; k.Kept {
			if n++; k.origin() > youngest.origin() {
				youngest = k
			}
		}
	}
	if n > MaxKept {
		youngest.dismiss()
	}
}

// dismiss lets the attempt's program go: its host is to be told to stop it.
func (a *Attempt) dismiss() { a.Kept, a.Hold.Dismiss = false, true }

// lingered: an attempt that was to go on with a kept program was given up. That program is let go,
// or its host would be asked for it again, and have the lane for nothing.
func (r *Run) lingered(a *Attempt) {
	if old := r.Attempt(a.Continues); old != nil && a.lingers() && old.Kept {
		old.dismiss()
	}
}

// letGo lets every program go that is kept for the run.
func (r *Run) letGo() {
	for i := range r.Attempts {
		if a := &r.Attempts[i]; a.Kept {
			a.dismiss()
		}
	}
}

// original: an attempt of the run is seen to run, so no younger program is kept beside its own, and
// those whose program it goes on with have nothing left to keep.
func (r *Run) original(runs *Attempt) {
	for i := range r.Attempts {
		switch a := &r.Attempts[i]; {
		case !a.Kept || a.origin() < runs.origin():
		case a.origin() == runs.origin():
			a.Kept = false
		default:
			a.dismiss()
		}
	}
}

// continuable tells whether the run would rather have the program of a kept attempt than what it
// has now: that is younger, or nothing. While the fate of a lease is not known nothing is.
func (r *Run) continuable(a *Attempt) bool {
	if !a.Kept || r.State == Ended {
		return false
	}
	for i := range r.Attempts {
		other := &r.Attempts[i]
		if other.State == Ended {
			continue
		}
		if !other.Placed || !other.Silent && other.origin() <= a.origin() {
			return false
		}
	}
	return true
}

// continued tells whether another attempt of the run goes on with the attempt's program, or did.
func (r *Run) continued(a *Attempt) bool {
	return slices.ContainsFunc(r.Attempts, func(by Attempt) bool { return by.Continues == a.ID })
}

// keptUntil is when a kept program is waited for no more.
func (e *Engine) keptUntil(j *Job, a *Attempt) time.Time {
	until := time.UnixMilli(int64(a.Lease.Lease.Until))
	if told := a.Hold.Until; !told.IsZero() && told.Before(until) {
		until = told
	}
	return until.Add(e.lostAfter(j))
}

// patient is how long a host that has returned must be there before it is asked: not at all the
// first time. One that falls silent and returns again and again would send the lane to and fro.
func (h *Hold) patient() time.Duration {
	if h.Returns == 0 {
		return 0
	}
	return avoidFor << min(h.Returns-1, maxEvictions)
}

// back notes that the host of a kept attempt is heard again.
func (a *Attempt) back(now time.Time) {
	if a.Hold.Back.IsZero() {
		a.Hold.Back = now
		a.Hold.AskFrom = latest(a.Hold.AskFrom, now.Add(a.Hold.patient()))
	}
}

// later lets the host of a kept attempt be asked again after a while.
func (h *Hold) later(now time.Time) {
	wait := minAskAgain
	for range min(h.Asks, maxDoublings) {
		wait = min(2*wait, maxAskAgain)
	}
	h.Asks++
	h.AskFrom = now.Add(wait)
}

// heldBy folds in what the host of an attempt that has ended here says of it while it runs there.
func (e *Engine) heldBy(j *Job, r *Run, a *Attempt, rep Report) (kind string, changed *Run) {
	if rep.Raw != nil && string(rep.Raw) == string(a.Status) && !a.Hold.Back.IsZero() {
		return "", nil
	}
	a.Status, a.Reported, a.Heard = rep.Raw, rep.Time, e.deps.Now()
	if !rep.EvictAt.IsZero() { // its operator wants it gone
		a.Reason = shorten(a.Host.Name + " is back, but its program is to go: " + rep.Reason)
		a.dismiss()
		return "attempt.dropped", r
	}
	if a.back(a.Heard); a.Hold.Until.IsZero() && !rep.HeldUntil.IsZero() { // it was asked after that
		a.Hold.Asks, a.Hold.AskFrom = 0, a.Hold.Back.Add(a.Hold.patient())
	}
	a.Hold.Until = rep.HeldUntil
	return "attempt.back", r
}

// lookAtKept decides about a program that is kept: it is given up after its time, and gone on with
// once its host is heard. A host that is there but has not said that it keeps the program is asked
// how that stands.
func (e *Engine) lookAtKept(j *Job, r *Run, a *Attempt, now time.Time) {
	id, run, attempt := j.ID, r.ID, a.ID
	if until := e.keptUntil(j, a); now.After(until) {
		e.once(attempt, looking, func(ctx context.Context) {
			if e.past(ctx, until) {
				e.dropKept(ctx, id, attempt)
			}
		})
		return
	}
	if now.Before(a.Hold.AskFrom) || !r.continuable(a) || !e.isBack(a) {
		return
	}
	e.once(attempt, continuing, func(ctx context.Context) {
		switch {
		case a.Hold.Back.IsZero() && a.Hold.patient() > 0:
			e.changeKept(ctx, id, attempt, func(_ *Run, a *Attempt) string {
				a.back(e.deps.Now())
				return "attempt.back"
			})
		case a.Hold.Until.IsZero():
			e.askAfter(ctx, id, attempt)
		default:
			e.goOnWith(ctx, id, run, attempt)
		}
	})
}

// isBack tells whether the host of a kept attempt was heard since that was superseded.
func (e *Engine) isBack(a *Attempt) bool {
	last := a.Heard
	if o, ok := e.book.Get(a.Host.Executor); ok {
		last = latest(last, o.Posted)
	}
	return last.After(a.Hold.Quiet)
}

// kept goes over the attempts of the job whose programs are kept.
func (j *Job) kept(yield func(*Run, *Attempt) bool) {
	for i := range j.Runs {
		for k := range j.Runs[i].Attempts {
			if a := &j.Runs[i].Attempts[k]; a.Kept && !yield(&j.Runs[i], a) {
				return
			}
		}
	}
}

// keeps are the attempts of the job whose programs are kept.
func (j *Job) keeps() (ids []AttemptID) {
	for _, a := range j.kept {
		ids = append(ids, a.ID)
	}
	return ids
}

// letGo are those of the attempts whose hosts are to be told to stop what they kept.
func (j *Job) letGo(kept []AttemptID) (away []Attempt) {
	for _, id := range kept {
		if _, a := j.Attempt(id); a != nil && a.Hold.Dismiss {
			away = append(away, *a)
		}
	}
	return away
}

// changeKept changes an attempt that is still kept; fn returns the type of the event.
func (e *Engine) changeKept(
	ctx context.Context, id job.ID, attempt AttemptID, fn func(*Run, *Attempt) string,
) {
	_, err := e.change(ctx, id, func(j *Job) (string, *Run) {
		r, a := j.Attempt(attempt)
		if a == nil || !a.Kept {
			return "", nil
		}
		return fn(r, a), r
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot write down what becomes of a kept program", "job", id,
			"error", err)
	}
}

// dropKept gives a program up whose time is over.
func (e *Engine) dropKept(ctx context.Context, id job.ID, attempt AttemptID) {
	e.changeKept(ctx, id, attempt, func(_ *Run, a *Attempt) string {
		a.Reason = shorten(a.Host.Name + " did not return in time with the program it kept")
		a.dismiss()
		return "attempt.dropped"
	})
}

// askAfter asks a host that is heard again how the program of a kept attempt stands: its word on
// that may be lost.
func (e *Engine) askAfter(ctx context.Context, id job.ID, attempt AttemptID) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot read a job", "job", id, "error", err)
		return
	}
	r, a := j.Attempt(attempt)
	if a == nil || !a.Kept {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.policy.AskTimeout)
	defer cancel()
	told, err := e.deps.Hosts.Deliver(ctx, a.Host, taskOf(j, r, a))
	if err == nil && told != nil {
		err = e.Report(ctx, *told)
	}
	e.notYet(ctx, id, attempt, err)
}

// goOnWith asks the host of a kept attempt for a lease that goes on with its program, and places
// that. Nothing else is placed for the run meanwhile.
func (e *Engine) goOnWith(ctx context.Context, id job.ID, run RunID, attempt AttemptID) {
	if !e.claim(run, Host{}) {
		return // by the next sweep
	}
	err := e.tryToGoOn(ctx, id, attempt)
	e.landed(run)
	if err != nil && !errors.Is(err, errSettled) {
		e.notYet(ctx, id, attempt, err)
	}
	e.requeue(ctx, id, run, Ref{})
}

func (e *Engine) tryToGoOn(ctx context.Context, id job.ID, attempt AttemptID) (err error) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	r, a := j.Attempt(attempt)
	if a == nil || !r.continuable(a) {
		return errSettled
	}
	ctx, done := e.deps.Trace(ctx, j.Traceparent, "scheduler.place")
	defer func() { done(err) }()
	o, ok := e.book.Get(a.Host.Executor)
	if !ok || !o.Expires.After(e.deps.Now()) {
		return fmt.Errorf("%w: %s makes no offer", ErrDeclined, a.Host.Name)
	}
	if why := j.Spec.misfits(o, a); why != "" {
		return fmt.Errorf("%w: its offer is %s", ErrDeclined, why)
	}
	turn, ok := e.refusals.turn(j.Owner, e.deps.Now())
	if !ok {
		return errTurn
	}
	defer turn()
	purse := e.purses.open(j.Escrow)
	defer e.purses.close(purse)
	money, err := e.fund(ctx, purse, r)
	if err != nil {
		return fmt.Errorf("look at its escrow: %w", err)
	}
	if last := e.lastLease(&money.escrow); !last.After(e.deps.Now()) {
		return fmt.Errorf("%w: it expires at %s, too soon for a lease", ErrEscrow,
			money.escrow.Expires.UTC().Format(time.RFC3339))
	}
	return e.placeOn(ctx, j, r, asking{offer: o, continues: a}, money)
}

// dearer: a host cannot ask more for what it holds in its hand.
const dearer misfit = "dearer than before"

// misfits says why the offer of a host does not serve for a lease that goes on with a program that
// runs there. What that takes of the host it has already. Where the owner names no cap it costs no
// more than it did.
func (s *Spec) misfits(o *Offer, a *Attempt) misfit {
	before := Offer{Prices: a.Prices}
	rate, upfront := o.draws(s.Resources)
	rateBefore, upfrontBefore := before.draws(s.Resources)
	if why := s.judge(Candidate{Offer: o, Free: o.Total}, math.MaxUint64); why != fits {
		return why
	}
	if s.Cap == nil && (rate > rateBefore || upfront > upfrontBefore) {
		return dearer
	}
	return fits
}

// notYet writes down that a program was not gone on with: its host is asked again later, unless it
// has none.
func (e *Engine) notYet(ctx context.Context, id job.ID, attempt AttemptID, cause error) {
	e.changeKept(ctx, id, attempt, func(_ *Run, a *Attempt) string {
		now := e.deps.Now()
		switch {
		case errors.Is(cause, ErrNotContinuable), errors.Is(cause, ErrForgotten):
			a.Kept = false
			a.Reason = shorten(a.Host.Name + " is back without its program: " + cause.Error())
			return "attempt.dropped"
		case cause == nil && !a.Hold.Until.IsZero(): // it told, and is asked for a lease now
			return "attempt.back"
		case errors.Is(cause, ErrUnreachable):
			a.Hold.Back, a.Hold.Quiet = time.Time{}, now
		case cause != nil:
			a.Reason = shorten(a.Host.Name + " is back, kept: " + cause.Error())
		}
		a.Hold.later(now)
		return "attempt.waiting"
	})
}

// takeBack takes an attempt back that was to go on with a kept program, and whose lease is in no
// block. What it was to take the place of goes on, or what that left is done now.
func (e *Engine) takeBack(ctx context.Context, id job.ID, attempt AttemptID, cause error) {
	_, err := e.change(ctx, id, func(j *Job) (string, *Run) {
		r, a := j.Attempt(attempt)
		if a == nil || a.Placed || a.State == Ended {
			return "", nil
		}
		taken := *a
		r.Attempts = slices.DeleteFunc(r.Attempts, func(a Attempt) bool { return a.ID == attempt })
		r.Tries--
		if kept := r.Attempt(taken.Continues); kept != nil {
			kept.Hold.later(e.deps.Now())
			placeBy := time.UnixMilli(int64(taken.Lease.Lease.PlaceBy))
			kept.Hold.AskFrom = latest(kept.Hold.AskFrom, placeBy.Add(placeSlack))
			kept.Reason = shorten(kept.Host.Name + " is back, kept: " + cause.Error())
		}
		e.asBefore(j, r, taken.Created)
		return "job.waiting", r
	})
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot take an attempt back", "job", id, "error", err)
	}
}

// asBefore lets the run go on with what it had before something was sought in its place: the
// attempt that runs, or none. How that ended in the meantime is decided now.
func (e *Engine) asBefore(j *Job, r *Run, since time.Time) {
	last := r.Current()
	why, _ := j.stops(r)
	switch {
	case r.State == Ended:
	case last != nil && last.State != Ended && !last.Silent:
		r.State = last.State
		if why == "" {
			r.Reason = last.Reason
		}
	case why != "" && !r.Open():
		r.finish(Cancelled, why, e.deps.Now())
	case last != nil && last.State == Ended && !last.Ended.Before(since):
		e.settleRun(j, r, last)
	default:
		r.State = Pending
	}
}

// sendAway tells the host of a program that nothing waits for to stop it. One that is not reached
// is told again when it speaks of it, and ends it by itself when its time is over.
func (e *Engine) sendAway(id job.ID, host Host, attempt AttemptID, why string) {
	s := Stop{Job: id, Attempt: attempt, Reason: why, Grace: stopGrace}
	e.once(attempt, dismissing, func(ctx context.Context) { e.tellToStop(ctx, host, s) })
}

// unwanted tells whether a host keeps a program, of an attempt that is over, for nothing: its job
// does not know the attempt any more, or has let it go.
func (rep *Report) unwanted(r *Run, a *Attempt) bool {
	switch {
	case rep.State == Ended || rep.HeldUntil.IsZero():
		return false
	case a == nil:
		return true
	}
	return a.State == Ended && !a.Told && !a.Kept && !r.continued(a) &&
		r.ID == rep.Run && a.Host.Executor == rep.Executor
}
