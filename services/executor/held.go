package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// How what owners hold back is fetched.
const (
	// heldWindow is how long after the end of a lease an owner may reject; then silence has accepted.
	heldWindow = 24 * time.Hour
	heldEvery  = 10 * time.Minute // between looks
	heldLater  = 12 * time.Hour   // the longest wait after a settlement that paid nothing
	heldMost   = 1000             // leases of one page, and of one settlement
)

// fetcher settles the leases whose holdback silence has accepted. Without it a host would get its
// money only when the owner closes the escrow.
type fetcher struct {
	a *Agent
	// tried says when a lease was settled last and how long not to try again: the chain's day of
	// silence counts only time in which it made blocks, so it may end later than ours, and each try
	// costs a fee.
	tried map[LeaseID]attempted
}

type attempted struct {
	at   time.Time
	wait time.Duration
}

// fetchHeld works until ctx ends.
func (a *Agent) fetchHeld(ctx context.Context) {
	f := &fetcher{a: a, tried: map[LeaseID]attempted{}}
	tick := time.NewTicker(heldEvery)
	defer tick.Stop()
	for {
		if err := f.turn(ctx); err != nil && ctx.Err() == nil {
			a.deps.Log.WarnContext(ctx, "holdbacks are not fetched", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// turn looks at all that is held. Trouble with one lease does not hold up the others.
func (f *fetcher) turn(ctx context.Context) error {
	var errs []error
	due := map[string][]LeaseID{}
	for after := AttemptID(""); ; {
		page, err := f.a.deps.Journal.Held(ctx, after, heldMost)
		if err != nil {
			return err
		}
		for i := range page {
			r := &page[i]
			payable, err := f.look(ctx, r)
			if err != nil {
				errs = append(errs, fmt.Errorf("attempt %s: %w", r.Ask.Attempt, err))
			} else if payable {
				due[r.Ask.Spec.Chain] = append(due[r.Ask.Spec.Chain], r.Lease.ID)
			}
			after = r.Ask.Attempt
		}
		if len(page) < heldMost || ctx.Err() != nil {
			break
		}
	}
	for chain, leases := range due {
		for part := range slices.Chunk(leases, heldMost) {
			if err := f.settle(ctx, chain, part); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs[:min(len(errs), 3)]...)
}

func (f *fetcher) settle(ctx context.Context, chain string, leases []LeaseID) error {
	if err := f.a.deps.Ledger.Settle(ctx, chain, leases); err != nil {
		return err
	}
	f.a.deps.Log.InfoContext(ctx, "holdbacks that no owner rejected are asked for", "chain", chain,
		"leases", len(leases))
	now := f.a.deps.Now()
	for _, id := range leases {
		wait := min(max(2*f.tried[id].wait, heldEvery), heldLater)
		f.tried[id] = attempted{now, wait}
	}
	return nil
}

// look lets go of what is held no more, and reports whether silence has accepted.
func (f *fetcher) look(ctx context.Context, r *Record) (payable bool, err error) {
	now, id := f.a.deps.Now(), r.Lease.ID
	if now.Before(r.Changed.Add(heldWindow)) || now.Before(f.tried[id].at.Add(f.tried[id].wait)) {
		return false, nil
	}
	s, err := f.a.deps.Ledger.Lease(ctx, r.Ask.Spec.Chain, id)
	switch {
	case errors.Is(err, ErrNoLease), err == nil && s.Withheld == 0 && s.Settled:
		delete(f.tried, id)
		r.Held = false
		return false, f.a.deps.Journal.Save(ctx, *r)
	case err != nil:
		return false, err
	}
	end := s.Until
	if !s.End.IsZero() {
		end = s.End
	}
	return s.Withheld > 0 && now.After(end.Add(heldWindow)), nil
}
