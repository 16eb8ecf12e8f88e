package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli/amount"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

type accountResult struct {
	Account string        `json:"account"`
	Exists  bool          `json:"exists"`
	Balance amount.Amount `json:"balance"`
	Lock    amount.Amount `json:"lock"`
	Nonce   uint64        `json:"nonce"`
	Pending uint64        `json:"pending_nonce"`
	Height  uint64        `json:"height"`
	Proven  bool          `json:"proof_verified"`
	// Delegates are as the ledger says, never proven.
	Delegates []delegateResult `json:"delegates,omitempty"`
}

func (a *app) accountCommand() *cobra.Command {
	return group("account", "Accounts of the chain", a.accountGet(),
		a.history("history", "  ucn account history ucn1... --kind charge --since 24h"))
}

func (a *app) accountGet() *cobra.Command {
	prove := false
	cmd := &cobra.Command{
		Use: "get [ACCOUNT]", Short: "Show an account, the wallet's by default",
		Example: "  ucn account get\n  ucn account get ucn1... --proof",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			account, err := a.accountOf(list)
			if err != nil {
				return err
			}
			answer, err := l.Ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{
				Chain: l.Chain, Account: account[:], Prove: prove,
			})
			if err != nil {
				return err
			}
			result := accountResult{
				Account: accountText(account), Exists: answer.GetAccount() != nil,
				Balance: amount.Amount(answer.GetAccount().GetBalance()),
				Lock:    amount.Amount(answer.GetAccount().GetLock()),
				Nonce:   answer.GetAccount().GetNonce(), Pending: answer.GetPendingNonce(),
				Height: answer.GetHeight(), Proven: prove,
			}
			held, err := signersOf(answer.GetSigners())
			if err != nil {
				return err
			}
			if len(held.Delegates) > 0 {
				result.Delegates = delegatesOf(held)
			}
			if prove {
				if err := verifyAccount(ctx, l, account, answer); err != nil {
					return err
				}
			}
			return a.emit(result, result.print)
		}),
	}
	cmd.Flags().BoolVar(&prove, "proof", false, "have it proven and verify the proof")
	return cmd
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

// verifyAccount holds what the ledger says of an account against a certified header.
func verifyAccount(
	ctx context.Context, l *link, account sig.AccountID, answer *ledgerv1.GetAccountResponse,
) error {
	genesis, err := l.Genesis(ctx)
	if err != nil {
		return err
	}
	raw, err := canon.Marshal(answer.GetProof())
	if err != nil {
		return fmt.Errorf("the account's proof: %w", err)
	}
	leaf, err := proof.VerifyAccount(raw, account, proof.TrustOf(genesis))
	if err != nil {
		return fmt.Errorf("the account's proof: %w", err)
	}
	if leaf.Exists != (answer.GetAccount() != nil) ||
		uint64(leaf.Value.Balance) != answer.GetAccount().GetBalance() {
		return fmt.Errorf("the proof shows a balance of %s, the ledger says %s",
			amount.Text(leaf.Value.Balance), amount.Text(answer.GetAccount().GetBalance()))
	}
	return nil
}

func (r accountResult) print(w io.Writer) {
	printf(w, "account\t%s\n", r.Account)
	if !r.Exists {
		printf(w, "state\tdoes not exist: nobody has sent it anything\n")
	}
	printf(w, "balance\t%s\nlock\t%s\nnonce\t%d\nat block\t%d\n", amount.Text(r.Balance),
		amount.Text(r.Lock), r.Nonce, r.Height)
	if r.Proven {
		printf(w, "proof\tverified\n")
	}
	if len(r.Delegates) > 0 {
		printf(w, "delegates\t%d: ucn wallet delegate ls %s\n", len(r.Delegates), r.Account)
	}
}
