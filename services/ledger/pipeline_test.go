package ledger_test

import (
	"testing"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

// TestPipelinedTransactionsSeeEachBlockThatComesBetween sends what follows an account's first
// transaction while that one moves from the pool into a block.
func TestPipelinedTransactionsSeeEachBlockThatComesBetween(t *testing.T) {
	n := network(t, 1, 1000)
	c, _ := ledgertest.Start(t, config(), deps(n, (&ledgertest.Disk{}).Open()))
	for i := range n.Keys {
		first, err := c.Enqueue(t.Context(), [][]byte{n.Transfer(i, 0, 0, 5)}, ledger.Committed)
		if err != nil {
			t.Fatal(err)
		}
		for nonce := uint64(1); nonce < 3; nonce++ {
			next := [][]byte{n.Transfer(i, 0, nonce, 5)}
			results, _, err := c.Submit(t.Context(), next, ledger.Accepted)
			if err != nil || results[0].Err != nil {
				t.Fatalf("account %d, nonce %d: %v, %v", i, nonce, results, err)
			}
		}
		if _, _, err := first.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
