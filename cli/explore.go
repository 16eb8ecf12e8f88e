package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// named gives a command of another group a name of its own here, also in its examples.
func named(cmd *cobra.Command, group, use string) *cobra.Command {
	name, _, _ := strings.Cut(use, " ")
	cmd.Use = use
	cmd.Example = strings.ReplaceAll(cmd.Example, "ucn "+group+" get", "ucn chain "+name)
	return cmd
}

type leaseResult struct {
	Lease     string          `json:"lease"`
	Exists    bool            `json:"exists"`
	Escrow    string          `json:"escrow,omitempty"`
	Payee     string          `json:"payee,omitempty"`
	Slot      uint32          `json:"slot"`
	Epoch     uint64          `json:"epoch"`
	Rate      amount.Amount   `json:"rate_hour"`
	Budget    amount.Amount   `json:"budget"`
	Paid      amount.Amount   `json:"paid"`
	Signed    amount.Amount   `json:"countersigned"`
	Trust     amount.Amount   `json:"trust"`
	Holdback  amount.Amount   `json:"holdback"`
	From      uint64          `json:"from_ms"`
	Until     uint64          `json:"until_ms"`
	End       uint64          `json:"end_ms,omitempty"`
	Settled   bool            `json:"settled"`
	Height    uint64          `json:"height"`
	Time      uint64          `json:"time_ms,omitempty"` // of the block; with a proof only
	Proven    bool            `json:"proof_verified"`
	LeaseJSON json.RawMessage `json:"state,omitempty"`
}

func (a *app) chainLease() *cobra.Command {
	f := proofFlags{}
	cmd := &cobra.Command{
		Use: "lease LEASE", Short: "Show a lease, or prove that there is none",
		Example: "  ucn chain lease ucnl1...\n  ucn chain lease ucnl1... --proof",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			lease, err := parseLease(list[0])
			if err != nil {
				return err
			}
			answer, err := l.Ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{
				Chain: l.Chain, Lease: lease[:], Prove: f.asked(),
			})
			if err != nil {
				return gone(err, "no lease "+list[0]+" stands: it was settled, or there never was one",
					"what was paid on it: `ucn chain charges`")
			}
			text := id.Bech32(id.Lease, lease)
			result, err := leaseOf(text, answer.GetLease(), answer.GetHeight())
			if err == nil && f.asked() {
				result, err = f.lease(ctx, l, text, answer.GetProof())
			}
			if err != nil {
				return err
			}
			return a.emit(result, result.print)
		}),
	}
	f.add(cmd)
	return cmd
}

// lease is what a proof shows of a lease.
func (f *proofFlags) lease(ctx context.Context, l *link, text string, m *chainv1.AccountProof) (
	*leaseResult, error,
) {
	one, err := newLeafProof(leafLease, text, m)
	if err != nil {
		return nil, err
	}
	r, err := f.proven(ctx, l, one)
	if err != nil {
		return nil, err
	}
	r.Lease.Time = uint64(r.Time.UnixMilli())
	return r.Lease, nil
}

func leaseOf(text string, s *chainv1.LeaseState, height uint64) (r *leaseResult, err error) {
	r = &leaseResult{
		Lease: text, Exists: s != nil, Height: height,
		Escrow: bytesText(id.Escrow, s.GetLease().GetEscrow()),
		Payee:  bytesText(id.Account, s.GetLease().GetPayee()),
		Slot:   s.GetLease().GetSlot(), Epoch: s.GetLease().GetEpoch(),
		Rate: amount.Amount(s.GetLease().GetRate()), Budget: amount.Amount(s.GetBudget()),
		Paid: amount.Amount(s.GetPaid()), Signed: amount.Amount(s.GetCountersigned()),
		Trust:    amount.Amount(s.GetLease().GetTrust()),
		Holdback: amount.Amount(s.GetLease().GetHoldback()),
		From:     s.GetFrom(), Until: s.GetUntil(), End: s.GetEnd(), Settled: s.GetSettled(),
	}
	if s != nil {
		r.LeaseJSON, err = rawJSON(s)
	}
	return r, err
}

func (r *leaseResult) print(w io.Writer) {
	if !r.Exists {
		printf(w, "lease\t%s\nstate\tnot on the chain at block %d\n", r.Lease, r.Height)
	} else {
		state := "runs until " + stamp(r.Until)
		if r.End != 0 {
			state = "ended " + stamp(r.End)
		}
		if r.Settled {
			state += ", settled"
		}
		printf(w, "lease\t%s\nescrow\t%s\npayee\t%s\n", r.Lease, r.Escrow, r.Payee)
		printf(w, "lane\tslot %d, epoch %d\nstate\t%s\nplaced\t%s\n", r.Slot, r.Epoch, state,
			stamp(r.From))
		printf(w, "rate\tat most %s per hour\npaid\t%s of at most %s, %s countersigned, trust %s\n",
			amount.Text(r.Rate), amount.Text(r.Paid), amount.Text(r.Budget), amount.Text(r.Signed),
			amount.Text(r.Trust))
		if r.Holdback > 0 {
			printf(w, "held back\t%s until acceptance\n", amount.Text(r.Holdback))
		}
	}
	if r.Time != 0 {
		printf(w, "at block\t%d of %s\nproof\tverified\n", r.Height, stamp(r.Time))
	}
}

func parseLease(text string) (tx.LeaseID, error) {
	lease, err := id.ParseBech32(id.Lease, text)
	if err != nil {
		return tx.LeaseID{}, usagef("lease: %w", err)
	}
	return lease, nil
}

type chargeResult struct {
	Transaction   string        `json:"transaction"`
	Height        uint64        `json:"height"`
	Time          uint64        `json:"time_ms"`
	Upto          uint64        `json:"upto_ms"`
	Cumulative    amount.Amount `json:"cumulative"`
	Paid          amount.Amount `json:"paid"`
	Unpaid        amount.Amount `json:"unpaid"`
	Bound         string        `json:"bound,omitempty"`
	Countersigned bool          `json:"countersigned"`
	Final         bool          `json:"final"`
}

func (a *app) chainCharges() *cobra.Command {
	return &cobra.Command{
		Use: "charges LEASE", Short: "List the charges of a lease, also of one that is gone",
		Example: "  ucn chain charges ucnl1... --json", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			lease, err := parseLease(list[0])
			if err != nil {
				return err
			}
			charges, err := chargesOf(ctx, l, lease)
			if err != nil {
				return err
			}
			return a.emit(charges, func(w io.Writer) { printCharges(w, charges) })
		}),
	}
}

func chargesOf(ctx context.Context, l *link, lease tx.LeaseID) ([]chargeResult, error) {
	charges := []chargeResult{}
	r := &ledgerv1.ListChargesRequest{Chain: l.Chain, Lease: lease[:]}
	err := collect(0, func(size int, token string) (int, string, error) {
		r.PageSize, r.PageToken = uint32(size), token
		page, err := l.Ledger.ListCharges(ctx, r)
		for _, c := range page.GetCharges() {
			one := chargeResult{
				Transaction: hex.EncodeToString(c.GetTransaction()), Height: c.GetHeight(),
				Time: c.GetTime(), Upto: c.GetNote().GetUpto(),
				Cumulative: amount.Amount(c.GetNote().GetCumulative()),
				Paid:       amount.Amount(c.GetPaid()), Unpaid: amount.Amount(c.GetUnpaid()),
				Countersigned: c.GetCountersigned(), Final: c.GetFinal(),
			}
			if c.GetBound() != 0 {
				one.Bound = reasonText(c.GetBound().String(), "BOUND_")
			}
			charges = append(charges, one)
		}
		return len(charges), page.GetNextPageToken(), err
	})
	return charges, err
}

func printCharges(w io.Writer, charges []chargeResult) {
	if len(charges) == 0 {
		printf(w, "nothing was charged\n")
		return
	}
	printf(w, "TIME\tBLOCK\tDUE SO FAR\tPAID\tNOTE\tTRANSACTION\n")
	for _, c := range charges {
		note := "within trust"
		if c.Countersigned {
			note = "countersigned"
		}
		if c.Final {
			note += ", final"
		}
		if c.Bound != "" {
			note += ", bound by " + c.Bound
		}
		printf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", stamp(c.Time), c.Height, amount.Text(c.Cumulative),
			amount.Text(c.Paid), note, c.Transaction)
	}
}

type feesResult struct {
	OpFee   amount.Amount  `json:"operation_fee"`
	ByteFee amount.Amount  `json:"byte_fee"`
	Fee     amount.Amount  `json:"fee"`
	Safe    amount.Amount  `json:"safe_fee"`
	Blocks  []fullnessLine `json:"blocks"`
}

type fullnessLine struct {
	Height     uint64  `json:"height"`
	Time       uint64  `json:"time_ms"`
	Operations uint64  `json:"operations"`
	Bytes      uint64  `json:"bytes"`
	Full       float64 `json:"fullness"`
}

func (a *app) chainFees() *cobra.Command {
	r := &ledgerv1.GetFeesRequest{}
	cmd := &cobra.Command{
		Use: "fees", Short: "Show what transactions cost, and how full the last blocks were",
		Example: "  ucn chain fees\n  ucn chain fees --operations 10 --bytes 2000 --json",
		Args:    args(cobra.NoArgs),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, _ []string) error {
			r.Chain = l.Chain
			answer, err := l.Ledger.GetFees(ctx, r)
			if err != nil {
				return err
			}
			result := feesResult{
				OpFee: amount.Amount(answer.GetOperationFee()), Blocks: []fullnessLine{},
				ByteFee: amount.Amount(answer.GetByteFee()), Fee: amount.Amount(answer.GetFee()),
				Safe: amount.Amount(answer.GetSafeFee()),
			}
			for _, b := range answer.GetBlocks() {
				full := max(float64(b.GetOperations())/float64(max(b.GetMaxOperations(), 1)),
					float64(b.GetBytes())/float64(max(b.GetMaxBytes(), 1)))
				result.Blocks = append(result.Blocks, fullnessLine{
					b.GetHeight(), b.GetTime(), b.GetOperations(), b.GetBytes(), full,
				})
			}
			return a.emit(result, result.print)
		}),
	}
	f := cmd.Flags()
	f.Uint32Var(&r.Operations, "operations", 1, "of the transaction to estimate")
	f.Uint32Var(&r.BodyBytes, "bytes", 256, "of its body")
	f.Uint32Var(&r.Blocks, "blocks", 10, "how many of the last blocks, up to 100")
	return cmd
}

func (r feesResult) print(w io.Writer) {
	printf(w, "price now\t%s per operation, %s per byte\n", amount.Text(r.OpFee),
		amount.Text(r.ByteFee))
	printf(w, "such a transaction\t%s in the next block\n", amount.Text(r.Fee))
	printf(w, "a cap for 10 blocks\t%s, however full they are\n\n", amount.Text(r.Safe))
	printf(w, "BLOCK\tTIME\tOPERATIONS\tBYTES\tFULL\n")
	for _, b := range r.Blocks {
		printf(w, "%d\t%s\t%d\t%d\t%.1f %%\n", b.Height, stamp(b.Time), b.Operations, b.Bytes,
			100*b.Full)
	}
}

type hitResult struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Look string `json:"command"`
}

func (a *app) chainSearch() *cobra.Command {
	return &cobra.Command{
		Use: "search TEXT", Short: "Say what an id, its first digits, or a number stands for",
		Long: `Search the chain: a block's height, an id in any form (ucn1..., ucne1..., ucnl1...,
ucnj1..., 64 hexadecimal digits), or the first 6 or more digits of a transaction or block.`,
		Example: "  ucn chain search 1f00ab\n  ucn chain search ucnl1...",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			if cutID(list[0]) {
				return usagef("%s is only the beginning of an id: give it whole (--json prints ids whole)",
					screen.Clean(list[0]))
			}
			answer, err := l.Ledger.Search(ctx, &ledgerv1.SearchRequest{
				Chain: l.Chain, Query: list[0],
			})
			if fault.KindOf(err) == fault.InvalidArgument {
				return usage(err)
			}
			if err != nil {
				return err
			}
			hits := []hitResult{}
			for _, hit := range answer.GetHits() {
				hits = append(hits, hitOf(hit))
			}
			return a.emit(hits, func(w io.Writer) {
				if len(hits) == 0 {
					printf(w, "nothing on this chain is %s\n", list[0])
				}
				for _, h := range hits {
					printf(w, "%s\t%s\n%s\n", h.Kind, h.ID, h.Look)
				}
			})
		}),
	}
}

// cutID tells whether a text is an id as tables shorten it, by which nothing can be found.
func cutID(text string) bool {
	text = strings.ToLower(strings.TrimSpace(text))
	for _, kind := range []string{id.Account, id.Escrow, id.Lease, id.Job} {
		whole := len(id.Bech32(kind, [32]byte{}))
		if strings.HasPrefix(text, kind+"1") && len(text) < whole {
			return true
		}
	}
	return false
}

func hitOf(hit *ledgerv1.Hit) hitResult {
	of := func(kind, text, look string) hitResult { return hitResult{kind, text, look + " " + text} }
	switch k := hit.GetKind().(type) {
	case *ledgerv1.Hit_Block:
		return of("block", strconv.FormatUint(k.Block, 10), "ucn chain block")
	case *ledgerv1.Hit_Transaction:
		return of("transaction", hex.EncodeToString(k.Transaction), "ucn chain tx")
	case *ledgerv1.Hit_Account:
		return of("account", bytesText(id.Account, k.Account), "ucn account history")
	case *ledgerv1.Hit_Escrow:
		return of("escrow", bytesText(id.Escrow, k.Escrow), "ucn escrow story")
	case *ledgerv1.Hit_Lease:
		return of("lease", bytesText(id.Lease, k.Lease), "ucn chain charges")
	case *ledgerv1.Hit_Job:
		return of("job", bytesText(id.Job, k.Job), "ucn escrow ls --job")
	}
	return hitResult{Kind: "unknown"}
}

// escrowEventText words what an operation did to an escrow.
func escrowEventText(e *ledgerv1.EscrowEvent) string {
	sum := amount.Text(amount.Amount(e.GetOutcome().GetAmount()))
	switch o := e.GetOperation().GetKind().(type) {
	case *chainv1.Operation_OpenEscrow:
		return "opened with " + amount.Text(amount.Amount(o.OpenEscrow.GetAmount()))
	case *chainv1.Operation_TopUp:
		return "topped up by " + amount.Text(amount.Amount(o.TopUp.GetAmount()))
	case *chainv1.Operation_Withdraw:
		return sum + " withdrawn"
	case *chainv1.Operation_SetTerms:
		return "terms changed"
	case *chainv1.Operation_CloseEscrow:
		return "closed, " + sum + " back to the owner"
	case *chainv1.Operation_PlaceLease:
		text := "lease placed, budget " +
			amount.Text(amount.Amount(o.PlaceLease.GetLease().GetBudget()))
		if fee := o.PlaceLease.GetFee(); fee > 0 {
			text += ", for a fee of " + amount.Text(amount.Amount(fee))
		}
		return text
	case *chainv1.Operation_Extend:
		return "lease extended to " + amount.Text(amount.Amount(o.Extend.GetBudget()))
	case *chainv1.Operation_Charge:
		text := sum + " charged"
		if e.GetOutcome().GetBound() != 0 {
			text += ", bound by " + reasonText(e.GetOutcome().GetBound().String(), "BOUND_")
		}
		return text
	case *chainv1.Operation_End:
		return "lease ended"
	case *chainv1.Operation_Settle:
		return "settled"
	case *chainv1.Operation_Accept:
		return "holdback accepted, " + sum + " paid"
	case *chainv1.Operation_Reject:
		return "holdback rejected"
	case *chainv1.Operation_Spend:
		return sum + " spent, to " + bytesText(id.Account, o.Spend.GetOrder().GetTo())
	case *chainv1.Operation_Notice:
		return "notice given for " + amount.Text(amount.Amount(o.Notice.GetAmount()))
	}
	return operationText(e.GetOperation())
}
