package executor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/id"
)

const (
	// accountsEvery is the time between two looks at the accounts, while nothing is wrong with them;
	// else they are looked at with the clock.
	accountsEvery = 10 * time.Minute
	// lowFees is what the instance's account should have, grains: some 700 charges while the chain
	// is not full.
	lowFees = 10_000_000
)

// AccountState is an account as the chain holds it.
type AccountState struct {
	Exists  bool
	Balance uint64 // grains
}

// minded is what is wrong with how a host is paid.
type minded struct {
	accounts []string  // sentences
	at       time.Time // of the last look, by the own clock
	told     string    // what the log knows, but for numbers
}

// Warnings tells, in sentences, what keeps this host from taking work or from being paid. What it
// says of accounts may be ten minutes old.
func (a *Agent) Warnings() []string {
	a.mu.Lock()
	list := slices.Clone(a.minded.accounts)
	a.mu.Unlock()
	if s := a.dial.words(); s != "" {
		list = append([]string{s}, list...)
	}
	return list
}

// ClockAhead is by how much this host's clock was ahead of the chain's at the last look.
func (a *Agent) ClockAhead() time.Duration { return time.Duration(a.dial.ahead.Load()) }

// mind looks at the chain's clock and at the accounts from time to time, and tells the log what is
// wrong when that changes.
func (a *Agent) mind(ctx context.Context) {
	for ctx.Err() == nil {
		a.compare(ctx)
		if now := a.dial.own(); a.accountsDue(now) {
			a.lookAtAccounts(ctx, now)
		}
		a.tellWarnings(ctx)
		wait := compareEvery
		if !a.dial.known.Load() {
			wait = compareSoon
		}
		pause(ctx, wait)
	}
}

func (a *Agent) accountsDue(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.minded.accounts) > 0 || now.Sub(a.minded.at).Abs() >= accountsEvery
}

// lookAtAccounts reads who is paid and who pays the fees. What cannot be read stays as it was.
func (a *Agent) lookAtAccounts(ctx context.Context, now time.Time) {
	var found []string
	for _, chain := range a.cfg.Chains {
		payee, err := a.account(ctx, chain, a.identity.Payee)
		if err != nil {
			return
		}
		if !payee.Exists {
			found = append(found, fmt.Sprintf("the payee %s has no account on chain %s: what is too "+
				"small to open one is not paid, so send something to it",
				id.Bech32(id.Account, a.identity.Payee), chain))
		}
		mine := sig.AccountOfKey(a.key)
		own, err := a.account(ctx, chain, mine)
		if err != nil {
			return
		}
		if own.Balance < lowFees {
			found = append(found, fmt.Sprintf("the account of this instance, %s, has %d grains on chain "+
				"%s for the fees of its charges: without, nothing is paid, so send it a few UCN",
				id.Bech32(id.Account, mine), own.Balance, chain))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.minded.accounts, a.minded.at = found, now
}

func (a *Agent) account(
	ctx context.Context, chain string, account sig.AccountID,
) (AccountState, error) {
	ctx, cancel := context.WithTimeout(ctx, compareWithin)
	defer cancel()
	return a.deps.Ledger.AccountOf(ctx, chain, account)
}

// tellWarnings tells the log when they change in more than their numbers.
func (a *Agent) tellWarnings(ctx context.Context) {
	list := a.Warnings()
	words := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, strings.Join(list, "\n"))
	a.mu.Lock()
	same := a.minded.told == words
	a.minded.told = words
	a.mu.Unlock()
	if same {
		return
	}
	for _, s := range list {
		a.deps.Log.WarnContext(ctx, "something is wrong with this host", "what", s)
	}
	if len(list) == 0 {
		a.deps.Log.InfoContext(ctx, "nothing is wrong with this host any more")
	}
}
