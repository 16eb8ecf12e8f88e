package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

type escrowResult struct {
	Escrow     string        `json:"escrow"`
	Exists     bool          `json:"exists"`
	Owner      string        `json:"owner,omitempty"`
	Purpose    string        `json:"purpose,omitempty"`
	Job        string        `json:"job,omitempty"`
	Balance    amount.Amount `json:"balance"`
	Unreserved amount.Amount `json:"unreserved"`
	Reserved   amount.Amount `json:"reserved"`
	Paid       amount.Amount `json:"paid"`
	Lock       amount.Amount `json:"lock"`
	MaxTotal   amount.Amount `json:"max_total"`
	MaxRate    amount.Amount `json:"max_rate"`
	Trust      amount.Amount `json:"trust"`
	Floor      amount.Amount `json:"floor"`
	// What the assigner may take for a lease that it places, in all, and what it took.
	LeaseFee      amount.Amount `json:"lease_fee"`
	LeaseFeeTotal amount.Amount `json:"lease_fee_total"`
	LeaseFees     amount.Amount `json:"lease_fees"`
	Leases        uint32        `json:"leases"`
	Assigner      string        `json:"assigner,omitempty"`
	Payees        []string      `json:"payees,omitempty"`
	Secured       amount.Amount `json:"secured,omitempty"`
	// Of bonds: how long notice takes, what it was given for, and when that is due; ms of the chain's
	// accrual clock.
	Unbond    uint64        `json:"unbond_ms,omitempty"`
	Noticed   amount.Amount `json:"noticed,omitempty"`
	NoticeDue uint64        `json:"notice_due_accrual_ms,omitempty"`
	// By the chain's accrual clock, and when that comes at the earliest; 0 of bonds.
	ExpiresAccrual uint64 `json:"expires_accrual_ms,omitempty"`
	Expires        uint64 `json:"expires_ms"`
	Height         uint64 `json:"height"`
	// Block time, ms; with a proof only.
	Time   uint64 `json:"time_ms,omitempty"`
	Proven bool   `json:"proof_verified"`
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
		return escrow, nil, gone(err, "no escrow "+text+" is open: it was closed, or there never "+
			"was one", "what became of it: `ucn escrow story`; proof: `ucn escrow get --proof`")
	}
	return escrow, answer, nil
}

// gone says that something is not on the chain, in the words of who asked for it.
func gone(err error, text, hint string) error {
	if !errors.Is(err, fault.NotFound) {
		return fmt.Errorf("look it up: %w", err)
	}
	return &hinted{said{text, err}, hint}
}

// said is an error in other words.
type said struct {
	text  string
	cause error
}

func (e said) Error() string { return e.text }
func (e said) Unwrap() error { return e.cause }

func (a *app) escrowGet() *cobra.Command {
	f := proofFlags{}
	cmd := &cobra.Command{
		Use: "get ESCROW", Short: "Show an escrow, or prove that there is none",
		Example: "  ucn escrow get ucne1...\n  ucn escrow get ucne1... --proof",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			if f.asked() {
				result, err := f.escrow(ctx, l, list[0])
				if err != nil {
					return err
				}
				return a.emit(result, result.print)
			}
			escrow, answer, err := readEscrow(ctx, l, list[0])
			if err != nil {
				return err
			}
			held, err := tx.EscrowFromPB(answer.GetEscrow())
			if err != nil {
				return fmt.Errorf("the escrow: %w", err)
			}
			result := newEscrowResult(escrow, true, &held, answer.GetHeight())
			result.Unreserved = amount.Amount(answer.GetUnreserved())
			result.at(&held, tx.Millis(answer.GetNow()), tx.Millis(answer.GetAccrual()))
			return a.emit(result, result.print)
		}),
	}
	f.add(cmd)
	return cmd
}

// escrow is what a proof shows of an escrow.
func (f *proofFlags) escrow(ctx context.Context, l *link, text string) (*escrowResult, error) {
	escrow, err := parseEscrow(text)
	if err != nil {
		return nil, err
	}
	answer, err := l.Ledger.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{
		Chain: l.Chain, Escrow: escrow[:], Prove: true,
	})
	if err != nil {
		return nil, err
	}
	one, err := newLeafProof(leafEscrow, escrowText(escrow), answer.GetProof())
	if err != nil {
		return nil, err
	}
	r, err := f.proven(ctx, l, one)
	if err != nil {
		return nil, err
	}
	r.Escrow.Time = uint64(r.Time.UnixMilli())
	return r.Escrow, nil
}

func newEscrowResult(
	escrow tx.EscrowID, exists bool, e *tx.Escrow, height uint64,
) *escrowResult {
	r := &escrowResult{Escrow: escrowText(escrow), Exists: exists, Height: height}
	if !exists {
		return r
	}
	r.Owner, r.Purpose = accountText(e.Owner), reasonText(e.Purpose.String(), "PURPOSE_")
	if e.Purpose == chainv1.Purpose_PURPOSE_JOB || e.Purpose == chainv1.Purpose_PURPOSE_BUDGET {
		r.Job = bytesText(id.Job, e.Subject)
	}
	r.Unbond, r.Noticed, r.NoticeDue = uint64(e.Unbond), amount.Amount(e.Noticed),
		uint64(e.NoticeDue)
	r.Balance, r.Reserved, r.Paid = amount.Amount(e.Balance), amount.Amount(e.Reserved),
		amount.Amount(e.Paid)
	r.Lock, r.Leases = amount.Amount(e.Lock), e.Live
	r.MaxTotal, r.MaxRate = amount.Amount(e.Terms.MaxTotal), amount.Amount(e.Terms.MaxRate)
	r.Trust, r.Floor = amount.Amount(e.Terms.Trust), amount.Amount(e.Terms.Floor)
	r.LeaseFee, r.LeaseFees = amount.Amount(e.Terms.LeaseFee), amount.Amount(e.LeaseFees)
	r.LeaseFeeTotal = amount.Amount(e.Terms.LeaseFeeTotal)
	if !e.Terms.Assigner.IsZero() {
		r.Assigner = accountText(e.Terms.Assigner)
	}
	for _, payee := range e.Payees {
		r.Payees = append(r.Payees, accountText(payee))
	}
	return r
}

// at adds what depends on where the chain's clocks stand.
func (r *escrowResult) at(e *tx.Escrow, now, accrual tx.Millis) {
	r.Secured = amount.Amount(state.Secured(e, accrual))
	if e.Unbond != 0 {
		r.Unreserved = amount.Amount(state.Withdrawable(e, accrual))
	}
	if expires := e.Terms.Expires; expires != 0 {
		r.ExpiresAccrual, r.Expires = uint64(expires), uint64(expires)
		if lag := now - accrual; accrual <= now && expires <= math.MaxUint64-lag {
			r.Expires = uint64(expires + lag)
		}
	}
}

func (r *escrowResult) print(w io.Writer) {
	printf(w, "escrow\t%s\n", r.Escrow)
	if r.Exists {
		r.printHeld(w)
	} else {
		printf(w, "state\tnot on the chain at block %d; it was closed or never opened\n", r.Height)
	}
	if r.Time != 0 {
		printf(w, "at block\t%d of %s\nproof\tverified\n", r.Height, stamp(r.Time))
	}
}

func (r *escrowResult) printHeld(w io.Writer) {
	if r.Unbond != 0 {
		r.printBond(w)
		return
	}
	printf(w, "owner\t%s\npurpose\t%s %s\n", r.Owner, r.Purpose, r.Job)
	printf(w, "balance\t%s, of which %s is reserved for %s\n", amount.Text(r.Balance),
		amount.Text(r.Reserved), many(r.Leases, "lease"))
	printf(w, "free\t%s\npaid so far\t%s of at most %s\nrate\tat most %s per hour\n",
		amount.Text(r.Unreserved), amount.Text(r.Paid), amount.Text(r.MaxTotal),
		amount.Text(r.MaxRate))
	printf(w, "trust\t%s beyond what is acknowledged\ndeposit\t%s\n", amount.Text(r.Trust),
		amount.Text(r.Lock))
	if r.LeaseFee > 0 || r.LeaseFees > 0 {
		printf(w, "lease fees\t%s taken of at most %s, %s for each lease\n",
			amount.Text(r.LeaseFees), amount.Text(r.LeaseFeeTotal), amount.Text(r.LeaseFee))
	}
	if r.Secured > 0 {
		printf(w, "secures\t%s\n", amount.Text(r.Secured))
	}
	if r.Expires > 0 {
		printf(w, "expires\t%s, or later if the chain rests\n", stamp(r.Expires))
	}
	for _, payee := range r.Payees {
		printf(w, "may be paid\t%s\n", payee)
	}
}

func (a *app) escrowTopUp() *cobra.Command {
	raise, most := false, jobfile.DefaultLeaseFee
	cmd := a.byDelegate(&cobra.Command{
		Use: "topup ESCROW AMOUNT", Short: "Add money to an escrow; anyone may, to a bond its owner",
		Long: `Add money to an escrow. Anyone may. An escrow pays no more in all than its terms say, so
its owner gives --raise to let it pay the amount, too: an always job that waits because its money is
used up then goes on within a minute or so. So does one whose scheduler has taken all that was
granted in lease fees, or takes more for a lease by now: --raise grants what it takes today, at most
--max-lease-fee, for a thousand leases more.`,
		Example: "  ucn escrow topup ucne1... 5 --raise", Args: args(cobra.ExactArgs(2)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			escrow, err := parseEscrow(list[0])
			if err != nil {
				return err
			}
			sum, err := amount.Parse(list[1])
			if err != nil {
				return err
			}
			if !raise && most != jobfile.DefaultLeaseFee {
				return usagef("--max-lease-fee is for --raise")
			}
			do := []tx.Operation{&tx.TopUp{Escrow: escrow, Amount: tx.Grains(sum)}}
			if raise {
				raised, err := a.raised(ctx, l, &raising{escrow, tx.Grains(sum), most})
				if err != nil {
					return err
				}
				do = append(do, raised)
			}
			r, err := l.Sender.Send(ctx, do...)
			return a.printSent(r, err, func(s *submitted) { s.Escrow, s.Amount = list[0], &sum })
		}),
	})
	cmd.Flags().BoolVar(&raise, "raise", false,
		"let it pay as much more in all, and lease fees; its owner only")
	cmd.Flags().Var(&most, "max-lease-fee", "with --raise, most that the scheduler may take for each "+
		"lease that it places")
	return cmd
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
			free, err := withdrawable(answer)
			if err != nil {
				return err
			}
			sum := free
			if len(list) > 1 {
				if sum, err = amount.Parse(list[1]); err != nil {
					return err
				}
			}
			if bond(answer) && (sum > free || sum == 0) {
				return bondHeld(answer, free)
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
	force := false
	cmd := a.byDelegate(&cobra.Command{
		Use: "close ESCROW", Short: "Close an escrow and take back all that is left",
		Long: `Close an escrow: its rest and its deposit come back to the owner. Leases that have got
their last charge are settled first. One that has not keeps the escrow open until its claim window
is over; where its job has ended it is ended first, so that the window begins. Its host may still
claim what it ran, and the notice that the job granted.

--end-leases does not ask whether the job has ended, for when its scheduler is gone or does not end
it: a program that still runs under one of the leases loses its pay and is stopped by its host. The
scheduler loses the right to place leases under the escrow, or to take fees of it.`,
		Example: "  ucn escrow close ucne1...", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			escrow, answer, err := readEscrow(ctx, l, list[0])
			if err != nil {
				return err
			}
			if err := bondCloses(answer); err != nil {
				return err
			}
			var operations []tx.Operation
			if answer.GetEscrow().GetLive() > 0 {
				leases, err := leasesUnder(ctx, l, escrow)
				if err != nil {
					return err
				}
				ahead := escrowTime(answer, l).Sub(l.Now())
				e := ending{
					app: a, link: l, escrow: escrow, leases: leases, force: force, ahead: ahead,
				}
				if err := e.open(ctx, answer); err != nil {
					return err
				}
				leases = e.leases
				if err := awaitSettled(ctx, l, escrowTime(answer, l), leases); err != nil {
					return err
				}
				for part := range slices.Chunk(leases, tx.MaxSettle) {
					operations = append(operations, &tx.Settle{Leases: part})
				}
			}
			operations = append(operations, &tx.CloseEscrow{Escrow: escrow})
			for len(operations) > jobrun.SettlesAtOnce { // those before the last transaction
				part := operations[:jobrun.SettlesAtOnce]
				if r, err := l.Sender.Send(ctx, part...); err != nil {
					return a.printSent(r, err, func(s *submitted) { s.Escrow = list[0] })
				}
				operations = operations[jobrun.SettlesAtOnce:]
			}
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
	cmd.Flags().BoolVar(&force, "end-leases", false, "end its leases, whatever the scheduler says "+
		"of the job; stops what runs under them")
	return cmd
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

// escrowTime is what the chain's clock showed when the escrow was read, by which leases can be
// removed; ours if the ledger does not tell.
func escrowTime(answer *ledgerv1.GetEscrowResponse, l *link) time.Time {
	if now := answer.GetNow(); now != 0 {
		return time.UnixMilli(int64(now))
	}
	return l.Now()
}

// awaitSettled waits until the leases can be removed, so that closing does not fail and cost a fee:
// nothing of it waits for the owner's word, and the time by which it had to be placed is over.
func awaitSettled(
	ctx context.Context, l *link, now time.Time, leases []tx.LeaseID,
) error {
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
	wait := latest.Sub(now) + after
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
