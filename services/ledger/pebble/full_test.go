package pebble_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/pebble"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// start starts a chain with an index.
func start(t *testing.T, n *ledgertest.Network, x ledger.Index) *ledger.Chain {
	t.Helper()
	disk := &ledgertest.Disk{}
	chain, _ := ledgertest.Start(t, ledger.Config{Pool: ledger.DefaultPool()}, ledger.Deps{
		Genesis: n.Genesis, Store: disk.Open(), Index: x,
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			return solo.New(solo.Default(), n.MaxStep(), solo.Deps{Key: n.Proposer, Head: head})
		},
	})
	return chain
}

// TestLedgerStartsOnAFullDisk: it answers what it knows without its index, says that it does not
// know the rest, and has the index once there is room.
func TestLedgerStartsOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := ledgertest.NewNetwork(1, 2)
		if err != nil {
			t.Fatal(err)
		}
		var free atomic.Uint64
		config := pebble.Config{Dir: t.TempDir(), Anchor: ledger.Hash(n.Genesis.Anchor())}
		x, err := pebble.Open(pebble.FreeHook(config, func(string) (uint64, error) {
			return free.Load(), nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed(t, x) })
		c := start(t, n, x)
		if account, found := c.State().Account(n.Accounts[0]); !found || account.Balance == 0 {
			t.Errorf("account: %+v, %v", account, found)
		}
		if granted, err := c.Granted(n.Accounts[1]); granted || !errors.Is(err, ledger.ReasonLag) {
			t.Errorf("granted without an index: %v, %v", granted, err)
		}
		if _, err := c.Transaction(t.Context(), ledger.Hash{1}); !errors.Is(err, ledger.ReasonLag) {
			t.Errorf("transaction without an index: %v", err)
		}
		free.Store(1 << 40)
		time.Sleep(time.Minute) // in the bubble: nothing is asked of it, and it comes
		synctest.Wait()
		if lag, err := c.Lag(); lag != 0 || err != nil {
			t.Errorf("with room it is %d blocks behind, %v", lag, err)
		}
		if granted, err := c.Granted(n.Accounts[1]); granted || err != nil {
			t.Errorf("granted: %v, %v", granted, err)
		}
	})
}
