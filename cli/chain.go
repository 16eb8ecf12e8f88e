package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/id"
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

type blockResult struct {
	Hash         string          `json:"hash"`
	Height       uint64          `json:"height"`
	Time         uint64          `json:"time_ms"`
	Transactions int             `json:"transactions"`
	Operations   uint64          `json:"operations"`
	Bytes        uint64          `json:"body_bytes"`
	Proposer     string          `json:"proposer"`
	Signatures   int             `json:"signatures"`
	Header       json.RawMessage `json:"header"`
}

func (a *app) chainBlock() *cobra.Command {
	return &cobra.Command{
		Use: "block HEIGHT|HASH", Short: "Show a block",
		Example: "  ucn chain block 12\n  ucn chain block 1f...", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			request := &ledgerv1.GetBlockRequest{Chain: l.Chain}
			if height, err := strconv.ParseUint(list[0], 10, 64); err == nil {
				request.Height = height
			} else {
				hash, err := hexID("block", list[0])
				if err != nil {
					return err
				}
				request.Hash = hash[:]
			}
			answer, err := l.Ledger.GetBlock(ctx, request)
			if err != nil {
				return err
			}
			h := answer.GetBlock().GetHeader()
			raw, err := rawJSON(h)
			if err != nil {
				return err
			}
			result := blockResult{
				Hash: hex.EncodeToString(answer.GetHash()), Height: h.GetHeight(), Time: h.GetTime(),
				Transactions: len(answer.GetBlock().GetBody().GetTransactions()),
				Operations:   h.GetOperationCount(), Bytes: h.GetBodyLength(),
				Proposer:   bytesText(id.Account, h.GetProposer()),
				Signatures: len(answer.GetBlock().GetCertificate().GetSignatures()), Header: raw,
			}
			return a.emit(result, result.print)
		}),
	}
}

func (r blockResult) print(w io.Writer) {
	printf(w, "block\t%d\nhash\t%s\ntime\t%s\n", r.Height, r.Hash, stamp(r.Time))
	printf(w, "content\t%s, %s, %s\n", many(r.Transactions, "transaction"),
		many(r.Operations, "operation"), many(r.Bytes, "byte"))
	printf(w, "proposer\t%s\nsignatures\t%d\n", r.Proposer, r.Signatures)
}
