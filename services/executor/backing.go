package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// backing is the money behind a question, as the chain held it a moment ago.
type backing struct {
	free uint64 // grains of the escrow that no lease on the chain has reserved
	// frees is what leases surely free that promises on the same escrow take the place of.
	frees map[LeaseID]uint64
	// stale: a lease that another promise takes the place of has ended, perhaps because that promise
	// was placed after the promises were looked at.
	stale bool
	// missed: a promise that supersedes a lease was made since, and what that frees is not in frees.
	missed bool
}

// all is what the promises on the escrow may come to together.
func (b *backing) all() uint64 {
	sum := b.free
	for _, more := range b.frees {
		sum = add(sum, more)
	}
	return sum
}

// backed reads the escrow of a question from the chain: capacity is held only for whoever could
// place the lease, and only against money that is there, or surely will be when it is placed.
func (a *Agent) backed(ctx context.Context, ask *Ask) (*backing, *Decline, error) {
	for try := 1; ; try++ {
		money, no, err := a.readBacking(ctx, ask)
		if no != nil || err != nil || !money.stale || try == maxBackingReads {
			return money, no, err
		}
	}
}

// maxBackingReads is how often the money behind a question is read, if it changes meanwhile.
const maxBackingReads = 3

func (a *Agent) readBacking(ctx context.Context, ask *Ask) (*backing, *Decline, error) {
	chain := ask.Spec.Chain
	a.lookForPlaced(ctx, ask) // before the escrow: what is placed later is reserved in it, too
	escrow, err := a.deps.Ledger.Escrow(ctx, chain, ask.Terms.Escrow)
	switch {
	case errors.Is(err, ErrNoEscrow):
		return nil, declined(DeclineTerms, "the chain holds no such escrow"), nil
	case err != nil:
		return nil, nil, fmt.Errorf("read the escrow: %w", err)
	case escrow.Job != ask.Job:
		return nil, declined(DeclineTerms, "the escrow names another job"), nil
	case escrow.Owner != ask.Spec.Owner:
		return nil, declined(DeclineTerms, "the escrow belongs to another account"), nil
	case escrow.Assigner != sig.AccountOfKey(ask.From.Instance):
		return nil, declined(DeclineTerms, "the escrow's assigner is not the scheduler that asks"), nil
	}
	money := &backing{free: escrow.Free, frees: map[LeaseID]uint64{}}
	no, err := a.superseded(ctx, ask, money)
	switch {
	case no != nil || err != nil:
		return nil, no, err
	case ask.Terms.Budget > add(escrow.Free, money.frees[ask.Terms.Supersedes]):
		return nil, declined(DeclineTerms, "the budget of %d grains is above the %d that the escrow "+
			"has free", ask.Terms.Budget, add(escrow.Free, money.frees[ask.Terms.Supersedes])), nil
	}
	return money, nil, nil
}

// superseded finds out what the leases free that this promise and those before it on the same
// escrow take the place of. Each is counted once, however many promises name it. They are read
// after the escrow: what has ended since frees nothing more, and is not in what the escrow had free
// either.
func (a *Agent) superseded(ctx context.Context, ask *Ask, money *backing) (*Decline, error) {
	if ask.Terms.Supersedes != (LeaseID{}) {
		frees, no, err := a.frees(ctx, ask.Spec.Chain, &ask.Terms)
		if no != nil || err != nil {
			return no, err
		}
		money.frees[ask.Terms.Supersedes] = frees
	}
	for _, t := range a.snapshot() {
		terms := &t.ask.Terms
		if t.placed.Load() || terms.Escrow != ask.Terms.Escrow || terms.Supersedes == (LeaseID{}) ||
			t.ask.Spec.Chain != ask.Spec.Chain {
			continue
		}
		frees, no, err := a.frees(ctx, ask.Spec.Chain, terms)
		if no != nil || err != nil {
			frees = 0 // too little rather than too much
		}
		money.stale = money.stale || frees == 0
		if have, twice := money.frees[terms.Supersedes]; twice {
			frees = min(frees, have)
		}
		money.frees[terms.Supersedes] = frees
	}
	return nil, nil
}

// frees reads a lease that is to be superseded from the chain, and returns what that surely frees.
func (a *Agent) frees(ctx context.Context, chain string, t *Terms) (uint64, *Decline, error) {
	state, err := a.deps.Ledger.Lease(ctx, chain, t.Supersedes)
	switch l := &state.Leaf.Lease; {
	case errors.Is(err, ErrNoLease):
		return 0, nil, nil
	case err != nil:
		return 0, nil, fmt.Errorf("read the lease to supersede: %w", err)
	case EscrowID(l.Escrow) != t.Escrow || !bytes.Equal(l.Subject, t.Subject[:]) || l.Slot != t.Slot:
		return 0, declined(DeclineTerms, "the lease to supersede is of another escrow or slot"), nil
	case l.Epoch >= t.Epoch:
		return 0, declined(DeclineTerms, "the lease to supersede has epoch %d, this one %d", l.Epoch,
			t.Epoch), nil
	}
	return uint64(price.Freed(&state.Leaf, tx.Millis(t.PlaceBy))), nil, nil
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
// the grains it has free and those that superseding frees, those to one scheduler and one operator
// are limited. The caller holds mu.
func (a *Agent) weigh(t *attempt, money *backing) *Decline {
	promised, toAsker, toOperator := t.lease.Lease.Budget, 1, 1
	for _, other := range a.attempts {
		if other.placed.Load() {
			continue
		}
		if other.lease.Lease.Escrow == t.lease.Lease.Escrow {
			promised = add(promised, other.lease.Lease.Budget)
			_, known := money.frees[other.ask.Terms.Supersedes]
			money.missed = money.missed || !known && other.ask.Terms.Supersedes != LeaseID{}
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
	case promised > money.all():
		return declined(DeclineCapacity, "promises of %d grains wait to be placed, the escrow has "+
			"%d free", promised, money.all())
	case toAsker > most:
		return declined(DeclineCapacity, "%d promises to this scheduler wait to be placed", most)
	case toOperator > 2*most:
		return declined(DeclineCapacity, "%d promises to this operator's schedulers wait to be "+
			"placed", 2*most)
	}
	return nil
}
