package segment_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/segment"
)

// small makes many segments out of few records.
func small(dir string) segment.Config {
	return segment.Config{Dir: dir, SegmentBytes: segment.MinSegment, Anchor: ledger.Hash{7}}
}

func open(t *testing.T, c segment.Config) *segment.Log {
	t.Helper()
	l, err := segment.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestLogKeepsTheStoreContract(t *testing.T) {
	ledgertest.TestStore(t, func(t *testing.T) ledgertest.Place {
		next := ledgertest.FailNot
		config := segment.SyncHook(small(t.TempDir()), func() error {
			now := next
			next = ledgertest.FailNot
			if now != ledgertest.FailNot {
				return ledgertest.ErrInjected // the bytes may be on the disk: both ways at once
			}
			return nil
		})
		return ledgertest.Place{
			Open:  func(t *testing.T) ledger.Store { return open(t, config) },
			Break: func(f ledgertest.Failure) { next = f },
		}
	})
}

// written fills a log, closes it and returns its directory, records and segment files.
func written(t *testing.T) (string, []ledger.Record, []string) {
	t.Helper()
	dir := t.TempDir()
	l := open(t, small(dir))
	records := ledgertest.Records(11, 30, 1200)
	for i := range records {
		r := &records[i]
		r.Bytes = append(r.Bytes, make([]byte, 1200)...)[:1000] // three to a segment
		r.Bytes[999] = 1
		if err := l.Append(t.Context(), *r); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(files) < 3 {
		t.Fatalf("segments %v, %v", files, err)
	}
	return dir, records, files
}

// end returns how many bytes of a segment are used.
func end(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(strings.TrimRight(string(b), "\x00")))
}

func edit(t *testing.T, path string, at int64, change func([]byte)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	change(b[at:])
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func flip(b []byte) { b[0] ^= 0x10 }

func TestTornTailIsCutToTheLastWholeBlock(t *testing.T) {
	cases := map[string]func(t *testing.T, last string, used int64){
		"truncated": func(t *testing.T, last string, used int64) {
			if err := os.Truncate(last, used-3); err != nil {
				t.Fatal(err)
			}
		},
		"rest zero": func(t *testing.T, last string, used int64) {
			edit(t, last, used-20, func(b []byte) { clear(b) })
		},
		"bad checksum": func(t *testing.T, last string, used int64) {
			edit(t, last, used-5, flip)
		},
		"garbage behind": func(t *testing.T, last string, used int64) {
			edit(t, last, used-5, func(b []byte) { copy(b, "some of what was there before") })
		},
	}
	for name, tear := range cases {
		t.Run(name, func(t *testing.T) {
			dir, records, files := written(t)
			last := files[len(files)-1]
			tear(t, last, end(t, last))
			var said strings.Builder
			config := small(dir)
			config.Log = slog.New(slog.NewTextHandler(&said, nil))
			l := open(t, config)
			head, _ := l.Head()
			if want := records[len(records)-2]; head.Height != want.Height {
				t.Errorf("head is at %d, want %d", head.Height, want.Height)
			}
			if !strings.Contains(said.String(), filepath.Base(last)) {
				t.Errorf("the cut was logged as %q", said.String())
			}
			if err := l.Append(t.Context(), records[len(records)-1]); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if head, _ := open(t, small(dir)).Head(); head.Height != 29 {
				t.Errorf("head is at %d after mending", head.Height)
			}
		})
	}
}

// TestRottenLastBlockIsRefusedWhenASnapshotKnowsIt: it was acknowledged, so it is no torn tail.
func TestRottenLastBlockIsRefusedWhenASnapshotKnowsIt(t *testing.T) {
	for height, refused := range map[uint64]bool{29: true, 28: false} {
		dir, _, files := written(t)
		save(t, segment.OpenSnapshots(dir), height, []byte("state"))
		last := files[len(files)-1]
		edit(t, last, end(t, last)-5, flip)
		before := contents(t, dir)
		l, err := segment.Open(small(dir))
		if errors.Is(err, ledger.ErrCorrupt) != refused {
			t.Errorf("snapshot of height %d: open gives %v", height, err)
		}
		if err == nil {
			_ = l.Close()
			continue
		}
		if !slices.Equal(before, contents(t, dir)) {
			t.Error("a refused log was changed")
		}
	}
}

func TestEveryTruncationOfTheTailRecovers(t *testing.T) {
	dir, records, files := written(t)
	last := files[len(files)-1]
	used := end(t, last)
	size := recordSize(records[len(records)-1])
	for cut := int64(1); cut < size; cut += 7 {
		if err := os.Truncate(last, used-cut); err != nil {
			t.Fatal(err)
		}
		l := open(t, small(dir))
		if head, _ := l.Head(); head.Height != uint64(len(records)-2) {
			t.Fatalf("cut by %d bytes: head is at %d", cut, head.Height)
		}
		if err := l.Append(t.Context(), records[len(records)-1]); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func recordSize(r ledger.Record) int64 { return int64(84 + len(r.Bytes)) }

// preamble is the length of a segment's header.
const preamble = 100

func TestCorruptMiddleIsRefusedAndNothingChanged(t *testing.T) {
	cases := map[string]struct {
		file   func(files []string) string
		at     func(records []ledger.Record, path string) int64
		offset func(records []ledger.Record, path string) int64
	}{
		"first segment": {
			file:   func(files []string) string { return files[0] },
			at:     func(r []ledger.Record, _ string) int64 { return preamble + recordSize(r[0]) + 50 },
			offset: func(r []ledger.Record, _ string) int64 { return preamble + recordSize(r[0]) },
		},
		"end of a sealed segment": {
			file:   func(files []string) string { return files[1] },
			at:     func(_ []ledger.Record, path string) int64 { return end(t, path) - 1 },
			offset: nil,
		},
		"segment header": {
			file:   func(files []string) string { return files[1] },
			at:     func([]ledger.Record, string) int64 { return 20 },
			offset: func([]ledger.Record, string) int64 { return 0 },
		},
		"last segment before its last block": {
			file:   func(files []string) string { return files[len(files)-1] },
			at:     func([]ledger.Record, string) int64 { return preamble + 84 },
			offset: func([]ledger.Record, string) int64 { return preamble },
		},
		"length of a record in the last segment": {
			file:   func(files []string) string { return files[len(files)-1] },
			at:     func([]ledger.Record, string) int64 { return preamble + 4 },
			offset: func([]ledger.Record, string) int64 { return preamble },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir, records, files := written(t)
			path := c.file(files)
			edit(t, path, c.at(records, path), flip)
			before := contents(t, dir)
			_, err := segment.Open(small(dir))
			var corrupt *segment.CorruptError
			if !errors.As(err, &corrupt) || !errors.Is(err, ledger.ErrCorrupt) {
				t.Fatalf("open: %v", err)
			}
			if corrupt.File != path || !strings.Contains(err.Error(), path) {
				t.Errorf("it blames %s, want %s", corrupt.File, path)
			}
			if c.offset != nil && corrupt.Offset != c.offset(records, path) {
				t.Errorf("it blames offset %d, want %d", corrupt.Offset, c.offset(records, path))
			}
			if after := contents(t, dir); !slices.Equal(before, after) {
				t.Error("a refused log was changed")
			}
		})
	}
}

// contents returns name and bytes of every file but the lock.
func contents(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() != "LOCK" {
			all = append(all, e.Name()+string(b))
		}
	}
	return all
}

func TestMissingSegmentIsRefused(t *testing.T) {
	dir, _, files := written(t)
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := segment.Open(small(dir)); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("open: %v", err)
	}
}

func TestUnfinishedSegmentIsRemoved(t *testing.T) {
	dir, records, files := written(t)
	aside := files[len(files)-1] + ".new"
	if err := os.WriteFile(aside, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if head, _ := open(t, small(dir)).Head(); head.Height != uint64(len(records)-1) {
		t.Errorf("head is at %d", head.Height)
	}
	if _, err := os.Stat(aside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished segment is still there: %v", err)
	}
}

func TestForeignLogIsRefused(t *testing.T) {
	dir, _, _ := written(t)
	config := small(dir)
	config.Anchor[0]++
	if _, err := segment.Open(config); !errors.Is(err, ledger.ErrGenesis) {
		t.Errorf("open: %v", err)
	}
}

func TestSecondOpeningIsRefusedWithThePid(t *testing.T) {
	dir := t.TempDir()
	open(t, small(dir))
	_, err := segment.Open(small(dir))
	if !errors.Is(err, ledger.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second opening: %v", err)
	}
}

// TestSecondProcessIsRefused also runs as the second process, told by its environment.
func TestSecondProcessIsRefused(t *testing.T) {
	const key = "UCN_TEST_SEGMENT_DIR"
	if dir := os.Getenv(key); dir != "" {
		_, err := segment.Open(small(dir))
		fmt.Println(err)
		return
	}
	dir := t.TempDir()
	open(t, small(dir))
	cmd := exec.Command(os.Args[0], "-test.run=^TestSecondProcessIsRefused$")
	cmd.Env = append(os.Environ(), key+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := fmt.Sprintf("in use by process %d", os.Getpid()); !strings.Contains(string(out), want) {
		t.Errorf("the second process says %q, want %q", out, want)
	}
}

func TestFullDiskLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	full := false
	config := segment.ReserveHook(small(dir), func() error {
		if full {
			return unix.ENOSPC
		}
		return nil
	})
	l := open(t, config)
	records := ledgertest.Records(12, 60, 1200)
	kept := 0
	for i, r := range records {
		full = i >= 10
		if err := l.Append(t.Context(), r); err != nil {
			if !errors.Is(err, unix.ENOSPC) || !errors.Is(l.Err(), unix.ENOSPC) {
				t.Fatalf("append: %v", err)
			}
			break
		}
		kept = i + 1
	}
	if kept < 10 || kept == len(records) {
		t.Fatalf("%d blocks fitted", kept)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	full = false
	l = open(t, config)
	if head, _ := l.Head(); head.Height != uint64(kept-1) {
		t.Errorf("head is at %d, want %d", head.Height, kept-1)
	}
	for _, r := range records[kept:] {
		if err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnsyncedBlockIsWrittenAgain: after a sync that failed, the kernel shows what it may have lost
// and takes it for written. A second sync alone would not bring it to the disk.
func TestUnsyncedBlockIsWrittenAgain(t *testing.T) {
	dir, records := t.TempDir(), ledgertest.Records(13, 3, 500)
	failing := false
	l := open(t, segment.SyncHook(small(dir), func() error {
		if failing {
			return unix.EIO
		}
		return nil
	}))
	for i, r := range records {
		failing = i == 2
		if err := l.Append(t.Context(), r); (err != nil) != failing {
			t.Fatalf("block %d: %v", i, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var pending, durable []byte
	l = open(t, segment.WriteHook(small(dir),
		func(b []byte) { pending = bytes.Clone(b) },
		func() error { durable = pending; return nil }))
	if head, _ := l.Head(); head.Height != 2 {
		t.Fatalf("head is at %d", head.Height)
	}
	if !bytes.HasSuffix(durable, records[2].Bytes) || int64(len(durable)) != recordSize(records[2]) {
		t.Errorf("built on a block of which %d bytes were written again", len(durable))
	}
}

func TestPlantedRecordDoesNotPassForOne(t *testing.T) {
	dir, records, files := written(t)
	other, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	planted := records[len(records)-1]
	l := open(t, small(dir))
	next := ledger.Record{
		Height: planted.Height + 1, Prev: planted.Hash, Hash: ledger.Hash{9}, Bytes: other[100:1000],
	}
	if err := l.Append(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err = filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	last := files[len(files)-1]
	// The header of the block is lost, what it carries is not.
	edit(t, last, end(t, last)-900-84, func(b []byte) { clear(b[:84]) })
	if head, _ := open(t, small(dir)).Head(); head.Height != planted.Height {
		t.Errorf("head is at %d, want %d", head.Height, planted.Height)
	}
}
