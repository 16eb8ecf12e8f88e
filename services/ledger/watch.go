package ledger

import (
	"context"

	"github.com/united-containers/ucn/kit/fault"
)

// Watch calls visit with the height of every block from one on, in order and without gap, and then
// of each new one, until ctx ends or visit fails. It goes at the pace of visit, which reads the
// block itself, when it has room for one. Fault: ReasonBadRequest when from is beyond the next
// block.
func (c *Chain) Watch(ctx context.Context, from uint64, visit func(height uint64) error) error {
	if next := c.Head().Height + 1; from > next {
		return tooFar(from, next)
	}
	for height := from; ; height++ {
		if err := c.awaitHead(ctx, height); err != nil {
			return err
		}
		if err := visit(height); err != nil {
			return err
		}
	}
}

// WatchList is Watch for the blocks alone that a list has rows of, with the places in the block of
// the transactions that the rows are of, ascending. Blocks come once they are indexed. Faults:
// ReasonNoIndex, ReasonBadRequest, ReasonLag.
func (c *Chain) WatchList(ctx context.Context, of ListID, from uint64,
	visit func(height uint64, transactions []uint32) error,
) error {
	if c.deps.Index == nil {
		return noIndex()
	}
	if next := c.Head().Height + 1; from > next {
		return tooFar(from, next)
	}
	for {
		indexed, err := c.awaitIndexed(ctx, from)
		if err != nil {
			return err
		}
		for from <= indexed {
			var meant []listed
			meant, from, err = c.blocksOf(of, from, indexed)
			if err == nil {
				err = c.stillIndexed(indexed)
			}
			if err != nil {
				return err
			}
			for _, m := range meant {
				if err := visit(m.height, m.transactions); err != nil {
					return err
				}
			}
		}
	}
}

// listed is a block that a list has rows of.
type listed struct {
	height       uint64
	transactions []uint32
}

// watchRows is how many rows are read at once, less those of the last block.
const watchRows = 1000

// blocksOf reads the blocks of a list's rows from a height to another, both included, and returns
// from where to read on.
func (c *Chain) blocksOf(of ListID, from, to uint64) (meant []listed, next uint64, err error) {
	next = to + 1
	rows := 0
	span := Span{From: Place{Height: from}, To: Place{Height: to + 1}}
	err = c.deps.Index.List(of, span, func(row Row) bool {
		last := len(meant) - 1
		switch {
		case last < 0 || meant[last].height != row.At.Height:
			if rows >= watchRows {
				next = row.At.Height
				return false
			}
			meant = append(meant, listed{row.At.Height, []uint32{row.At.Index}})
		case meant[last].transactions[len(meant[last].transactions)-1] != row.At.Index:
			meant[last].transactions = append(meant[last].transactions, row.At.Index)
		}
		rows++
		return true
	})
	return meant, next, err
}

// awaitIndexed waits until the index has a height, and returns how far it is.
func (c *Chain) awaitIndexed(ctx context.Context, height uint64) (uint64, error) {
	for {
		further := c.recent.further()
		indexed, found, err := c.indexed()
		if err != nil || found && indexed >= height {
			return indexed, err
		}
		select {
		case <-further:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func tooFar(from, next uint64) *fault.Error {
	return fault.New(fault.InvalidArgument, ReasonBadRequest,
		"block %d is far off: the next one is %d", from, next)
}

// awaitHead waits until the head is at a height or beyond.
func (c *Chain) awaitHead(ctx context.Context, height uint64) error {
	for {
		c.mu.RLock()
		head, moved := c.head.Header.Height, c.moved
		c.mu.RUnlock()
		if head >= height {
			return ctx.Err()
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// MaxFeeBlocks is how many of the last blocks are remembered for FeeHistory.
const MaxFeeBlocks = 100

// Fullness is how full a block was.
type Fullness struct {
	Height, Time, Operations, Bytes uint64
}

// FeeHistory returns how full the last blocks were, newest first, at most n and MaxFeeBlocks.
func (c *Chain) FeeHistory(n int) []Fullness {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n = min(n, len(c.fullness))
	out := make([]Fullness, n)
	for i := range out {
		out[i] = c.fullness[len(c.fullness)-1-i]
	}
	return out
}

// remember notes how full a block was. mu is held.
func (c *Chain) remember(f Fullness) {
	if len(c.fullness) == MaxFeeBlocks {
		copy(c.fullness, c.fullness[1:])
		c.fullness = c.fullness[:MaxFeeBlocks-1]
	}
	c.fullness = append(c.fullness, f)
}

// rememberBytes bounds the blocks that are read for FeeHistory at a start.
const rememberBytes = 32 << 20

// recall fills the memory of FeeHistory from the log, before the chain runs: blocks before a
// snapshot were not executed.
func (c *Chain) recall(ctx context.Context) error {
	head := c.head.Header.Height
	var back []Fullness
	read := 0
	for i := uint64(0); i <= head && len(back) < MaxFeeBlocks && read < rememberBytes; i++ {
		found, err := c.Block(ctx, head-i)
		if err != nil {
			return err
		}
		h := &found.Block.Header
		back = append(back, Fullness{h.Height, uint64(h.Time), h.OperationCount, h.BodyLength})
		read += len(found.Raw)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fullness = c.fullness[:0]
	for i := len(back) - 1; i >= 0; i-- {
		c.remember(back[i])
	}
	return nil
}
