package e2e

import (
	"context"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/test/stage"
)

// executed is a transaction of the chain as this test executed it again.
type executed struct {
	Tx      *tx.Transaction
	ID      tx.ID
	Receipt tx.Receipt
	Time    tx.Millis // of its block
}

// replayed is a chain executed again from its genesis, as anyone may who does not trust the ledger.
type replayed struct {
	state *state.State
	list  []executed
}

// replay reads every block and executes it: every signature, every root and the sums must hold.
func replay(ctx context.Context, t *testing.T, s *scene) *replayed {
	t.Helper()
	bank := s.Bank()
	genesis, err := bank.Genesis(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out := &replayed{}
	if out.state, err = state.New(genesis); err != nil {
		t.Fatal(err)
	}
	chain, err := bank.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: bank.Chain})
	if err != nil {
		t.Fatal(err)
	}
	parent := genesis.Header(tx.Hash(out.state.Root()))
	var signed block.Certificate
	for height := uint64(1); height <= chain.GetHead().GetHeight(); height++ {
		r, err := bank.Ledger.GetBlock(ctx, &ledgerv1.GetBlockRequest{
			Chain: bank.Chain, Height: height,
		})
		if err != nil {
			t.Fatal(err)
		}
		b, err := block.FromPB(r.GetBlock())
		if err != nil {
			t.Fatalf("block %d: %v", height, err)
		}
		err = block.CheckLink(&parent, &b.Header, bank.Anchor, tx.Millis(genesis.Params.MaxStep))
		if err != nil {
			t.Fatalf("block %d: %v", height, err)
		}
		out.execute(t, genesis, b, signed)
		parent, signed = b.Header, b.Certificate
	}
	out.state.Recount() // panics when a sum is not what the records come to
	return out
}

func (r *replayed) execute(
	t *testing.T, genesis *block.Genesis, b *block.Block, parent block.Certificate,
) {
	t.Helper()
	var signers []sig.AccountID
	for _, one := range parent.Signatures {
		if v, ok := genesis.Validators.Find(one.Key); ok {
			signers = append(signers, v.Account)
		}
	}
	run, err := r.state.Begin(state.Context{
		Head: r.state.Next(b.Header.Time), Proposer: b.Header.Proposer, CoSigners: signers,
	})
	if err != nil {
		t.Fatalf("block %d: %v", b.Header.Height, err)
	}
	for i, raw := range b.Body.Transactions {
		decoded, err := tx.Decode(raw)
		if err != nil {
			t.Fatalf("block %d, transaction %d: %v", b.Header.Height, i, err)
		}
		prepared, err := r.state.Prepare(decoded)
		if err != nil {
			t.Fatalf("block %d, transaction %d: %v", b.Header.Height, i, err)
		}
		receipt, err := run.Apply(prepared)
		if err != nil {
			t.Fatalf("block %d, transaction %d: %v", b.Header.Height, i, err)
		}
		r.list = append(r.list, executed{decoded, prepared.ID, receipt, b.Header.Time})
	}
	run.Finish()
	run.Commit()
	if got := r.state.Root(); got != trie.Hash(b.Header.StateRoot) {
		t.Fatalf("block %d: executing it leads to root %x, it says %x", b.Header.Height, got,
			b.Header.StateRoot)
	}
}

// supplyIsConserved: accounts, escrows, locks and what was burned are what the genesis gave out.
func supplyIsConserved(t *testing.T, s *scene) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := replay(ctx, t, s).state.Chain()
	whole := uint64(c.AccountSum + c.EscrowSum + c.LockSum + c.LockboxSum)
	const supply = 1_000_000 * uint64(stage.UCN)
	if c.Burned.Hi != 0 || whole+c.Burned.Lo != supply || uint64(c.GenesisSupply) != supply {
		t.Errorf("%d grains are there and %+v burned, of %d", whole, c.Burned, supply)
	}
	if c.Burned.Lo == 0 {
		t.Error("no fees were burned: nothing happened")
	}
}
