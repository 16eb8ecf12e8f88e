package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"strings"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

type escrowLine struct {
	Escrow     string        `json:"escrow"`
	Owner      string        `json:"owner"`
	Purpose    string        `json:"purpose"`
	Job        string        `json:"job,omitempty"`
	Opened     uint64        `json:"opened_ms"`
	Height     uint64        `json:"opened_height"`
	Amount     amount.Amount `json:"amount"`
	Open       bool          `json:"open"`
	Balance    amount.Amount `json:"balance"`
	Unreserved amount.Amount `json:"unreserved"`
	Paid       amount.Amount `json:"paid"`
	Lock       amount.Amount `json:"lock"` // the deposit, beside the balance
	Leases     uint32        `json:"leases"`
}

// holds is all that comes back when nothing more is paid.
func (e *escrowLine) holds() amount.Amount { return e.Balance + e.Lock }

// escrowOptions are the flags of escrow ls.
type escrowOptions struct {
	job, purpose string
	all, closed  bool
	limit        int
}

func (a *app) escrowList() *cobra.Command {
	o := escrowOptions{}
	cmd := &cobra.Command{
		Use: "ls [OWNER]", Aliases: []string{"list"}, Short: "List escrows, the wallet's open ones",
		Long: `List the escrows of an account, the wallet's by default: those that are open, so that money
left behind by a program that was killed is found; with --all those that were closed too.`,
		Example: "  ucn escrow ls\n  ucn escrow ls --all --json\n  ucn escrow ls --job ucnj1...",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			r, err := a.escrowsWanted(l, &o, list)
			if err != nil {
				return err
			}
			lines := []escrowLine{}
			err = collect(o.limit, func(size int, token string) (int, string, error) {
				r.PageSize, r.PageToken = uint32(size), token
				page, err := l.Ledger.ListEscrows(ctx, r)
				for _, e := range page.GetEscrows() {
					lines = append(lines, escrowLineOf(e))
				}
				return len(lines), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(lines, func(w io.Writer) { printEscrows(w, lines) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.job, "job", "", "only those of a job (ucnj1...), whoever owns them")
	f.StringVar(&o.purpose, "purpose", "", "only of a purpose: job, bond, guarantee, ...")
	f.BoolVar(&o.all, "all", false, "closed ones too")
	f.BoolVar(&o.closed, "closed", false, "only closed ones")
	f.IntVar(&o.limit, "limit", 100, "how many; 0 is all, at most 100000")
	return cmd
}

func (a *app) escrowsWanted(l *link, o *escrowOptions, list []string) (
	*ledgerv1.ListEscrowsRequest, error,
) {
	r := &ledgerv1.ListEscrowsRequest{
		Chain: l.Chain, Order: ledgerv1.Order_ORDER_NEWEST,
		Openness: ledgerv1.Openness_OPENNESS_OPEN,
	}
	if o.all {
		r.Openness = ledgerv1.Openness_OPENNESS_UNSPECIFIED
	}
	if o.closed {
		r.Openness = ledgerv1.Openness_OPENNESS_CLOSED
	}
	if o.job != "" {
		job, err := parseJob(o.job)
		if err != nil {
			return nil, err
		}
		r.Subject = job[:]
	}
	if o.job == "" || len(list) > 0 {
		owner, err := a.accountOf(list)
		if err != nil {
			return nil, err
		}
		r.Owner = owner[:]
	}
	if o.purpose != "" {
		number := chainv1.Purpose_value["PURPOSE_"+strings.ToUpper(o.purpose)]
		if number == 0 {
			return nil, usagef("--purpose %q is none of job, name, file, bond, guarantee, budget",
				o.purpose)
		}
		r.Purpose = chainv1.Purpose(number)
	}
	return r, nil
}

func escrowLineOf(e *ledgerv1.EscrowEntry) escrowLine {
	return escrowLine{
		Escrow: bytesText(id.Escrow, e.GetId()), Owner: bytesText(id.Account, e.GetOwner()),
		Purpose: reasonText(e.GetPurpose().String(), "PURPOSE_"),
		Job:     bytesText(id.Job, e.GetSubject()), Opened: e.GetOpenedTime(),
		Height: e.GetOpenedHeight(), Amount: amount.Amount(e.GetAmount()),
		Open: e.GetEscrow() != nil, Balance: amount.Amount(e.GetEscrow().GetBalance()),
		Unreserved: amount.Amount(e.GetUnreserved()), Paid: amount.Amount(e.GetEscrow().GetPaid()),
		Lock: amount.Amount(e.GetEscrow().GetLock()), Leases: e.GetEscrow().GetLive(),
	}
}

func printEscrows(w io.Writer, lines []escrowLine) {
	if len(lines) == 0 {
		printf(w, "no such escrow; closed ones are listed with --all\n")
		return
	}
	printf(w, "OPENED\tPURPOSE\tSTATE\tHOLDS\tFREE\tPAID\tESCROW\n")
	for _, e := range lines {
		state := "closed"
		if e.Open {
			state = "open, " + many(e.Leases, "lease")
		}
		printf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", stamp(e.Opened), e.Purpose, state,
			amount.Text(e.holds()), amount.Text(e.Unreserved), amount.Text(e.Paid), e.Escrow)
	}
}

type eventLine struct {
	Time        uint64          `json:"time_ms"`
	Height      uint64          `json:"height"`
	Transaction string          `json:"transaction"`
	Account     string          `json:"account"`
	Kind        string          `json:"kind"`
	Lease       string          `json:"lease,omitempty"`
	Amount      amount.Amount   `json:"amount"`
	Text        string          `json:"text"`
	Operation   json.RawMessage `json:"operation"`
}

func (a *app) escrowStory() *cobra.Command {
	return &cobra.Command{
		Use: "story ESCROW", Short: "Tell everything that happened to an escrow, also a closed one",
		Example: "  ucn escrow story ucne1...", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			escrow, err := parseEscrow(list[0])
			if err != nil {
				return err
			}
			lines := []eventLine{}
			r := &ledgerv1.ListEscrowEventsRequest{Chain: l.Chain, Escrow: escrow[:]}
			err = collect(0, func(size int, token string) (int, string, error) {
				r.PageSize, r.PageToken = uint32(size), token
				page, err := l.Ledger.ListEscrowEvents(ctx, r)
				for _, e := range page.GetEvents() {
					raw, err := rawJSON(e.GetOperation())
					if err != nil {
						return 0, "", err
					}
					lines = append(lines, eventLine{
						Time: e.GetTime(), Height: e.GetHeight(), Text: escrowEventText(e),
						Transaction: hex.EncodeToString(e.GetTransaction()), Operation: raw,
						Account: bytesText(id.Account, e.GetAccount()),
						Kind:    reasonText(e.GetKind().String(), kindPrefix),
						Lease:   bytesText(id.Lease, e.GetLease()),
						Amount:  amount.Amount(e.GetOutcome().GetAmount()),
					})
				}
				return len(lines), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(lines, func(w io.Writer) {
				printf(w, "TIME\tBLOCK\tWHAT\tBY\tLEASE\n")
				for _, e := range lines {
					lease := "-"
					if e.Lease != "" {
						lease = e.Lease[:12] + "…"
					}
					printf(w, "%s\t%d\t%s\t%s…\t%s\n", stamp(e.Time), e.Height, e.Text,
						e.Account[:min(12, len(e.Account))], lease)
				}
			})
		}),
	}
}

// leasesUnder lists the leases under an escrow that are still on the chain.
func leasesUnder(ctx context.Context, l *link, escrow tx.EscrowID) ([]tx.LeaseID, error) {
	var leases []tx.LeaseID
	r := &ledgerv1.ListLeasesRequest{Chain: l.Chain, Escrow: escrow[:]}
	seen := 0
	err := collect(0, func(size int, token string) (int, string, error) {
		r.PageSize, r.PageToken = uint32(size), token
		page, err := l.Ledger.ListLeases(ctx, r)
		for _, e := range page.GetLeases() {
			if seen++; e.GetState() != nil && len(e.GetId()) == len(tx.LeaseID{}) {
				leases = append(leases, tx.LeaseID(e.GetId()))
			}
		}
		return seen, page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, fmt.Errorf("list the leases under the escrow: %w", err)
	}
	return leases, nil
}

// bigOf is a big-endian number of any length.
func bigOf(raw []byte) *big.Int { return new(big.Int).SetBytes(raw) }
