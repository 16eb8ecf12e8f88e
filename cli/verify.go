package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/bill"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// saved is a proof as -o writes it, of a transaction, of leaves of the state, or of a block's place
// in the history: all that a verifier
// needs beside the anchor it trusts. The anchor is the genesis' hash, so the genesis need not be
// trusted.
type saved struct {
	Proof   json.RawMessage `json:"proof,omitempty"`   // ucn.chain.v1.TransactionProof
	Leaves  []leafProof     `json:"leaves,omitempty"`  // of one block
	History json.RawMessage `json:"history,omitempty"` // ucn.chain.v1.HistoryProof
	Genesis []byte          `json:"genesis"`           // canonical bytes
}

// maxProof bounds a proof's file: a genesis may be 8 MiB, and JSON makes it longer.
const maxProof = 16 << 20

// errNoGenesis: the validators follow from the genesis, whose hash is the anchor.
var errNoGenesis = errors.New("the proof comes without the chain's genesis: give --genesis FILE, " +
	"or use a proof that the option -o of a command saved")

type txResult struct {
	Transaction string          `json:"transaction"`
	Block       uint64          `json:"block"`
	Time        uint64          `json:"time_ms"`
	Status      string          `json:"status"`
	Reason      string          `json:"reason,omitempty"`
	Fee         amount.Amount   `json:"fee"`
	Account     string          `json:"account"`
	Proven      bool            `json:"proof_verified"`
	Operations  int             `json:"operations"`
	Body        json.RawMessage `json:"body,omitempty"`
	Receipt     json.RawMessage `json:"receipt,omitempty"`
	// lines word the operations.
	lines []string
}

func (a *app) txGet() *cobra.Command {
	prove, out := false, ""
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a transaction and its receipt, with proof if you want one",
		Example: "  ucn tx get 5e...\n  ucn tx get 5e... --proof -o proof.json && ucn verify proof.json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			id, err := hexID("transaction", list[0])
			if err != nil {
				return err
			}
			answer, err := l.Ledger.GetTransaction(ctx, &ledgerv1.GetTransactionRequest{
				Chain: l.Chain, Id: id[:], Prove: prove || out != "",
			})
			if err != nil {
				return err
			}
			proven := prove || out != ""
			if proven {
				if err := provenAnswer(ctx, l, id, answer, out); err != nil {
					return err
				}
			}
			result, err := transactionOf(id, answer)
			if err != nil {
				return err
			}
			result.Proven = proven
			return a.emit(result, result.print)
		}),
	}
	cmd.Flags().BoolVar(&prove, "proof", false, "have it proven and verify the proof")
	cmd.Flags().StringVarP(&out, "output", "o", "", "save the proof to this file, for ucn verify")
	return cmd
}

// provenAnswer verifies an answer's proof and puts what it proves in place of what the ledger says.
// The proof is saved to a file if one is named.
func provenAnswer(
	ctx context.Context, l *link, id tx.ID, answer *ledgerv1.GetTransactionResponse, file string,
) error {
	genesis, err := l.Genesis(ctx)
	if err != nil {
		return err
	}
	proven, err := bill.Verify(answer.GetProof(), proof.TrustOf(genesis))
	if err != nil {
		return err
	}
	if proven.ID != id {
		return fmt.Errorf("%w: it is about another transaction", bill.ErrLies)
	}
	answer.Transaction, answer.Time = proven.Transaction.PB(), uint64(proven.Header.Time)
	answer.Result = &ledgerv1.SubmitResult{
		Height: proven.Header.Height, Receipt: proven.Receipt.PB(),
	}
	if file == "" {
		return nil
	}
	return saveProof(file, answer.GetProof(), genesis)
}

func transactionOf(id tx.ID, answer *ledgerv1.GetTransactionResponse) (*txResult, error) {
	receipt := answer.GetResult().GetReceipt()
	r := &txResult{
		Transaction: id.String(), Block: answer.GetResult().GetHeight(), Time: answer.GetTime(),
		Status: reasonText(receipt.GetStatus().String(), "STATUS_"),
		Fee:    amount.Amount(receipt.GetFee()), Account: bytesText("ucn",
			answer.GetTransaction().GetBody().GetAccount()),
		Operations: len(answer.GetTransaction().GetBody().GetOperations()),
	}
	for i, o := range answer.GetTransaction().GetBody().GetOperations() {
		outcome := &chainv1.Outcome{}
		if i < len(receipt.GetOutcomes()) {
			outcome = receipt.GetOutcomes()[i]
		}
		r.lines = append(r.lines, operationLine(o, outcome))
	}
	if reason := receipt.GetReason(); reason != chainv1.Reason_REASON_UNSPECIFIED {
		r.Reason = reasonText(reason.String(), "REASON_")
	}
	var err1, err2 error
	r.Body, err1 = rawJSON(answer.GetTransaction().GetBody())
	r.Receipt, err2 = rawJSON(receipt)
	return r, errors.Join(err1, err2)
}

func (r *txResult) print(w io.Writer) {
	printf(w, "transaction\t%s\nby\t%s\n", r.Transaction, r.Account)
	status := r.Status
	if r.Reason != "" {
		status += ": " + r.Reason
	}
	printf(w, "status\t%s, committed in block %d at %s\n", status, r.Block, stamp(r.Time))
	printf(w, "fee\t%s\noperations\t%d\n", amount.Text(r.Fee), r.Operations)
	for i, line := range r.lines[:min(len(r.lines), shownIDs)] {
		printf(w, "  %d\t%s\n", i+1, line)
	}
	if more := len(r.lines) - shownIDs; more > 0 {
		printf(w, "\tand %d more: --json lists all\n", more)
	}
	if r.Proven {
		printf(w, "proof\tverified\n")
	}
}

func saveProof(path string, m *chainv1.TransactionProof, g *block.Genesis) error {
	raw, err := rawJSON(m)
	if err != nil {
		return err
	}
	return save(path, saved{Proof: raw, Genesis: g.Append(nil)})
}

// trusting are the flags of verify.
type trusting struct{ anchor, genesis string }

type verifyResult struct {
	Verified    bool          `json:"verified"`
	Transaction string        `json:"transaction"`
	Chain       string        `json:"chain"`
	Anchor      string        `json:"anchor"`
	Block       uint64        `json:"block"`
	BlockHash   string        `json:"block_hash"`
	Time        time.Time     `json:"time"`
	Status      string        `json:"status"`
	Fee         amount.Amount `json:"fee"`
	Signatures  int           `json:"signatures_needed"`
}

func (a *app) verifyCommand() *cobra.Command {
	t := trusting{}
	cmd := &cobra.Command{
		Use: "verify FILE|TRANSACTION", Short: "Verify a proof, offline if it is a file",
		Long: `Verify that a transaction and its receipt stand in a block that the chain's validators
certified, what an account, an escrow, a lease or the supply was after such a block, or that a block
is an ancestor of it. A file that the option -o of "ucn chain tx|account|escrow|lease|supply|block"
saved is verified without any network, and so is an answer of REST to a question with prove=true,
which comes without the genesis: give --genesis. What is trusted is the anchor alone: of --anchor,
of --genesis, or of the network file. The genesis in the file must hash to it.`,
		Example: "  ucn verify proof.json\n  ucn verify proof.json --anchor 3f...\n  ucn verify 5e...\n" +
			"  curl -s $REST/v1/accounts/ucn1...?prove=true | ucn verify - --genesis genesis.bin",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, list []string) error {
			if _, err := os.Stat(list[0]); err == nil || list[0] == "-" {
				return a.verifyFile(list[0], &t)
			}
			if _, err := hexID("transaction", list[0]); err != nil {
				return usagef("%s is neither a file nor a transaction id", list[0])
			}
			return a.session(withoutKey, a.verifyOnline)(cmd, list)
		},
	}
	cmd.Flags().StringVar(&t.anchor, "anchor", "", "anchor to trust, 64 hexadecimal digits")
	cmd.Flags().StringVar(&t.genesis, "genesis", "", "file of the genesis to trust, canonical bytes")
	return cmd
}

func (a *app) verifyOnline(ctx context.Context, l *link, list []string) error {
	id, err := hexID("transaction", list[0])
	if err != nil {
		return err
	}
	genesis, err := l.Genesis(ctx)
	if err != nil {
		return err
	}
	answer, err := l.Ledger.GetTransaction(ctx, &ledgerv1.GetTransactionRequest{
		Chain: l.Chain, Id: id[:], Prove: true,
	})
	if err != nil {
		return err
	}
	return a.verified(answer.GetProof(), genesis, (*tx.ID)(&id))
}

func (a *app) verifyFile(path string, t *trusting) error {
	text, err := a.readSmall(path, maxProof)
	if err != nil {
		return err
	}
	p, err := parseProof(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	genesis := p.genesis
	if t.genesis != "" {
		if genesis, err = a.readGenesis(t.genesis); err != nil {
			return err
		}
	}
	if genesis == nil {
		return errNoGenesis
	}
	anchor, err := a.trustedAnchor(t, genesis)
	if err != nil {
		return err
	}
	if genesis.Anchor() != anchor {
		return fmt.Errorf("the proof is of another network: its genesis has the anchor %x, trusted "+
			"is %x", genesis.Anchor(), anchor)
	}
	switch {
	case p.history != nil:
		return a.verifiedHistory(p.history, genesis)
	case p.transaction == nil:
		return a.verifiedLeaves(p.leaves, genesis)
	}
	return a.verified(p.transaction, genesis, nil)
}

// parsed is what a file of a proof holds: one of the three, and the genesis if it came along.
type parsed struct {
	transaction *chainv1.TransactionProof
	leaves      []leafProof
	history     json.RawMessage
	genesis     *block.Genesis
}

// parseProof reads a saved proof, the answer of REST to a question with prove=true, or the bare
// JSON of a TransactionProof.
func parseProof(text []byte) (p parsed, err error) {
	var s saved
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	alone := func() bool { return s.Proof != nil && len(s.Genesis) == 0 } // as answers have it
	if d.Decode(&s) != nil || s.kinds() != 1 || alone() {
		if s, err = answered(text); err != nil {
			return p, err
		}
	}
	p.leaves, p.history = s.Leaves, s.History
	if s.Proof != nil {
		p.transaction = &chainv1.TransactionProof{}
		if err := protojson.Unmarshal(s.Proof, p.transaction); err != nil {
			return p, fmt.Errorf("this is no proof: %w", err)
		}
		if len(p.transaction.GetTransaction()) == 0 {
			return p, errors.New("this is no proof: it names no transaction")
		}
	}
	if len(s.Genesis) > 0 {
		p.genesis, err = block.DecodeGenesis(s.Genesis)
	}
	return p, err
}

// kinds is how many proofs are saved; those of leaves are one.
func (s *saved) kinds() (n int) {
	for _, there := range []bool{s.Proof != nil, s.Leaves != nil, s.History != nil} {
		if there {
			n++
		}
	}
	return n
}

func (a *app) readGenesis(path string) (*block.Genesis, error) {
	raw, err := a.readSmall(path, block.MaxGenesis)
	if err != nil {
		return nil, err
	}
	g, err := block.DecodeGenesis(raw)
	if err != nil {
		return nil, fmt.Errorf("%s is no genesis: %w", path, err)
	}
	return g, nil
}

// trustedAnchor is that of the flags, or else of the network file.
func (a *app) trustedAnchor(t *trusting, g *block.Genesis) (sig.Anchor, error) {
	if t.anchor != "" {
		raw, err := hexID("anchor", t.anchor)
		return raw, err
	}
	if t.genesis != "" {
		return g.Anchor(), nil // the user handed it over
	}
	f, err := a.network()
	if err != nil {
		return sig.Anchor{}, usagef("nothing says which anchor to trust: give --anchor or --genesis")
	}
	return f.AnchorID()
}

// verifiedHistory is verified for a block's place in the history.
func (a *app) verifiedHistory(text []byte, g *block.Genesis) error {
	if err := g.Validate(); err != nil {
		return err
	}
	r, err := showHistory(text, g)
	if err != nil {
		return fmt.Errorf("NOT verified: %w", err)
	}
	return a.emit(r, r.print)
}

// verifiedLeaves is verified for leaves of the state.
func (a *app) verifiedLeaves(list []leafProof, g *block.Genesis) error {
	if err := g.Validate(); err != nil {
		return err
	}
	r, err := showLeaves(list, g)
	if err != nil {
		return fmt.Errorf("NOT verified: %w", err)
	}
	return a.emit(r, r.print)
}

// verified verifies against a genesis that is trusted by now and prints what is proven.
func (a *app) verified(m *chainv1.TransactionProof, g *block.Genesis, want *tx.ID) error {
	if err := g.Validate(); err != nil {
		return err
	}
	trust := proof.TrustOf(g)
	proven, err := bill.Verify(m, trust)
	if err != nil {
		return fmt.Errorf("NOT verified: %w", err)
	}
	if want != nil && proven.ID != *want {
		return fmt.Errorf("NOT verified: %w: it is about another transaction", bill.ErrLies)
	}
	anchor, hash := g.Anchor(), proven.Header.Hash(g.Anchor())
	result := verifyResult{
		Verified: true, Transaction: proven.ID.String(), Chain: g.Chain,
		Anchor: hex.EncodeToString(anchor[:]), Block: proven.Header.Height,
		BlockHash: hash.String(), Time: time.UnixMilli(int64(proven.Header.Time)).UTC(),
		Status: reasonText(proven.Receipt.Status.String(), "STATUS_"),
		Fee:    amount.Amount(proven.Receipt.Fee), Signatures: trust.Need,
	}
	return a.emit(result, func(w io.Writer) {
		printf(w, "proof verified\ntransaction\t%s\n", result.Transaction)
		printf(w, "receipt\t%s, fee %s\nblock\t%d %s\n", result.Status, amount.Text(result.Fee),
			result.Block, result.BlockHash)
		printf(w, "time\t%s\nchain\t%s, anchor %s\n", result.Time.Local().Format(time.RFC3339),
			result.Chain, result.Anchor)
		printf(w, "certified\tby %d of the genesis' validators\n", result.Signatures)
	})
}
