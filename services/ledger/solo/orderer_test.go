package solo_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/solo"
)

const maxStep = time.Minute

func key() sig.PrivateKey { return sig.FromSeed([sig.SeedSize]byte{1}) }

func head(now time.Time) ledger.Header {
	return ledger.Header{Height: 7, Hash: ledger.Hash{7}, Time: uint64(now.UnixMilli())}
}

func newOrderer(t *testing.T, c solo.Config, deps solo.Deps) *solo.Orderer {
	t.Helper()
	deps.Key = key()
	o, err := solo.New(c, maxStep, deps)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestSoloKeepsTheOrdererContract(t *testing.T) {
	ledgertest.TestOrderer(t, func(t *testing.T) ledgertest.Ordering {
		c, at := solo.Default(), head(time.Now())
		return ledgertest.Ordering{
			Orderer: newOrderer(t, c, solo.Deps{Head: at}), Head: at,
			Heartbeat: 27 * time.Second, Patience: c.SealAfter, Operations: c.SealOperations,
		}
	})
}

// sealing submits batches at given times and returns the sizes of the blocks that come of it.
func sealing(t *testing.T, c solo.Config, batches []ledger.Batch, gap time.Duration) []int {
	t.Helper()
	app := &ledgertest.App{}
	o := newOrderer(t, c, solo.Deps{Head: head(time.Now())})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx, app) }()
	for _, b := range batches {
		app.Add(b.Transactions)
		if err := o.Submit(ctx, b); err != nil {
			t.Fatal(err)
		}
		time.Sleep(gap)
	}
	time.Sleep(time.Second)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	var sizes []int
	blocks, _ := app.Blocks()
	for _, b := range blocks {
		sizes = append(sizes, b.Batch.Transactions)
	}
	return sizes
}

func repeat(n int, b ledger.Batch) []ledger.Batch {
	all := make([]ledger.Batch, n)
	for i := range all {
		all[i] = b
	}
	return all
}

func TestSealsOnIdleTimeCountAndBytes(t *testing.T) {
	c := solo.Config{
		SealIdle: 2 * time.Millisecond, SealAfter: 20 * time.Millisecond,
		SealOperations: 100, SealBytes: 1000,
	}
	one := ledger.Batch{Transactions: 1, Operations: 1, Bytes: 1}
	cases := map[string]struct {
		batches []ledger.Batch
		gap     time.Duration
		first   int // size of the first block
	}{
		"idle":  {repeat(3, one), 3 * time.Millisecond, 1},
		"time":  {repeat(60, one), time.Millisecond, 21},
		"count": {repeat(10, ledger.Batch{Transactions: 50, Operations: 50, Bytes: 1}), 1, 100},
		"bytes": {repeat(10, ledger.Batch{Transactions: 1, Operations: 1, Bytes: 500}), 1, 2},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sizes := sealing(t, c, test.batches, test.gap)
				if len(sizes) == 0 || sizes[0] < test.first-1 || sizes[0] > test.first {
					t.Errorf("blocks of %v, the first should hold %d", sizes, test.first)
				}
			})
		})
	}
}

// TestGoesOnWhileTheClockIsBehind: it was set back by hours. Blocks come at once, none before the
// last one's time.
func TestGoesOnWhileTheClockIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &ledgertest.App{}
		ahead := head(time.Now().Add(3 * time.Hour))
		o := newOrderer(t, solo.Default(), solo.Deps{Head: ahead})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx, app) }()
		for range 3 {
			app.Add(1)
			if err := o.Submit(ctx, ledger.Batch{Transactions: 1, Operations: 1}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		blocks, _ := app.Blocks()
		if len(blocks) != 3 {
			t.Errorf("%d blocks in 3 s", len(blocks))
		}
		for _, b := range blocks {
			if b.Header.Time != ahead.Time {
				t.Errorf("block %d is at %d, the one before the clock went back at %d",
					b.Header.Height, b.Header.Time, ahead.Time)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRefusesWhatCannotWork(t *testing.T) {
	cases := map[string]func(*solo.Config, *solo.Deps){
		"no key":         func(_ *solo.Config, d *solo.Deps) { d.Key = sig.PrivateKey{} },
		"idle too long":  func(c *solo.Config, _ *solo.Deps) { c.SealIdle = time.Second },
		"no operations":  func(c *solo.Config, _ *solo.Deps) { c.SealOperations = 0 },
		"slow heartbeat": func(c *solo.Config, _ *solo.Deps) { c.Heartbeat = maxStep },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			c, d := solo.Default(), solo.Deps{Key: key()}
			spoil(&c, &d)
			if _, err := solo.New(c, maxStep, d); err == nil {
				t.Error("it was accepted")
			}
		})
	}
}
