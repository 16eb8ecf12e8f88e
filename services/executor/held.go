package executor

import (
	"context"
	"errors"
	"time"
)

// How what owners hold back is fetched.
const (
	// heldWindow is how long after the end of a lease an owner may reject; then silence has accepted.
	heldWindow = 24 * time.Hour
	heldEvery  = 10 * time.Minute // between looks
	heldMost   = 1000             // leases of one look, and of one settlement
)

// fetchHeld settles the leases whose holdback silence has accepted, until ctx ends. Without it a
// host would get its money only when the owner closes the escrow.
func (a *Agent) fetchHeld(ctx context.Context) {
	tick := time.NewTicker(heldEvery)
	defer tick.Stop()
	for {
		if err := a.settleHeld(ctx); err != nil && ctx.Err() == nil {
			a.deps.Log.WarnContext(ctx, "holdbacks are not fetched", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *Agent) settleHeld(ctx context.Context) error {
	records, err := a.deps.Journal.Held(ctx, heldMost)
	if err != nil {
		return err
	}
	due := map[string][]LeaseID{}
	for i := range records {
		r := &records[i]
		if a.deps.Now().Before(r.Changed.Add(heldWindow)) {
			continue
		}
		over, payable, err := a.lookHeld(ctx, r)
		switch {
		case err != nil:
			return err
		case over:
			r.Held = false
			if err := a.deps.Journal.Save(ctx, *r); err != nil {
				return err
			}
		case payable:
			due[r.Ask.Spec.Chain] = append(due[r.Ask.Spec.Chain], r.Lease.ID)
		}
	}
	for chain, leases := range due {
		if err := a.deps.Ledger.Settle(ctx, chain, leases); err != nil {
			return err
		}
		a.deps.Log.InfoContext(ctx, "holdbacks that no owner rejected are fetched", "chain", chain,
			"leases", len(leases))
	}
	return nil
}

// lookHeld reports whether nothing of a lease is held back any more, or silence has accepted it.
func (a *Agent) lookHeld(ctx context.Context, r *Record) (over, payable bool, err error) {
	s, err := a.deps.Ledger.Lease(ctx, r.Ask.Spec.Chain, r.Lease.ID)
	switch {
	case errors.Is(err, ErrNoLease):
		return true, false, nil
	case err != nil:
		return false, false, err
	case s.Withheld == 0 && s.Settled:
		return true, false, nil
	}
	end := s.Until
	if !s.End.IsZero() {
		end = s.End
	}
	return false, a.deps.Now().After(end.Add(heldWindow)), nil
}
