package ledger

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/tx"
)

// Bounds of the projection.
const (
	// maxRecent is how many transactions are answered for from memory until the index has them;
	// beyond it the index is asked, and told to be lagging.
	maxRecent = 1 << 20
	// projectBatch is how many blocks go into the index at once.
	projectBatch = 64
	// projectBytes bounds the blocks that are read for one Put.
	projectBytes = 8 << 20
	// projectRetry is the wait after the index failed.
	projectRetry = 5 * time.Second
	// projectIdle is the wait for a block that nobody told of.
	projectIdle = time.Minute
)

// recent holds the last blocks' entries until they are indexed.
type recent struct {
	wake chan struct{} // holds at most one token: a block came

	// mu guards the entries, ascending and without gap, and what they name.
	mu           sync.RWMutex
	entries      []IndexEntry
	transactions map[Hash]Location
	blocks       map[Hash]uint64
	granted      map[Hash]int
	came         chan struct{} // closed, and made anew, when the index got further
}

func newRecent() *recent {
	return &recent{
		wake: make(chan struct{}, 1), transactions: map[Hash]Location{},
		blocks: map[Hash]uint64{}, granted: map[Hash]int{}, came: make(chan struct{}),
	}
}

// add makes a block's transactions findable, before its state is in force.
func (r *recent) add(e IndexEntry) {
	r.mu.Lock()
	for i, id := range e.Transactions {
		r.transactions[id] = Location{e.Height, uint32(i)}
	}
	for _, account := range e.Granted {
		r.granted[account]++
	}
	r.blocks[e.Hash] = e.Height
	r.entries = append(r.entries, e)
	for len(r.transactions) > maxRecent && len(r.entries) > 1 {
		r.forget()
	}
	r.mu.Unlock()
}

// tell wakes who writes the index. The head must be at the new block: told before, it would find
// none and sleep.
func (r *recent) tell() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// forget drops the oldest entry. mu is held.
func (r *recent) forget() {
	e := r.entries[0]
	for _, id := range e.Transactions {
		delete(r.transactions, id)
	}
	for _, account := range e.Granted {
		if r.granted[account]--; r.granted[account] == 0 {
			delete(r.granted, account)
		}
	}
	delete(r.blocks, e.Hash)
	r.entries[0] = IndexEntry{}
	r.entries = r.entries[1:]
}

// indexed drops all entries up to a height.
func (r *recent) indexed(height uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.entries) > 0 && r.entries[0].Height <= height {
		r.forget()
	}
	close(r.came)
	r.came = make(chan struct{})
}

// further closes when the index gets further.
func (r *recent) further() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.came
}

// first returns the lowest height held; false when nothing is.
func (r *recent) first() (uint64, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.entries) == 0 {
		return 0, false
	}
	return r.entries[0].Height, true
}

// project feeds the index until ctx ends. A failing index is tried again: nothing is lost by it.
func (c *Chain) project(ctx context.Context) {
	if c.deps.Index == nil {
		return
	}
	for ctx.Err() == nil {
		caughtUp, err := c.projectSome(ctx)
		if err == nil && !caughtUp {
			continue
		}
		wait := projectIdle
		if err != nil && ctx.Err() == nil {
			c.log.Error("index not written; trying again", "chain", c.name, "error", err)
			wait = projectRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.recent.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// projectSome puts the next blocks into the index, and tells whether there were none.
func (c *Chain) projectSome(ctx context.Context) (caughtUp bool, err error) {
	if err := c.deps.Index.Mend(ctx); err != nil {
		return false, err
	}
	next, found, err := c.deps.Index.Height()
	if err != nil {
		return false, err
	}
	if found {
		next++
	}
	if next > c.Head().Height {
		return true, nil
	}
	entries, err := c.readEntries(ctx, next)
	if err != nil {
		return false, err
	}
	if err := c.deps.Index.Put(ctx, entries); err != nil {
		return false, err
	}
	last := entries[len(entries)-1].Height
	c.recent.indexed(last)
	c.progress(last)
	return false, nil
}

// progress tells of a long catching up, as after an index was lost.
func (c *Chain) progress(indexed uint64) {
	head := c.Head().Height
	if head-indexed < projectBatch || indexed/progressBlocks == (indexed-projectBatch)/progressBlocks {
		return
	}
	c.log.Info("building the index", "chain", c.name, "height", indexed, "of", head)
}

// progressBlocks is after how many blocks progress is told.
const progressBlocks = 10_000

// readEntries makes entries of the next blocks of the log, at least one. The work is done here,
// beside the executor, and not where blocks are committed.
func (c *Chain) readEntries(ctx context.Context, from uint64) ([]IndexEntry, error) {
	r := newRowing(c)
	var entries []IndexEntry
	size := 0
	for height := from; height < from+projectBatch && height <= c.Head().Height &&
		size < projectBytes; height++ {
		record, err := c.deps.Store.Read(ctx, height)
		if err != nil {
			return nil, err
		}
		b, _, receipts, err := parseRecord(record.Bytes)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", height, err)
		}
		e := IndexEntry{
			Height: height, Hash: record.Hash, Granted: c.granted(&b.Body, receipts),
			Time: uint64(b.Header.Time),
		}
		if err := r.block(&e, b, receipts); err != nil {
			return nil, fmt.Errorf("block %d: %w", height, err)
		}
		entries = append(entries, e)
		size += len(record.Bytes)
	}
	return entries, nil
}

// granted returns the accounts that the faucet's transactions in a body name.
func (c *Chain) granted(body *block.Body, receipts [][]byte) []Hash {
	faucet := c.genesis.Faucet
	if faucet.IsZero() {
		return nil
	}
	var accounts []Hash
	for i, raw := range body.Transactions {
		// Most transactions do not even hold the faucet's id.
		if !bytes.Contains(raw[:min(len(raw), accountWithin)], faucet[:]) {
			continue
		}
		t, err := tx.Decode(raw)
		if err != nil || t.Account != faucet {
			continue
		}
		receipt, err := tx.DecodeReceipt(receipts[i])
		if err != nil || len(receipt.Outcomes) == 0 {
			continue // it failed, and moved nothing
		}
		for _, operation := range t.Operations {
			if transfer, ok := operation.(*tx.Transfer); ok {
				accounts = append(accounts, Hash(transfer.To))
			}
		}
	}
	return accounts
}

// accountWithin is how far from its beginning a transaction's account ends at the latest: two
// frames of up to 4 bytes, the chain of up to 38 and the account of 34.
const accountWithin = 4 + 4 + 2 + tx.MaxChain + 2 + 32

// indexed returns the height that the index has come to; false when it is empty or there is none.
func (c *Chain) indexed() (uint64, bool, error) {
	if c.deps.Index == nil {
		return 0, false, nil
	}
	return c.deps.Index.Height()
}

// Lag returns how many blocks the index is behind; 0 without an index.
func (c *Chain) Lag() (uint64, error) {
	if c.deps.Index == nil {
		return 0, nil
	}
	height, found, err := c.deps.Index.Height()
	head := c.Head().Height
	if err != nil || !found {
		return head + 1, err
	}
	return head - min(height, head), nil
}
