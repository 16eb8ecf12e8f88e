package server

import (
	"context"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
)

// Accounts knows which accounts are on the chain.
type Accounts interface {
	// Exists reports whether an account is on the chain. Safe for concurrent use.
	Exists(ctx context.Context, account storage.Account) (bool, error)
}

const (
	maxKnown   = 65_536          // accounts remembered; 32 bytes each
	unknownFor = 2 * time.Second // before the ledger is asked again
)

// admission lets those put whose account is on the chain: keys cost nothing, and each would bring a
// quota. An account never goes away, so a yes is remembered for good.
type admission struct {
	accounts Accounts // nil lets everybody put

	mu    sync.Mutex // guards both
	known map[storage.Account]bool
	not   map[storage.Account]time.Time
}

func (a *admission) admit(ctx context.Context, account storage.Account) error {
	if a.accounts == nil || a.recall(account) {
		return nil
	}
	a.mu.Lock()
	at, refused := a.not[account]
	a.mu.Unlock()
	if !refused || time.Since(at) > unknownFor {
		exists, err := a.accounts.Exists(ctx, account)
		if err != nil {
			return fault.New(fault.Unavailable, storage.ReasonNoAccount,
				"the ledger cannot be asked for the account now: try again").
				WithRetry(unknownFor).Because(err)
		}
		a.remember(account, exists)
		if exists {
			return nil
		}
	}
	return fault.New(fault.FailedPrecondition, storage.ReasonNoAccount,
		"the account is not on the chain, and only such accounts have a quota here: "+
			"receive a transfer first, or ask the faucet")
}

func (a *admission) recall(account storage.Account) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[account]
}

func (a *admission) remember(account storage.Account, exists bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil || len(a.known) >= maxKnown {
		a.known = map[storage.Account]bool{}
	}
	if a.not == nil || len(a.not) >= maxKnown {
		a.not = map[storage.Account]time.Time{}
	}
	if exists {
		a.known[account] = true
		delete(a.not, account)
	} else {
		a.not[account] = time.Now()
	}
}

// known refuses, with ACCOUNT_UNKNOWN, an account that is not on the chain.
func (s *Server) known(ctx context.Context, account storage.Account) error {
	return s.admission.admit(ctx, account)
}
