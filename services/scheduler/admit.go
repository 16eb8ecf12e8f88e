package scheduler

import (
	"context"
	"fmt"

	"github.com/united-containers/ucn/chain/sig"
)

// admit says why no more is taken of an owner. Submissions at the same moment may pass the bound
// together, each by one.
func (e *Engine) admit(ctx context.Context, owner sig.AccountID) error {
	own, err := e.deps.Store.CountOf(ctx, owner)
	if err != nil {
		return fmt.Errorf("count the owner's queue: %w", err)
	}
	if own >= e.policy.MaxPendingOfOwner {
		return fmt.Errorf("%w: %d, at most %d; wait for some to begin, or cancel some", ErrOwnerFull,
			own, e.policy.MaxPendingOfOwner)
	}
	all, err := e.deps.Store.Count(ctx)
	if err != nil {
		return fmt.Errorf("count the queue: %w", err)
	}
	if all.Runs >= e.policy.MaxPending || own == 0 && all.Owners >= maxPendingOwners {
		return fmt.Errorf("%w: %d runs of %d owners wait; try again later", ErrQueueFull, all.Runs,
			all.Owners)
	}
	return nil
}

// maxPendingOwners bounds the owners with runs that wait: each takes some memory.
const maxPendingOwners = 100_000

// maxAhead bounds how many runs before another are counted.
const maxAhead = 1000

// position adds to the reason of the job's first run that waits how much stands before it, when
// anything does.
func (e *Engine) position(ctx context.Context, j *Job) {
	waiting := j.Waiting()
	if len(waiting) == 0 {
		return
	}
	ref := waiting[0]
	ahead, err := e.deps.Store.Ahead(ctx, j.Owner, ref.Place(), maxAhead)
	if err != nil {
		e.deps.Log.ErrorContext(ctx, "cannot count what stands before", "job", j.ID, "error", err)
		return
	}
	all, err := e.deps.Store.Count(ctx)
	if err != nil || all.Runs <= 1 {
		return
	}
	words := "first of yours"
	switch {
	case ahead == maxAhead:
		words = fmt.Sprintf("more than %d of yours before it", maxAhead-1)
	case ahead > 0:
		words = fmt.Sprintf("%d of yours before it", ahead)
	}
	if others := all.Owners - 1; others > 0 {
		words += fmt.Sprintf(", %d others wait too", others)
	}
	r := j.Run(ref.Run)
	r.Reason = shorten(fmt.Sprintf("%s [%s]", r.Reason, words))
}
