package ledger_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/solo"
)

func config() ledger.Config { return ledger.Config{Pool: ledger.DefaultPool()} }

func network(t *testing.T, seed uint64, accounts int) *ledgertest.Network {
	t.Helper()
	n, err := ledgertest.NewNetwork(seed, accounts)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// deps are what a chain of the network needs, ordered by solo.
func deps(n *ledgertest.Network, store ledger.Store) ledger.Deps {
	return ledger.Deps{
		Genesis: n.Genesis, Store: store,
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			return solo.New(solo.Default(), n.MaxStep(), solo.Deps{Key: n.Proposer, Head: head})
		},
	}
}

// submit sends transactions and wants every one committed and ok.
func submit(t *testing.T, c *ledger.Chain, raw ...[]byte) []ledger.Result {
	t.Helper()
	results, _, err := c.Submit(t.Context(), raw, ledger.Committed)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || r.Finality != ledger.Committed {
			t.Fatalf("transaction %d: %v", i, r.Err)
		}
		receipt, err := tx.DecodeReceipt(r.Receipt)
		if err != nil || len(receipt.Outcomes) == 0 {
			t.Fatalf("transaction %d: receipt %+v, %v", i, receipt, err)
		}
	}
	return results
}

func TestCommitsAndRestartsFromTheLog(t *testing.T) {
	n := network(t, 1, 10)
	disk := &ledgertest.Disk{}
	d := deps(n, disk.Open())
	d.Index = &ledgertest.Index{}
	c, stop := ledgertest.Start(t, config(), d)
	var all [][]byte
	for nonce := range uint64(3) {
		for i := range n.Keys {
			all = append(all, n.Transfer(i, (i+1)%10, nonce, tx.Grains(1000+i)))
		}
	}
	results := submit(t, c, all...)
	again := submit(t, c, all...) // the same once more: what became of them
	for i := range results {
		if results[i].ID != again[i].ID || results[i].At != again[i].At {
			t.Errorf("transaction %d is at %v, and then at %v", i, results[i].At, again[i].At)
		}
	}
	before := c.Tip()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Err(); err == nil || strings.Contains(err.Error(), "storage") {
		t.Errorf("an orderly end is told as %v", err)
	}
	d.Store = disk.Open()
	c, _ = ledgertest.Start(t, config(), d)
	if after := c.Tip(); after.Hash != before.Hash {
		t.Errorf("head is %x at %d, was %x at %d", after.Hash, after.Header.Height, before.Hash,
			before.Header.Height)
	}
	known, err := c.Transaction(t.Context(), results[7].ID)
	if err != nil || known.At != results[7].At {
		t.Errorf("transaction 7 is found at %v, %v", known, err)
	}
	submit(t, c, n.Transfer(0, 1, 3, 5))
}

func TestRefusesALogOfAnotherGenesis(t *testing.T) {
	n, other := network(t, 1, 2), network(t, 2, 2)
	disk := &ledgertest.Disk{}
	_, stop := ledgertest.Start(t, config(), deps(n, disk.Open()))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	_, err := ledger.Open(t.Context(), config(), deps(other, disk.Open()))
	if !errors.Is(err, ledger.ErrGenesis) {
		t.Errorf("open: %v", err)
	}
}

// TestIndexIsNotBelieved: an index that is wrong must not make another transaction's receipt out
// to be the one that was asked for.
func TestIndexIsNotBelieved(t *testing.T) {
	n := network(t, 1, 2)
	disk, index := &ledgertest.Disk{}, &ledgertest.Index{}
	c, stop := ledgertest.Start(t, config(), deps(n, disk.Open()))
	r := submit(t, c, n.Transfer(0, 1, 0, 5))[0]
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	never := ledger.Hash{1, 2, 3}
	err := index.Put(t.Context(), []ledger.IndexEntry{
		{Height: 1, Transactions: []ledger.Hash{r.ID}},
		{Height: 1, Transactions: []ledger.Hash{never}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := deps(n, disk.Open())
	d.Index = index
	if c, err = ledger.Open(t.Context(), config(), d); err != nil {
		t.Fatal(err)
	}
	if known, err := c.Transaction(t.Context(), r.ID); err != nil || known.ID != r.ID {
		t.Errorf("a good entry: %v, %v", known, err)
	}
	if known, err := c.Transaction(t.Context(), never); err == nil {
		t.Errorf("a transaction that never was is committed at %v", known.At)
	}
}

// counted counts the blocks that are read.
type counted struct {
	ledger.Store
	reads atomic.Int32
}

func (s *counted) Read(ctx context.Context, height uint64) (ledger.Record, error) {
	s.reads.Add(1)
	return s.Store.Read(ctx, height)
}

// TestRepeatedBatchReadsItsBlockOnce: a client who lost the answer sends everything again, and must
// not wait for a block to be read per transaction.
func TestRepeatedBatchReadsItsBlockOnce(t *testing.T) {
	n := network(t, 1, 200)
	store := &counted{Store: (&ledgertest.Disk{}).Open()}
	c, _ := ledgertest.Start(t, config(), deps(n, store))
	var all [][]byte
	for i := range n.Keys {
		all = append(all, n.Transfer(i, 0, 0, 5))
	}
	first := submit(t, c, all...)
	before := store.reads.Load()
	for i, r := range submit(t, c, all...) {
		if r.ID != first[i].ID || r.At != first[i].At {
			t.Errorf("transaction %d was at %v, is at %v", i, first[i].At, r.At)
		}
	}
	blocks := int32(first[len(first)-1].At.Height - first[0].At.Height + 1)
	if got := store.reads.Load() - before; got > blocks {
		t.Errorf("%d reads for %d blocks", got, blocks)
	}
}
