package pebble_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/pebble"
)

func open(t *testing.T, dir string, anchor byte) *pebble.Index {
	t.Helper()
	return openAt(t, dir, anchor, ledger.Record{Height: 1000})
}

func openAt(t *testing.T, dir string, anchor byte, head ledger.Record) *pebble.Index {
	t.Helper()
	x, err := pebble.Open(pebble.Config{Dir: dir, Anchor: ledger.Hash{anchor}, Head: head})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func closed(t *testing.T, x *pebble.Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func TestIndexKeepsTheContract(t *testing.T) {
	ledgertest.TestIndex(t, func(t *testing.T) func() ledger.Index {
		dir := t.TempDir()
		return func() ledger.Index { return open(t, dir, 1) }
	})
}

// indexed makes an index that holds block 3 of a chain.
func indexed(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "index")
	x := open(t, dir, 1)
	entry := ledger.IndexEntry{Height: 3, Hash: ledger.Hash{3}}
	if err := x.Put(t.Context(), []ledger.IndexEntry{entry}); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIndexOfAnotherChainIsBuiltAnew(t *testing.T) {
	dir := indexed(t)
	x := open(t, dir, 2)
	defer closed(t, x)
	if _, found, err := x.Height(); found || err != nil {
		t.Errorf("an index of another chain was kept: %v, %v", found, err)
	}
}

func TestIndexBeyondTheLogIsBuiltAnew(t *testing.T) {
	cases := map[string]struct {
		head ledger.Record
		kept bool
	}{
		"its head":    {ledger.Record{Height: 3, Hash: ledger.Hash{3}}, true},
		"longer log":  {ledger.Record{Height: 4, Hash: ledger.Hash{4}}, true},
		"shorter log": {ledger.Record{Height: 2, Hash: ledger.Hash{2}}, false},
		"other log":   {ledger.Record{Height: 3, Hash: ledger.Hash{9}}, false},
	}
	for name, c := range cases {
		x := openAt(t, indexed(t), 1, c.head)
		if _, found, err := x.Height(); found != c.kept || err != nil {
			t.Errorf("%s: kept %v, %v", name, found, err)
		}
		closed(t, x)
	}
}

func TestDamagedIndexIsBuiltAnew(t *testing.T) {
	dir := indexed(t)
	manifests, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("manifests %v, %v", manifests, err)
	}
	for _, path := range manifests {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] ^= 0xa5
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x := open(t, dir, 1)
	defer closed(t, x)
	if _, found, err := x.Height(); found || err != nil {
		t.Errorf("a damaged index was kept: %v, %v", found, err)
	}
}

// TestFullDiskMakesTheIndexWait: Pebble would end the process, and the ledger with it.
func TestFullDiskMakesTheIndexWait(t *testing.T) {
	free := uint64(1 << 40)
	c := pebble.Config{Dir: t.TempDir(), Head: ledger.Record{Height: 1000}}
	x, err := pebble.Open(pebble.FreeHook(c, func(string) (uint64, error) { return free, nil }))
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, x)
	entry := []ledger.IndexEntry{{Height: 3, Hash: ledger.Hash{3}}}
	free = 1 << 20
	if err := x.Put(t.Context(), entry); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("put on a full disk: %v", err)
	}
	if _, found, err := x.Height(); found || err != nil {
		t.Errorf("it was put all the same: %v, %v", found, err)
	}
	free = 1 << 40
	if err := x.Put(t.Context(), entry); err != nil {
		t.Error(err)
	}
}

// TestIndexWithoutItsManifestIsBuiltAnew: a power loss may leave the name of a manifest alone.
func TestIndexWithoutItsManifestIsBuiltAnew(t *testing.T) {
	dir := indexed(t)
	manifests, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("manifests %v, %v", manifests, err)
	}
	for _, path := range manifests {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	x := open(t, dir, 1)
	defer closed(t, x)
	if _, found, err := x.Height(); found || err != nil {
		t.Errorf("an index without manifest was kept: %v, %v", found, err)
	}
}
