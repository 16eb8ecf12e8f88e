package executor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How a last charge is repeated whose payee has no account yet. Each try costs a fee.
const (
	payeeSoon  = time.Minute // the first wait, doubled with every try
	payeeLater = time.Hour   // the longest wait
)

// maxUnopened attempts that wait for their payee's account leave their place to others. All that
// they are is a record and a charge each hour.
const maxUnopened = 1024

// errPayeeLock says that a last charge is not final: see BoundPayeeLock.
var errPayeeLock = errors.New("the payee has no account, and the sum is too small to open one")

// leavesPlace has an attempt that waits for its payee's account not count among those that run or
// wait here: a claim window is long, and many small jobs may each be too small to open the account.
func (t *attempt) leavesPlace() {
	a := t.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	if !t.unopened && a.unopened < maxUnopened {
		t.unopened = true
		a.unopened++
	}
}

// awaitPayee repeats the last charge until the payee has an account. One claim window after the
// attempt's end the lease is given back unpaid: it would lock its owner's money until it runs out.
// Where the lease had ended before the attempt did, the chain's window is over sooner; the charge
// fails then, and lastCharge gives it up.
func (t *attempt) awaitPayee(ctx context.Context) error {
	window := time.Duration(t.lease.Lease.ClaimWindow) * time.Millisecond
	over := t.view().rec.Changed.Add(window)
	t.leavesPlace()
	log := t.agent.deps.Log.With("attempt", t.id, "payee", t.lease.Lease.Payee)
	log.WarnContext(ctx, "the last charge waits for the payee's account: open it by sending "+
		"something to it", "until", over)
	for wait := payeeSoon; ; wait = min(2*wait, payeeLater) {
		left := over.Sub(t.agent.deps.Now())
		if left <= 0 {
			log.ErrorContext(ctx, "the lease is given back unpaid: the payee has no account")
			return t.giveBack(ctx)
		}
		pause(ctx, min(wait, left))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := t.charge(ctx, true); !errors.Is(err, errPayeeLock) {
			return err
		}
	}
}

// giveBack ends and settles the lease by a last note that claims nothing, which the chain takes
// whether or not the payee has an account.
func (t *attempt) giveBack(ctx context.Context) error {
	r := t.view().rec
	last := []Charge{{Note: t.zeroNote(&r), Final: true}}
	if _, err := t.agent.deps.Ledger.Charge(ctx, t.ask.Spec.Chain, last); err != nil {
		return fmt.Errorf("give the lease back: %w", err)
	}
	return nil
}
