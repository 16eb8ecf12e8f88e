package ledgertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/services/ledger"
)

// Place is where a store keeps one log across openings.
type Place struct {
	// Open opens the log, as a new process after a crash would if it was not closed.
	Open func(t *testing.T) ledger.Store
	// Break makes the next Append of the open store go wrong that way.
	Break func(Failure)
}

// TestStore is the contract of ledger.Store. Each call of fresh gives an empty place.
func TestStore(t *testing.T, fresh func(t *testing.T) Place) {
	cases := map[string]func(*testing.T, Place){
		"Empty":           storeEmpty,
		"AppendAndRead":   storeAppendAndRead,
		"Reopen":          storeReopen,
		"RefuseUnlinked":  storeRefuseUnlinked,
		"OwnBytes":        storeOwnBytes,
		"ScanStops":       storeScanStops,
		"FailedAppend":    storeFailedAppend,
		"Mend":            storeMend,
		"ReadWhileAppend": storeReadWhileAppend,
		"Closed":          storeClosed,
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

// Records returns n linked records from genesis on, of random size up to maxBytes, the same for
// the same seed.
func Records(seed uint64, n, maxBytes int) []ledger.Record {
	random := rand.New(rand.NewPCG(seed, 1))
	records := make([]ledger.Record, n)
	var prev ledger.Hash
	for i := range records {
		r := ledger.Record{Height: uint64(i), Prev: prev, Bytes: make([]byte, random.IntN(maxBytes))}
		for j := range r.Bytes {
			r.Bytes[j] = byte(random.Uint32())
		}
		r.Hash = sha256.Sum256(binary.BigEndian.AppendUint64(r.Bytes, r.Height))
		records[i], prev = r, r.Hash
	}
	return records
}

func fill(t *testing.T, s ledger.Store, records []ledger.Record) {
	t.Helper()
	for _, r := range records {
		if err := s.Append(t.Context(), r); err != nil {
			t.Fatalf("append block %d: %v", r.Height, err)
		}
	}
}

func same(a, b ledger.Record) bool {
	return a.Height == b.Height && a.Hash == b.Hash && a.Prev == b.Prev &&
		bytes.Equal(a.Bytes, b.Bytes)
}

// check compares the whole log, by Scan, by Read and by Head, with what is wanted.
func check(t *testing.T, s ledger.Store, want []ledger.Record) {
	t.Helper()
	var got []ledger.Record
	err := s.Scan(t.Context(), 0, func(r ledger.Record) error {
		r.Bytes = bytes.Clone(r.Bytes)
		got = append(got, r)
		return nil
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	if !slices.EqualFunc(want, got, same) {
		t.Fatalf("scan gives %d records, %d were appended, or some differ", len(got), len(want))
	}
	for _, w := range want {
		r, err := s.Read(t.Context(), w.Height)
		if err != nil || !same(w, r) {
			t.Fatalf("block %d reads as %+v, %v", w.Height, r, err)
		}
	}
	head, ok := s.Head()
	if ok != (len(want) > 0) || head.Bytes != nil {
		t.Fatalf("head is %v, %v", head, ok)
	}
	if ok && head.Hash != want[len(want)-1].Hash {
		t.Fatalf("head is at height %d", head.Height)
	}
	for _, w := range want {
		if n, err := s.Size(t.Context(), w.Height); err != nil || n != len(w.Bytes) {
			t.Errorf("block %d has %d bytes, not %d: %v", w.Height, n, len(w.Bytes), err)
		}
	}
	if _, err := s.Size(t.Context(), uint64(len(want))); !errors.Is(err, ledger.ErrNoBlock) {
		t.Errorf("the size of a block that is not there: %v", err)
	}
	if _, err := s.Read(t.Context(), uint64(len(want))); !errors.Is(err, ledger.ErrNoBlock) {
		t.Fatalf("a block above the head reads as %v", err)
	}
}

func storeEmpty(t *testing.T, p Place) {
	s := p.Open(t)
	check(t, s, nil)
	if err := s.Err(); err != nil {
		t.Errorf("an empty store is broken: %v", err)
	}
}

func storeAppendAndRead(t *testing.T, p Place) {
	s := p.Open(t)
	records := Records(1, 100, 3000)
	fill(t, s, records)
	check(t, s, records)
}

func storeReopen(t *testing.T, p Place) {
	records := Records(2, 60, 2000)
	for i := 0; i < len(records); i += 20 {
		s := p.Open(t)
		check(t, s, records[:i])
		fill(t, s, records[i:i+20])
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check(t, p.Open(t), records)
}

func storeRefuseUnlinked(t *testing.T, p Place) {
	s := p.Open(t)
	records := Records(3, 5, 100)
	fill(t, s, records[:3])
	repeated, gap, foreign := records[2], records[4], records[3]
	foreign.Prev[0] ^= 1
	huge := records[3]
	huge.Bytes = make([]byte, ledger.MaxRecord+1)
	for _, r := range []ledger.Record{repeated, gap, foreign, huge} {
		if err := s.Append(t.Context(), r); !errors.Is(err, ledger.ErrNotLinked) {
			t.Errorf("block %d with %d bytes: %v", r.Height, len(r.Bytes), err)
		}
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Append(stopped, records[3]); !errors.Is(err, context.Canceled) {
		t.Errorf("append after cancel: %v", err)
	}
	fill(t, s, records[3:])
	check(t, s, records)
}

func storeOwnBytes(t *testing.T, p Place) {
	s := p.Open(t)
	records := Records(4, 3, 500)
	for _, r := range records {
		r.Bytes = bytes.Clone(r.Bytes)
		fill(t, s, []ledger.Record{r})
		clear(r.Bytes)
	}
	got, err := s.Read(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	clear(got.Bytes)
	check(t, s, records)
}

func storeScanStops(t *testing.T, p Place) {
	s := p.Open(t)
	fill(t, s, Records(5, 40, 100))
	var seen []uint64
	err := s.Scan(t.Context(), 33, func(r ledger.Record) error {
		if seen = append(seen, r.Height); r.Height == 35 {
			return ErrInjected
		}
		return nil
	})
	if d := cmp.Diff([]uint64{33, 34, 35}, seen); d != "" || !errors.Is(err, ErrInjected) {
		t.Errorf("scan ended with %v (-want +got)\n%s", err, d)
	}
}

func storeFailedAppend(t *testing.T, p Place) {
	for _, failure := range []Failure{FailBefore, FailAfter} {
		s := p.Open(t)
		before, _ := s.Head()
		n := int(before.Height)
		if before.Hash != (ledger.Hash{}) {
			n++
		}
		records := Records(6, n+5, 300)
		fill(t, s, records[n:n+3])
		p.Break(failure)
		for range 2 { // the second for good, although nothing is wrong any more
			if err := s.Append(t.Context(), records[n+3]); !errors.Is(err, ledger.ErrBroken) {
				t.Fatalf("append on a failing disk: %v", err)
			}
		}
		if !errors.Is(s.Err(), ErrInjected) {
			t.Errorf("the store says it is broken by %v", s.Err())
		}
		check(t, s, records[:n+3])
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = p.Open(t)
		head, _ := s.Head()
		if head.Height != uint64(n+2) && head.Height != uint64(n+3) {
			t.Fatalf("head is at %d after a failed append at %d", head.Height, n+3)
		}
		fill(t, s, records[head.Height+1:n+5])
		check(t, s, records)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func storeMend(t *testing.T, p Place) {
	s := p.Open(t)
	records := Records(9, 40, 1500)
	if err := s.Mend(t.Context()); err != nil {
		t.Errorf("mend a store that is not broken: %v", err)
	}
	for i, r := range records {
		failure := []Failure{FailNot, FailBefore, FailAfter}[i%3]
		if p.Break(failure); failure != FailNot {
			rival := r
			rival.Hash[0] ^= 1
			rival.Bytes = bytes.Repeat([]byte{byte(i)}, 100*i)
			if err := s.Append(t.Context(), rival); !errors.Is(err, ledger.ErrBroken) {
				t.Fatalf("append on a failing disk: %v", err)
			}
			if err := s.Mend(t.Context()); err != nil || s.Err() != nil {
				t.Fatalf("mend: %v, the store says %v", err, s.Err())
			}
			check(t, s, records[:i])
			if i%2 == 0 { // it is gone for whoever opens the log, too
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = p.Open(t)
				check(t, s, records[:i])
			}
		}
		fill(t, s, []ledger.Record{r})
	}
	check(t, s, records)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Mend(t.Context()); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("mend after close: %v", err)
	}
	check(t, p.Open(t), records)
}

func storeReadWhileAppend(t *testing.T, p Place) {
	s := p.Open(t)
	records := Records(7, 300, 400)
	fill(t, s, records[:1])
	var wait sync.WaitGroup
	defer wait.Wait()
	for range 2 {
		wait.Go(func() {
			for {
				head, _ := s.Head()
				r, err := s.Read(t.Context(), head.Height)
				if err != nil || !bytes.Equal(r.Bytes, records[head.Height].Bytes) {
					t.Errorf("the head, block %d, reads as %v", head.Height, err)
					return
				}
				if head.Height == uint64(len(records)-1) {
					return
				}
			}
		})
	}
	fill(t, s, records[1:])
}

func storeClosed(t *testing.T, p Place) {
	s := p.Open(t)
	records := Records(8, 2, 100)
	fill(t, s, records[:1])
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(t.Context(), records[1]); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := s.Read(t.Context(), 0); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}
