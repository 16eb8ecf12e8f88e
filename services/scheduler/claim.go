package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/tx"
)

// Claim is a lease whose attempt has ended. When its host does not charge it for the last time, as
// one that is lost does not, it stays on the chain until somebody settles it: money stays reserved,
// the escrow cannot be closed and blocks go on.
type Claim struct {
	Lease tx.LeaseID
	// Due is when somebody must look whether the lease is settled.
	Due time.Time
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

// over tells whether the attempt has ended and holds a lease.
func (a *Attempt) over() bool { return a.Placed && a.State == Ended }

// claims are those of the attempts that are over now.
func (e *Engine) claims(j *Job, before []AttemptID) (claims []Claim) {
	for _, id := range before {
		_, a := j.Attempt(id)
		if a == nil || !a.over() {
			continue
		}
		window := time.Duration(a.Lease.Lease.ClaimWindow) * time.Millisecond
		claims = append(claims, Claim{
			Lease: a.Lease.ID, Due: latest(a.Ended, e.deps.Now()).Add(window + claimSlack),
		})
	}
	return claims
}

// settleClaims looks after the claims that are due, a page at a time, and settles leases whose
// claim window is over. What fails is tried again by a later sweep.
func (e *Engine) settleClaims(ctx context.Context) {
	for ctx.Err() == nil {
		due, err := e.deps.Store.Claims(ctx, e.deps.Now(), MaxClaims)
		if err == nil && len(due) > 0 {
			err = e.settlePage(ctx, due)
		}
		if err != nil {
			e.deps.Log.ErrorContext(ctx, "cannot settle leases", "error", err)
			return
		}
		if len(due) < MaxClaims {
			return
		}
	}
}

// settlePage settles what of a page can be settled and writes down when to look at the rest again.
func (e *Engine) settlePage(ctx context.Context, page []Claim) error {
	var settle []tx.LeaseID
	var again []Claim
	for _, c := range page {
		state, err := e.deps.Ledger.Lease(ctx, c.Lease)
		now := e.deps.Now()
		switch {
		case errors.Is(err, ErrNotFound), err == nil && state.Settled:
		case err != nil:
			return fmt.Errorf("look at a lease: %w", err)
		case now.Before(state.Claimable):
			again = append(again, Claim{Lease: c.Lease, Due: state.Claimable.Add(claimSlack)})
		default:
			settle = append(settle, c.Lease)
			again = append(again, Claim{Lease: c.Lease, Due: now.Add(claimAgain)})
		}
	}
	if len(settle) > 0 {
		if err := e.deps.Ledger.Settle(ctx, settle); err != nil {
			return err
		}
		e.deps.Log.InfoContext(ctx, "leases left open by their hosts are settled",
			"leases", len(settle))
	}
	if err := e.deps.Store.Claimed(ctx, page, again); err != nil {
		return fmt.Errorf("write claims: %w", err)
	}
	return nil
}
