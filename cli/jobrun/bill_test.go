package jobrun_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/fault"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// slow is a ledger that answers, but takes its time for every block and transaction, and is away
// at each escrow's first asking.
type slow struct {
	ledgerv1.LedgerServiceClient
	takes  time.Duration
	away   int
	blocks int
}

func (s *slow) wait(ctx context.Context) error {
	timer := time.NewTimer(s.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) GetBlock(ctx context.Context, r *ledgerv1.GetBlockRequest, o ...grpc.CallOption) (
	*ledgerv1.GetBlockResponse, error,
) {
	s.blocks++
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.LedgerServiceClient.GetBlock(ctx, r, o...)
}

func (s *slow) GetTransaction(
	ctx context.Context, r *ledgerv1.GetTransactionRequest, o ...grpc.CallOption,
) (*ledgerv1.GetTransactionResponse, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.LedgerServiceClient.GetTransaction(ctx, r, o...)
}

func (s *slow) GetEscrow(ctx context.Context, r *ledgerv1.GetEscrowRequest, o ...grpc.CallOption) (
	*ledgerv1.GetEscrowResponse, error,
) {
	if s.away > 0 {
		s.away--
		return nil, fault.New(fault.Unavailable, "AWAY", "back in a moment")
	}
	return s.LedgerServiceClient.GetEscrow(ctx, r, o...)
}

// TestBillTakesItsTime: only waiting for a ledger that is away is bounded, not the bill's work; and
// a ledger with a list of charges is not asked for every block.
func TestBillTakesItsTime(t *testing.T) {
	for name, noIndex := range map[string]bool{"listed": false, "in blocks": true} {
		t.Run(name, func(t *testing.T) {
			n := clitest.Start(t, ownerKey(), host())
			n.Ledger.NoIndex = noIndex
			r := runner(t, n, jobrun.Folder(t.TempDir()), &life{})
			ledger := &slow{r.Session.Ledger, 150 * time.Millisecond, 2, 0}
			r.Session.Ledger, r.Settle = ledger, 300*time.Millisecond
			report, err := r.Run(t.Context(), request(t))
			if err != nil {
				t.Fatal(err)
			}
			b := report.Bill
			if b.Paid != amount.Amount(runPrice) || b.After == 0 || b.Refunded == 0 ||
				len(report.Warnings) > 0 {
				t.Errorf("paid %v, refunded %v, left %v: %s", b.Paid, b.Refunded, b.After,
					strings.Join(report.Warnings, "; "))
			}
			if read := ledger.blocks > 2; read != noIndex { // one or two to find where it began
				t.Errorf("%d blocks were read", ledger.blocks)
			}
		})
	}
}
