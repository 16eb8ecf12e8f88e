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
	heldEvery = 10 * time.Minute // between looks
	heldLater = 12 * time.Hour   // the longest wait after a settlement that paid nothing
	heldMost  = 1000             // leases of one page, and of one settlement
)

// fetcher settles the leases whose holdback silence has accepted. Without it a host would get its
// money only when the owner closes the escrow. What counts is the chain's clock, not the host's:
// each settlement costs a fee, and one that comes early pays nothing.
type fetcher struct {
	a *Agent
	// known is what this life has read of leases that hold something back; together at most as many
	// as the journal keeps held.
	known map[LeaseID]holding
}

// holding is a lease that holds something back.
type holding struct {
	over  time.Time     // when silence has accepted, by the chain's accrual
	tried time.Time     // the last settlement, by this host's clock; zero: none yet
	wait  time.Duration // not to try again
}

// fetchHeld works until ctx ends.
func (a *Agent) fetchHeld(ctx context.Context) {
	f := &fetcher{a: a, known: map[LeaseID]holding{}}
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
	clocks := map[string]time.Time{}
	for after := AttemptID(""); ; {
		page, err := f.a.deps.Journal.Held(ctx, after, heldMost)
		if err != nil {
			return err
		}
		for i := range page {
			r := &page[i]
			after = r.Ask.Attempt
			now, err := f.clock(ctx, clocks, r.Ask.Spec.Chain)
			payable := false
			if err == nil {
				payable, err = f.look(ctx, r, now)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("attempt %s: %w", r.Ask.Attempt, err))
			} else if payable {
				due[r.Ask.Spec.Chain] = append(due[r.Ask.Spec.Chain], r.Lease.ID)
			}
		}
		if len(page) == 0 || ctx.Err() != nil {
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

// clock reads the accrual of a chain, once a turn. A chain that cannot be read is asked for every
// lease again: it may come back meanwhile.
func (f *fetcher) clock(
	ctx context.Context, read map[string]time.Time, chain string,
) (time.Time, error) {
	if now, ok := read[chain]; ok {
		return now, nil
	}
	t, err := f.a.deps.Ledger.Time(ctx, chain)
	if err == nil {
		read[chain] = t.Accrual
	}
	return t.Accrual, err
}

func (f *fetcher) settle(ctx context.Context, chain string, leases []LeaseID) error {
	if err := f.a.deps.Ledger.Settle(ctx, chain, leases); err != nil {
		return err
	}
	f.a.deps.Log.InfoContext(ctx, "holdbacks that no owner rejected are asked for", "chain", chain,
		"leases", len(leases))
	for _, id := range leases {
		have := f.known[id]
		have.tried, have.wait = f.a.deps.Now(), min(max(2*have.wait, heldEvery), heldLater)
		f.known[id] = have
	}
	return nil
}

// look lets go of what is held no more, and reports whether silence has accepted by the chain's
// clock.
func (f *fetcher) look(ctx context.Context, r *Record, now time.Time) (payable bool, err error) {
	id := r.Lease.ID
	have, known := f.known[id]
	switch {
	case known && now.Before(have.over):
		return false, nil
	case f.a.deps.Now().Before(have.tried.Add(have.wait)):
		return false, nil
	}
	s, err := f.a.deps.Ledger.Lease(ctx, r.Ask.Spec.Chain, id)
	switch {
	case errors.Is(err, ErrNoLease), err == nil && s.Withheld == 0 && s.Settled:
		delete(f.known, id)
		r.Held = false
		return false, f.a.deps.Journal.Save(ctx, *r)
	case err != nil:
		return false, err
	}
	have.over = s.SilenceOver
	f.known[id] = have
	return s.Withheld > 0 && !now.Before(have.over), nil
}
