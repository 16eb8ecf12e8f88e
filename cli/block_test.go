package cli_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/cli"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// TestBlocksAreVerified: a block is shown with its transactions once certificate and content are
// verified; another one, or one with anything changed, is not shown.
func TestBlocksAreVerified(t *testing.T) {
	u := started(t, honest)
	to := u.friend("bob")
	var sent struct {
		Transaction string
		Block       uint64
	}
	decode(t, u.must("transfer", to, "1.5", "--json"), &sent)
	u.must("transfer", to, "1")
	if out := u.must("chain", "block", "0"); !strings.Contains(out, "follows from the genesis") {
		t.Errorf("the first block: %s", out)
	}
	var shown struct {
		Verified        bool
		Transaction_IDs []string
		Height          uint64
	}
	decode(t, u.must("chain", "block", "1", "--json"), &shown)
	if !shown.Verified || len(shown.Transaction_IDs) != 1 ||
		shown.Transaction_IDs[0] != sent.Transaction {
		t.Errorf("the block is shown as %+v, it holds %+v", shown, sent)
	}
	if out := u.must("chain", "block", "1"); !strings.Contains(out, sent.Transaction) {
		t.Errorf("its transactions are not shown: %s", out)
	}
	var second *chainv1.Block
	u.net.Ledger.LieOfBlock = func(r *ledgerv1.GetBlockResponse) { second = r.GetBlock() }
	u.must("chain", "block", "2")
	for name, lie := range map[string]func(*chainv1.Block) *chainv1.Block{
		"another block":  func(*chainv1.Block) *chainv1.Block { return second },
		"no block":       func(*chainv1.Block) *chainv1.Block { return nil },
		"no certificate": func(b *chainv1.Block) *chainv1.Block { b.Certificate = nil; return b },
		"no content":     func(b *chainv1.Block) *chainv1.Block { b.Body = nil; return b },
		"another's content": func(b *chainv1.Block) *chainv1.Block {
			b.Body = second.GetBody()
			return b
		},
		"another time":       func(b *chainv1.Block) *chainv1.Block { b.Header.Time++; return b },
		"a block of its own": func(b *chainv1.Block) *chainv1.Block { b.Header.Height = 0; return b },
	} {
		u.net.Ledger.LieOfBlock = func(r *ledgerv1.GetBlockResponse) {
			r.Block = lie(proto.Clone(r.GetBlock()).(*chainv1.Block))
		}
		if out, _, code := u.run("chain", "block", "1"); code != cli.ExitFailed {
			t.Errorf("%s: %d, %s", name, code, out)
		}
	}
}

// TestProvenTransactions: with a proof, nothing is shown that the ledger says beside it.
func TestProvenTransactions(t *testing.T) {
	u := started(t, honest)
	to := u.friend("bob")
	var sent struct{ Transaction string }
	decode(t, u.must("transfer", to, "1.5", "--json"), &sent)
	honestly := u.must("chain", "tx", sent.Transaction, "--proof")
	if !strings.Contains(honestly, "transfer to "+to+", 1.5 UCN") {
		t.Errorf("what it did is not shown: %s", honestly)
	}
	u.net.Ledger.LieOfTransaction = func(r *ledgerv1.GetTransactionResponse) {
		r.Result = &ledgerv1.SubmitResult{Height: 77, Receipt: &chainv1.Receipt{Fee: 5}}
		r.Transaction, r.Time = nil, 1
	}
	if out := u.must("chain", "tx", sent.Transaction, "--proof"); out != honestly {
		t.Errorf("a lie is shown as proven: %s, not %s", out, honestly)
	}
}
