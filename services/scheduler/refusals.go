package scheduler

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

const (
	// grantLife is for how long what was read of an escrow is taken for true when a lease is sent.
	grantLife = 500 * time.Millisecond
	// slowFor is for how long an owner's leases are placed one at a time once the chain refused one
	// for its escrow's terms; twice as long if that happens again before as much time has passed
	// since, at most maxSlow.
	slowFor = time.Hour
	maxSlow = 32 * slowFor
	// maxRefusals is how many such owners are remembered.
	maxRefusals = 1 << 14
)

// errTurn: another lease of the owner is being placed, and only one is at a time. Comes with
// ErrEscrow, since no host is why.
var errTurn = fmt.Errorf("%w: the chain refused a lease for its owner's terms, "+
	"so this account's are placed one at a time for a while", ErrEscrow)

// refusals are the owners whose escrows' terms made the chain refuse leases: the scheduler pays for
// each of those all the same, and an owner can change the terms while many are on their way. They
// are forgotten at a restart.
type refusals struct {
	mu sync.Mutex
	of map[sig.AccountID]*refusal
}

type refusal struct {
	// last is when the chain refused one last; for a span after that there is one at a time.
	last time.Time
	span time.Duration
	busy bool
}

func (r *refusal) slow(now time.Time) bool { return now.Sub(r.last).Abs() < r.span }

// note remembers that the chain refused a lease of the owner, whose escrow was read at a time.
func (r *refusals) note(owner sig.AccountID, read, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := r.of[owner]
	switch {
	case held == nil:
		r.room()
		held = &refusal{span: slowFor}
		r.of[owner] = held
	case now.Sub(held.last).Abs() >= 2*held.span:
		held.span = slowFor
	case read.After(held.last): // not one of those that were on their way together
		held.span = min(2*held.span, maxSlow)
	}
	held.last = now
}

// room makes room for one owner more. The caller holds mu.
func (r *refusals) room() {
	if r.of == nil {
		r.of = map[sig.AccountID]*refusal{}
	}
	if len(r.of) < maxRefusals {
		return
	}
	var oldest sig.AccountID
	var at time.Time
	for owner, held := range r.of {
		if end := held.last.Add(2 * held.span); at.IsZero() || end.Before(at) {
			oldest, at = owner, end
		}
	}
	delete(r.of, oldest)
}

// turn tells whether a lease of the owner may be placed now; done is called when it was, or not.
func (r *refusals) turn(owner sig.AccountID, now time.Time) (done func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := r.of[owner]
	switch {
	case held == nil || !held.slow(now):
		return func() {}, true
	case held.busy:
		return nil, false
	}
	held.busy = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		held.busy = false
	}, true
}

// since tells whether the chain refused a lease of the owner since a time; slow, whether lately.
func (r *refusals) since(owner sig.AccountID, read, now time.Time) (since, slow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := r.of[owner]
	if held == nil {
		return false, false
	}
	return !held.last.Before(read), held.slow(now)
}

// stillGranted looks at the escrow again just before a lease is sent, unless it was read a moment
// ago: a host may take its time, and the chain's refusal costs the scheduler.
func (e *Engine) stillGranted(ctx context.Context, j *Job, r *Run, money *funds) error {
	promised, now := money.purse.of(r.ID), e.deps.Now()
	since, slow := e.refusals.since(j.Owner, promised.at, now)
	if since {
		return errTurn
	}
	if age := now.Sub(promised.at); age >= 0 && age < grantLife && !slow {
		return nil
	}
	fresh, _, err := money.purse.read(ctx, e)
	if err != nil {
		return fmt.Errorf("%w: look at it again: %w", ErrEscrow, err)
	}
	money.escrow = fresh
	if fresh.lowered(&promised.seen) {
		return fmt.Errorf("%w: its owner changed its terms while a host was asked", ErrEscrow)
	}
	return nil
}

// of is what a run was promised.
func (p *purse) of(run RunID) promise {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.promised[run]
}

// lowered tells whether the escrow allows less than it did, whatever was taken of it since.
func (s *Escrow) lowered(was *Escrow) bool {
	return s.Assigner != was.Assigner || !slices.Equal(s.Payees, was.Payees) ||
		!slices.Equal(s.AckKeys, was.AckKeys) || s.Floor > was.Floor ||
		s.MaxRate < was.MaxRate || s.MaxTotal < was.MaxTotal || s.Trust < was.Trust ||
		s.Deadline < was.Deadline || s.LeaseFee < was.LeaseFee || s.LeaseFeeTotal < was.LeaseFeeTotal
}
