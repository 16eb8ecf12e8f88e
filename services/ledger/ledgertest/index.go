package ledgertest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/united-containers/ucn/services/ledger"
)

// Index is a ledger.Index in memory. Err, when set, is asked before every call.
type Index struct {
	Err func() error

	mu           sync.Mutex
	filled       bool
	height       uint64
	blocks       map[ledger.Hash]uint64
	transactions map[ledger.Hash]ledger.Location
	granted      map[ledger.Hash]bool
}

var _ ledger.Index = (*Index)(nil)

func (x *Index) fail() error {
	if x.Err == nil {
		return nil
	}
	return x.Err()
}

// Put implements ledger.Index.
func (x *Index) Put(ctx context.Context, entries []ledger.IndexEntry) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.fail(); err != nil {
		return err
	}
	if x.blocks == nil {
		x.blocks = map[ledger.Hash]uint64{}
		x.transactions = map[ledger.Hash]ledger.Location{}
		x.granted = map[ledger.Hash]bool{}
	}
	for _, e := range entries {
		x.blocks[e.Hash] = e.Height
		for i, id := range e.Transactions {
			x.transactions[id] = ledger.Location{Height: e.Height, Index: uint32(i)}
		}
		for _, account := range e.Granted {
			x.granted[account] = true
		}
		x.height, x.filled = e.Height, true
	}
	return ctx.Err()
}

// Height implements ledger.Index.
func (x *Index) Height() (uint64, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.height, x.filled, x.fail()
}

// Transaction implements ledger.Index.
func (x *Index) Transaction(id ledger.Hash) (ledger.Location, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	place, found := x.transactions[id]
	return place, found, x.fail()
}

// Block implements ledger.Index.
func (x *Index) Block(hash ledger.Hash) (uint64, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	height, found := x.blocks[hash]
	return height, found, x.fail()
}

// Granted implements ledger.Index.
func (x *Index) Granted(account ledger.Hash) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.granted[account], x.fail()
}

// Close implements ledger.Index.
func (x *Index) Close() error { return nil }

// TestIndex is the contract of ledger.Index. fresh gives a function that opens the same index
// again and again.
func TestIndex(t *testing.T, fresh func(t *testing.T) func() ledger.Index) {
	t.Run("Empty", func(t *testing.T) {
		x := fresh(t)()
		defer closeIndex(t, x)
		if _, found, err := x.Height(); found || err != nil {
			t.Errorf("height of an empty index: %v, %v", found, err)
		}
		if _, found, err := x.Transaction(ledger.Hash{1}); found || err != nil {
			t.Errorf("transaction of an empty index: %v, %v", found, err)
		}
		if _, found, err := x.Block(ledger.Hash{1}); found || err != nil {
			t.Errorf("block of an empty index: %v, %v", found, err)
		}
	})
	t.Run("PutTwiceAndReopen", func(t *testing.T) {
		reopen := fresh(t)
		x := reopen()
		entries := indexEntries(50)
		for _, part := range [][]ledger.IndexEntry{entries[:20], entries[10:20], entries[20:]} {
			if err := x.Put(t.Context(), part); err != nil {
				t.Fatal(err)
			}
		}
		checkIndex(t, x, entries)
		closeIndex(t, x)
		x = reopen()
		defer closeIndex(t, x)
		checkIndex(t, x, entries)
	})
}

func closeIndex(t *testing.T, x ledger.Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func indexEntries(n int) []ledger.IndexEntry {
	name := func(kind byte, n int) ledger.Hash {
		return sha256.Sum256(binary.BigEndian.AppendUint64([]byte{kind}, uint64(n)))
	}
	entries := make([]ledger.IndexEntry, n)
	for i := range entries {
		entries[i] = ledger.IndexEntry{Height: uint64(i), Hash: name('b', i)}
		if i%5 == 0 {
			entries[i].Granted = []ledger.Hash{name('g', i)}
		}
		for j := range i % 7 {
			id := name('t', i*100+j)
			entries[i].Transactions = append(entries[i].Transactions, id)
		}
	}
	return entries
}

func checkIndex(t *testing.T, x ledger.Index, entries []ledger.IndexEntry) {
	t.Helper()
	for _, e := range entries {
		if height, found, err := x.Block(e.Hash); height != e.Height || !found || err != nil {
			t.Fatalf("block %d is indexed at %d, %v, %v", e.Height, height, found, err)
		}
		for i, id := range e.Transactions {
			want := ledger.Location{Height: e.Height, Index: uint32(i)}
			if got, found, err := x.Transaction(id); got != want || !found || err != nil {
				t.Fatalf("transaction %v is indexed at %v, %v, %v", want, got, found, err)
			}
		}
	}
	for i := range entries {
		account := sha256.Sum256(binary.BigEndian.AppendUint64([]byte{'g'}, uint64(i)))
		if got, err := x.Granted(account); got != (i%5 == 0) || err != nil {
			t.Fatalf("account %d was granted: %v, %v", i, got, err)
		}
	}
	last := entries[len(entries)-1].Height
	if height, found, err := x.Height(); height != last || !found || err != nil {
		t.Fatalf("height is %d, %v, %v", height, found, err)
	}
}
