package price

import "github.com/united-containers/ucn/chain/tx"

// Freed returns what of its escrow's money a lease surely frees when a lease of a higher epoch
// takes its lane by a time (ms): the budget less all that could be paid on it until then, were it
// ended with notice before. 0 for one whose end the chain has counted already: what it left is
// free. What comes in the meantime lessens nothing: a charge takes from balance and reservation
// alike.
func Freed(l *tx.LeaseState, by tx.Millis) tx.Grains {
	if l.Settled || l.RateFreed {
		return 0
	}
	end := l.Until
	if l.End != 0 {
		end = l.End
	}
	end = min(end, by)
	span := end - min(end, l.From) + l.Lease.Notice
	if span < l.Lease.Notice {
		return 0
	}
	most, err := Accrued(l.Lease.Rate, span)
	if err != nil || most+l.Lease.Upfront < most {
		return 0
	}
	most += l.Lease.Upfront
	return l.Budget - min(l.Budget, most)
}
