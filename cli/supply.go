package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/amount"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

type supplyResult struct {
	Height      uint64        `json:"height"`
	Genesis     amount.Amount `json:"genesis"`
	Minted      string        `json:"minted_grains"`
	Burned      string        `json:"burned_grains"`
	Circulating amount.Amount `json:"circulating"`
	Accounts    amount.Amount `json:"accounts"`
	Escrows     amount.Amount `json:"escrows"`
	Locks       amount.Amount `json:"locks"`
	Lockboxes   amount.Amount `json:"lockboxes"`
	Proven      bool          `json:"proof_verified"`
}

// errSupply: genesis + minted - burned = accounts + escrows + locks + lockboxes, in every block.
var errSupply = errors.New("the supply does not add up")

// newSupplyResult refuses sums that do not add up.
func newSupplyResult(height uint64, s *chainv1.ChainState) (*supplyResult, error) {
	minted, burned := bigOf(s.GetMinted()), bigOf(s.GetBurned())
	exists, held := new(big.Int).SetUint64(s.GetGenesisSupply()), new(big.Int)
	exists.Sub(exists.Add(exists, minted), burned)
	for _, sum := range []uint64{
		s.GetAccountSum(), s.GetEscrowSum(), s.GetLockSum(), s.GetLockboxSum(),
	} {
		held.Add(held, new(big.Int).SetUint64(sum))
	}
	if held.Cmp(exists) != 0 || !held.IsUint64() {
		return nil, fmt.Errorf("%w: %s grains exist after block %d, and %s are held", errSupply,
			exists, height, held)
	}
	return &supplyResult{
		Height: height, Genesis: amount.Amount(s.GetGenesisSupply()), Minted: minted.String(),
		Burned: burned.String(), Circulating: amount.Amount(held.Uint64()),
		Accounts: amount.Amount(s.GetAccountSum()), Escrows: amount.Amount(s.GetEscrowSum()),
		Locks: amount.Amount(s.GetLockSum()), Lockboxes: amount.Amount(s.GetLockboxSum()),
	}, nil
}

func (a *app) chainSupply() *cobra.Command {
	height, f := uint64(0), proofFlags{}
	cmd := &cobra.Command{
		Use: "supply", Short: "Show where all money of the chain is", Args: args(cobra.NoArgs),
		Long: `Show how much was given out at the beginning, minted and burned, and where the rest is. The
state machine checks in every block that it adds up, and so does this command; the sums are part of
the certified state. With --height it is as it was after an earlier block, unproven; ledgers keep
that for the last 1024 blocks.`,
		Example: `  ucn chain supply --json
  ucn chain supply -o supply.json && ucn verify supply.json
  ucn chain supply --height 1200`,
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, _ []string) error {
			answer, err := l.Ledger.GetSupply(ctx, &ledgerv1.GetSupplyRequest{
				Chain: l.Chain, Height: height, Prove: f.asked(),
			})
			if err != nil {
				return err
			}
			if !f.asked() {
				r, err := newSupplyResult(answer.GetHeight(), answer.GetState())
				if err != nil {
					return err
				}
				return a.emit(r, r.print)
			}
			one, err := newLeafProof(leafChain, l.Chain, answer.GetProof())
			if err != nil {
				return err
			}
			r, err := f.proven(ctx, l, one)
			if err != nil {
				return err
			}
			return a.emit(r.Supply, r.Supply.print)
		}),
	}
	cmd.Flags().Uint64Var(&height, "height", 0, "after this block (0: the last one)")
	f.add(cmd)
	return cmd
}

func (r *supplyResult) print(w io.Writer) {
	printf(w, "at block\t%d\ngiven out at the beginning\t%s\nminted since\t%s grains\n", r.Height,
		amount.Text(r.Genesis), r.Minted)
	printf(w, "burned since\t%s grains\nexists\t%s\n", r.Burned, amount.Text(r.Circulating))
	printf(w, "  in accounts\t%s\n  in escrows\t%s\n  as deposits\t%s\n", amount.Text(r.Accounts),
		amount.Text(r.Escrows), amount.Text(r.Locks))
	if r.Lockboxes > 0 {
		printf(w, "  on side chains\t%s\n", amount.Text(r.Lockboxes))
	}
	if r.Proven {
		printf(w, "proof\tverified\n")
	}
}
