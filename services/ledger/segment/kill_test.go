package segment_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/segment"
	"github.com/united-containers/ucn/services/ledger/solo"
)

var crashSeed = flag.Uint64("crash.seed", 0, "seed of the crash tests; 0 takes one from the clock")

// seeded returns the seed of a test, which it prints with the command that repeats it.
func seeded(t *testing.T) uint64 {
	t.Helper()
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with: go test ./services/ledger/segment -run '^%s$' -crash.seed=%d", t.Name(),
		seed)
	return seed
}

// scene is a story told to chains on one directory.
type scene struct {
	t       *testing.T
	network *ledgertest.Network
	story   *ledgertest.Story
	dir     string
	clock   atomic.Int64 // ns since 1970
	every   int          // transactions between snapshots; 0: none is written
	results []ledger.Result
}

func newScene(t *testing.T, n *ledgertest.Network, story *ledgertest.Story) *scene {
	s := &scene{t: t, network: n, story: story, dir: t.TempDir()}
	s.clock.Store(story.Begin.UnixNano())
	return s
}

// start runs a chain on the directory; nil when the disk strikes while it opens.
func (s *scene) start(disk *segment.Faulty) (*ledger.Chain, func()) {
	s.t.Helper()
	log, err := segment.Open(segment.WithDisk(segment.Config{
		Dir: s.dir, SegmentBytes: segment.MinSegment, Anchor: ledger.Hash(s.network.Anchor),
	}, disk))
	if errors.Is(err, segment.ErrKilled) {
		return nil, nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	clock := func() time.Time { return time.Unix(0, s.clock.Load()) }
	config := ledger.Config{Pool: ledger.DefaultPool(), SnapshotEvery: -1}
	deps := ledger.Deps{
		Genesis: s.network.Genesis, Store: log, Clock: clock,
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			return solo.New(solo.Default(), s.network.MaxStep(), solo.Deps{
				Key: s.network.Proposer, Head: head, Clock: clock,
			})
		},
	}
	if s.every > 0 {
		config.SnapshotEvery, deps.Snapshots = s.every, segment.SnapshotsWithDisk(s.dir, disk)
		deps.Index = &ledgertest.Index{} // one that lost all: it is built anew from the log
	}
	chain, err := ledger.Open(s.t.Context(), config, deps)
	if errors.Is(err, segment.ErrKilled) {
		_ = log.Close()
		return nil, nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = chain.Run(ctx, func() {})
	}()
	return chain, func() {
		cancel()
		<-done
		_ = log.Close()
	}
}

// tell submits the story's steps one by one, and returns at the first that is not answered. What
// was answered before must be answered alike.
func (s *scene) tell(c *ledger.Chain) error {
	for i, raw := range s.story.Steps {
		s.clock.Store(max(s.clock.Load(), s.story.Time(i).UnixNano()))
		if i < len(s.results) {
			s.clock.Store(s.story.Time(len(s.results) - 1).UnixNano())
		}
		results, err := s.submit(c, raw)
		if err != nil {
			return err
		}
		if r := results[0]; r.Err != nil || r.Finality != ledger.Committed {
			return fmt.Errorf("step %d: %v", i, r.Err)
		}
		if i < len(s.results) {
			if s.results[i].ID != results[0].ID || s.results[i].At != results[0].At {
				return fmt.Errorf("step %d was answered at %v, then at %v", i, s.results[i].At,
					results[0].At)
			}
			continue
		}
		s.results = append(s.results, results[0])
	}
	return nil
}

// submit sends a step, again while an index that was lost is built anew: until then nobody knows
// whether the step is in a block.
func (s *scene) submit(c *ledger.Chain, raw []byte) ([]ledger.Result, error) {
	for {
		results, _, err := c.Submit(s.t.Context(), [][]byte{raw}, ledger.Committed)
		if err != nil || results[0].Err == nil || !errors.Is(results[0].Err, ledger.ReasonLag) {
			return results, err
		}
		<-time.After(time.Millisecond)
	}
}

// check compares the end of the story with the one of the reference.
func (s *scene) check(c, reference *ledger.Chain) {
	s.t.Helper()
	if got, want := c.Tip().Header, reference.Tip().Header; got != want {
		s.t.Errorf("the head is %d with state root %x, without failure it is %d with %x", got.Height,
			got.StateRoot, want.Height, want.StateRoot)
	}
	if err := ledgertest.Conserved(s.network, c, s.story.Escrow); err != nil {
		s.t.Error(err)
	}
	if e, _ := c.State().Escrow(s.story.Escrow); e.Paid != s.story.Due() {
		s.t.Errorf("the escrow paid %d, the story is worth %d", e.Paid, s.story.Due())
	}
	for i, r := range s.results {
		known, err := c.Transaction(s.t.Context(), r.ID)
		for errors.Is(err, ledger.ReasonLag) {
			<-time.After(time.Millisecond)
			known, err = c.Transaction(s.t.Context(), r.ID)
		}
		if err != nil || known.At != r.At {
			s.t.Errorf("step %d was answered at %v, is at %v, %v", i, r.At, known, err)
		}
		receipt, err := tx.DecodeReceipt(r.Receipt)
		if err != nil || receipt.Status != chainv1.Status_STATUS_OK {
			s.t.Errorf("step %d: receipt %+v, %v", i, receipt, err)
		}
	}
}

// undisturbed tells the story on a sound disk; it returns the chain and the disk's effects.
func undisturbed(t *testing.T, n *ledgertest.Network, story *ledgertest.Story) (
	*ledger.Chain, int,
) {
	t.Helper()
	s := newScene(t, n, story)
	disk := &segment.Faulty{Random: rand.New(rand.NewPCG(1, 1))}
	defer disk.Close()
	c, stop := s.start(disk)
	defer stop()
	if err := s.tell(c); err != nil {
		t.Fatal(err)
	}
	s.check(c, c)
	return c, disk.Count()
}

// TestKilledAtEveryEffect: the process ends before, in or after any effect on the disk, with and
// without the machine's power, and once more while it starts again. The chain that comes up then
// has all that was answered, goes on with the same bytes sent again, and ends with the very block
// it would have ended with.
func TestKilledAtEveryEffect(t *testing.T) {
	seed := seeded(t)
	n, err := ledgertest.NewNetwork(1, ledgertest.StoryAccounts)
	if err != nil {
		t.Fatal(err)
	}
	story := ledgertest.NewStory(n)
	reference, effects := undisturbed(t, n, story)
	if effects < 2*len(story.Steps) {
		t.Fatalf("the story has %d effects", effects)
	}
	for _, how := range []segment.How{
		segment.KillBefore, segment.KillTorn, segment.KillAfter,
	} {
		for at := range effects {
			for _, power := range []bool{true, false} {
				random := rand.New(rand.NewPCG(seed, uint64(at)*8+uint64(how)))
				s := newScene(t, n, story)
				s.killed(&segment.Faulty{How: how, At: at, Random: random}, power, true)
				s.killed(&segment.Faulty{How: how, At: random.IntN(8), Random: random}, power, false)
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
	}
}

// killed tells the story until the disk strikes; must says that it has to.
func (s *scene) killed(disk *segment.Faulty, power, must bool) {
	s.t.Helper()
	defer disk.Close()
	if c, stop := s.start(disk); c != nil {
		err := s.tell(c)
		stop()
		if err == nil && must || err != nil && !disk.Died() {
			s.t.Errorf("the disk did not strike: %v", err)
		}
	}
	if power {
		if err := disk.PowerLoss(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestFullAtEveryEffect: the disk runs full at any effect and has room again later. The chain
// refuses by name, goes on answering reads, and goes on by itself in the same process.
func TestFullAtEveryEffect(t *testing.T) {
	seed := seeded(t)
	synctest.Test(t, func(t *testing.T) {
		n, err := ledgertest.NewNetwork(2, ledgertest.StoryAccounts)
		if err != nil {
			t.Fatal(err)
		}
		story := ledgertest.NewStory(n)
		reference, effects := undisturbed(t, n, story)
		for at := range effects {
			random := rand.New(rand.NewPCG(seed, uint64(at)))
			disk := &segment.Faulty{Random: random}
			s := newScene(t, n, story)
			c, stop := s.start(disk)
			// The chain's own beginning is not part of it: it does not start on a full disk.
			disk.How, disk.At, disk.Span = segment.Full, max(at, disk.Count()), 1+random.IntN(6)
			for refusals := 0; ; refusals++ {
				err := s.tell(c)
				if err == nil {
					break
				}
				if !errors.Is(err, ledger.ReasonDiskFull) || refusals > 10 {
					t.Fatalf("full at effect %d of %d: %v", at, effects, err)
				}
				s.reads(c)
				s.mended(c)
			}
			s.check(c, reference)
			stop()
			disk.Close()
			c, stop = s.start(&segment.Faulty{Random: random})
			s.check(c, reference)
			stop()
			if t.Failed() {
				t.Fatalf("full at effect %d of %d", at, effects)
			}
		}
	})
}

// reads checks that a chain which takes nothing answers.
func (s *scene) reads(c *ledger.Chain) {
	s.t.Helper()
	if _, ok := c.State().Account(s.network.Accounts[0]); !ok {
		s.t.Error("an account is gone")
	}
	for height := range c.Tip().Header.Height + 1 {
		if _, err := c.Block(s.t.Context(), height); err != nil {
			s.t.Errorf("block %d: %v", height, err)
		}
	}
}

// mended waits until the chain goes on.
func (s *scene) mended(c *ledger.Chain) {
	for {
		changed, err := c.Failure()
		if err == nil {
			return
		}
		<-changed
	}
}
