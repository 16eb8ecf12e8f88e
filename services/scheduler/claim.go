package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// Claim is a lease whose attempt has ended. When its host does not charge it for the last time, as
// one that is lost does not, it stays on the chain until somebody settles it: money stays reserved,
// the escrow cannot be closed and blocks go on. One that is settled takes a place of those that an
// escrow may have until it is removed.
type Claim struct {
	Lease tx.LeaseID
	// Due is when somebody must look whether the lease is settled.
	Due time.Time
	// By is the host that told the end itself of a program that ran, and wants a notice; else zero.
	By Teller
}

// Teller is a host that told the end of an attempt.
type Teller struct {
	Executor sig.PublicKey
	Operator sig.AccountID // by its certificate
	// Leased and Told are when the attempt began to be a lease and when its end was told.
	Leased, Told time.Time
}

// MaxClaims bounds one page of claims, and the leases that are settled together.
const MaxClaims = 256

// Waits of claims.
const (
	// claimSlack is how long after the window of a lease, by this clock, the chain's is surely over
	// unless its time stood still.
	claimSlack = time.Minute
	// claimAgain is how long a claim waits that could not be settled, or was and is looked at once
	// more.
	claimAgain = time.Hour
	// taskSlack is when the lease of an array's task is looked at: the chain holds 65,536 of one
	// escrow, and tasks may be many more, so those that are done must go.
	taskSlack = 10 * time.Second
	// noticeSlack is the same of a host that has its notice paid if its lease is ended: one that is a
	// little slow shall not have it for nothing, and one that charges on not much more.
	noticeSlack = time.Minute
	// endSlack is how long after the end that its host told a lease may stand without being charged
	// for the last time. Then it is ended: a host that goes, lies, or has no account to be paid on
	// would hold the money until the lease's time is over, or charge on.
	endSlack = 10 * time.Minute
)

// unclaimed are the attempts of the job of which no claim was written down.
func (j *Job) unclaimed() (ids []AttemptID) {
	for i := range j.Runs {
		for k := range j.Runs[i].Attempts {
			if a := &j.Runs[i].Attempts[k]; !a.over() {
				ids = append(ids, a.ID)
			}
		}
	}
	return ids
}

// over tells whether the attempt has ended and its lease may stand on the chain. One whose host
// told the end before it was written down that the lease is there may be gone from its job by then:
// an array's lane goes on at once.
func (a *Attempt) over() bool { return a.State == Ended && (a.Placed || a.Told) }

// claims are those of the attempts that are over now.
func (e *Engine) claims(j *Job, before []AttemptID) (claims []Claim) {
	for _, id := range before {
		_, a := j.Attempt(id)
		if a == nil || !a.over() {
			continue
		}
		ended := latest(a.Ended, e.deps.Now())
		due := ended.Add(time.Duration(a.Lease.Lease.ClaimWindow)*time.Millisecond + claimSlack)
		if a.Told {
			due = ended.Add(endSlack)
		}
		if j.Spec.Tasks > 0 {
			slack := taskSlack
			if a.Lease.Lease.Notice > 0 {
				slack = noticeSlack
			}
			placeBy := time.UnixMilli(int64(a.Lease.Lease.PlaceBy))
			due = latest(ended, placeBy).Add(slack)
		}
		claims = append(claims, Claim{Lease: a.Lease.ID, Due: due, By: a.teller()})
	}
	return claims
}

// teller is the attempt's host if it may come to take its notice for what it has ended itself.
func (a *Attempt) teller() Teller {
	if !a.Told || !a.Began || a.Lease.Lease.Notice == 0 {
		return Teller{}
	}
	return Teller{a.Host.Executor, a.Host.Operator, a.Created, a.Ended}
}

// errUnsettled: leases are open that could not be settled.
var errUnsettled = errors.New("cannot settle leases that are open")

// settleClaims looks after the claims that are due, a page at a time, settles leases whose claim
// window is over and removes those that are settled. What fails is tried again by a later sweep,
// and what cannot be settled holds up none behind it.
func (e *Engine) settleClaims(ctx context.Context) {
	var after Claim
	var unsettled error
	for ctx.Err() == nil {
		due, err := e.deps.Store.Claims(ctx, after, e.deps.Now(), MaxClaims)
		if err == nil && len(due) > 0 {
			after = due[len(due)-1] // not from the first: what was done still lies there for a while
			err = e.settlePage(ctx, due)
		}
		if errors.Is(err, errUnsettled) {
			unsettled, err = err, nil
		}
		if err != nil || len(due) < MaxClaims {
			unsettled = errors.Join(unsettled, err)
			break
		}
	}
	if unsettled != nil {
		e.deps.Log.ErrorContext(ctx, "cannot look after leases", "error", unsettled)
	}
}

// settlePage settles what of a page can be settled and writes down when to look at the rest again.
// An error that is errUnsettled leaves only what should have been settled.
func (e *Engine) settlePage(ctx context.Context, page []Claim) error {
	done, again, open, err := e.sortClaims(ctx, page)
	if err != nil {
		return err
	}
	unsettled := e.settleOpen(ctx, open)
	if unsettled == nil {
		done = append(done, open...)
		for _, c := range open { // to see that it is
			again = append(again, Claim{Lease: c.Lease, Due: e.deps.Now().Add(claimAgain)})
		}
	}
	if len(done) > 0 {
		if err := e.deps.Store.Claimed(ctx, done, again); err != nil {
			return fmt.Errorf("write claims: %w", err)
		}
	}
	return unsettled
}

// sortClaims asks the chain about all of a page: claims that are done, those of them that are to be
// looked at again, and those whose leases are to be settled.
func (e *Engine) sortClaims(ctx context.Context, page []Claim) (
	done, again, open []Claim, _ error,
) {
	ids := make([]tx.LeaseID, len(page))
	for i, c := range page {
		ids[i] = c.Lease
	}
	states, err := e.deps.Ledger.Leases(ctx, ids)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("look at leases: %w", err)
	}
	now, err := e.deps.Ledger.Now(ctx)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read the chain's clock: %w", err)
	}
	var ends []overdue
	for _, c := range page {
		switch state, there := states[c.Lease]; {
		case !there, state.Settled && state.Leaf.Withheld > 0: // its owner and host see to that
			done = append(done, c)
		case state.Settled:
			open = append(open, c)
		case state.Ended.IsZero() && now.Before(state.Until):
			// By its own claim it is over. Its window is known once the end is on the chain.
			ends = append(ends, overdue{c, state})
		case now.Before(state.Claimable):
			done = append(done, c)
			again = append(again, Claim{Lease: c.Lease, Due: state.Claimable.Add(claimSlack)})
		default:
			open = append(open, c)
		}
	}
	ended, later := e.endOver(ctx, ends)
	return append(done, ended...), append(again, later...), open, nil
}

// overdue is a claim whose lease is to be ended.
type overdue struct {
	Claim
	state LeaseState
}

// endsAtOnce bounds the ends of leases that are on their way to the chain together.
const endsAtOnce = 32

// endOver ends leases whose attempts are over. It returns the claims of which that is done, and
// when to look at them again. Each end has a transaction of its own: in a common one a host that
// charges for the last time just then would have all others fail, and their fees be paid for
// nothing.
//
// What is not this scheduler's to end is left until it may be settled, and nothing is sent for it:
// a refused end costs its fee as well.
func (e *Engine) endOver(ctx context.Context, ends []overdue) (done, again []Claim) {
	ours := map[tx.EscrowID]error{}
	errs := make([]error, len(ends))
	slots := make(chan struct{}, endsAtOnce)
	var wait sync.WaitGroup
	for i := range ends {
		escrow := ends[i].state.Leaf.Lease.Escrow
		err, known := ours[escrow]
		if !known {
			err = e.assigns(ctx, escrow)
			ours[escrow] = err
		}
		if errs[i] = err; err != nil {
			continue
		}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			errs[i] = e.deps.Ledger.EndLease(ctx, ends[i].Lease)
		})
	}
	wait.Wait()
	for i, c := range ends {
		due := e.deps.Now().Add(claimAgain)
		switch err := errs[i]; {
		case errors.Is(err, ErrEndRefused):
			due = c.state.Claimable.Add(claimSlack)
		case err != nil:
			e.deps.Log.ErrorContext(ctx, "cannot end a lease whose attempt is over",
				"lease", c.Lease, "error", err)
			continue
		case c.By != Teller{}:
			e.takers.note(c.By, e.deps.Now())
		}
		done, again = append(done, c.Claim), append(again, Claim{Lease: c.Lease, Due: due})
	}
	return done, again
}

// assigns returns ErrEndRefused if this scheduler is not the escrow's assigner any more.
func (e *Engine) assigns(ctx context.Context, id tx.EscrowID) error {
	escrow, err := e.deps.Ledger.Escrow(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return ErrEndRefused
	case err != nil:
		return fmt.Errorf("look at its escrow: %w", err)
	case escrow.Assigner != e.deps.Assigner:
		return ErrEndRefused
	}
	return nil
}

func (e *Engine) settleOpen(ctx context.Context, open []Claim) error {
	if len(open) == 0 {
		return nil
	}
	ids := make([]tx.LeaseID, len(open))
	for i, c := range open {
		ids[i] = c.Lease
	}
	if err := e.deps.Ledger.Settle(ctx, ids); err != nil {
		return fmt.Errorf("%w: %d: %w", errUnsettled, len(ids), err)
	}
	e.deps.Log.InfoContext(ctx, "leases that are over are settled and removed",
		"leases", len(ids))
	return nil
}
