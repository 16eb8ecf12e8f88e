package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/sig"
)

// backing is the money behind a question, as the chain held it a moment ago.
type backing struct {
	free uint64 // grains of the escrow that no lease on the chain has reserved
}

// backed reads the escrow of a question from the chain: capacity is held only for whoever could
// place the lease, and only against money that is there. It returns what the escrow has free.
func (a *Agent) backed(ctx context.Context, ask *Ask) (uint64, *Decline, error) {
	chain := ask.Spec.Chain
	a.lookForPlaced(ctx, ask) // before the escrow: what is placed later is reserved in it, too
	escrow, err := a.deps.Ledger.Escrow(ctx, chain, ask.Terms.Escrow)
	switch {
	case errors.Is(err, ErrNoEscrow):
		return 0, declined(DeclineTerms, "the chain holds no such escrow"), nil
	case err != nil:
		return 0, nil, fmt.Errorf("read the escrow: %w", err)
	case escrow.Job != ask.Job:
		return 0, declined(DeclineTerms, "the escrow names another job"), nil
	case escrow.Owner != ask.Spec.Owner:
		return 0, declined(DeclineTerms, "the escrow belongs to another account"), nil
	case escrow.Assigner != sig.AccountOfKey(ask.From.Instance):
		return 0, declined(DeclineTerms, "the escrow's assigner is not the scheduler that asks"), nil
	case ask.Terms.Budget > escrow.Free:
		return 0, declined(DeclineTerms, "the budget of %d grains is above the %d that the escrow "+
			"has free", ask.Terms.Budget, escrow.Free), nil
	}
	return escrow.Free, nil, nil
}

// lookForPlaced finds out which promises on the same escrow have been placed meanwhile: their money
// is reserved on the chain and must not be counted twice. What cannot be read stays a promise.
func (a *Agent) lookForPlaced(ctx context.Context, ask *Ask) {
	for _, t := range a.snapshot() {
		if t.lease.Lease.Escrow != ask.Terms.Escrow || t.ask.Spec.Chain != ask.Spec.Chain ||
			t.placed.Load() {
			continue
		}
		state, err := a.deps.Ledger.Lease(ctx, ask.Spec.Chain, t.lease.ID)
		if err == nil {
			t.seen(state)
		}
	}
}

// weigh counts the promises that are not on the chain: those on the escrow of t must be covered by
// the grains it has free, those to one scheduler and one operator are limited. The caller holds mu.
func (a *Agent) weigh(t *attempt, free uint64) *Decline {
	promised, toAsker, toOperator := t.lease.Lease.Budget, 1, 1
	for _, other := range a.attempts {
		if other.placed.Load() {
			continue
		}
		if other.lease.Lease.Escrow == t.lease.Lease.Escrow {
			promised = add(promised, other.lease.Lease.Budget)
		}
		if other.ask.From.Instance == t.ask.From.Instance {
			toAsker++
		}
		if other.ask.From.Operator == t.ask.From.Operator {
			toOperator++
		}
	}
	most := a.cfg.MaxUnplaced
	switch {
	case promised > free:
		return declined(DeclineCapacity, "promises of %d grains wait to be placed, the escrow has "+
			"%d free", promised, free)
	case toAsker > most:
		return declined(DeclineCapacity, "%d promises to this scheduler wait to be placed", most)
	case toOperator > 2*most:
		return declined(DeclineCapacity, "%d promises to this operator's schedulers wait to be "+
			"placed", 2*most)
	}
	return nil
}
