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

// onChain looks whether a lease is on the chain of which its host spoke before that was known here.
// While the ledger does not answer it is not known to be: the sweep finds out, and then the host is
// asked. The error is the caller's own end.
func (e *Engine) onChain(ctx context.Context, id tx.LeaseID) (bool, error) {
	since := e.deps.Now().Sub(time.Unix(0, e.away.Load()))
	if since >= 0 && since < lookAgain {
		return false, nil
	}
	within, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	_, err := e.deps.Ledger.Lease(within, id)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, nil
	case ctx.Err() != nil:
		return false, fmt.Errorf("look whether a lease is on the chain: %w", err)
	}
	e.away.Store(e.deps.Now().UnixNano())
	e.deps.Log.WarnContext(ctx, "cannot look whether a lease is on the chain", "error", err)
	return false, nil
}
