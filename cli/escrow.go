package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

type escrowResult struct {
	Escrow     string        `json:"escrow"`
	Owner      string        `json:"owner"`
	Purpose    string        `json:"purpose"`
	Job        string        `json:"job,omitempty"`
	Balance    amount.Amount `json:"balance"`
	Unreserved amount.Amount `json:"unreserved"`
	Reserved   amount.Amount `json:"reserved"`
	Paid       amount.Amount `json:"paid"`
	Lock       amount.Amount `json:"lock"`
	MaxTotal   amount.Amount `json:"max_total"`
	MaxRate    amount.Amount `json:"max_rate"`
	Trust      amount.Amount `json:"trust"`
	Leases     uint32        `json:"leases"`
	Assigner   string        `json:"assigner,omitempty"`
	Expires    uint64        `json:"expires_ms"`
	Height     uint64        `json:"height"`
}

func (a *app) escrowCommand() *cobra.Command {
	open := a.complete(withoutKey, a.escrowsAre)
	return group("escrow", "Money that is promised for jobs", a.escrowList(),
		completes(a.escrowGet(), open), completes(a.escrowStory(), open),
		completes(a.escrowTopUp(), open), completes(a.escrowWithdraw(), open),
		completes(a.escrowClose(), open), a.escrowBudget())
}

func readEscrow(ctx context.Context, l *link, text string) (
	tx.EscrowID, *ledgerv1.GetEscrowResponse, error,
) {
	escrow, err := parseEscrow(text)
	if err != nil {
		return escrow, nil, err
	}
	answer, err := l.Ledger.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{
		Chain: l.Chain, Escrow: escrow[:],
	})
	if err != nil {
		return escrow, nil, fmt.Errorf("look the escrow up (one that was closed is gone, "+
			"its life is not: ucn escrow story): %w", err)
	}
	return escrow, answer, nil
}

func (a *app) escrowGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ESCROW", Short: "Show an escrow", Example: "  ucn escrow get ucne1...",
		Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			escrow, answer, err := readEscrow(ctx, l, list[0])
			if err != nil {
				return err
			}
			e := answer.GetEscrow()
			result := escrowResult{
				Escrow: escrowText(escrow), Owner: bytesText(id.Account, e.GetOwner()),
				Purpose: reasonText(e.GetPurpose().String(), "PURPOSE_"),
				Job:     bytesText(id.Job, e.GetSubject()), Balance: amount.Amount(e.GetBalance()),
				Unreserved: amount.Amount(answer.GetUnreserved()),
				Reserved:   amount.Amount(e.GetReserved()), Paid: amount.Amount(e.GetPaid()),
				Lock: amount.Amount(e.GetLock()), Leases: e.GetLive(), Height: answer.GetHeight(),
				MaxTotal: amount.Amount(e.GetTerms().GetMaxTotal()),
				MaxRate:  amount.Amount(e.GetTerms().GetMaxRate()),
				Trust:    amount.Amount(e.GetTerms().GetTrust()),
				Assigner: bytesText(id.Account, e.GetTerms().GetAssigner()),
				Expires:  e.GetTerms().GetExpires(),
			}
			return a.emit(result, result.print)
		}),
	}
}

func (r escrowResult) print(w io.Writer) {
	printf(w, "escrow\t%s\nowner\t%s\npurpose\t%s %s\n", r.Escrow, r.Owner, r.Purpose, r.Job)
	printf(w, "balance\t%s, of which %s is reserved for %d leases\n", amount.Text(r.Balance),
		amount.Text(r.Reserved), r.Leases)
	printf(w, "free\t%s\npaid so far\t%s of at most %s\nrate\tat most %s per hour\n",
		amount.Text(r.Unreserved), amount.Text(r.Paid), amount.Text(r.MaxTotal),
		amount.Text(r.MaxRate))
	printf(w, "trust\t%s beyond what is acknowledged\ndeposit\t%s\nexpires\t%s\n",
		amount.Text(r.Trust), amount.Text(r.Lock), stamp(r.Expires))
}

func (a *app) escrowTopUp() *cobra.Command {
	return a.byDelegate(&cobra.Command{
		Use: "topup ESCROW AMOUNT", Short: "Add money to an escrow; anyone may",
		Example: "  ucn escrow topup ucne1... 5", Args: args(cobra.ExactArgs(2)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			escrow, err := parseEscrow(list[0])
			if err != nil {
				return err
			}
			sum, err := amount.Parse(list[1])
			if err != nil {
				return err
			}
			r, err := l.Sender.Send(ctx, &tx.TopUp{Escrow: escrow, Amount: tx.Grains(sum)})
			return a.printSent(r, err, func(s *submitted) { s.Escrow, s.Amount = list[0], &sum })
		}),
	})
}

func (a *app) escrowWithdraw() *cobra.Command {
	return a.byDelegate(&cobra.Command{
		Use: "withdraw ESCROW [AMOUNT]", Short: "Take back what no lease has reserved",
		Example: "  ucn escrow withdraw ucne1...\n  ucn escrow withdraw ucne1... 0.5",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			escrow, answer, err := readEscrow(ctx, l, list[0])
			if err != nil {
				return err
			}
			sum := amount.Amount(answer.GetUnreserved())
			if len(list) > 1 {
				if sum, err = amount.Parse(list[1]); err != nil {
					return err
				}
			}
			if sum == 0 {
				return fmt.Errorf("there is nothing to withdraw: %s is reserved for %d leases",
					amount.Text(answer.GetEscrow().GetReserved()), answer.GetEscrow().GetLive())
			}
			r, err := l.Sender.Send(ctx, &tx.Withdraw{Escrow: escrow, Amount: tx.Grains(sum)})
			return a.printSent(r, err, func(s *submitted) { s.Escrow, s.Amount = list[0], &sum })
		}),
	})
}

func (a *app) escrowClose() *cobra.Command {
	return a.byDelegate(&cobra.Command{
		Use: "close ESCROW", Short: "Close an escrow and take back all that is left",
		Long: `Close an escrow: its rest and its deposit come back to the owner. Leases that have got
their last charge are settled first; one that has not keeps the escrow open until its claim window
is over.`,
		Example: "  ucn escrow close ucne1...", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			escrow, answer, err := readEscrow(ctx, l, list[0])
			if err != nil {
				return err
			}
			var operations []tx.Operation
			if answer.GetEscrow().GetLive() > 0 {
				leases, err := leasesUnder(ctx, l, escrow)
				if err != nil {
					return err
				}
				if err := awaitSettled(ctx, l, leases); err != nil {
					return err
				}
				for part := range slices.Chunk(leases, tx.MaxSettle) {
					operations = append(operations, &tx.Settle{Leases: part})
				}
			}
			operations = append(operations, &tx.CloseEscrow{Escrow: escrow})
			r, err := l.Sender.Send(ctx, operations...)
			if outcomes := r.Receipt.GetOutcomes(); len(outcomes) > 0 {
				last := outcomes[len(outcomes)-1].GetAmount()
				return a.printSent(r, err, func(s *submitted) {
					s.Escrow, s.Amount = list[0], amountOf(last)
				})
			}
			return a.printSent(r, err, func(s *submitted) { s.Escrow = list[0] })
		}),
	})
}

// decided refuses while a holdback waits for the owner's word: closing would fail.
func decided(ctx context.Context, l *link, lease tx.LeaseID) error {
	h, err := heldBack(ctx, l, lease)
	if err != nil || h == nil || h.State != "waits" || h.Held == 0 {
		return err
	}
	return fmt.Errorf("%s is held back of lease %s until %s: accept or reject the work first "+
		"(ucn job accept, ucn job reject)", amount.Text(tx.Grains(h.Held)), h.Lease,
		h.Until.Local().Format("2006-01-02 15:04"))
}

// closeWait is how long closing waits for a lease that will soon be removable.
const closeWait = 20 * time.Second

// awaitSettled waits until the leases can be removed, so that closing does not fail and cost a fee:
// each has got its last charge, and the time by which it had to be placed is over.
func awaitSettled(ctx context.Context, l *link, leases []tx.LeaseID) error {
	latest := time.Time{}
	for _, lease := range leases {
		answer, err := l.Ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{
			Chain: l.Chain, Lease: lease[:],
		})
		switch {
		case errors.Is(err, fault.NotFound):
			continue
		case err != nil:
			return fmt.Errorf("look a lease up: %w", err)
		case !answer.GetLease().GetSettled():
			return fmt.Errorf("lease %s has not got its last charge: cancel the job, or wait until "+
				"its claim window is over", id.Bech32(id.Lease, lease))
		}
		if err := decided(ctx, l, lease); err != nil {
			return err
		}
		placeBy := time.UnixMilli(int64(answer.GetLease().GetLease().GetPlaceBy()))
		if placeBy.After(latest) {
			latest = placeBy
		}
	}
	const after = 100 * time.Millisecond // block times are those of the proposer's clock
	wait := latest.Sub(l.Now()) + after
	switch {
	case latest.IsZero() || wait <= 0:
		return nil
	case wait > closeWait:
		return fmt.Errorf("a lease must stand until %s: close the escrow after that",
			latest.Local().Format("15:04:05"))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
