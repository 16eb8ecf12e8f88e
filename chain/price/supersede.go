package price

import "github.com/united-containers/ucn/chain/tx"

// Freed returns what of its escrow's money a lease surely frees when a lease of a higher epoch
// takes its lane by a time (ms): the budget less all that could be paid on it until then, were it
// ended with notice before. 0 for one whose end the chain has counted already: what it left is
// free. What comes in the meantime lessens nothing, unless it is extended: a charge takes from
// balance and reservation alike.
func Freed(l *tx.LeaseState, by tx.Millis) tx.Grains {
	if l.Settled || l.RateFreed {
		return 0
	}
	return l.Budget - payable(l, by)
}

// FreedTrust returns what of its escrow's trust a lease surely frees when a lease of a higher epoch
// takes its lane by a time (ms): its trust less all that it can come to by then beyond what was
// countersigned. 0 for one whose end the chain has counted already. What comes in the meantime
// lessens nothing, unless it is extended.
func FreedTrust(l *tx.LeaseState, by tx.Millis) tx.Grains {
	if l.Settled || l.RateFreed {
		return 0
	}
	most := payable(l, by)
	return l.Lease.Trust - min(l.Lease.Trust, most-min(most, l.Countersigned))
}

// payable is the most that can be paid on a lease in all if it ends by a time, with notice.
func payable(l *tx.LeaseState, by tx.Millis) tx.Grains {
	end := l.Until
	if l.End != 0 {
		end = l.End
	}
	end = min(end, by)
	span := end - min(end, l.From) + l.Lease.Notice
	if span < l.Lease.Notice {
		return l.Budget
	}
	most, err := Accrued(l.Lease.Rate, span)
	if err != nil || most+l.Lease.Upfront < most {
		return l.Budget
	}
	return min(l.Budget, most+l.Lease.Upfront)
}
