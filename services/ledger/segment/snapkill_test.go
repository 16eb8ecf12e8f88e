package segment_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/segment"
)

// TestKilledWhileSnapshotsAreWritten: the process ends before, in or after any effect on the disk
// of a chain that writes snapshots all the time, beside its blocks, with and without the machine's
// power. What was answered is there, whichever snapshot the next start finds, and the chain ends
// with the block that it would have ended with.
func TestKilledWhileSnapshotsAreWritten(t *testing.T) {
	seed := seeded(t)
	n, err := ledgertest.NewNetwork(1, ledgertest.StoryAccounts)
	if err != nil {
		t.Fatal(err)
	}
	story := ledgertest.NewStory(n)
	reference, _ := undisturbed(t, n, story)
	effects := snapshotted(t, n, story)
	for at := range effects {
		random := rand.New(rand.NewPCG(seed, uint64(at)))
		hows := []segment.How{segment.KillBefore, segment.KillTorn, segment.KillAfter}
		how, power := hows[random.IntN(len(hows))], random.IntN(2) == 0
		s := newScene(t, n, story)
		s.every = 1 + random.IntN(3)
		// Snapshots are written beside the blocks, so a story has now more effects, now fewer.
		s.killed(&segment.Faulty{How: how, At: at, Random: random}, power, false)
		s.killed(&segment.Faulty{How: how, At: random.IntN(12), Random: random}, power, false)
		disk := &segment.Faulty{Random: random}
		c, stop := s.start(disk)
		if err := s.tell(c); err != nil {
			t.Errorf("after the restart: %v", err)
		}
		s.check(c, reference)
		stop()
		disk.Close()
		if t.Failed() {
			t.Fatalf("killed %s effect %d of %d, power lost: %v", how, at, effects, power)
		}
	}
}

// snapshotted counts the effects of the story with a snapshot after each transaction.
func snapshotted(t *testing.T, n *ledgertest.Network, story *ledgertest.Story) int {
	t.Helper()
	s := newScene(t, n, story)
	s.every = 1
	disk := &segment.Faulty{Random: rand.New(rand.NewPCG(1, 1))}
	defer disk.Close()
	c, stop := s.start(disk)
	err := s.tell(c)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	if disk.Count() < 4*len(story.Steps) {
		t.Fatalf("the story has %d effects: are snapshots written?", disk.Count())
	}
	return disk.Count()
}

// TestSnapshotsKilledAtEveryEffect: of three snapshots saved one after the other, whatever effect
// ends the process, the newest that a Save acknowledged loads whole, or a newer one.
func TestSnapshotsKilledAtEveryEffect(t *testing.T) {
	seed := seeded(t)
	content := func(height uint64) []byte {
		return bytes.Repeat(fmt.Appendf(nil, "state %d ", height), 20_000)
	}
	for _, how := range []segment.How{segment.KillBefore, segment.KillTorn, segment.KillAfter} {
		for at, died := 0, true; died; at++ {
			for _, power := range []bool{true, false} {
				dir := t.TempDir()
				disk := &segment.Faulty{How: how, At: at,
					Random: rand.New(rand.NewPCG(seed, uint64(at)))}
				saved := uint64(0)
				for height := uint64(1); height <= 4; height++ {
					err := segment.SnapshotsWithDisk(dir, disk).Save(t.Context(), height,
						func(w io.Writer) error { _, err := w.Write(content(height)); return err })
					if err != nil && !errors.Is(err, segment.ErrKilled) {
						t.Fatal(err)
					}
					if err != nil {
						break
					}
					saved = height
				}
				died = disk.Died()
				if power {
					if err := disk.PowerLoss(); err != nil {
						t.Fatal(err)
					}
				}
				disk.Close()
				newest, err := loadNewest(t.Context(), segment.OpenSnapshots(dir), content)
				if err != nil || newest < saved {
					t.Fatalf("killed %s effect %d, power lost %v: saved %d, loads %d, %v", how, at, power,
						saved, newest, err)
				}
			}
		}
	}
}

// loadNewest returns the height of the snapshot that a start would use, 0 for none.
func loadNewest(
	ctx context.Context, s *segment.Snapshots, content func(uint64) []byte,
) (newest uint64, err error) {
	found, err := s.Load(ctx, 100, func(height uint64, r io.Reader) error {
		got, err := io.ReadAll(r)
		if err == nil && !bytes.Equal(got, content(height)) {
			err = errors.New("another content")
		}
		newest = height
		return err
	})
	if !found && err == nil {
		return 0, nil
	}
	return newest, err
}
