package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/tx"
)

// The events of all hosts are taken one after the other, so what waits for the ledger in one keeps
// all others waiting.
const (
	// lookWithin bounds one look for a lease of which its host spoke before it was known here.
	lookWithin = time.Second
	// lookAgain is for how long the ledger is not asked for such leases after it did not answer.
	lookAgain = 5 * time.Second
)

// onChain looks a lease up on the chain of which its host spoke; nil: it is not there, or the
// ledger does not answer. The error is the caller's own end.
func (e *Engine) onChain(ctx context.Context, id tx.LeaseID) (*LeaseState, error) {
	since := e.deps.Now().Sub(time.Unix(0, e.away.Load()))
	if since >= 0 && since < lookAgain {
		return nil, nil
	}
	within, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	state, err := e.deps.Ledger.Lease(within, id)
	switch {
	case err == nil:
		return &state, nil
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("look whether a lease is on the chain: %w", err)
	}
	e.away.Store(e.deps.Now().UnixNano())
	e.deps.Log.WarnContext(ctx, "cannot look whether a lease is on the chain", "error", err)
	return nil, nil
}
