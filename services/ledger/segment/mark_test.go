package segment_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/segment"
)

// TestPlantedMarksDoNotSlowAStart: after a torn tail the rest is searched for records. Bytes that
// look like the beginning of one must be a stranger's guess, or each would cost a checksum over
// megabytes: this block would take minutes.
func TestPlantedMarksDoNotSlowAStart(t *testing.T) {
	dir, records, files := written(t)
	other, err := os.ReadFile(files[0]) // marks of another segment, whose file leaked
	if err != nil {
		t.Fatal(err)
	}
	for name, mark := range map[string][]byte{
		"of format 1": []byte("UCNb"), "of another segment": other[preamble : preamble+4],
	} {
		planted := binary.BigEndian.AppendUint32(bytes.Clone(mark), 4<<20)
		head := records[len(records)-1]
		l := open(t, small(dir))
		next := ledger.Record{
			Height: head.Height + 1, Prev: head.Hash, Hash: ledger.Hash{9},
			Bytes: bytes.Repeat(planted, 8<<20/len(planted)),
		}
		if err := l.Append(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		last := filepath.Join(dir, fmt.Sprintf("%020d.log", next.Height))
		edit(t, last, preamble, func(b []byte) { clear(b[:84]) })
		began := time.Now()
		if got, _ := open(t, small(dir)).Head(); got.Height != head.Height {
			t.Errorf("%s: head is at %d, want %d", name, got.Height, head.Height)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: the start took %v", name, took)
		}
		dir, records, _ = written(t)
	}
}

// TestEverySegmentHasItsOwnMark: what one file shows says nothing about the next.
func TestEverySegmentHasItsOwnMark(t *testing.T) {
	_, _, files := written(t)
	seen := map[string]bool{}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		mark := string(b[preamble : preamble+4])
		if seen[mark] || mark[0] == 0 {
			t.Errorf("%s marks its records with %x", path, mark)
		}
		seen[mark] = true
	}
}

func TestFormatOneIsRefusedByName(t *testing.T) {
	dir, _, files := written(t)
	for _, path := range files {
		edit(t, path, 0, func(b []byte) { copy(b, "UCNLOG1\n") })
	}
	before := contents(t, dir)
	_, err := segment.Open(small(dir))
	if !errors.Is(err, ledger.ErrFormat) || !strings.Contains(err.Error(), files[0]) {
		t.Errorf("open: %v", err)
	}
	if !slices.Equal(before, contents(t, dir)) {
		t.Error("a refused log was changed")
	}
}
