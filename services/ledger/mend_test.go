package ledger_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

// fragile is an index that answers nothing from its damage to its mending, and is empty then.
type fragile struct {
	ledgertest.Index

	damaged atomic.Bool
}

func newFragile() *fragile {
	f := &fragile{}
	f.Err = func() error {
		if f.damaged.Load() {
			return fault.New(fault.Unavailable, ledger.ReasonLag, "damaged")
		}
		return nil
	}
	return f
}

func (f *fragile) Mend(ctx context.Context) error {
	if f.damaged.Load() {
		f.Clear()
		f.damaged.Store(false)
	}
	return ctx.Err()
}

// TestDamagedIndexIsBuiltAnewWhileTheChainRuns: the chain goes on, refuses only what the index
// alone knows, and has it built anew without anybody's doing.
func TestDamagedIndexIsBuiltAnewWhileTheChainRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, disk, index := network(t, 1, 2), &ledgertest.Disk{}, newFragile()
		d := deps(n, disk.Open())
		d.Index = index
		c, stop := ledgertest.Start(t, config(), d)
		old := submit(t, c, n.Transfer(0, 1, 0, 5))[0]
		synctest.Wait() // it is indexed, and no longer in memory
		if lag, err := c.Lag(); lag != 0 || err != nil {
			t.Fatalf("%d blocks are not indexed, %v", lag, err)
		}
		index.damaged.Store(true)
		if _, err := c.Transaction(t.Context(), old.ID); !errors.Is(err, ledger.ReasonLag) {
			t.Errorf("a transaction that a damaged index knows: %v", err)
		}
		if granted, err := c.Granted(n.Accounts[1]); granted || !errors.Is(err, ledger.ReasonLag) {
			t.Errorf("a damaged index knows of no grant: %v, %v", granted, err)
		}
		time.Sleep(time.Minute) // in the bubble: the chain is idle, and nobody asks
		synctest.Wait()
		if lag, err := c.Lag(); lag != 0 || err != nil {
			t.Errorf("a minute later %d blocks are not indexed, %v", lag, err)
		}
		if known, err := c.Transaction(t.Context(), old.ID); err != nil || known.ID != old.ID {
			t.Errorf("a transaction that was indexed anew: %v, %v", known, err)
		}
		submit(t, c, n.Transfer(0, 1, 1, 5))
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestRepeatsWhileTheIndexIsAway: committed bytes that come again are never answered like bytes
// that are in no block, or whoever sent them would sign anew and pay twice.
func TestRepeatsWhileTheIndexIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, disk, index := network(t, 1, 2), &ledgertest.Disk{}, newFragile()
		d := deps(n, disk.Open())
		d.Index = index
		c, stop := ledgertest.Start(t, config(), d)
		first, second := n.Transfer(0, 1, 0, 5), n.Transfer(0, 1, 1, 5)
		was := submit(t, c, first, second)
		synctest.Wait() // they are indexed, and no longer in memory
		index.damaged.Store(true)
		other := n.Transfer(0, 1, 1, 6) // another of a nonce that is used
		stays := n.Transfer(0, 1, 7, 5) // refused for what no block can have changed
		results, _, err := c.Submit(t.Context(), [][]byte{first, second, other, stays},
			ledger.Committed)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []fault.Reason{ledger.ReasonLag, ledger.ReasonLag, ledger.ReasonLag,
			ledger.ReasonNonceFuture} {
			got := results[i].Err
			if !errors.Is(got, want) || want == ledger.ReasonLag && !got.Kind().Retryable() {
				t.Errorf("transaction %d while the index is away: %v", i, got)
			}
		}
		time.Sleep(time.Minute) // in the bubble: the index is built anew
		synctest.Wait()
		again := submit(t, c, first, second)
		if again[0].At != was[0].At || again[1].At != was[1].At {
			t.Errorf("they are at %v and %v, were at %v and %v", again[0].At, again[1].At,
				was[0].At, was[1].At)
		}
		results, _, err = c.Submit(t.Context(), [][]byte{other}, ledger.Committed)
		if err != nil || !errors.Is(results[0].Err, ledger.ReasonNonceOld) {
			t.Errorf("the other one: %v, %v", results, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestStreamOfAListEndsWhenItsIndexIsLost: it must not pass over blocks that are not indexed yet.
func TestStreamOfAListEndsWhenItsIndexIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, disk, index := network(t, 1, 2), &ledgertest.Disk{}, newFragile()
		d := deps(n, disk.Open())
		d.Index = index
		c, stop := ledgertest.Start(t, config(), d)
		for i := range uint64(1100) { // more than are read at once
			submit(t, c, n.Transfer(0, 1, i, 1))
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		of := ledger.ListID{List: ledger.ListAccount, ID: ledger.Hash(n.Accounts[1])}
		err := c.WatchList(ctx, of, 0, func(uint64, []uint32) error {
			index.Clear()
			return nil
		})
		if !errors.Is(err, ledger.ReasonLag) {
			t.Errorf("the stream goes on without its index: %v", err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
