package segment_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/segment"
)

// FuzzOpen puts arbitrary bytes behind good blocks: opening never panics, never loses a good
// block, and if it refuses it changes nothing.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte("UCNb\x00\x00\x00\x04 and then some"))
	f.Add([]byte("UCNb\xff\xff\xff\xff"))
	records := ledgertest.Records(13, 3, 400)
	f.Fuzz(func(t *testing.T, tail []byte) {
		dir := t.TempDir()
		l := open(t, small(dir))
		for _, r := range records {
			if err := l.Append(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "00000000000000000000.log")
		used := int64(preamble)
		for _, r := range records {
			used += recordSize(r)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The mark before records is a secret: let the fuzzer have it.
		mark := b[preamble : preamble+4]
		tail = bytes.ReplaceAll(tail, []byte("UCNb"), mark)
		if err := os.WriteFile(path, append(b[:used:used], tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err = segment.Open(small(dir))
		if err != nil {
			t.Fatalf("good blocks with %q behind them are refused: %v", tail, err)
		}
		if head, _ := l.Head(); head.Hash != records[2].Hash {
			t.Errorf("head is at %d", head.Height)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
