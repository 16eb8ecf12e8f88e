package segment_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/segment"
)

// TestMendLeavesNothingOfWhatFailed: the disk runs full at any effect of a block that begins a new
// segment. After the mending a smaller block finds room in the old one; what was begun must not be
// in its way at the next start.
func TestMendLeavesNothingOfWhatFailed(t *testing.T) {
	records := ledgertest.Records(14, 8, 200)
	large := records[4]
	large.Hash[0] ^= 1
	large.Bytes = bytes.Repeat([]byte{1}, 3900)
	for at, struck := 0, true; struck; at++ {
		disk := &segment.Faulty{Random: rand.New(rand.NewPCG(1, uint64(at)))}
		config := small(t.TempDir())
		l := open(t, segment.WithDisk(config, disk))
		for _, r := range records[:4] {
			if err := l.Append(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		disk.How, disk.At, disk.Span = segment.Full, disk.Count()+at, 1
		err := l.Append(t.Context(), large)
		if struck = err != nil; !struck {
			break
		}
		if !errors.Is(err, ledger.ErrFull) || !errors.Is(l.Err(), ledger.ErrFull) {
			t.Fatalf("effect %d: append gives %v, the log says %v", at, err, l.Err())
		}
		disk.At, disk.Span = disk.Count(), 1
		if err := l.Mend(t.Context()); !errors.Is(err, ledger.ErrFull) || l.Err() == nil {
			t.Fatalf("effect %d: mended on a full disk: %v", at, err)
		}
		if err := l.Mend(t.Context()); err != nil {
			t.Fatalf("effect %d: mend: %v", at, err)
		}
		for _, r := range records[4:] {
			if err := l.Append(t.Context(), r); err != nil {
				t.Fatalf("effect %d: append %d: %v", at, r.Height, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		disk.Close()
		if head, _ := open(t, config).Head(); head.Hash != records[7].Hash {
			t.Errorf("effect %d: the head is at %d", at, head.Height)
		}
	}
}

// TestMendWritesTheLastBlockAgain: the failed sync may have lost the page that the block before
// shares with the one that failed.
func TestMendWritesTheLastBlockAgain(t *testing.T) {
	records := ledgertest.Records(15, 3, 500)
	var pending, durable []byte
	failing := false
	l := open(t, segment.WriteHook(small(t.TempDir()),
		func(b []byte) { pending = bytes.Clone(b) },
		func() error {
			if failing {
				return unix.EIO
			}
			durable = pending
			return nil
		}))
	for i, r := range records {
		failing = i == 2
		if err := l.Append(t.Context(), r); (err != nil) != failing {
			t.Fatalf("block %d: %v", i, err)
		}
	}
	if err := l.Mend(t.Context()); !errors.Is(err, unix.EIO) {
		t.Errorf("mended on a broken disk: %v", err)
	}
	failing, durable = false, nil
	if err := l.Mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(durable, records[1].Bytes) || int64(len(durable)) != recordSize(records[1]) {
		t.Errorf("%d bytes were written again", len(durable))
	}
}
