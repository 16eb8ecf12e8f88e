package ledger

import (
	"sync/atomic"

	"github.com/united-containers/ucn/kit/fault"
)

// Finality says how far a transaction has come.
type Finality int

// The steps of finality this ledger knows.
const (
	// Refused: it is in no block, and Result.Err says why.
	Refused Finality = iota
	// Accepted: well-formed, signed, its nonce is next. Promises nothing.
	Accepted
	// Committed: block and certificate are durable.
	Committed
)

// Result says what became of a transaction.
type Result struct {
	// ID is zero when the bytes were too malformed to have one.
	ID       Hash
	Finality Finality
	// At and Receipt (canonical bytes of a chain/v1 Receipt) are set once committed.
	At      Location
	Receipt []byte
	// Err says why it was refused; nil otherwise.
	Err *fault.Error
}

// ticket collects the results of transactions that were submitted together. Each slot is settled
// exactly once, by whichever goroutine learns its fate; done closes after the last.
type ticket struct {
	results []Result
	left    atomic.Int64
	done    chan struct{}
	block   atomic.Pointer[timing] // of the last block that took part of it
}

func newTicket(n int) *ticket {
	t := &ticket{results: make([]Result, n), done: make(chan struct{})}
	t.left.Store(int64(n))
	return t
}

// settle writes a slot's result. The counter orders these writes before the close of done.
func (t *ticket) settle(slot int, r Result) {
	t.results[slot] = r
	if t.left.Add(-1) == 0 {
		close(t.done)
	}
}

// place is a slot of a ticket.
type place struct {
	ticket *ticket
	slot   int
}
