package jobrun_test

import (
	"errors"
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/id"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

const leaseFee = 50_000 // grains

// TestLeaseFeeIsBilled: what the scheduler took is on the bill, proven, and explains the balance,
// also where the ledger keeps no list.
func TestLeaseFeeIsBilled(t *testing.T) {
	for name, noIndex := range map[string]bool{"listed": false, "in blocks": true} {
		t.Run(name, func(t *testing.T) {
			n := clitest.Start(t, ownerKey(), host())
			n.Ledger.NoIndex, n.Market.LeaseFee = noIndex, leaseFee
			report, err := runner(t, n, jobrun.Folder(t.TempDir()), &life{}).Run(t.Context(), request(t))
			if err != nil {
				t.Fatal(err)
			}
			b := report.Bill
			if b.LeaseFees != leaseFee || b.Paid != runPrice || len(report.Warnings) > 0 {
				t.Errorf("paid %v, lease fees %v: %q", b.Paid, b.LeaseFees, report.Warnings)
			}
			if spent := *b.Before - b.After; spent != b.Paid+b.LeaseFees+b.Fees+b.Locked {
				t.Errorf("the balance fell by %v: %+v", spent, b)
			}
		})
	}
}

// TestLeaseFeeIsGranted: the escrow grants what the scheduler says, for as many leases as the job
// may take, within what it may cost.
func TestLeaseFeeIsGranted(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*jobrun.Request)
		total  uint64
	}{
		"once":         {func(*jobrun.Request) {}, (2 + 8) * leaseFee},
		"with retries": {func(q *jobrun.Request) { q.File.Limits.Retries = 2 }, (2*3 + 8) * leaseFee},
		"an array": {func(q *jobrun.Request) {
			q.File.Array.Count, q.File.Array.Parallel = 20, 2
		}, (2*20 + 2*8) * leaseFee},
		"a service": {func(q *jobrun.Request) { q.File.Trigger = "always" }, 1000 * leaseFee},
		"that may cost less": {func(q *jobrun.Request) {
			q.File.Trigger, q.File.Payment.MaxTotal = "always", 2_000_000
		}, 2_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			n := clitest.Start(t, ownerKey(), host())
			n.Market.LeaseFee = leaseFee
			q := request(t)
			q.Detach = true
			tt.change(&q)
			r := runner(t, n, jobrun.Folder(t.TempDir()), &life{})
			report, err := r.Run(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			escrow, err := id.ParseBech32(id.Escrow, report.Escrow)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := r.Session.Ledger.GetEscrow(t.Context(), &ledgerv1.GetEscrowRequest{
				Chain: r.Session.Chain, Escrow: escrow[:],
			})
			if err != nil {
				t.Fatal(err)
			}
			e := answer.GetEscrow()
			if e.GetTerms().GetLeaseFee() != leaseFee || e.GetTerms().GetLeaseFeeTotal() != tt.total ||
				e.GetTerms().GetMaxTotal() != uint64(q.File.Payment.MaxTotal) {
				t.Errorf("granted are %+v, want %d in all", e.GetTerms(), tt.total)
			}
		})
	}
}

// TestLeaseFeeIsRefused: more than the owner allows, or all that the job may cost, is not signed,
// and nothing is sent.
func TestLeaseFeeIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		fee    tx.Grains
		change func(*jobrun.Request)
	}{
		"above the default": {1_000_001, func(*jobrun.Request) {}},
		"above the owner's": {leaseFee, func(q *jobrun.Request) {
			q.File.Payment.MaxLeaseFee = leaseFee - 1
		}},
		"all of the money": {leaseFee, func(q *jobrun.Request) { q.File.Payment.MaxTotal = leaseFee }},
		"tasks that cost more in fees alone": {leaseFee, func(q *jobrun.Request) {
			q.File.Array.Count, q.File.Payment.MaxTotal = 40, amount.Amount(40*leaseFee)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			n := clitest.Start(t, ownerKey(), host())
			q := request(t)
			tt.change(&q)
			n.Market.LeaseFee = tt.fee
			r := runner(t, n, jobrun.Folder(t.TempDir()), &life{})
			if _, err := r.Run(t.Context(), q); !errors.Is(err, jobrun.ErrFee) {
				t.Errorf("Run = %v, want %v", err, jobrun.ErrFee)
			}
			if n.Ledger.Escrows() != 0 || n.Market.Jobs() != 0 {
				t.Errorf("%d escrows are open, %d jobs were queued", n.Ledger.Escrows(), n.Market.Jobs())
			}
		})
	}
}
