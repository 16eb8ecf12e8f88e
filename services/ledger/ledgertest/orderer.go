package ledgertest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/ledger"
)

// App is a ledger.App whose transactions are only counted. Fields may be set before it is used.
type App struct {
	// Accruing says whether the chain needs empty blocks.
	Accruing bool
	// BuildErr and CommitErr are asked before every call; nil for no failure.
	BuildErr, CommitErr func() error

	mu       sync.Mutex
	busy     bool // a call is under way: a second one breaks the contract
	overlaps int
	waiting  int
	blocks   []ledger.Block
	certs    []ledger.Certificate
}

var _ ledger.App = (*App)(nil)

// Add puts transactions into the App's pool.
func (a *App) Add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting += n
}

// Blocks returns what was committed.
func (a *App) Blocks() ([]ledger.Block, []ledger.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.blocks, a.certs
}

// enter takes note of a call and returns the function that ends it.
func (a *App) enter() func() {
	a.mu.Lock()
	if a.busy {
		a.overlaps++
	}
	a.busy = true
	return func() {
		a.busy = false
		a.mu.Unlock()
	}
}

// Build implements ledger.App.
func (a *App) Build(_ context.Context, parent ledger.Header, most ledger.Limits) (
	ledger.Block, error,
) {
	defer a.enter()()
	if a.BuildErr != nil {
		if err := a.BuildErr(); err != nil {
			return ledger.Block{}, err
		}
	}
	n := min(a.waiting, most.Operations)
	if n == 0 && (!most.Empty || !a.Accruing) {
		return ledger.Block{}, ledger.ErrNothing
	}
	h := ledger.Header{Height: parent.Height + 1, Time: most.Time, Prev: parent.Hash}
	h.Preimage = fmt.Appendf(nil, "header %d %d %x %d", h.Height, h.Time, h.Prev, n)
	h.Hash = sha256.Sum256(h.Preimage)
	b := ledger.Block{Header: h, Batch: ledger.Batch{Transactions: n, Operations: n, Bytes: n}}
	b.Bytes = binary.BigEndian.AppendUint64(nil, uint64(n))
	return b, nil
}

// Verify implements ledger.App.
func (a *App) Verify(context.Context, ledger.Header, ledger.Block) error { return nil }

// Commit implements ledger.App.
func (a *App) Commit(_ context.Context, b ledger.Block, c ledger.Certificate) error {
	defer a.enter()()
	if a.CommitErr != nil {
		if err := a.CommitErr(); err != nil {
			return err
		}
	}
	a.waiting -= b.Batch.Transactions
	a.blocks = append(a.blocks, b)
	a.certs = append(a.certs, c)
	return nil
}

// Ordering is an orderer under test.
type Ordering struct {
	Orderer ledger.Orderer
	// Head is where it begins.
	Head ledger.Header
	// Heartbeat is how often it asks for an empty block.
	Heartbeat time.Duration
	// Patience is the longest that a submitted transaction waits for its block.
	Patience time.Duration
	// Operations is the most that it asks a block to hold.
	Operations int
}

// TestOrderer is the contract of ledger.Orderer. fresh is called inside a synctest bubble.
func TestOrderer(t *testing.T, fresh func(t *testing.T) Ordering) {
	cases := map[string]func(*testing.T, Ordering){
		"LoneTransaction": ordersLone,
		"ManyInOrder":     ordersMany,
		"Heartbeat":       ordersHeartbeat,
		"QuietWhenIdle":   ordersNothing,
		"BuildFails":      ordersBuildFails,
		"CommitFails":     ordersCommitFails,
		"SlowReceiver":    ordersSlowReceiver,
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, fresh(t)) })
		})
	}
}

// start runs the orderer and returns the function that stops it and gives Run's error.
func (o Ordering) start(t *testing.T, app *App) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Orderer.Run(ctx, app) }()
	return func() error {
		cancel()
		err := <-done
		app.check(t, o.Head)
		return err
	}
}

// submit puts transactions into the App and tells the orderer.
func (o Ordering) submit(t *testing.T, app *App, n int) {
	t.Helper()
	app.Add(n)
	b := ledger.Batch{Transactions: n, Operations: n, Bytes: n}
	if err := o.Orderer.Submit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// check holds what was committed against the rules of every orderer.
func (a *App) check(t *testing.T, parent ledger.Header) {
	t.Helper()
	blocks, certs := a.Blocks()
	for i, b := range blocks {
		if b.Header.Height != parent.Height+1 || b.Header.Prev != parent.Hash {
			t.Fatalf("block %d does not follow block %d", b.Header.Height, parent.Height)
		}
		if b.Header.Time < parent.Time {
			t.Fatalf("time went back from %d to %d", parent.Time, b.Header.Time)
		}
		if len(certs[i]) == 0 {
			t.Fatalf("block %d has an empty certificate", b.Header.Height)
		}
		for _, s := range certs[i] {
			if !sig.Verify(s.Key, b.Header.Preimage, s.Signature) {
				t.Fatalf("block %d: signature does not verify", b.Header.Height)
			}
		}
		parent = b.Header
	}
	if a.overlaps != 0 {
		t.Errorf("%d calls overlapped", a.overlaps)
	}
}

func transactions(a *App) (n int) {
	blocks, _ := a.Blocks()
	for _, b := range blocks {
		n += b.Batch.Transactions
	}
	return n
}

func ordersLone(t *testing.T, o Ordering) {
	app := &App{}
	stop := o.start(t, app)
	o.submit(t, app, 1)
	time.Sleep(o.Patience)
	synctest.Wait()
	if n := transactions(app); n != 1 {
		t.Errorf("%d transactions committed after %s", n, o.Patience)
	}
	if err := stop(); err != nil {
		t.Errorf("run ended with %v", err)
	}
	if _, open := <-o.Orderer.Finality(); !open {
		t.Error("finality told nothing")
	}
	if _, open := <-o.Orderer.Finality(); open {
		t.Error("finality is open after the end")
	}
}

func ordersMany(t *testing.T, o Ordering) {
	app := &App{}
	stop := o.start(t, app)
	const rounds, each = 50, 300
	for range rounds {
		o.submit(t, app, each)
		time.Sleep(o.Patience / 20)
	}
	o.submit(t, app, o.Operations*2+1)
	time.Sleep(4 * o.Patience)
	synctest.Wait()
	if n, want := transactions(app), rounds*each+o.Operations*2+1; n != want {
		t.Errorf("%d transactions committed, want %d", n, want)
	}
	if err := stop(); err != nil {
		t.Errorf("run ended with %v", err)
	}
	var told, want []uint64
	for f := range o.Orderer.Finality() {
		told = append(told, f.Height)
	}
	blocks, _ := app.Blocks()
	for _, b := range blocks {
		want = append(want, b.Header.Height)
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Errorf("finality (-want +got)\n%s", d)
	}
}

func ordersHeartbeat(t *testing.T, o Ordering) {
	app := &App{Accruing: true}
	stop := o.start(t, app)
	time.Sleep(10 * o.Heartbeat)
	synctest.Wait()
	if blocks, _ := app.Blocks(); len(blocks) < 9 || len(blocks) > 11 {
		t.Errorf("%d empty blocks in ten heartbeats", len(blocks))
	}
	if err := stop(); err != nil {
		t.Errorf("run ended with %v", err)
	}
}

func ordersNothing(t *testing.T, o Ordering) {
	app := &App{}
	stop := o.start(t, app)
	o.submit(t, app, 0)
	time.Sleep(10 * o.Heartbeat)
	// Told of something that the App has dropped meanwhile, and then of something real.
	if err := o.Orderer.Submit(t.Context(), ledger.Batch{Transactions: 5}); err != nil {
		t.Error(err)
	}
	time.Sleep(o.Patience)
	o.submit(t, app, 1)
	time.Sleep(o.Patience)
	synctest.Wait()
	if blocks, _ := app.Blocks(); len(blocks) != 1 {
		t.Errorf("%d blocks, want 1", len(blocks))
	}
	if err := stop(); err != nil {
		t.Errorf("run ended with %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	err := o.Orderer.Submit(cancelled, ledger.Batch{Transactions: 1})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("submit after cancel: %v", err)
	}
}

func ordersBuildFails(t *testing.T, o Ordering) {
	app := &App{BuildErr: func() error { return ErrInjected }}
	stop := o.start(t, app)
	o.submit(t, app, 1)
	time.Sleep(o.Patience)
	if err := stop(); !errors.Is(err, ErrInjected) {
		t.Errorf("run ended with %v", err)
	}
}

func ordersCommitFails(t *testing.T, o Ordering) {
	calls := 0
	app := &App{CommitErr: func() error { calls++; return ErrInjected }}
	stop := o.start(t, app)
	o.submit(t, app, 1)
	time.Sleep(10 * o.Patience)
	if err := stop(); !errors.Is(err, ErrInjected) || calls != 1 {
		t.Errorf("run ended with %v after %d commits", err, calls)
	}
}

func ordersSlowReceiver(t *testing.T, o Ordering) {
	app := &App{}
	stop := o.start(t, app)
	const blocks = 3000
	for range blocks {
		o.submit(t, app, 1)
		time.Sleep(o.Patience)
	}
	synctest.Wait()
	if got, _ := app.Blocks(); len(got) != blocks {
		t.Errorf("%d blocks, want %d: nobody reads finality", len(got), blocks)
	}
	if err := stop(); err != nil {
		t.Errorf("run ended with %v", err)
	}
	last := uint64(0)
	for f := range o.Orderer.Finality() {
		if f.Height <= last {
			t.Fatalf("height %d after %d", f.Height, last)
		}
		last = f.Height
	}
}
