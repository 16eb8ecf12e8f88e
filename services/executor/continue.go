package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/telemetry"
)

// An attempt that continues another one runs that one's program, in its container as it is, under
// a lease of its own. Until its task is here and its lease on the chain the other one has the
// program; then both records change in one write, so that at any moment exactly one attempt owns
// the container, is paid for it, and removes it at its end.

// container names the attempt whose container this one runs.
func (r *Record) container() AttemptID {
	if r.Container != "" {
		return r.Container
	}
	return r.Ask.Attempt
}

// rides tells whether the attempt waits for the program of another one, which holds what it needs.
func (r *Record) rides() bool { return r.Ask.Continues != "" && r.Phase < PhaseRunning }

// continuable tells why the attempt that a question wants to continue cannot be, or nil. It looks
// at the chain when this host does not know yet that the lease was superseded.
func (a *Agent) continuable(ctx context.Context, ask *Ask) (*Decline, error) {
	t := a.find(ask.Continues)
	if t == nil {
		return notContinuable("the attempt is not here, or over"), nil
	}
	r := t.view().rec
	if no := r.unlike(ask); no != nil {
		return no, nil
	}
	if no := r.ending(); no != nil {
		return no, nil
	}
	if r.Evict != nil {
		return notContinuable("the program was told to go"), nil
	}
	if r.Hold == nil {
		if no, err := t.holdFor(ctx); no != nil || err != nil {
			return no, err
		}
		r = t.view().rec
	}
	switch {
	case r.Hold == nil:
		return notContinuable("the program is on its way to its end"), nil
	case !a.deps.Now().Before(r.Hold.Until):
		return notContinuable("the program was held long enough"), nil
	case ask.Terms.PlaceBy > unixMillis(r.Hold.Until.Add(heldPlace)):
		return declined(DeclineTerms, "continues: place_by is more than %v after %s, when the hold "+
			"of the program ends", heldPlace, r.Hold.Until.UTC().Format(time.RFC3339)), nil
	}
	return nil, nil
}

func notContinuable(format string, args ...any) *Decline {
	return declined(DeclineNotContinuable, "continues: "+format, args...)
}

// unlike tells what of the question does not fit the attempt that it wants to continue.
func (r *Record) unlike(ask *Ask) *Decline {
	have, lease := &r.Ask, &r.Lease.Lease
	switch {
	case have.Job != ask.Job || have.Revision != ask.Revision:
		return notContinuable("the attempt is of another job")
	case have.Run != ask.Run || !slices.Equal(have.Spec.Env, ask.Spec.Env): // it names the task
		return notContinuable("the attempt is of another run or task")
	case lease.Escrow != ask.Terms.Escrow || lease.Slot != ask.Terms.Slot:
		return notContinuable("the attempt is of another slot")
	case !have.Spec.KeepOriginal:
		return notContinuable("the job's owner does not want the original kept")
	case ask.Terms.Epoch <= lease.Epoch:
		return declined(DeclineTerms, "continues: epoch %d is not above the attempt's %d",
			ask.Terms.Epoch, lease.Epoch)
	}
	return nil
}

// ending tells why the attempt has no program that could go on.
func (r *Record) ending() *Decline {
	switch {
	case r.HandedTo != "":
		return notContinuable("the attempt goes on as %s already", r.HandedTo)
	case r.Phase != PhaseRunning:
		return notContinuable("the attempt's program does not run")
	case r.Stop != nil:
		return notContinuable("the program is on its way to its end")
	}
	return nil
}

// holdFor looks at the chain for a question that came before this host did.
func (t *attempt) holdFor(ctx context.Context) (*Decline, error) {
	state, over, err := t.leaseOver(ctx)
	switch {
	case err != nil:
		return nil, err
	case !over:
		return declined(DeclineTerms, "continues: the attempt's lease still stands"), nil
	case !t.holds(&state):
		return notContinuable("the attempt's lease is over, and its program is not held"), nil
	}
	return nil, t.hold(context.WithoutCancel(ctx), state.End)
}

// heir returns the attempt that is promised to go on with the program of another one, or nil.
func (a *Agent) heir(id AttemptID) *attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.heirs[id]
}

// disinherit forgets that the attempt waits for another one's program.
func (a *Agent) disinherit(t *attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgetHeir(t)
}

// forgetHeir is disinherit for whoever holds mu.
func (a *Agent) forgetHeir(t *attempt) {
	if a.heirs[t.ask.Continues] == t {
		delete(a.heirs, t.ask.Continues)
	}
}

// takeOver waits for the program of the attempt that this one continues. When it is not to be had
// any more this one ends, uncharged.
func (t *attempt) takeOver(ctx context.Context) error {
	from := t.agent.find(t.ask.Continues)
	if from == nil {
		return t.endUnstarted(ctx, EndRefused, nothingToContinue)
	}
	late, missed := t.startBy()
	from.set(func() { from.taker = t })
	for {
		v, f := t.view(), from.view()
		now := t.agent.deps.Now()
		if v.rec.Phase != PhaseTaken || v.rec.Stop != nil || !now.Before(late) || f.rec.ending() != nil {
			break
		}
		timer := time.NewTimer(late.Sub(now))
		select {
		case <-v.changed:
		case <-f.changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	from.set(func() { from.taker = nil }) // a handing over that has begun is done after this
	v := t.view()
	switch {
	case v.rec.Phase != PhaseTaken:
		return nil
	case v.rec.Stop != nil:
		return t.endUnstarted(ctx, v.rec.Stop.Reason, v.rec.Stop.Message)
	case !t.agent.deps.Now().Before(late):
		return t.endUnstarted(ctx, EndRefused, missed)
	}
	return t.endUnstarted(ctx, EndRefused, nothingToContinue)
}

const nothingToContinue = "the program that it was to go on with is over"

// errNotYet holds a handing over up.
var errNotYet = errors.New("the program cannot be handed over now")

// handOver gives the program, which was just measured, to the attempt that continues this one.
// Nothing of this life's watch may write to the record after it: what it has to do with the chain
// is cut short, as there is nothing to charge of a program that is held.
func (w *watch) handOver(ctx context.Context, to *attempt) error {
	w.leaveChain()
	select {
	case w.charging <- struct{}{}: // for good, if it is handed over
	default:
		return errNotYet
	}
	outcome, err := w.t.bequeath(ctx, w, to)
	if err != nil {
		<-w.charging
		return err
	}
	w.t.agent.counters.ended(ctx, outcome)
	w.t.agent.offerChanged()
	return nil
}

// bequeath writes both records in one, and only then moves the container and what it holds of the
// host. It returns this attempt's outcome. An error means that nothing has changed.
func (t *attempt) bequeath(ctx context.Context, w *watch, to *attempt) (*Outcome, error) {
	t.mu.Lock() // the older one first
	defer t.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	if t.taker != to || t.rec.ending() != nil || t.rec.Hold == nil ||
		to.rec.Phase != PhaseTaken || to.rec.Stop != nil {
		return nil, errNotYet
	}
	mine, its := t.rec, to.rec
	mine.passOn(to.id)
	its.goOn(&t.rec, &w.tally, t.agent.deps.Now())
	its.owe(&t.rec, t.agent.deps.Now(), &t.agent.cfg)
	its.noted(to.sign(&its, &its.Tally, false), 0)
	statuses := []*Status{
		t.transition(&mine, mine.Outcome.Message), to.transition(&its, its.words()),
	}
	var events []event.Event
	for _, s := range statuses {
		e, err := t.agent.tell(*s, telemetry.Inject(ctx))
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	if err := t.agent.deps.Journal.SaveBoth(ctx, mine, its, events...); err != nil {
		return nil, fmt.Errorf("write down that %s continues %s: %w", to.id, t.id, err)
	}
	to.container, t.container = w.container, nil
	to.secrets, to.registry, t.secrets, t.taker = nil, nil, nil, nil
	t.agent.inherit(t, to)
	t.become(mine, statuses[0])
	to.become(its, statuses[1])
	return mine.Outcome, nil
}

// passOn ends the record of an attempt whose program goes on as another one.
func (r *Record) passOn(to AttemptID) {
	r.Phase, r.HandedTo, r.Note.Final = PhaseEnded, to, true
	r.Outcome = &Outcome{
		Reason: EndCancelled, Code: -1, Usage: r.Note.Usage, Amount: r.Note.Note.Cumulative,
		Message: fmt.Sprintf("its program goes on, under the lease of attempt %s", to),
	}
}

// goOn makes the record that of a running attempt, whose program is the older one's.
func (r *Record) goOn(old *Record, tally *Tally, now time.Time) {
	r.Phase, r.Container = PhaseRunning, old.container()
	r.Ran = add(old.Ran, tally.Used.WallMS)
	r.Tally = tally.Carry()
	if e := old.Evict; e != nil && r.mayGo(e) {
		r.Evict = e
	}
	ended := !old.TokenUntil.IsZero() && !now.Before(old.TokenUntil)
	if r.Token == "" || old.Token != "" && old.TokenOwned && !r.TokenOwned && !ended {
		r.Token, r.TokenUntil, r.TokenOwned = old.Token, old.TokenUntil, old.TokenOwned
	}
}

// owe adds up what the program ran for pay and for nothing under the older leases.
func (r *Record) owe(old *Record, now time.Time, c *Config) {
	free := unpaid(now, old.Hold.Since, old.Hold.End, c)
	r.PaidFor = add(old.PaidFor, old.Note.Usage.WallMS)
	r.Unpaid = add(old.Unpaid, uint64(free.Milliseconds()))
}

// words says what a program is that another attempt's was.
func (r *Record) words() string {
	return fmt.Sprintf("going on with the program of attempt %s", r.Ask.Continues)
}

// inherit moves what an attempt holds of the host to the one that continues it.
func (a *Agent) inherit(from, to *attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	to.held, from.held = from.held, Resources{}
	a.forgetHeir(to)
}
