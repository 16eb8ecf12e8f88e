package solo

import (
	"time"

	"github.com/united-containers/ucn/services/ledger"
)

// sealer decides when what waits becomes a block. It is pure: times come from its caller.
type sealer struct {
	config  Config
	waiting ledger.Batch // sums of what was submitted and not sealed
	first   time.Time    // when the oldest of it came
	last    time.Time    // when the newest of it came
}

// add takes note of a batch that came now.
func (s *sealer) add(b ledger.Batch, now time.Time) {
	if s.waiting.Transactions == 0 {
		s.first = now
	}
	s.last = now
	s.waiting.Transactions += b.Transactions
	s.waiting.Operations += b.Operations
	s.waiting.Bytes += b.Bytes
}

// wait returns how long to go on waiting, 0 to seal now; false when nothing waits.
func (s *sealer) wait(now time.Time) (time.Duration, bool) {
	w := s.waiting
	if w.Transactions == 0 {
		return 0, false
	}
	if w.Operations >= s.config.SealOperations || w.Bytes >= s.config.SealBytes {
		return 0, true
	}
	idle := s.last.Add(s.config.SealIdle).Sub(now)
	most := s.first.Add(s.config.SealAfter).Sub(now)
	return max(0, min(idle, most)), true
}

// sealed takes note that a block was made. What it did not take has waited long enough.
func (s *sealer) sealed(b ledger.Batch, now time.Time) {
	s.waiting.Transactions -= b.Transactions
	s.waiting.Operations -= b.Operations
	s.waiting.Bytes -= b.Bytes
	if s.waiting.Transactions <= 0 {
		s.waiting = ledger.Batch{}
	}
	s.first = now.Add(-s.config.SealAfter)
}

// empty takes note that nothing of what was counted can be built.
func (s *sealer) empty() { s.waiting = ledger.Batch{} }
