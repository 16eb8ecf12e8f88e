package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Bounds of deciding holdbacks.
const (
	holdbackWindow = 24 * time.Hour // of the chain: after it silence has accepted
	maxDecided     = 10_000         // leases of a job that are looked at
	decidedAtOnce  = 200            // in one transaction
	maxEvidence    = 1 << 30        // bytes of a file
)

// heldLease is a lease with a holdback.
type heldLease struct {
	Lease    string        `json:"lease"`
	Holdback amount.Amount `json:"holdback"`
	// Held waits for the owner now; what a running lease earns comes to it.
	Held amount.Amount `json:"held"`
	// State is running, waits, accepted, rejected, or over: silence has accepted it.
	State string `json:"state"`
	// Until is when silence accepts; zero while it runs.
	Until *time.Time `json:"until,omitempty"`

	id tx.LeaseID
}

// decision is what job accept and job reject print.
type decision struct {
	Job      string        `json:"job"`
	Decision string        `json:"decision"`
	Evidence string        `json:"evidence,omitempty"`
	Sum      amount.Amount `json:"amount"`
	Leases   []heldLease   `json:"leases"`
	Sent     []string      `json:"transactions"`
}

func (a *app) jobAccept() *cobra.Command {
	only := []string{}
	cmd := &cobra.Command{
		Use: "accept JOB", Short: "Accept a job's work: pay its hosts what is held back",
		Long: `Pay the hosts of a job what was held back of their leases (job run --holdback), once you
have looked at the work. Without it they get the same a day after their lease ended, unless you
reject.

All leases of the job that have ended are accepted; name single ones with --lease, also such as
still run: what they earn from then on is paid at once.`,
		Example: "  ucn job accept ucnj1...\n  ucn job accept ucnj1... --lease ucnl1...",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			return a.decide(ctx, l, &decision{Job: list[0], Decision: "accepted"}, only,
				func(lease tx.LeaseID) tx.Operation { return &tx.Accept{Lease: lease} })
		}),
	}
	cmd.Flags().StringSliceVar(&only, "lease", nil, "only these leases (ucnl1...)")
	return cmd
}

func (a *app) jobReject() *cobra.Command {
	only, evidence := []string{}, ""
	cmd := &cobra.Command{
		Use: "reject JOB --evidence FILE", Short: "Reject a job's work: burn what is held back",
		Long: `Refuse to pay what was held back of a job's leases. It burns: it comes back to nobody, so
that neither side gains by lying. It must be done within a day after a lease ended.

The SHA-256 of a file with your evidence goes to the chain, the file stays with you: keep it. All
leases of the job that have ended are rejected; name single ones with --lease.`,
		Example: "  ucn job reject ucnj1... --evidence why.txt",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			hash, err := hashFile(evidence)
			if err != nil {
				return err
			}
			d := &decision{Job: list[0], Decision: "rejected", Evidence: hash.String()}
			return a.decide(ctx, l, d, only, func(lease tx.LeaseID) tx.Operation {
				return &tx.Reject{Lease: lease, Evidence: hash}
			})
		}),
	}
	cmd.Flags().StringSliceVar(&only, "lease", nil, "only these leases (ucnl1...)")
	cmd.Flags().StringVar(&evidence, "evidence", "", "file that says why; needed")
	return cmd
}

func hashFile(path string) (hash tx.Hash, err error) {
	if path == "" {
		return hash, usagef("--evidence names no file: write down what is wrong with the work")
	}
	f, err := os.Open(path)
	if err != nil {
		return hash, usagef("--evidence: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxEvidence+1))
	switch {
	case err != nil:
		return hash, fmt.Errorf("read the evidence: %w", err)
	case n == 0 || n > maxEvidence:
		return hash, usagef("--evidence %s must hold 1 byte to 1 GiB", path)
	}
	return tx.Hash(h.Sum(nil)), nil
}

// decide sends a decision about the leases that are to be decided.
func (a *app) decide(
	ctx context.Context, l *link, d *decision, only []string, decide func(tx.LeaseID) tx.Operation,
) error {
	wanted := map[tx.LeaseID]bool{}
	for _, text := range only {
		lease, err := parseLease(text)
		if err != nil {
			return err
		}
		wanted[lease] = true
	}
	held, err := heldOf(ctx, l, d.Job)
	if err != nil {
		return err
	}
	open, err := decidable(held, wanted, l.Now())
	if err != nil {
		return err
	}
	d.Sent = []string{}
	for part := range slices.Chunk(open, decidedAtOnce) {
		operations := make([]tx.Operation, len(part))
		for i := range part {
			operations[i] = decide(part[i].id)
		}
		r, err := l.Sender.Send(ctx, operations...)
		if err != nil {
			return fmt.Errorf("%d of %d leases are %s: %w", len(d.Leases), len(open), d.Decision, err)
		}
		d.Sent = append(d.Sent, r.ID.String())
		for i := range part {
			d.Sum += part[i].Held
			part[i].State = d.Decision
		}
		d.Leases = append(d.Leases, part...)
	}
	return a.emit(d, d.print)
}

func (d *decision) print(w io.Writer) {
	for _, l := range d.Leases {
		printf(w, "%s\t%s\t%s\n", d.Decision, l.Lease, amount.Text(l.Held))
	}
	if d.Evidence != "" {
		printf(w, "burnt\t%s\nevidence\tsha256 %s\n", amount.Text(d.Sum), d.Evidence)
	} else {
		printf(w, "paid\t%s\n", amount.Text(d.Sum))
	}
	for _, text := range d.Sent {
		printf(w, "transaction\t%s\n", text)
	}
}

// decidable picks the leases whose holdback can be decided: those named, or all that have ended.
func decidable(
	held []heldLease, wanted map[tx.LeaseID]bool, now time.Time,
) (open []heldLease, err error) {
	running, named := 0, len(wanted) > 0
	for i := range held {
		one := &held[i]
		switch {
		case named && !wanted[one.id]:
			continue
		case one.State == "waits" && one.Until.After(now), one.State == "running" && wanted[one.id]:
			open = append(open, *one)
		case one.State == "running":
			running++
		case wanted[one.id]:
			return nil, fmt.Errorf("the holdback of lease %s is %s already", one.Lease, one.State)
		}
		delete(wanted, one.id)
	}
	switch {
	case len(wanted) > 0:
		for lease := range wanted {
			return nil, fmt.Errorf("lease %s is none of this job's with something held back",
				id.Bech32(id.Lease, lease))
		}
	case len(open) == 0 && running > 0:
		return nil, fmt.Errorf("%d leases of the job still run: wait for their end, or name them "+
			"with --lease", running)
	case len(open) == 0:
		return nil, errors.New("nothing of this job is held back and undecided")
	}
	return open, nil
}

// heldOf finds the leases of a job of ours whose holdback the chain still knows.
func heldOf(ctx context.Context, l *link, text string) (held []heldLease, err error) {
	job, err := parseJob(text)
	if err != nil {
		return nil, err
	}
	r := &ledgerv1.ListEscrowsRequest{
		Chain: l.Chain, Subject: job[:], Owner: l.Account[:],
		Openness: ledgerv1.Openness_OPENNESS_OPEN,
	}
	escrows := 0
	err = collect(maxWaited, func(size int, token string) (int, string, error) {
		r.PageSize, r.PageToken = uint32(size), token
		page, err := l.Ledger.ListEscrows(ctx, r)
		for _, e := range page.GetEscrows() {
			more, err := heldUnder(ctx, l, e.GetId())
			if err != nil {
				return escrows, "", err
			}
			held = append(held, more...)
			escrows++
		}
		return escrows, page.GetNextPageToken(), err
	})
	if err == nil && escrows == 0 {
		err = fmt.Errorf("%s has no open escrow for the job %s", accountText(l.Account), text)
	}
	return held, err
}

// heldUnder lists the leases of an escrow that have a holdback and still stand.
func heldUnder(ctx context.Context, l *link, escrow []byte) (held []heldLease, err error) {
	r := &ledgerv1.ListLeasesRequest{Chain: l.Chain, Escrow: escrow}
	seen := 0
	err = collect(maxDecided, func(size int, token string) (int, string, error) {
		r.PageSize, r.PageToken = uint32(size), token
		page, err := l.Ledger.ListLeases(ctx, r)
		for _, e := range page.GetLeases() {
			seen++
			if e.GetLease().GetHoldback() == 0 || len(e.GetId()) != len(tx.LeaseID{}) {
				continue
			}
			one, err := heldBack(ctx, l, tx.LeaseID(e.GetId()))
			if err != nil {
				return seen, "", err
			}
			if one != nil {
				held = append(held, *one)
			}
		}
		return seen, page.GetNextPageToken(), err
	})
	return held, err
}

// heldBack reads the holdback of a lease; nil if the lease has been removed.
func heldBack(ctx context.Context, l *link, lease tx.LeaseID) (*heldLease, error) {
	answer, err := l.Ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{
		Chain: l.Chain, Lease: lease[:],
	})
	switch {
	case errors.Is(err, fault.NotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look a lease up: %w", err)
	}
	s := answer.GetLease()
	one := &heldLease{
		Lease: id.Bech32(id.Lease, lease), Holdback: amount.Amount(s.GetLease().GetHoldback()),
		Held: amount.Amount(s.GetWithheld()), State: "running", id: lease,
	}
	end := s.GetUntil()
	if s.GetEnd() != 0 {
		end = s.GetEnd()
	}
	ended := time.UnixMilli(int64(end))
	if ended.Before(l.Now()) {
		until := ended.Add(holdbackWindow)
		one.State, one.Until = "waits", &until
		if !until.After(l.Now()) {
			one.State = "over"
		}
	}
	switch s.GetHoldback() {
	case chainv1.Holdback_HOLDBACK_ACCEPTED:
		one.State = "accepted"
	case chainv1.Holdback_HOLDBACK_REJECTED:
		one.State = "rejected"
	}
	return one, nil
}
