package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
)

// progressEvery is how often a long start tells how far it is.
const progressEvery = 5 * time.Second

// load brings up state, head and history: from the newest good snapshot, then block by block. A
// block's state root is compared with its header, so a wrong snapshot cannot go unnoticed.
func (c *Chain) load(ctx context.Context) error {
	head, filled := c.deps.Store.Head()
	if !filled {
		return c.begins(ctx)
	}
	if err := c.fromGenesis(); err != nil {
		return err
	}
	first, err := c.deps.Store.Read(ctx, 0)
	if err != nil {
		return err
	}
	if first.Hash != c.head.Hash {
		return fmt.Errorf("%w: block 0 is %x, this genesis makes %x", ErrGenesis, first.Hash,
			c.head.Hash)
	}
	if c.deps.Snapshots != nil {
		found, err := c.deps.Snapshots.Load(ctx, head.Height, func(h uint64, r io.Reader) error {
			return c.restore(ctx, h, r)
		})
		if err != nil {
			c.log.Warn("no snapshot can be used; executing from the beginning", "error", err)
		}
		if !found {
			if err := c.fromGenesis(); err != nil {
				return err
			}
		}
	}
	return c.replay(ctx, head.Height)
}

// fromGenesis sets state, head and history to those of block 0.
func (c *Chain) fromGenesis() error {
	s, err := state.New(c.genesis)
	if err != nil {
		return err
	}
	c.state, c.history, c.step = s, &block.CompactRange{}, nil
	h := c.genesis.Header(tx.Hash(s.Root()))
	c.advance(h, Hash(h.Hash(c.anchor)), block.Certificate{})
	return nil
}

// begins writes block 0 into an empty log.
func (c *Chain) begins(ctx context.Context) error {
	if err := c.fromGenesis(); err != nil {
		return err
	}
	first := block.Block{Header: c.head.Header}
	return c.deps.Store.Append(ctx, Record{
		Hash: c.head.Hash, Bytes: appendRecord(nil, first.Append(nil), block.Certificate{}, nil),
	})
}

// replay executes the log from the head of the state to the head of the log.
func (c *Chain) replay(ctx context.Context, to uint64) error {
	began, told := c.clock(), c.clock()
	from := c.head.Header.Height + 1
	err := c.deps.Store.Scan(ctx, from, func(r Record) error {
		if now := c.clock(); now.Sub(told) >= progressEvery {
			c.log.Info("executing the block log", "chain", c.name, "height", r.Height, "of", to)
			told = now
		}
		return c.again(ctx, r)
	})
	if err != nil {
		return err
	}
	c.log.Info("chain is up", "chain", c.name, "height", c.head.Header.Height,
		"executed", c.head.Header.Height+1-from, "took", c.clock().Sub(began))
	return nil
}

// again executes a block of the log.
func (c *Chain) again(ctx context.Context, r Record) error {
	b, _, receipts, err := parseRecord(r.Bytes)
	if err != nil {
		return fmt.Errorf("block %d: %w", r.Height, err)
	}
	if err := c.genuine(b, r.Hash); err != nil {
		return fmt.Errorf("block %d: %w", r.Height, err)
	}
	if err := c.execute(ctx, b, true); err != nil {
		return fmt.Errorf("block %d: %w", r.Height, err)
	}
	s := c.step
	for i := range receipts {
		if !bytes.Equal(receipts[i], s.receipts[i]) {
			c.discard()
			return fmt.Errorf("block %d: receipt %d is not what execution gives", r.Height, i)
		}
	}
	c.step = nil
	c.recent.add(IndexEntry{
		Height: r.Height, Hash: r.Hash, Transactions: s.ids, Granted: c.granted(&b.Body, receipts),
	})
	s.execution.Commit()
	c.advance(s.header, s.hash, b.Certificate)
	c.recent.tell()
	if indexed, found, err := c.indexed(); err == nil && found {
		c.recent.indexed(indexed)
	}
	c.unsnapped += len(s.ids)
	return nil
}

// genuine checks that a block of the log is certified, and has the hash that the log gives it.
func (c *Chain) genuine(b *block.Block, hash Hash) error {
	if own := Hash(b.Header.Hash(c.anchor)); own != hash {
		return fmt.Errorf("%w: the header's hash is %x, the log says %x", ErrCorrupt, own, hash)
	}
	return b.Certificate.Verify(&b.Header, c.anchor, c.genesis.Validators, c.genesis.Quorum())
}

// A snapshot's content: number of header hashes (8 bytes), their list's nodes (32 bytes each), and
// the state.

// restore takes state, head and history from a snapshot and checks them against the block of its
// height.
func (c *Chain) restore(ctx context.Context, height uint64, r io.Reader) error {
	record, err := c.deps.Store.Read(ctx, height)
	if err != nil {
		return err
	}
	b, _, _, err := parseRecord(record.Bytes)
	if err != nil {
		return err
	}
	if err := c.genuine(b, record.Hash); err != nil {
		return err
	}
	history, err := readHistory(r, height)
	if err != nil {
		return err
	}
	s, err := state.Restore(r, c.genesis)
	if err != nil {
		return err
	}
	// The state root does not cover height and clocks.
	head := state.Head{Height: height, Time: b.Header.Time, Accrual: b.Header.Accrual}
	if tx.Hash(s.Root()) != b.Header.StateRoot || s.Head() != head {
		return errors.New("the snapshot is not the state after its block")
	}
	if history.Root() != b.Header.HistoryRoot {
		return errors.New("the snapshot's list of headers is not the one before its block")
	}
	c.state, c.history = s, history
	c.advance(b.Header, record.Hash, b.Certificate)
	return nil
}

func readHistory(r io.Reader, height uint64) (*block.CompactRange, error) {
	var size [8]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, fmt.Errorf("read the list of headers: %w", err)
	}
	n := binary.BigEndian.Uint64(size[:])
	if n != height {
		return nil, fmt.Errorf("the list has %d headers before block %d", n, height)
	}
	var nodes []tx.Hash
	for rest := n; rest != 0; rest &= rest - 1 { // one node per bit
		var node tx.Hash
		if _, err := io.ReadFull(r, node[:]); err != nil {
			return nil, fmt.Errorf("read the list of headers: %w", err)
		}
		nodes = append(nodes, node)
	}
	return block.RestoreRange(n, nodes)
}
