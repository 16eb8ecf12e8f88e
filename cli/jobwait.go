package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/bill"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// Bounds of waiting.
const (
	maxWaited  = 100
	firstRetry = 200 * time.Millisecond
	lastRetry  = 5 * time.Second
)

func (a *app) jobWait() *cobra.Command {
	anyOf, limit := false, time.Duration(0)
	cmd := &cobra.Command{
		Use: "wait JOB...", Short: "Wait until jobs have ended",
		Long: `Wait until all jobs given have ended, or with --any the first of them, and print how.

Exit code 0 when they completed, 3 when one ended in another way, 1 when --for passed first. Nothing
is countersigned while this waits: job attach does that.`,
		Example: "  ucn job wait ucnj1... && echo done\n  ucn job wait --any --for 1h ucnj1... ucnj1...",
		Args:    args(cobra.RangeArgs(1, maxWaited)),
		RunE: a.following(withKey, func(ctx context.Context, l *link, list []string) error {
			jobs := make([][32]byte, len(list))
			for i, text := range list {
				var err error
				if jobs[i], err = parseJob(text); err != nil {
					return err
				}
			}
			if limit < 0 {
				return usagef("--for is %v, and must not be negative", limit)
			}
			if limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, limit, errWaited)
				defer cancel()
			}
			ended, err := waitFor(ctx, l, jobs, anyOf)
			if err != nil {
				return err
			}
			for i := range ended {
				ended[i].look(context.WithoutCancel(ctx), l)
			}
			return a.waited(ended)
		}),
	}
	cmd.Flags().BoolVar(&anyOf, "any", false, "until the first has ended")
	cmd.Flags().DurationVar(&limit, "for", 0, "longest wait, such as 1h; 0 is any")
	return cmd
}

var errWaited = errors.New("the jobs have not ended in the time that --for allows; they go on")

// waitFor watches jobs until all have ended, or one when anyOf is set.
func waitFor(ctx context.Context, l *link, jobs [][32]byte, anyOf bool) ([]jobResult, error) {
	work, cancel := context.WithCancel(ctx)
	type one struct {
		at  int
		job *schedulerv1.Job
		err error
	}
	told := make(chan one, len(jobs))
	for i, job := range jobs {
		go func() {
			j, err := awaitEnd(work, l, job)
			told <- one{i, j, err}
		}()
	}
	results := make([]*jobResult, len(jobs))
	var failed error
	need := len(jobs)
	if anyOf {
		need = 1
	}
	for n := range jobs { // also those that are called off come here, so none is left behind
		o := <-told
		if o.err == nil && n < need {
			r := jobOf(o.job)
			results[o.at] = &r
		}
		if o.err != nil && failed == nil && n < need {
			failed = o.err
		}
		if failed != nil || n+1 >= need {
			cancel()
		}
	}
	cancel()
	if failed != nil {
		if cause := context.Cause(ctx); cause != nil {
			failed = cause
		}
		return nil, failed
	}
	var ended []jobResult
	for _, r := range results {
		if r != nil {
			ended = append(ended, *r)
		}
	}
	return ended, nil
}

// awaitEnd watches one job; streams that break are begun again.
func awaitEnd(ctx context.Context, l *link, job [32]byte) (*schedulerv1.Job, error) {
	retry := firstRetry
	for {
		stream, err := l.Scheduler.WatchJob(ctx, &schedulerv1.WatchJobRequest{Job: job[:]})
		var last *schedulerv1.WatchJobResponse
		for err == nil {
			if last, err = stream.Recv(); err == nil {
				retry = firstRetry
				if last.GetJob().GetState() == jobv1.State_STATE_ENDED {
					return last.GetJob(), nil
				}
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if jobrun.Lasting(err) {
			return nil, fmt.Errorf("watch job %s: %w", id.Bech32(id.Job, job), err)
		}
		timer := time.NewTimer(retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		retry = min(2*retry, lastRetry)
	}
}

func (a *app) waited(ended []jobResult) error {
	failed := false
	for _, r := range ended {
		failed = failed || r.Result != "completed"
	}
	err := a.emit(ended, func(w io.Writer) {
		for _, r := range ended {
			printf(w, "%s\t%s\t%s\n", r.Job, r.Result+r.progress(), screen.Clean(r.Reason))
			if r.Left != nil { // 80 columns, so that it can be copied from a narrow terminal
				printf(w, "  its escrow holds %s; take it back:\nucn escrow close %s\n",
					amount.Text(*r.Left), r.Escrow)
			}
		}
	})
	if err == nil && failed {
		err = &exitError{ExitJob, errTold}
	}
	return err
}

type billedLease struct {
	Lease  string `json:"lease"`
	Payee  string `json:"payee"`
	Slot   uint32 `json:"slot"`
	Epoch  uint64 `json:"epoch"`
	Placed uint64 `json:"placed_ms"`
	// Fee is what the scheduler took for it.
	Fee    amount.Amount `json:"lease_fee"`
	Paid   amount.Amount `json:"paid"`
	Unpaid amount.Amount `json:"unpaid"`
	Held   *heldLease    `json:"holdback,omitempty"` // while the chain knows the lease

	heldBack bool           // it has a holdback
	placedBy string         // transaction
	Charges  []chargeResult `json:"charges"`
}

type billResult struct {
	Job      string        `json:"job"`
	Escrows  []escrowLine  `json:"escrows"`
	Leases   []billedLease `json:"leases"`
	Held     []heldPayment `json:"holdbacks_paid"`
	Paid     amount.Amount `json:"paid"`
	Fees     amount.Amount `json:"lease_fees"`
	Charges  int           `json:"charges"`
	Verified int           `json:"proofs_verified"`
	More     bool          `json:"more_leases"`
}

func (a *app) jobBill() *cobra.Command {
	verify, limit, owner := false, 1000, ""
	cmd := &cobra.Command{
		Use: "bill JOB", Short: "Show what a job has cost so far, lease by lease, with proofs",
		Long: `Show every charge of a job as the chain holds it, while it runs or long after: by lease,
with what is due, what was paid, and what bounded it. Only escrows of the job's owner count: anyone
can open one that names your job.

With --proof every charge that is shown is verified, lease by lease, by its receipt against a
certified header and the genesis, without trust in the ledger that answers. A ledger could still
leave one out.`,
		Example: "  ucn job bill ucnj1...\n  ucn job bill ucnj1... --proof --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			job, err := parseJob(list[0])
			if err != nil {
				return err
			}
			b := billResult{
				Job: list[0], Escrows: []escrowLine{}, Leases: []billedLease{},
				Held: []heldPayment{},
			}
			who, err := a.accountOf(ownerOf(owner))
			if err != nil {
				return err
			}
			if err := b.read(ctx, l, job, who, limit); err != nil {
				return err
			}
			if verify {
				if err := b.verify(ctx, l); err != nil {
					return err
				}
			}
			return a.emit(b, b.print)
		}),
	}
	cmd.Flags().BoolVar(&verify, "proof", false, "verify the receipt of every charge")
	cmd.Flags().StringVar(&owner, "owner", "", "account that owns the job (default: the wallet's)")
	cmd.Flags().IntVar(&limit, "limit", limit, "how many leases; 0 is all, at most 100000")
	return cmd
}

// ownerOf is a flag as the argument that accountOf takes.
func ownerOf(flag string) []string {
	if flag == "" {
		return nil
	}
	return []string{flag}
}

// read finds the owner's escrows for a job, their leases, and what these were charged.
func (b *billResult) read(
	ctx context.Context, l *link, job [32]byte, owner sig.AccountID, limit int,
) error {
	r := &ledgerv1.ListEscrowsRequest{Chain: l.Chain, Subject: job[:], Owner: owner[:]}
	err := collect(maxWaited, func(size int, token string) (int, string, error) {
		r.PageSize, r.PageToken = uint32(size), token
		page, err := l.Ledger.ListEscrows(ctx, r)
		for _, e := range page.GetEscrows() {
			b.Escrows = append(b.Escrows, escrowLineOf(e))
		}
		return len(b.Escrows), page.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	if len(b.Escrows) == 0 {
		return fmt.Errorf("%s has no escrow on this chain for the job %s; another's job is shown "+
			"with --owner", accountText(owner), b.Job)
	}
	for _, e := range b.Escrows {
		escrow, err := parseEscrow(e.Escrow)
		if err != nil {
			return err
		}
		if err := b.leases(ctx, l, escrow, limit); err != nil {
			return err
		}
		if !slices.ContainsFunc(b.Leases, func(l billedLease) bool { return l.heldBack }) {
			continue
		}
		if err := b.heldPayments(ctx, l, escrow); err != nil {
			return err
		}
	}
	return nil
}

func (b *billResult) leases(ctx context.Context, l *link, escrow tx.EscrowID, limit int) error {
	r := &ledgerv1.ListLeasesRequest{Chain: l.Chain, Escrow: escrow[:]}
	return collect(limit, func(size int, token string) (int, string, error) {
		r.PageSize, r.PageToken = uint32(size), token
		page, err := l.Ledger.ListLeases(ctx, r)
		for _, e := range page.GetLeases() {
			one := billedLease{
				Lease: bytesText(id.Lease, e.GetId()), Slot: e.GetLease().GetSlot(),
				Payee: bytesText(id.Account, e.GetLease().GetPayee()),
				Epoch: e.GetLease().GetEpoch(), Placed: e.GetPlacedTime(),
				Fee: amount.Amount(e.GetFee()), placedBy: hex.EncodeToString(e.GetTransaction()),
			}
			lease, err := parseLease(one.Lease)
			if err != nil {
				return 0, "", err
			}
			if one.Charges, err = chargesOf(ctx, l, lease); err != nil {
				return 0, "", err
			}
			if one.heldBack = e.GetLease().GetHoldback() > 0; one.heldBack {
				if one.Held, err = heldBack(ctx, l, lease); err != nil {
					return 0, "", err
				}
			}
			b.add(one)
		}
		if len(b.Leases) >= limit && limit > 0 {
			b.More = b.More || page.GetNextPageToken() != ""
		}
		return len(b.Leases), page.GetNextPageToken(), err
	})
}

func (b *billResult) add(one billedLease) {
	for _, c := range one.Charges {
		one.Paid += c.Paid
		one.Unpaid = c.Unpaid // of the last: notes are cumulative
	}
	b.Paid, b.Fees = b.Paid+one.Paid, b.Fees+one.Fee
	b.Charges += len(one.Charges)
	b.Leases = append(b.Leases, one)
}

// paidOn is what the charges of one lease in one transaction paid.
type paidOn struct {
	transaction string
	lease       string
}

// verify proves of each charge, and of each placing that took a fee, that its transaction stands in
// a certified block, is about this lease, and paid what the ledger says.
func (b *billResult) verify(ctx context.Context, l *link) error {
	genesis, err := l.Genesis(ctx)
	if err != nil {
		return err
	}
	ledger := bill.Client{Service: l.Ledger, Chain: l.Chain}
	trust := proof.TrustOf(genesis)
	said, proven := map[paidOn]tx.Grains{}, map[paidOn]tx.Grains{}
	seen := map[string]bool{}
	for _, lease := range b.Leases {
		for _, c := range lease.payments() {
			said[paidOn{c.Transaction, lease.Lease}] += tx.Grains(c.Paid)
			if seen[c.Transaction] {
				continue
			}
			seen[c.Transaction] = true
			if err := provenCharges(ctx, ledger, trust, c.Transaction, proven); err != nil {
				return err
			}
		}
	}
	for on, sum := range said {
		if paid, charged := proven[on]; !charged || paid != sum {
			return fmt.Errorf("%w: transaction %s, lease %s", errProof, on.transaction, on.lease)
		}
	}
	b.Verified = len(seen)
	return b.verifyHeld(ctx, ledger, trust)
}

// payments are the charges and what was taken for placing the lease.
func (l *billedLease) payments() []chargeResult {
	if l.Fee == 0 {
		return l.Charges
	}
	return append(slices.Clone(l.Charges), chargeResult{Transaction: l.placedBy, Paid: l.Fee})
}

// provenCharges adds what each lease was charged, or cost, in a transaction, by its proven receipt.
func provenCharges(ctx context.Context, l bill.Client, trust proof.Trust, text string,
	into map[paidOn]tx.Grains) error {
	t, receipt, err := provenTransaction(ctx, l, trust, text)
	if err != nil {
		return err
	}
	for i, operation := range t.Operations {
		if i >= len(receipt.Outcomes) {
			break
		}
		out := &receipt.Outcomes[i]
		switch o := operation.(type) {
		case *tx.Charge:
			into[paidOn{text, id.Bech32(id.Lease, o.Note.Lease)}] += out.Amount
		case *tx.PlaceLease:
			into[paidOn{text, id.Bech32(id.Lease, out.Created)}] += out.Amount
		}
	}
	return nil
}

func (b *billResult) print(w io.Writer) {
	for _, e := range b.Escrows {
		state := "closed"
		if e.Open {
			state = "open, holds " + amount.Text(e.holds())
		}
		printf(w, "escrow\t%s\topened %s with %s, %s\n", e.Escrow, stamp(e.Opened),
			amount.Text(e.Amount), state)
	}
	printf(w, "\nPLACED\tLANE\tPAID\tCHARGES\tLAST NOTE\tLEASE\n")
	for _, l := range b.Leases {
		note := "-"
		if n := len(l.Charges); n > 0 {
			last := l.Charges[n-1]
			note = "due " + amount.Text(last.Cumulative)
			if last.Bound != "" && last.Unpaid > 0 {
				note += ", bound by " + last.Bound
			}
		}
		if h := l.Held; h != nil && (h.Held > 0 || h.State == "running") {
			note += fmt.Sprintf(", %s held back (%s)", amount.Text(h.Held), h.State)
		}
		printf(w, "%s\t%d.%d\t%s\t%d\t%s\t%s\n", stamp(l.Placed), l.Slot, l.Epoch,
			amount.Text(l.Paid), len(l.Charges), note, l.Lease)
	}
	printf(w, "\n")
	for _, h := range b.Held {
		printf(w, "holdback\t%s paid on %s in block %d\n", amount.Text(h.Paid), stamp(h.Time),
			h.Height)
	}
	printf(w, "paid\t%s, %s of %s\n", amount.Text(b.Paid), many(b.Charges, "charge"),
		many(len(b.Leases), "lease"))
	if b.Fees > 0 {
		printf(w, "lease fees\t%s to the scheduler\n", amount.Text(b.Fees))
	}
	if b.More {
		printf(w, "\tthere are more leases: --limit 0\n")
	}
	if b.Charges == 0 {
		printf(w, "\tnothing was charged\n")
	}
	if b.Verified > 0 {
		printf(w, "proof\tverified: %d receipts against certified headers\n", b.Verified)
	}
}
