package segment_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/segment"
)

func save(t *testing.T, s *segment.Snapshots, height uint64, content []byte) {
	t.Helper()
	err := s.Save(t.Context(), height, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// load returns the heights that were offered and what the last one read.
func load(t *testing.T, s *segment.Snapshots, atMost uint64) (heights []uint64, got []byte) {
	t.Helper()
	_, err := s.Load(t.Context(), atMost, func(height uint64, r io.Reader) error {
		heights = append(heights, height)
		var err error
		got, err = io.ReadAll(r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return heights, got
}

func TestSnapshotsAreFoundNewestFirst(t *testing.T) {
	s := segment.OpenSnapshots(t.TempDir())
	if heights, _ := load(t, s, 1000); heights != nil {
		t.Errorf("an empty directory gave %v", heights)
	}
	big := bytes.Repeat([]byte("state"), 1<<20)
	save(t, s, 10, []byte("ten"))
	save(t, s, 20, big)
	save(t, s, 30, []byte("thirty"))
	for atMost, want := range map[uint64]struct {
		heights []uint64
		content []byte
	}{
		1000: {[]uint64{30}, []byte("thirty")},
		29:   {[]uint64{20}, big},
		19:   {nil, nil}, // the oldest was let go
	} {
		heights, got := load(t, s, atMost)
		if d := cmp.Diff(want.heights, heights); d != "" || !bytes.Equal(want.content, got) {
			t.Errorf("at most %d: %d bytes (-want +got)\n%s", atMost, len(got), d)
		}
	}
}

func TestDamagedSnapshotIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	s := segment.OpenSnapshots(dir)
	save(t, s, 10, []byte("ten"))
	save(t, s, 20, []byte("twenty"))
	edit(t, filepath.Join(dir, "00000000000000000020.snapshot"), 9, flip)
	heights, got := load(t, s, 100)
	if d := cmp.Diff([]uint64{10}, heights); d != "" || string(got) != "ten" {
		t.Errorf("got %q (-want +got)\n%s", got, d)
	}
	if err := os.Truncate(filepath.Join(dir, "00000000000000000010.snapshot"), 2); err != nil {
		t.Fatal(err)
	}
	found, err := s.Load(t.Context(), 100, func(uint64, io.Reader) error { return nil })
	if found || err == nil {
		t.Errorf("two damaged snapshots gave %v, %v", found, err)
	}
}

func TestFailedSaveLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := segment.OpenSnapshots(dir)
	err := s.Save(t.Context(), 10, func(w io.Writer) error {
		_, _ = w.Write([]byte("half"))
		return ledgertest.ErrInjected
	})
	if !errors.Is(err, ledgertest.ErrInjected) {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestSaveTidiesUp: neither what kill -9 left half written nor what is beyond a log that was put
// back from an older copy fills the disk or takes the place of good snapshots.
func TestSaveTidiesUp(t *testing.T) {
	dir := t.TempDir()
	s := segment.OpenSnapshots(dir)
	save(t, s, 100, []byte("beyond"))
	save(t, s, 200, []byte("beyond"))
	half := filepath.Join(dir, "00000000000000000007.snapshot.new")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	save(t, s, 10, []byte("ten"))
	save(t, s, 20, []byte("twenty"))
	save(t, s, 30, []byte("thirty"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"00000000000000000020.snapshot", "00000000000000000030.snapshot"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
