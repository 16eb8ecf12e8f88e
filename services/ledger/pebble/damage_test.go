package pebble_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/pebble"
)

const blocks = 100

// full is a block of many transactions.
func full(height uint64) ledger.IndexEntry {
	e := ledger.IndexEntry{Height: height, Hash: sha256.Sum256(fmt.Appendf(nil, "b%d", height))}
	for i := range 400 {
		id := sha256.Sum256(fmt.Appendf(nil, "t%d.%d", height, i))
		e.Transactions = append(e.Transactions, id)
	}
	return e
}

// rotten opens an index whose tables have rotted since they were written.
func rotten(t *testing.T) *pebble.Index {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "index")
	x := open(t, dir, 1)
	for h := range uint64(blocks) {
		if err := x.Put(t.Context(), []ledger.IndexEntry{full(h)}); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, x)
	closed(t, open(t, dir, 1)) // what was in its log goes into a table
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables %v, %v", tables, err)
	}
	for _, path := range tables {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := len(b) / 4; i < len(b)/2; i += 512 {
			b[i] ^= 0x5a
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return open(t, dir, 1)
}

// mended mends an index that refuses for its damage, and checks that it begins anew.
func mended(t *testing.T, x *pebble.Index) {
	t.Helper()
	if _, err := x.Granted(ledger.Hash{1}); !errors.Is(err, ledger.ReasonLag) {
		t.Errorf("a damaged index says who was granted: %v", err)
	}
	if err := x.Mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found, err := x.Height(); found || err != nil {
		t.Errorf("a mended index has a height: %v, %v", found, err)
	}
	e := full(0)
	if err := x.Put(t.Context(), []ledger.IndexEntry{e}); err != nil {
		t.Error(err)
	}
	if err := x.Mend(t.Context()); err != nil { // it is well: nothing happens
		t.Error(err)
	}
	if _, found, err := x.Transaction(e.Transactions[7]); !found || err != nil {
		t.Errorf("a transaction that was put is found: %v, %v", found, err)
	}
}

func TestDamageThatAReadFindsIsMended(t *testing.T) {
	x := rotten(t)
	defer closed(t, x)
	for h := range uint64(blocks) {
		_, found, err := x.Transaction(full(h).Transactions[0])
		if errors.Is(err, ledger.ReasonLag) {
			mended(t, x)
			return
		}
		if !found || err != nil {
			t.Fatalf("a transaction of block %d is found: %v, %v", h, found, err)
		}
	}
	t.Error("no read found the damage")
}

func TestDamageThatAListFindsIsMended(t *testing.T) {
	x := rotten(t)
	defer closed(t, x)
	_, _, err := x.Between(ledger.Hash{}, ledger.Hash{0: 0xff}, 1<<30)
	if !errors.Is(err, ledger.ReasonLag) {
		t.Fatalf("a damaged table is read: %v", err)
	}
	mended(t, x)
}

// TestDamageThatACompactionFindsIsMended: nobody asked for anything.
func TestDamageThatACompactionFindsIsMended(t *testing.T) {
	x := rotten(t)
	defer closed(t, x)
	for h := uint64(blocks); h < 10*blocks; h++ {
		e := full(h)
		e.Rows = []ledger.Row{{ // fills a memory table soon
			ListID: ledger.ListID{List: ledger.ListEvents, ID: e.Hash}, Value: make([]byte, 1<<20),
		}}
		err := x.Put(t.Context(), []ledger.IndexEntry{e})
		if errors.Is(err, ledger.ReasonLag) {
			mended(t, x)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("no compaction found the damage")
}
