package pebble_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/pebble"
)

var crashSeed = flag.Uint64("crash.seed", 0, "seed of the crash test; 0 takes one from the clock")

const (
	killRounds = 6 // lives of the index, each of which flushes what the one before wrote
	killBlocks = 10
)

// small is a block of a few transactions.
func small(height uint64) ledger.IndexEntry {
	e := ledger.IndexEntry{Height: height, Hash: sha256.Sum256(fmt.Appendf(nil, "k%d", height))}
	for i := range 5 {
		id := sha256.Sum256(fmt.Appendf(nil, "u%d.%d", height, i))
		e.Transactions = append(e.Transactions, id)
	}
	return e
}

// crashes takes a copy of a file system before each of its writes: what a power loss there, or at
// worst a kill, would have left.
type crashes struct {
	mu     sync.Mutex
	random *rand.Rand
	disk   *vfs.MemFS
	copies []*vfs.MemFS
}

func (c *crashes) before(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	percent := []int{0, 50, 100}[c.random.IntN(3)] // of what was not synced
	c.copies = append(c.copies, c.disk.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(c.random.Uint64(), 1)),
	}))
	return nil
}

// TestIndexKilledAtEveryWrite: whatever write of the index's the machine stops at, while it is
// opened, filled, flushed or closed, the next start opens what is left or begins anew, and filled
// again from the log it has everything.
func TestIndexKilledAtEveryWrite(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with: go test ./services/ledger/pebble -run '^%s$' -crash.seed=%d", t.Name(), seed)
	c := &crashes{random: rand.New(rand.NewPCG(seed, 1)), disk: vfs.NewCrashableMem()}
	fs := errorfs.Wrap(c.disk, errorfs.InjectorFunc(c.before))
	for round := range uint64(killRounds) {
		x := openOn(t, fs)
		for h := range uint64(killBlocks) {
			if err := x.Put(t.Context(), []ledger.IndexEntry{small(round*killBlocks + h)}); err != nil {
				t.Fatal(err)
			}
		}
		closed(t, x)
	}
	if len(c.copies) < 20*killRounds {
		t.Fatalf("only %d writes", len(c.copies))
	}
	anew := 0
	for i, left := range c.copies {
		if !refilled(t, left) {
			anew++
		}
		if t.Failed() {
			t.Fatalf("stopped before write %d of %d", i, len(c.copies))
		}
	}
	t.Logf("%d writes, after %d of them the index began anew", len(c.copies), anew)
}

func openOn(t *testing.T, fs vfs.FS) *pebble.Index {
	t.Helper()
	x, err := pebble.Open(pebble.OnFS(pebble.Config{
		Dir: "index", Anchor: ledger.Hash{1}, Head: ledger.Record{Height: 1000},
	}, fs))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// refilled opens what a crash left, as a start does, puts what the index lacks, and looks for all.
// It tells whether the index had kept anything.
func refilled(t *testing.T, fs vfs.FS) bool {
	t.Helper()
	x := openOn(t, fs)
	defer closed(t, x)
	const all = killRounds * killBlocks
	height, kept, err := x.Height()
	if err != nil || height >= all {
		t.Errorf("the height is %d, %v, %v", height, kept, err)
		return kept
	}
	next := uint64(0)
	if kept {
		next = height + 1
	}
	for h := next; h < all; h++ {
		if err := x.Put(t.Context(), []ledger.IndexEntry{small(h)}); err != nil {
			t.Errorf("put block %d: %v", h, err)
		}
	}
	for h := range uint64(all) {
		for i, id := range small(h).Transactions {
			at, found, err := x.Transaction(id)
			if err != nil || !found || at.Height != h || int(at.Index) != i {
				t.Errorf("transaction %d of block %d is at %v, %v, %v", i, h, at, found, err)
			}
		}
	}
	return kept
}
