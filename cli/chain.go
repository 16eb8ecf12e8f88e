package cli

import (
	"context"
	"encoding/hex"
	"io"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/amount"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

func (a *app) chainCommand() *cobra.Command {
	return group("chain", "The chain that holds the money: blocks, proofs, histories",
		a.chainInfo(), a.chainBlock(), named(a.txGet(), "tx", "tx ID"),
		named(a.accountGet(), "account", "account [ACCOUNT]"),
		named(a.escrowGet(), "escrow", "escrow ESCROW"),
		a.chainLease(), a.chainCharges(), a.chainSupply(), a.chainFees(), a.chainSearch(),
		a.chainWatch())
}

type chainResult struct {
	Chain      string        `json:"chain"`
	Anchor     string        `json:"anchor"`
	Height     uint64        `json:"height"`
	HeadHash   string        `json:"head_hash"`
	HeadTime   uint64        `json:"head_time_ms"`
	Orderer    string        `json:"orderer"`
	Trust      string        `json:"trust"`
	Validators int           `json:"validators"`
	Operator   string        `json:"operator"`
	OpFee      amount.Amount `json:"operation_fee"`
	ByteFee    amount.Amount `json:"byte_fee"`
	Faucet     string        `json:"faucet,omitempty"`
}

func (a *app) chainInfo() *cobra.Command {
	return &cobra.Command{
		Use: "info", Short: "Show the chain's head, fees, and who is trusted for what",
		Example: "  ucn chain info --json", Args: args(cobra.NoArgs),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, _ []string) error {
			answer, err := l.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: l.Chain})
			if err != nil {
				return err
			}
			genesis, err := l.Genesis(ctx) // checks the anchor
			if err != nil {
				return err
			}
			anchor := genesis.Anchor()
			result := chainResult{
				Chain: genesis.Chain, Anchor: hex.EncodeToString(anchor[:]),
				Height:   answer.GetHead().GetHeight(),
				HeadHash: hex.EncodeToString(answer.GetHeadHash()),
				HeadTime: answer.GetHead().GetTime(), Orderer: genesis.Orderer,
				Trust: answer.GetTrust(), Validators: len(genesis.Validators.Validators),
				Operator: accountText(l.Operator), OpFee: amount.Amount(answer.GetOperationFee()),
				ByteFee: amount.Amount(answer.GetByteFee()),
			}
			if !genesis.Faucet.IsZero() {
				result.Faucet = accountText(genesis.Faucet)
			}
			return a.emit(result, result.print)
		}),
	}
}

func (r chainResult) print(w io.Writer) {
	printf(w, "chain\t%s\nanchor\t%s (verified against the genesis)\n", r.Chain, r.Anchor)
	printf(w, "head\tblock %d, %s, %s\n", r.Height, stamp(r.HeadTime), r.HeadHash)
	printf(w, "orderer\t%s, %s\ntrust\t%s\n", r.Orderer, many(r.Validators, "validator"), r.Trust)
	printf(w, "fees\t%s per operation, %s per byte\noperator\t%s\n", amount.Text(r.OpFee),
		amount.Text(r.ByteFee), r.Operator)
}
