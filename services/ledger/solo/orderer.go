// Package solo is the orderer of a chain with one proposer: this process.
//
// It makes a block when nothing new has come for a moment, when the oldest transaction has waited
// long enough, or when enough waits; while one block is executed the next fills, so blocks grow
// with the load by themselves. Time is the clock it is given, never before the last block's: while
// the clock is behind that, blocks are made at that time. The proposer's own signature is the
// certificate.
//
// It is trusted for order, liveness and time: nobody else checks them, and a chain that it orders
// says so. What it cannot do is forge: everything it commits can be re-executed by others.
package solo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/ledger"
)

// finals is how many committed blocks wait for a slow receiver of Finality.
const finals = 1024

// Deps are what an orderer needs from outside.
type Deps struct {
	// Key signs headers; it is the chain's only validator.
	Key sig.PrivateKey
	// Head is the last committed block.
	Head ledger.Header
	// Clock tells the time; nil means time.Now. One that jumps makes blocks that jump: see
	// kit/clock.
	Clock func() time.Time
}

// Orderer implements ledger.Orderer.
type Orderer struct {
	config Config
	deps   Deps
	final  chan ledger.Final
	wake   chan struct{} // holds at most one token: something was submitted

	mu   sync.Mutex // guards came
	came ledger.Batch
}

var _ ledger.Orderer = (*Orderer)(nil)

// New makes an orderer. It starts nothing. maxStep is the chain's max_step, from which the
// heartbeat follows unless the configuration says otherwise.
func New(c Config, maxStep time.Duration, deps Deps) (*Orderer, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("solo orderer: %w", err)
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = maxStep / 2 * 9 / 10
	}
	if c.Heartbeat <= 0 || c.Heartbeat > maxStep/2 {
		return nil, fmt.Errorf("solo orderer: heartbeat %s must be positive and at most half of "+
			"max_step %s", c.Heartbeat, maxStep)
	}
	if deps.Key.IsZero() {
		return nil, errors.New("solo orderer: the proposer's key is missing")
	}
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	return &Orderer{
		config: c, deps: deps, final: make(chan ledger.Final, finals),
		wake: make(chan struct{}, 1),
	}, nil
}

// Submit implements ledger.Orderer.
func (o *Orderer) Submit(ctx context.Context, b ledger.Batch) error {
	if err := ctx.Err(); err != nil || b.Transactions == 0 {
		return err
	}
	o.mu.Lock()
	o.came.Transactions += b.Transactions
	o.came.Operations += b.Operations
	o.came.Bytes += b.Bytes
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// Finality implements ledger.Orderer.
func (o *Orderer) Finality() <-chan ledger.Final { return o.final }

// Run implements ledger.Orderer.
func (o *Orderer) Run(ctx context.Context, app ledger.App) error {
	defer close(o.final)
	r := &running{Orderer: o, app: app, parent: o.deps.Head, seal: sealer{config: o.config}}
	for {
		again, err := r.await(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if err := r.make(ctx); err != nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil
			}
			return err
		}
	}
}

// running is the state of Run's goroutine.
type running struct {
	*Orderer
	app    ledger.App
	parent ledger.Header
	seal   sealer
	beat   time.Time // when an empty block is due; zero before the first look
	due    bool      // the heartbeat, not a transaction, asks for a block
}

// await waits until a block is due. It returns true when it must look again.
func (r *running) await(ctx context.Context) (again bool, err error) {
	now := r.deps.Clock()
	r.collect(now)
	if r.beat.IsZero() {
		r.beat = now.Add(r.config.Heartbeat)
	}
	wait, waiting := r.seal.wait(now)
	beat := r.beat.Sub(now)
	r.due = !waiting && beat <= 0
	if r.due || waiting && wait <= 0 {
		return false, nil
	}
	if !waiting || beat > 0 && beat < wait {
		wait = max(beat, 0)
	}
	return true, r.pause(ctx, wait)
}

// pause waits for a time, for something submitted, or for the end.
func (r *running) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.wake:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// collect moves what was submitted into the sealer.
func (r *running) collect(now time.Time) {
	r.mu.Lock()
	came := r.came
	r.came = ledger.Batch{}
	r.mu.Unlock()
	if came.Transactions > 0 {
		r.seal.add(came, now)
	}
}

// make builds, signs and commits one block.
func (r *running) make(ctx context.Context) error {
	now := r.deps.Clock()
	block, err := r.app.Build(ctx, r.parent, ledger.Limits{
		Time:       max(r.parent.Time, uint64(max(now.UnixMilli(), 0))),
		Operations: r.config.SealOperations,
		Bytes:      r.config.SealBytes,
		Empty:      r.due,
	})
	if errors.Is(err, ledger.ErrNothing) {
		r.nothing(now)
		return nil
	}
	if err != nil {
		return fmt.Errorf("build block %d: %w", r.parent.Height+1, err)
	}
	certificate := ledger.Certificate{{
		Key: r.deps.Key.Public(), Signature: r.deps.Key.Sign(block.Header.Preimage),
	}}
	if err := r.app.Commit(ctx, block, certificate); err != nil {
		return fmt.Errorf("commit block %d: %w", block.Header.Height, err)
	}
	r.parent = block.Header
	now = r.deps.Clock()
	r.beat = now.Add(r.config.Heartbeat)
	r.collect(now)
	r.seal.sealed(block.Batch, now)
	select {
	case r.final <- ledger.Final{
		Height: block.Header.Height, Hash: block.Header.Hash, Certificate: certificate,
	}:
	default:
	}
	return nil
}

// nothing takes note that the App had nothing to build.
func (r *running) nothing(now time.Time) {
	if r.due {
		r.beat = now.Add(r.config.Heartbeat)
		return
	}
	r.seal.empty()
}
