package ledger

import (
	"strconv"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/kit/fault"
)

// MaxSupplies is of how many of the last blocks the sums of money are kept, in memory.
const MaxSupplies = 1024

// supplies are the chain's sums after each of the last blocks, without gap: after one, as when the
// state comes from a snapshot, they begin anew. The chain's mu guards them.
type supplies struct {
	last uint64 // height
	n    int
	ring []block.ChainState // by height modulo its length
}

func (s *supplies) keep(height uint64, sums block.ChainState) {
	if s.ring == nil {
		s.ring = make([]block.ChainState, MaxSupplies)
	}
	if height != s.last+1 {
		s.n = 0
	}
	s.ring[height%MaxSupplies] = sums
	s.last, s.n = height, min(s.n+1, MaxSupplies)
}

// first returns the lowest height that is kept; only if anything is.
func (s *supplies) first() uint64 { return s.last + 1 - uint64(s.n) }

// Supply returns the sums of money after a block: the head, or one of the MaxSupplies before it
// since the start. Faults: ReasonNotFound, ReasonNotKept.
func (c *Chain) Supply(height uint64) (block.ChainState, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	head := c.head.Header.Height
	s := &c.supplies
	switch {
	case height > head:
		return block.ChainState{}, fault.New(fault.NotFound, ReasonNotFound,
			"no block at height %d; the last is %d", height, head)
	case s.n > 0 && height >= s.first():
		return s.ring[height%MaxSupplies], nil
	}
	first := head
	if s.n > 0 {
		first = s.first()
	}
	return block.ChainState{}, notKept(first, head, "the sums after block %d are not kept; those "+
		"of the blocks %d to %d are", height, first, head)
}

// NotProven is the fault for a proof of what an earlier block's state was.
func (c *Chain) NotProven(height uint64) error {
	head := c.Head().Height
	return notKept(head, head, "the state after block %d is not proven any more; that after the "+
		"last one, %d, is", height, head)
}

func notKept(first, last uint64, format string, values ...any) *fault.Error {
	return fault.New(fault.FailedPrecondition, ReasonNotKept, format, values...).
		With("first", strconv.FormatUint(first, 10)).With("last", strconv.FormatUint(last, 10))
}
