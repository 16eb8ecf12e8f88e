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
}

func newRecent() *recent {
	return &recent{
		wake: make(chan struct{}, 1), transactions: map[Hash]Location{},
		blocks: map[Hash]uint64{}, granted: map[Hash]int{},
	}
}

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
}

// from returns up to n entries from a height on; false when the first is not held any more.
func (r *recent) from(height uint64, n int) ([]IndexEntry, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.entries) == 0 || r.entries[0].Height > height {
		return nil, false
	}
	rest := r.entries[min(height-r.entries[0].Height, uint64(len(r.entries))):]
	return append([]IndexEntry(nil), rest[:min(n, len(rest))]...), true
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
	entries, held := c.recent.from(next, projectBatch)
	if !held {
		if entries, err = c.readEntries(ctx, next); err != nil {
			return false, err
		}
	}
	if len(entries) == 0 {
		return true, nil
	}
	if err := c.deps.Index.Put(ctx, entries); err != nil {
		return false, err
	}
	c.recent.indexed(entries[len(entries)-1].Height)
	return false, nil
}

// readEntries makes entries of blocks that are in the log alone.
func (c *Chain) readEntries(ctx context.Context, from uint64) ([]IndexEntry, error) {
	var entries []IndexEntry
	for height := from; height < from+projectBatch && height <= c.Head().Height; height++ {
		r, err := c.deps.Store.Read(ctx, height)
		if err != nil {
			return nil, err
		}
		b, _, receipts, err := parseRecord(r.Bytes)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", height, err)
		}
		e := IndexEntry{Height: height, Hash: r.Hash, Granted: c.granted(&b.Body, receipts)}
		for _, raw := range b.Body.Transactions {
			t, err := tx.Decode(raw)
			if err != nil {
				return nil, fmt.Errorf("block %d: %w", height, err)
			}
			e.Transactions = append(e.Transactions, Hash(t.ID(c.anchor)))
		}
		entries = append(entries, e)
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
