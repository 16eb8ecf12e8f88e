package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
)

// Tip is the last committed block without its body.
type Tip struct {
	Header      block.Header
	Hash        Hash
	Certificate block.Certificate
}

// Tip returns the last committed block.
func (c *Chain) Tip() Tip {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.head
}

// Head returns the last committed block as an orderer sees it.
func (c *Chain) Head() Header {
	tip := c.Tip()
	return Header{
		Height: tip.Header.Height, Round: tip.Header.Round, Time: uint64(tip.Header.Time),
		Hash: tip.Hash, Prev: Hash(tip.Header.Prev),
	}
}

// Genesis returns what the chain began with; it must not be changed.
func (c *Chain) Genesis() *block.Genesis { return c.genesis }

// Anchor returns the chain's anchor.
func (c *Chain) Anchor() sig.Anchor { return c.anchor }

// State returns the committed state. Only its reading methods may be called.
func (c *Chain) State() StateReader { return c.state }

// StateReader is what may be read of a chain's committed state.
type StateReader interface {
	Head() state.Head
	Prices() state.Prices
	Account(id sig.AccountID) (tx.Account, bool)
	Signers(id sig.AccountID) (tx.AccountSigners, bool)
	Escrow(id tx.EscrowID) (tx.Escrow, bool)
	Lease(id tx.LeaseID) (tx.LeaseState, bool)
	Lane(id state.LaneID) (tx.LaneState, bool)
	Unreserved(id tx.EscrowID, accrual tx.Millis) tx.Grains
	Chain() block.ChainState
}

// Keys returns the key set in force of an account, zero while it has none.
func (c *Chain) Keys(id sig.AccountID) sig.KeySet { return c.state.Keys(id) }

// PendingNonce returns the nonce that the next transaction of an account's signer needs, with what
// waits for a block counted.
func (c *Chain) PendingNonce(id sig.AccountID, number uint32) uint64 {
	if next, ok := c.pool.pending(signer{Hash(id), number}); ok {
		return next
	}
	return c.state.Nonce(id, number)
}

// Accrual returns where the accrual clock would stand in a block made now.
func (c *Chain) Accrual() tx.Millis {
	_, accrual := c.Clocks()
	return accrual
}

// Clocks returns where both clocks would stand in a block made now.
func (c *Chain) Clocks() (now, accrual tx.Millis) {
	h := c.Tip().Header
	now = max(h.Time, tx.Millis(max(c.clock().UnixMilli(), 0)))
	return now, block.NextAccrual(&h, now, tx.Millis(c.genesis.Params.MaxStep))
}

// Known is a committed transaction.
type Known struct {
	Result
	// Raw are its canonical bytes, Time that of its block, Tip its block without the body.
	Raw  []byte
	Time tx.Millis
	Tip  Tip
	// found is its block, anchor the chain's: what proofs are made of.
	found  *Found
	anchor sig.Anchor
}

// Prove returns the proofs of the transaction and of its receipt. It takes time: every transaction
// of the block is decoded and hashed.
func (k *Known) Prove() (transaction, receipt block.ListProof, err error) {
	raw := k.found.Block.Body.Transactions
	leaves, receipts := make([]tx.Hash, len(raw)), make([]tx.Hash, len(raw))
	for i := range raw {
		t, err := tx.Decode(raw[i])
		if err != nil {
			return transaction, receipt, fmt.Errorf("block %d, transaction %d: %w", k.At.Height, i, err)
		}
		entry := block.TransactionEntry(t.ID(k.anchor), t.Witness())
		leaves[i], receipts[i] = block.LeafHash(entry[:]), block.LeafHash(k.found.Receipts[i])
	}
	at := int(k.At.Index)
	return block.Prove(leaves, at), block.Prove(receipts, at), nil
}

// Transaction returns a committed transaction. Faults: ReasonNotFound; ReasonLag when it may be in
// a block that the index has not come to.
func (c *Chain) Transaction(ctx context.Context, id Hash) (*Known, error) {
	return c.transaction(ctx, id, &lastBlock{})
}

// lastBlock is the block that was read last: who asks for many transactions mostly finds them in
// few blocks.
type lastBlock struct {
	height uint64
	found  *Found
}

func (l *lastBlock) read(ctx context.Context, c *Chain, height uint64) (*Found, error) {
	if l.found != nil && l.height == height {
		return l.found, nil
	}
	found, err := c.Block(ctx, height)
	if err != nil {
		return nil, err
	}
	l.height, l.found = height, found
	return found, nil
}

func (c *Chain) transaction(ctx context.Context, id Hash, last *lastBlock) (*Known, error) {
	at, err := c.locate(id)
	if err != nil {
		return nil, err
	}
	found, err := last.read(ctx, c, at.Height)
	if err != nil {
		return nil, err
	}
	body := &found.Block.Body
	if int(at.Index) >= len(body.Transactions) {
		return nil, fmt.Errorf("transaction %x is indexed beyond the end of block %d", id, at.Height)
	}
	raw := body.Transactions[at.Index]
	t, err := tx.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("block %d, transaction %d: %w", at.Height, at.Index, err)
	}
	if own := t.ID(c.anchor); Hash(own) != id {
		return nil, fmt.Errorf("the index takes transaction %s in block %d for %x", own,
			at.Height, id)
	}
	return &Known{
		Result: Result{
			ID: id, Finality: Committed, At: at, Receipt: found.Receipts[at.Index],
		},
		Raw: raw, Time: found.Block.Header.Time,
		Tip:   Tip{found.Block.Header, found.Hash, found.Block.Certificate},
		found: found, anchor: c.anchor,
	}, nil
}

// committed tells whether a transaction is known to be in a block.
func (c *Chain) committed(id Hash) bool {
	_, err := c.locate(id)
	return err == nil
}

// locate finds a transaction in memory or in the index.
func (c *Chain) locate(id Hash) (Location, error) {
	c.recent.mu.RLock()
	at, found := c.recent.transactions[id]
	c.recent.mu.RUnlock()
	if found {
		return at, nil
	}
	missing := fault.New(fault.NotFound, ReasonNotFound, "no transaction %x in a block", id)
	if c.deps.Index == nil {
		return at, missing
	}
	at, found, err := c.deps.Index.Transaction(id)
	if err != nil || found {
		return at, err
	}
	return at, c.orLag(missing)
}

// orLag returns the fault for something that is in neither memory nor the index: missing, or
// that it may be between the two.
func (c *Chain) orLag(missing *fault.Error) error {
	indexed, found, err := c.deps.Index.Height()
	if err != nil {
		return err
	}
	next := uint64(0)
	if found {
		next = indexed + 1
	}
	if first, held := c.recent.first(); held && first <= next || next > c.Head().Height {
		return missing
	}
	return fault.New(fault.Unavailable, ReasonLag,
		"the index is at block %d of %d; try again", next, c.Head().Height).WithRetry(lagRetry)
}

// Found is a block as it was committed.
type Found struct {
	Block *block.Block
	Hash  Hash
	// Raw are its canonical bytes; Receipts those of its transactions, in order.
	Raw      []byte
	Receipts [][]byte
}

// Block returns the committed block of a height. Fault: ReasonNotFound.
func (c *Chain) Block(ctx context.Context, height uint64) (*Found, error) {
	r, err := c.deps.Store.Read(ctx, height)
	if err != nil {
		return nil, c.noBlock(height, err)
	}
	b, raw, receipts, err := parseRecord(r.Bytes)
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", height, err)
	}
	return &Found{Block: b, Hash: r.Hash, Raw: raw, Receipts: receipts}, nil
}

// BlockSize returns how many bytes the block of a height has in the log, receipts included: a
// little more than its Raw, without reading it. Fault: ReasonNotFound.
func (c *Chain) BlockSize(ctx context.Context, height uint64) (int, error) {
	size, err := c.deps.Store.Size(ctx, height)
	if err != nil {
		return 0, c.noBlock(height, err)
	}
	return size, nil
}

func (c *Chain) noBlock(height uint64, err error) error {
	if !errors.Is(err, ErrNoBlock) {
		return err
	}
	return fault.New(fault.NotFound, ReasonNotFound, "no block at height %d; the last is %d",
		height, c.Head().Height)
}

// Height returns the height of a block. Faults: ReasonNotFound, ReasonLag.
func (c *Chain) Height(hash Hash) (uint64, error) {
	c.recent.mu.RLock()
	height, found := c.recent.blocks[hash]
	c.recent.mu.RUnlock()
	if found {
		return height, nil
	}
	if tip := c.Tip(); tip.Hash == hash {
		return tip.Header.Height, nil
	}
	missing := fault.New(fault.NotFound, ReasonNotFound, "no block %x", hash)
	if c.deps.Index == nil {
		return 0, missing
	}
	height, found, err := c.deps.Index.Block(hash)
	if err != nil || found {
		return height, err
	}
	return 0, c.orLag(missing)
}

// Granted tells whether the faucet gave money to an account. Fault: ReasonLag.
func (c *Chain) Granted(id sig.AccountID) (bool, error) {
	c.recent.mu.RLock()
	granted := c.recent.granted[Hash(id)] > 0
	c.recent.mu.RUnlock()
	if granted || c.deps.Index == nil {
		return granted, nil
	}
	// Before and after: an index that is mended in between does not know of what it knew.
	unknown := fault.New(fault.NotFound, ReasonNotFound, "no grant")
	before := c.orLag(unknown)
	granted, err := c.deps.Index.Granted(Hash(id))
	if err != nil || granted {
		return granted, err
	}
	for _, err := range []error{before, c.orLag(unknown)} {
		if !errors.Is(err, ReasonNotFound) {
			return false, err
		}
	}
	return false, nil
}

// Now returns what a block made now would have as its time: what is taken in is judged by it.
func (c *Chain) Now() tx.Millis {
	return max(c.Tip().Header.Time, tx.Millis(max(c.clock().UnixMilli(), 0)))
}
