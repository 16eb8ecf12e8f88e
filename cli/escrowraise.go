package cli

import (
	"context"
	"fmt"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobrun"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// raising is by how much an escrow may pay more, and the most that it may grant for a lease.
type raising struct {
	escrow tx.EscrowID
	by     tx.Grains
	most   amount.Amount
}

// raised are the escrow's terms with so much more that it may pay in all, and with today's lease
// fee for as many leases as are granted at once, within that.
func (a *app) raised(ctx context.Context, l *link, r *raising) (*tx.SetTerms, error) {
	answer, err := l.Ledger.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{
		Chain: l.Chain, Escrow: r.escrow[:],
	})
	if err != nil {
		return nil, fmt.Errorf("look the escrow up: %w", err)
	}
	held, err := tx.EscrowFromPB(answer.GetEscrow())
	if err != nil {
		return nil, fmt.Errorf("look the escrow up: %w", err)
	}
	out := &tx.SetTerms{Escrow: r.escrow, Terms: held.Terms}
	t := &out.Terms
	if t.MaxTotal += r.by; t.MaxTotal < r.by {
		return nil, usagef("the escrow may pay nearly all that can be counted already")
	}
	if t.LeaseFee, err = a.feeToday(ctx, l, &held.Terms, r.most); err != nil {
		return nil, err
	}
	more := t.LeaseFee * jobrun.LeasesOfService
	if more/jobrun.LeasesOfService != t.LeaseFee || more > t.MaxTotal {
		more = t.MaxTotal
	}
	fees := &t.LeaseFeeTotal
	*fees = max(*fees, *fees+min(more, t.MaxTotal-min(t.MaxTotal, *fees)))
	if t.LeaseFee != held.Terms.LeaseFee {
		a.aside("the scheduler takes %s for each lease now, the escrow granted %s: it grants that, "+
			"at most %s in all", amount.Text(t.LeaseFee), amount.Text(held.Terms.LeaseFee),
			amount.Text(t.LeaseFeeTotal))
	}
	return out, nil
}

// feeToday is what the escrow's scheduler takes for a lease now. What the escrow grants stays if
// that scheduler cannot be asked. Errors: jobrun.ErrFee when it is more than the owner allows.
func (a *app) feeToday(
	ctx context.Context, l *link, held *tx.Terms, most amount.Amount,
) (tx.Grains, error) {
	if held.Assigner.IsZero() {
		return held.LeaseFee, nil
	}
	assigner, fee, err := jobrun.Assigner(ctx, l.Session)
	switch {
	case err != nil:
		a.aside("the lease fee stays %s, what it is now is not known: %v",
			amount.Text(held.LeaseFee), err)
		return held.LeaseFee, nil
	case assigner != held.Assigner:
		a.aside("the lease fee stays %s: the escrow names another scheduler, %s",
			amount.Text(held.LeaseFee), accountText(held.Assigner))
		return held.LeaseFee, nil
	case amount.Amount(fee) > most:
		return 0, fmt.Errorf("%w: it takes %s for each, you allow %s; allow more with "+
			"--max-lease-fee", jobrun.ErrFee, amount.Text(fee), amount.Text(most))
	}
	return fee, nil
}
