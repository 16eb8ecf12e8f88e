package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// blockResult is a block whose certificate and content were verified.
type blockResult struct {
	Hash           string          `json:"hash"`
	Height         uint64          `json:"height"`
	Time           uint64          `json:"time_ms"`
	Transactions   int             `json:"transactions"`
	Operations     uint64          `json:"operations"`
	Bytes          uint64          `json:"body_bytes"`
	Proposer       string          `json:"proposer,omitempty"`
	Signatures     int             `json:"signatures"`
	Verified       bool            `json:"verified"`
	Head           uint64          `json:"proven_ancestor_of,omitempty"`
	TransactionIDs []string        `json:"transaction_ids"`
	Header         json.RawMessage `json:"header"`
}

func (a *app) chainBlock() *cobra.Command {
	out := ""
	cmd := &cobra.Command{
		Use: "block HEIGHT|HASH", Short: "Show a block and verify it",
		Long: `Show a block: what its header says and which transactions it holds. The certificate of
the chain's validators and the content are verified; the block of height 0 follows from the
genesis. With -o it is proven to be an ancestor of the last block, and the proof is saved.`,
		Example: "  ucn chain block 12\n  ucn chain block 1f...\n" +
			"  ucn chain block 12 -o history.json && ucn verify history.json",
		Args: args(cobra.ExactArgs(1)),
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
			result, err := readBlock(ctx, l, request)
			if err != nil {
				return err
			}
			if out != "" {
				if err := saveHistory(ctx, l, result, out); err != nil {
					return err
				}
			}
			return a.emit(result, result.print)
		}),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "",
		"save the proof that the last block follows on it to this file, for ucn verify")
	return cmd
}

// saveHistory has a ledger prove that a block is an ancestor of the head, verifies that, and writes
// it to a file.
func saveHistory(ctx context.Context, l *link, b *blockResult, file string) error {
	answer, err := l.Ledger.GetHistoryProof(ctx, &ledgerv1.GetHistoryProofRequest{
		Chain: l.Chain, Height: b.Height,
	})
	if err != nil {
		return err
	}
	genesis, err := l.Genesis(ctx)
	if err != nil {
		return err
	}
	raw, err := rawJSON(answer.GetProof())
	if err != nil {
		return err
	}
	shown, err := showHistory(raw, genesis)
	if err != nil {
		return fmt.Errorf("NOT verified: %w", err)
	}
	if shown.BlockHash != b.Hash {
		return fmt.Errorf("NOT verified: %w: it is about block %d, %s", errProof, shown.Block,
			shown.BlockHash)
	}
	b.Head = shown.Head
	return save(file, saved{History: raw, Genesis: genesis.Append(nil)})
}

// historyResult is what a history proof shows.
type historyResult struct {
	Verified   bool      `json:"verified"`
	Chain      string    `json:"chain"`
	Anchor     string    `json:"anchor"`
	Block      uint64    `json:"block"`
	BlockHash  string    `json:"block_hash"`
	Time       time.Time `json:"time"`
	Head       uint64    `json:"ancestor_of"`
	HeadHash   string    `json:"ancestor_of_hash"`
	Signatures int       `json:"signatures_needed"`
}

// showHistory verifies the JSON of a HistoryProof by a genesis that is trusted.
func showHistory(text []byte, g *block.Genesis) (*historyResult, error) {
	m := &chainv1.HistoryProof{}
	if err := protojson.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("this is no proof: %w", err)
	}
	raw, err := canon.Marshal(m)
	if err != nil {
		return nil, err
	}
	trust := proof.TrustOf(g)
	shown, err := proof.VerifyHistory(raw, trust)
	if err != nil {
		return nil, err
	}
	anchor := g.Anchor()
	return &historyResult{
		Verified: true, Chain: g.Chain, Anchor: hex.EncodeToString(anchor[:]),
		Block: shown.Header.Height, BlockHash: shown.Hash.String(),
		Time: time.UnixMilli(int64(shown.Header.Time)).UTC(), Head: shown.Head.Height,
		HeadHash: shown.Head.Hash(anchor).String(), Signatures: trust.Need,
	}, nil
}

func (r *historyResult) print(w io.Writer) {
	printf(w, "proof verified\nblock\t%d %s\n", r.Block, r.BlockHash)
	printf(w, "time\t%s\nancestor of\t%d %s\n", r.Time.Local().Format(time.RFC3339), r.Head,
		r.HeadHash)
	printf(w, "chain\t%s, anchor %s\n", r.Chain, r.Anchor)
	printf(w, "certified\tby %d of the genesis' validators\n", r.Signatures)
}

// readBlock asks for a block and verifies that it is the one, and the chain's.
func readBlock(ctx context.Context, l *link, request *ledgerv1.GetBlockRequest) (
	*blockResult, error,
) {
	answer, err := l.Ledger.GetBlock(ctx, request)
	if err != nil {
		return nil, err
	}
	genesis, err := l.Genesis(ctx)
	if err != nil {
		return nil, err
	}
	b, err := verifiedBlock(answer.GetBlock(), genesis)
	if err != nil {
		return nil, fmt.Errorf("NOT verified: %w", err)
	}
	hash := b.Header.Hash(genesis.Anchor())
	if len(request.GetHash()) > 0 && string(request.GetHash()) != string(hash[:]) ||
		len(request.GetHash()) == 0 && request.GetHeight() != b.Header.Height {
		return nil, fmt.Errorf("%w: it answered with block %d, %s", errProof, b.Header.Height, hash)
	}
	return blockOf(b, hash, genesis)
}

// verifiedBlock checks a block's certificate and that its content is what the header commits to.
func verifiedBlock(m *chainv1.Block, g *block.Genesis) (*block.Block, error) {
	h, err := proof.TrustOf(g).Certified(m.GetHeader(), m.GetCertificate())
	if err != nil {
		return nil, err
	}
	b, err := block.FromPB(m)
	if err != nil {
		return nil, err
	}
	return b, h.CheckBody(&b.Body)
}

func blockOf(b *block.Block, hash tx.Hash, g *block.Genesis) (*blockResult, error) {
	h := &b.Header
	raw, err := rawJSON(h.PB())
	if err != nil {
		return nil, err
	}
	r := &blockResult{
		Hash: hex.EncodeToString(hash[:]), Height: h.Height, Time: uint64(h.Time),
		Transactions: len(b.Body.Transactions), Operations: h.OperationCount, Bytes: h.BodyLength,
		Signatures: len(b.Certificate.Signatures), Verified: true, TransactionIDs: []string{},
		Header: raw,
	}
	if !h.Proposer.IsZero() {
		r.Proposer = accountText(h.Proposer)
	}
	for i, raw := range b.Body.Transactions {
		t, err := tx.Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("transaction %d: %w", i, err)
		}
		r.TransactionIDs = append(r.TransactionIDs, t.ID(g.Anchor()).String())
	}
	return r, nil
}

// shownIDs is how many transactions of a block are shown to people; programs get all.
const shownIDs = 20

func (r *blockResult) print(w io.Writer) {
	printf(w, "block\t%d\nhash\t%s\ntime\t%s\n", r.Height, r.Hash, stamp(r.Time))
	printf(w, "content\t%s, %s, %d bytes\n", many(r.Transactions, "transaction"),
		many(int(r.Operations), "operation"), r.Bytes)
	if r.Height == 0 {
		printf(w, "verified\tfollows from the genesis; nobody signs it\n")
		return
	}
	printf(w, "proposer\t%s\nverified\tcontent, and %s of the chain's validators\n", r.Proposer,
		many(r.Signatures, "signature"))
	if r.Head > 0 {
		printf(w, "history\tproven: an ancestor of block %d\n", r.Head)
	}
	for _, id := range r.TransactionIDs[:min(len(r.TransactionIDs), shownIDs)] {
		printf(w, "transaction\t%s\n", id)
	}
	if more := len(r.TransactionIDs) - shownIDs; more > 0 {
		printf(w, "\tand %d more: --json lists all\n", more)
	}
}
