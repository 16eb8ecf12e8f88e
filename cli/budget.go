package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// budgetOptions are the flags of a budget.
type budgetOptions struct {
	rate, total, floor amount.Amount
	payees             []string
	life               time.Duration
}

func (a *app) escrowBudget() *cobra.Command {
	o := budgetOptions{}
	cmd := &cobra.Command{
		Use: "budget JOB AMOUNT", Short: "Open a budget that a running job may spend",
		Long: `Put AMOUNT UCN into an escrow that the job spends while it runs, by the session key of
its lease: at most --max-rate for the time since it was opened and one hour more, and at most
--max-total in all. The host that runs the job has that key: name --payee to say who may be paid.
Hosts name no session key yet, so for now nothing spends it but a lease made by hand. topup,
withdraw and close work as on every escrow.`,
		Example: "  ucn escrow budget ucnj1... 10 --max-rate 0.5 --payee ucn1...",
		Args:    args(cobra.ExactArgs(2)),
	}
	f := cmd.Flags()
	f.Var(&o.rate, "max-rate", "the most that may be spent per hour")
	f.Var(&o.total, "max-total", "the most that may be spent in all (default: AMOUNT)")
	f.Var(&o.floor, "floor", "what is left at least; the owner can withdraw it")
	f.StringArrayVar(&o.payees, "payee", nil, "account that may be paid, up to 64 (default: any)")
	f.DurationVar(&o.life, "for", 30*24*time.Hour, "when it expires, from now on")
	cmd.RunE = a.session(withKey, func(ctx context.Context, l *link, list []string) error {
		operation, err := o.open(list)
		if err != nil {
			return err
		}
		if operation.Terms.Expires, err = l.ExpiresIn(ctx, o.life); err != nil {
			return err
		}
		r, err := l.Sender.Send(ctx, operation)
		return a.printSent(r, err, func(s *submitted) {
			s.Amount = amountOf(operation.Amount)
			if outcomes := r.Receipt.GetOutcomes(); len(outcomes) > 0 &&
				len(outcomes[0].GetCreated()) == 32 {
				s.Escrow = escrowText([32]byte(outcomes[0].GetCreated()))
			}
		})
	})
	return a.byDelegate(cmd)
}

// open is the budget without its expires.
func (o *budgetOptions) open(list []string) (*tx.OpenEscrow, error) {
	job, err := parseJob(list[0])
	if err != nil {
		return nil, err
	}
	sum, err := amount.Parse(list[1])
	if err != nil {
		return nil, err
	}
	if o.rate == 0 {
		return nil, usagef("--max-rate is needed: how much the job may spend per hour")
	}
	out := &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_BUDGET, Subject: job[:], Amount: tx.Grains(sum),
		Terms: tx.Terms{
			MaxRate: tx.GrainsPerHour(o.rate), MaxTotal: tx.Grains(o.total),
			Floor: tx.Grains(o.floor),
		},
	}
	if o.total == 0 {
		out.Terms.MaxTotal = out.Amount
	}
	for _, text := range o.payees {
		payee, err := parseAccount(text)
		if err != nil {
			return nil, err
		}
		out.Payees = append(out.Payees, payee)
	}
	slices.SortFunc(out.Payees, sig.AccountID.Compare)
	return out, nil
}
