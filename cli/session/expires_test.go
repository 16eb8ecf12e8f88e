package session_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/cli/session"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// clocks is a ledger that tells where its clocks stand.
type clocks struct {
	ledgerv1.LedgerServiceClient

	answer *ledgerv1.GetChainResponse
	err    error
}

func (c clocks) GetChain(context.Context, *ledgerv1.GetChainRequest, ...grpc.CallOption) (
	*ledgerv1.GetChainResponse, error,
) {
	return c.answer, c.err
}

// TestExpiresIn: an escrow's life is counted by the accrual clock, which a rest of the chain leaves
// far behind the wall clock; a ledger that does not tell it has told that of its head.
func TestExpiresIn(t *testing.T) {
	day := uint64((24 * time.Hour).Milliseconds())
	head := &chainv1.Header{Time: 50 * day, Accrual: 50 * day}
	away := errors.New("away")
	for name, c := range map[string]struct {
		ledger clocks
		life   time.Duration
		want   uint64
	}{
		"after a rest": {clocks{answer: &ledgerv1.GetChainResponse{
			Head: head, Now: 90 * day, Accrual: 50*day + 60_000,
		}}, time.Hour, 50*day + 60_000 + day/24},
		"not told": {clocks{answer: &ledgerv1.GetChainResponse{Head: head}}, 0, 50 * day},
		"negative": {clocks{answer: &ledgerv1.GetChainResponse{Head: head}}, -time.Hour, 50 * day},
		"away":     {clocks{err: away}, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &session.Session{Ledger: c.ledger}
			got, err := s.ExpiresIn(t.Context(), c.life)
			if !errors.Is(err, c.ledger.err) || uint64(got) != c.want {
				t.Errorf("ExpiresIn = %d, %v, want %d", got, err, c.want)
			}
		})
	}
}
