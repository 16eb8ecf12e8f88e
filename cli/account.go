package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

type accountResult struct {
	Account string        `json:"account"`
	Exists  bool          `json:"exists"`
	Balance amount.Amount `json:"balance"`
	Lock    amount.Amount `json:"lock"`
	Nonce   uint64        `json:"nonce"`
	// Of the next transaction, as the ledger says; no proof covers what waits for a block.
	Pending *uint64 `json:"pending_nonce,omitempty"`
	// The key set in force; absent until the account has signed once.
	Keys      []string `json:"keys,omitempty"`
	Threshold uint32   `json:"threshold,omitempty"`
	Height    uint64   `json:"height"`
	// Block time, ms; with a proof only.
	Time   uint64 `json:"time_ms,omitempty"`
	Proven bool   `json:"proof_verified"`
	// The same of delegates and recovery.
	SignersProven bool             `json:"signers_proof_verified"`
	Delegates     []delegateResult `json:"delegates,omitempty"`
	Recovery      *recoveryResult  `json:"recovery,omitempty"`
}

func (a *app) accountCommand() *cobra.Command {
	return group("account", "Accounts of the chain", a.accountGet(),
		a.history("history", "  ucn account history ucn1... --kind charge --since 24h"))
}

func (a *app) accountGet() *cobra.Command {
	f := proofFlags{}
	cmd := &cobra.Command{
		Use: "get [ACCOUNT]", Short: "Show an account, the wallet's by default",
		Long: `Show an account: balance, keys, and who else may act for it. With --proof the ledger
need not be trusted: balance, keys, delegates, limits and recovery are what a certified header
commits to, as of its block. A ledger can still hold back newer blocks: look at the time.`,
		Example: "  ucn account get\n  ucn account get ucn1... --proof\n" +
			"  ucn account get ucn1... -o account.json && ucn verify account.json",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			account, err := a.accountOf(list)
			if err != nil {
				return err
			}
			var result *accountResult
			if f.asked() {
				result, err = f.account(ctx, l, account)
			} else {
				result, err = readAccount(ctx, l, account)
			}
			if err != nil {
				return err
			}
			return a.emit(result, result.print)
		}),
	}
	f.add(cmd)
	return cmd
}

func (f *proofFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.prove, "proof", false,
		"have it proven, or its absence, and verify that")
	cmd.Flags().StringVarP(&f.file, "output", "o", "", "save the proof to this file, for ucn verify")
}

// account is readAccount of a ledger that is not trusted.
func (f *proofFlags) account(ctx context.Context, l *link, account sig.AccountID) (
	*accountResult, error,
) {
	r, answer, err := f.accountProven(ctx, l, account)
	if err != nil {
		return nil, err
	}
	r.Account.Pending = new(answer.GetPendingNonce())
	r.Account.Time = uint64(r.Time.UnixMilli())
	return r.Account, nil
}

// readAccount is what a ledger says of an account.
func readAccount(ctx context.Context, l *link, account sig.AccountID) (*accountResult, error) {
	answer, err := l.Ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{
		Chain: l.Chain, Account: account[:],
	})
	if err != nil {
		return nil, err
	}
	held := tx.Account{}
	if answer.GetAccount() != nil {
		if held, err = tx.AccountFromPB(answer.GetAccount()); err != nil {
			return nil, fmt.Errorf("the account: %w", err)
		}
	}
	signers := tx.AccountSigners{}
	if answer.GetSigners() != nil {
		if signers, err = tx.SignersFromPB(answer.GetSigners()); err != nil {
			return nil, fmt.Errorf("who may act for the account: %w", err)
		}
	}
	r := newAccountResult(account, answer.GetAccount() != nil, &held, answer.GetHeight())
	r.setSigners(&signers)
	r.Pending = new(answer.GetPendingNonce())
	return r, nil
}

// accountOf is the account of the argument or else of the wallet that acts.
func (a *app) accountOf(list []string) (sig.AccountID, error) {
	if len(list) > 0 {
		return parseAccount(list[0])
	}
	name, err := a.walletName()
	if err != nil {
		return sig.AccountID{}, err
	}
	w, err := a.wallets().Get(name)
	return w.Account, err
}

func newAccountResult(
	id sig.AccountID, exists bool, held *tx.Account, height uint64,
) *accountResult {
	r := &accountResult{
		Account: accountText(id), Exists: exists, Balance: amount.Amount(held.Balance),
		Lock: amount.Amount(held.Lock), Nonce: held.Nonce, Height: height,
		Threshold: held.Keys.Threshold,
	}
	if !held.Keys.IsZero() {
		r.Keys = keyTexts(held.Keys)
	}
	return r
}

func (r *accountResult) setSigners(held *tx.AccountSigners) {
	if len(held.Delegates) > 0 {
		r.Delegates = delegatesOf(held)
	}
	if !held.Recovery.Keys.IsZero() {
		r.Recovery = recoveryOf(r.Account, &held.Recovery)
	}
}

func (r *accountResult) print(w io.Writer) {
	printf(w, "account\t%s\n", r.Account)
	if !r.Exists {
		printf(w, "state\tdoes not exist: nobody has sent it anything\n")
	}
	printf(w, "balance\t%s\nlock\t%s\nnonce\t%d\n", amount.Text(r.Balance), amount.Text(r.Lock),
		r.Nonce)
	if len(r.Keys) > 0 {
		printf(w, "keys\t%d of %d must sign\n", r.Threshold, len(r.Keys))
	}
	for _, key := range r.Keys {
		printf(w, "  key\t%s\n", key)
	}
	if len(r.Delegates) > 0 {
		printf(w, "delegates\t%d: ucn wallet delegate ls %s\n", len(r.Delegates), r.Account)
	}
	if r.Recovery != nil {
		r.Recovery.printSet(w)
	}
	switch {
	case r.Time != 0:
		printf(w, "at block\t%d of %s\nproof\tverified\n", r.Height, stamp(r.Time))
	case !r.Proven:
		printf(w, "at block\t%d\n", r.Height)
	}
}
