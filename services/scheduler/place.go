package scheduler

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

const (
	// maxLeaseTime bounds a lease of a job without a run time.
	maxLeaseTime = 30 * 24 * time.Hour
	// leastLife is what a lease of an always job pays for at least.
	leastLife = time.Minute
)

// place asks the candidates in turn until one signs a lease and the chain takes it. The first
// candidate's resources are held in the book already.
func (e *Engine) place(ctx context.Context, j *Job, r *Run, fit []Candidate) {
	ctx, done := e.deps.Trace(ctx, j.Traceparent, "scheduler.place")
	var err error
	defer func() { done(err) }()
	purse := e.purses.open(j.Escrow)
	defer e.purses.close(purse)
	var money *funds
	if money, err = e.fund(ctx, purse, r); err != nil {
		e.release(j, fit[:min(len(fit), 1)])
		e.escrowTrouble(ctx, j, r, err)
		return
	}
	escrow := &money.escrow
	j.Expires = e.lastLease(escrow)
	if e.past(ctx, j.Expires) {
		e.release(j, fit[:min(len(fit), 1)])
		e.endWaiting(ctx, j.ID, r.ID, Expired, fmt.Sprintf(
			"its escrow expires at %s, too soon for a lease",
			escrow.Expires.UTC().Format(time.RFC3339)))
		return
	}
	if err = e.placeOnOne(ctx, j, r, fit, money); !errors.Is(err, errSettled) {
		e.holdBack(ctx, j, r.ID, err)
	}
}

// errSettled: the run is none of the caller's business any more: it has an attempt, or was
// cancelled, or what comes next is written down.
var errSettled = errors.New("the run does not wait for this")

// placeOnOne returns errSettled, or the last candidate's answer when none took the run.
func (e *Engine) placeOnOne(
	ctx context.Context, j *Job, r *Run, fit []Candidate, money *funds,
) error {
	var last error
	for i, c := range fit {
		host := c.Offer.Host
		if i > 0 {
			e.book.Hold(host.Executor, j.Spec.Resources)
		}
		err := e.placeOn(ctx, j, r, asking{offer: c.Offer}, money)
		if err == nil {
			return errSettled
		}
		e.release(j, fit[i:i+1])
		e.deps.Log.InfoContext(ctx, "a run is not placed on a host",
			"job", j.ID, "host", host.Name, "error", err)
		switch {
		case ctx.Err() != nil || errors.Is(err, errSettled):
			return errSettled
		case errors.Is(err, errTurn): // whoever else is asked
			return err
		case lacksMoney(err): // the owner's affair, no host's; told with how long the run waits
			if !lacksMoney(last) { // the cheapest that lacks it says what is needed at least
				last = err
			}
			continue
		}
		e.notes.decline(r.ID, host.Executor, e.deps.Now())
		last = fmt.Errorf("%s: %w", host.Name, err)
		e.setWaiting(j.ID, r.ID, "waiting: "+last.Error())
	}
	return last
}

// lacksMoney tells whether the escrow is why a run was not placed, and no host.
func lacksMoney(err error) bool { return errors.Is(err, ErrEscrow) || errors.Is(err, ErrExhausted) }

// release takes back what was held of the candidates for the job.
func (e *Engine) release(j *Job, held []Candidate) {
	for _, c := range held {
		e.book.Release(c.Offer.Host.Executor, j.Spec.Resources)
	}
}

func (e *Engine) placeOn(
	ctx context.Context, j *Job, r *Run, of asking, money *funds,
) (err error) {
	o := of.offer
	of.terms, err = e.promise(ctx, j, r, o, money)
	for try := 1; errors.Is(err, errStale) && try < maxFunds; try++ {
		fresh, failed := e.fund(ctx, money.purse, r)
		if failed != nil {
			return fmt.Errorf("%w: %w", ErrEscrow, failed)
		}
		*money = *fresh
		of.terms, err = e.promise(ctx, j, r, o, money)
	}
	if err != nil {
		return err
	}
	attempt := Attempt{
		State: Pending, Host: o.Host, Prices: o.Prices, Created: e.deps.Now(),
		Reason: "asked " + o.Host.Name,
	}
	if old := of.continues; old != nil {
		attempt.Continues, attempt.Origin = old.ID, old.origin()
		attempt.Hold.Returns = old.Hold.Returns + 1
	}
	attempt.Lease, err = e.ask(ctx, j, r, &attempt.ID, of)
	if err == nil {
		err = e.stillGranted(ctx, j, r, money)
	}
	if err != nil {
		money.purse.forget(r.ID)
		return err
	}
	return e.commit(ctx, j.ID, r.ID, attempt, money.purse)
}

// asking is what a host is asked for.
type asking struct {
	offer *Offer
	terms Terms
	// continues is the attempt whose program the lease is to go on with; nil: a new program.
	continues *Attempt
}

// ask has a host sign a lease for a new attempt, whose id it draws.
func (e *Engine) ask(
	ctx context.Context, j *Job, r *Run, id *AttemptID, of asking,
) (SignedLease, error) {
	if err := e.draw(id[:]); err != nil {
		return SignedLease{}, err
	}
	ask := Ask{
		Revision: j.Revision, Run: r.ID, Task: r.Task, Attempt: *id,
		OfferHash: of.offer.Hash, Resources: j.Spec.Resources, Terms: of.terms,
	}
	if of.continues != nil {
		ask.Continues = of.continues.ID
	}
	ctx, cancel := context.WithTimeout(ctx, e.policy.AskTimeout)
	defer cancel()
	signed, err := e.deps.Hosts.Ask(ctx, of.offer.Host, ask)
	if err != nil {
		return SignedLease{}, err
	}
	return signed, e.checkLease(&signed, of.offer, ask)
}

// promise says what the lease shall allow, and sets the money for it aside.
func (e *Engine) promise(
	ctx context.Context, j *Job, r *Run, o *Offer, money *funds,
) (Terms, error) {
	s, now := &money.escrow, e.deps.Now()
	if s.Assigner != e.deps.Assigner {
		return Terms{}, fmt.Errorf("%w: its assigner is not this scheduler", ErrEscrow)
	}
	if len(s.Payees) > 0 && !slices.Contains(s.Payees, o.Payee) {
		return Terms{}, fmt.Errorf("%w: its payees do not include the host's", ErrEscrow)
	}
	until := now.Add(maxLeaseTime)
	if j.Spec.RunTime > 0 {
		until = now.Add(j.Spec.RunTime + e.policy.Overhead)
	}
	if latest := e.lastLease(s); until.After(latest) {
		until = latest
	}
	t := Terms{
		Escrow: j.Escrow, Subject: j.ID, Slot: r.Slot, Epoch: r.Epoch + 1,
		Trust: j.Spec.Trust, Holdback: j.Spec.Holdback, AckKeys: s.AckKeys,
		ClaimWindow: e.policy.ClaimWindow,
		PlaceBy:     now.Add(e.policy.PlaceWithin), Until: until,
		Supersedes: money.old,
	}
	var err error
	t.Budget, err = e.setAside(ctx, j, r, o, money)
	return t, err
}

// setAside promises the run its share of the escrow, and returns that. The job is read again: what
// other lanes were given since is in its record, or in the purse.
func (e *Engine) setAside(
	ctx context.Context, j *Job, r *Run, o *Offer, money *funds,
) (uint64, error) {
	p := money.purse
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.version != money.version && money.old != (tx.LeaseID{}) {
		return 0, errStale
	}
	if len(j.Runs) > 1 {
		var err error
		if j, err = e.deps.Store.Job(ctx, j.ID); err != nil {
			return 0, fmt.Errorf("read the job again: %w", err)
		}
	}
	frees := money.frees(e.deps.Now().Add(e.policy.PlaceWithin))
	share := p.share(j, r.ID, frees.budget)
	budget := share - min(share, p.fee)
	rate, upfront := o.draws(j.Spec.Resources)
	least, life := uint64(1), addUpTo(upfront, rate/uint64(time.Hour/leastLife))
	switch {
	case j.Spec.Always: // what is to run for good does not begin with what is gone at once
		least = max(least, life)
	case j.Spec.Tasks > 0: // nor is most of an array's last money spent on fees of what is
		least = max(least, min(life, p.fee))
	}
	trust := cmp.Or(j.Spec.Trust, usualTrust(budget, rate, upfront))
	switch left := p.rateLeft(r.ID, frees.rate); {
	case p.feeLeft(r.ID) < p.fee:
		return 0, e.lacksFee(&p.escrow)
	case budget < least && j.Spec.Always:
		return 0, fmt.Errorf("%w: %d grains are free for it, and %v cost %d; top its escrow up",
			ErrExhausted, budget, leastLife, least)
	case budget < least && least > 1:
		return 0, fmt.Errorf("%w: %d grains are free for it beside the fee of %d, and a task begins "+
			"with %d; top it up", ErrEscrow, budget, p.fee, least)
	case budget < least || addUpTo(p.escrow.Unreserved, frees.budget) < p.escrow.Floor:
		return 0, fmt.Errorf("%w: nothing in it is free to promise; top it up", ErrEscrow)
	case budget < j.Spec.Holdback:
		return 0, fmt.Errorf("%w: the %d grains that are free for a lease do not cover its holdback "+
			"of %d", ErrEscrow, budget, j.Spec.Holdback)
	case trust > p.trustLeft(r.ID, frees.trust):
		return 0, fmt.Errorf("%w: its trust leaves no room for %d grains beyond what is acknowledged",
			ErrEscrow, trust)
	case rate > left:
		return 0, fmt.Errorf("%w: its max_rate leaves no room for %d grains per hour", ErrEscrow, rate)
	}
	p.promised[r.ID] = promise{
		takes: draw{addUpTo(budget, p.fee), rate, trust, p.fee}, frees: frees,
		version: p.version, seen: p.escrow, at: p.at,
	}
	return budget, nil
}

// checkLease compares what the host signed with what it was asked and with its own offer.
func (e *Engine) checkLease(signed *SignedLease, o *Offer, a Ask) error {
	l, t := &signed.Lease, a.Terms
	rate, upfront := o.draws(a.Resources)
	wrong := ""
	switch {
	case l.Escrow != t.Escrow || !bytes.Equal(l.Subject, t.Subject[:]):
		wrong = "it names another escrow or job"
	case l.Slot != t.Slot || l.Epoch != t.Epoch:
		wrong = "it names another slot or epoch"
	case l.AgentKey != o.Host.Executor || l.Payee != o.Payee:
		wrong = "it pays somebody else than the offer names"
	case l.OfferHash != o.Hash || l.PriceHash != o.Prices.Hash():
		wrong = "it follows another offer"
	case uint64(l.Budget) != t.Budget || l.Upfront > l.Budget: // less would be used up at once
		wrong = "it wants another budget than it was offered, or more at once"
	case t.Trust != 0 && uint64(l.Trust) != t.Trust:
		wrong = "it wants another trust than the owner gives"
	case t.Trust == 0 && uint64(l.Trust) > usualTrust(t.Budget, rate, upfront):
		wrong = "it wants more trust than for a minute"
	case uint64(l.Holdback) != t.Holdback || l.Holdback > l.Budget:
		wrong = "it has another holdback than the owner asks for"
	case millis(t.Until) != uint64(l.Until) || uint64(l.PlaceBy) != millis(t.PlaceBy):
		wrong = "it lasts longer, or waits shorter, than it was offered"
	case l.SessionKey != sig.PublicKey{}: // it could spend the budgets of the job
		wrong = "it names a session key that nobody asked for"
	case uint64(l.ClaimWindow) != uint64(t.ClaimWindow.Milliseconds()):
		wrong = "it has another claim window"
	case uint64(l.Notice) > uint64(max(0, o.Notice.Milliseconds())): // as a Duration it may overflow
		wrong = "it wants a longer notice than its offer says"
	}
	if wrong != "" {
		return fmt.Errorf("%w: %s", ErrBadLease, wrong)
	}
	return e.checkSignature(signed, o, a)
}

// checkSignature also compares the price, and verifies the signature last, since it costs most.
func (e *Engine) checkSignature(signed *SignedLease, o *Offer, a Ask) error {
	rate, upfront := o.draws(a.Resources)
	if uint64(signed.Lease.Rate) > rate || uint64(signed.Lease.Upfront) > upfront {
		return fmt.Errorf("%w: it costs more than its offer", ErrBadLease)
	}
	if len(signed.Lease.AckKeys) != len(a.Terms.AckKeys) {
		return fmt.Errorf("%w: it names other ack keys", ErrBadLease)
	}
	for i, key := range a.Terms.AckKeys {
		if signed.Lease.AckKeys[i] != key {
			return fmt.Errorf("%w: it names other ack keys", ErrBadLease)
		}
	}
	id, err := e.deps.VerifyLease(&signed.Lease, signed.Signature)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadLease, err)
	}
	signed.ID = id
	return nil
}

// commit writes the intent, puts the lease on the chain and writes that it is there. A crash in
// between is taken up by resume: the lease is known before it is sent.
func (e *Engine) commit(
	ctx context.Context, id job.ID, run RunID, attempt Attempt, purse *purse,
) error {
	waits := false
	j, err := e.change(ctx, id, func(j *Job) (string, *Run) {
		r := j.Run(run)
		if waits = j.takes(r, &attempt); !waits {
			return "", nil
		}
		r.Epoch = attempt.Lease.Lease.Epoch
		r.add(attempt, j.Spec.Always)
		return "attempt.asked", r
	})
	if err != nil {
		purse.forget(run)
		return fmt.Errorf("%w: write the attempt down: %w", errSettled, err) // it may be
	}
	if !waits {
		purse.forget(run)
		return errSettled
	}
	purse.take()
	defer purse.land(run)
	err = e.deps.Ledger.PlaceLease(ctx, attempt.Lease, e.policy.LeaseFee)
	switch {
	case err == nil:
		err = e.leased(ctx, id, attempt.ID)
	case errors.Is(err, ErrLeaseRefused), errors.Is(err, ErrNotPlaced):
		if errors.Is(err, ErrEscrow) {
			e.refusals.note(j.Owner, purse.of(run).at, e.deps.Now())
		}
		e.unplaced(ctx, id, &attempt, err)
		purse.forget(run)
	} // otherwise unknown: resume or the sweep finds out
	if err != nil {
		return fmt.Errorf("%w: %w", errSettled, err)
	}
	return nil
}

// takes tells whether the run still has a use for an attempt. None has one whose id another has:
// what becomes of the two could not be told apart.
func (j *Job) takes(r *Run, a *Attempt) bool {
	if _, other := j.Attempt(a.ID); other != nil {
		return false
	}
	if r == nil || j.CancelReason != "" || r.Surplus || r.Epoch >= a.Lease.Lease.Epoch ||
		!j.Spec.Always && len(r.Attempts) >= MaxAttempts {
		return false
	}
	if a.Continues == (AttemptID{}) {
		return r.Waits()
	}
	old := r.Attempt(a.Continues)
	return old != nil && r.continuable(old)
}

// leased records that the lease is on the chain and sees to the delivery.
func (e *Engine) leased(ctx context.Context, id job.ID, attempt AttemptID) error {
	cancelled := false
	j, err := e.change(ctx, id, func(j *Job) (string, *Run) {
		r, a := j.Attempt(attempt)
		if a == nil || a.Placed {
			return "", nil
		}
		r.replace(a, j.Spec.Keep == KeepOriginal, e.deps.Now())
		r.Lease = a.Lease.ID
		a.Placed = true // also of one that has ended: a quick host's report came first
		if a.State == Pending {
			a.State, a.Reason = Leased, "leased to "+a.Host.Name
			if a.Origin != 0 {
				a.Reason = a.Host.Name + " is back and goes on with its program"
			}
			if r.State != Ended {
				r.State, r.Reason = Leased, a.Reason
			}
		}
		why, _ := j.stops(r)
		cancelled = why != "" && a.State != Ended
		return "attempt.leased", r
	})
	if err != nil {
		return err
	}
	if cancelled {
		e.stop(j, attempt)
		return nil
	}
	e.deliver(j, attempt)
	return nil
}

// deliver brings the task to the host, at once or after the client's grace.
func (e *Engine) deliver(j *Job, attempt AttemptID) {
	_, a := j.Attempt(attempt)
	if a == nil || a.Delivered || a.State != Leased {
		return
	}
	wait := e.policy.DeliverGrace
	if j.Delivery == ByScheduler || a.Origin != 0 { // of what goes on the host has all it needs
		wait = 0
	}
	id := j.ID
	e.later(wait, func(ctx context.Context) { e.deliverNow(ctx, id, attempt) })
}

// deliverTries bounds how often a host is given the task before StartWithin ends the attempt.
const deliverTries = 5

func (e *Engine) deliverNow(ctx context.Context, id job.ID, attempt AttemptID) {
	var err error
	for try := range deliverTries {
		var j *Job
		if j, err = e.deps.Store.Job(ctx, id); err != nil {
			break
		}
		r, a := j.Attempt(attempt)
		if a == nil || a.Delivered || a.State != Leased {
			return
		}
		if err = e.deliverOnce(ctx, j, r, a); err == nil {
			return
		}
		if !e.pause(ctx, time.Second<<try) {
			return
		}
	}
	e.deps.Log.WarnContext(ctx, "cannot deliver a task", "job", id, "error", err)
}

func (e *Engine) deliverOnce(ctx context.Context, j *Job, r *Run, a *Attempt) (err error) {
	ctx, done := e.deps.Trace(ctx, j.Traceparent, "scheduler.deliver")
	defer func() { done(err) }()
	ctx, cancel := context.WithTimeout(ctx, e.policy.AskTimeout)
	defer cancel()
	told, err := e.deps.Hosts.Deliver(ctx, a.Host, taskOf(j, r, a))
	if err != nil {
		return err
	}
	e.hear()
	_, err = e.change(ctx, j.ID, func(j *Job) (string, *Run) {
		r, held := j.Attempt(a.ID)
		if held == nil || held.State == Ended {
			return "", nil
		}
		held.Delivered, held.Heard = true, e.deps.Now()
		r.returned(held)
		return "attempt.delivered", r
	})
	if err == nil && told != nil {
		err = e.Report(ctx, *told)
	}
	return err
}

// taskOf is what the host of an attempt is given.
func taskOf(j *Job, r *Run, a *Attempt) Task {
	return Task{
		Revision: j.Revision, Run: r.ID, Attempt: a.ID, Lease: a.Lease.ID,
		StorageToken: j.StorageToken,
	}
}
