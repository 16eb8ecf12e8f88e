package cli

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"

	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// warning is a ledger's client that says once when a list is incomplete because the ledger's index
// is behind: whoever reads it would take it for all there is.
type warning struct {
	ledgerv1.LedgerServiceClient

	to   io.Writer
	once sync.Once
}

// hush keeps it silent from now on: nobody is shown what is listed.
func (w *warning) hush() { w.once.Do(func() {}) }

// listed is every answer that is a list.
type listed interface {
	GetIndexed() uint64
	GetHead() uint64
}

func heard[R listed](w *warning, answer R, err error) (R, error) {
	if err == nil && answer.GetIndexed() < answer.GetHead() {
		w.once.Do(func() {
			printf(w.to, "ucn: this list is incomplete: the ledger has indexed block %d of %d, and "+
				"what came after is missing; ask again later\n", answer.GetIndexed(),
				answer.GetHead())
		})
	}
	return answer, err
}

// ListTransactions implements the client.
func (w *warning) ListTransactions(ctx context.Context, r *ledgerv1.ListTransactionsRequest,
	options ...grpc.CallOption) (*ledgerv1.ListTransactionsResponse, error) {
	answer, err := w.LedgerServiceClient.ListTransactions(ctx, r, options...)
	return heard(w, answer, err)
}

// ListEscrows implements the client.
func (w *warning) ListEscrows(ctx context.Context, r *ledgerv1.ListEscrowsRequest,
	options ...grpc.CallOption) (*ledgerv1.ListEscrowsResponse, error) {
	answer, err := w.LedgerServiceClient.ListEscrows(ctx, r, options...)
	return heard(w, answer, err)
}

// ListEscrowEvents implements the client.
func (w *warning) ListEscrowEvents(ctx context.Context, r *ledgerv1.ListEscrowEventsRequest,
	options ...grpc.CallOption) (*ledgerv1.ListEscrowEventsResponse, error) {
	answer, err := w.LedgerServiceClient.ListEscrowEvents(ctx, r, options...)
	return heard(w, answer, err)
}

// ListLeases implements the client.
func (w *warning) ListLeases(ctx context.Context, r *ledgerv1.ListLeasesRequest,
	options ...grpc.CallOption) (*ledgerv1.ListLeasesResponse, error) {
	answer, err := w.LedgerServiceClient.ListLeases(ctx, r, options...)
	return heard(w, answer, err)
}

// ListCharges implements the client.
func (w *warning) ListCharges(ctx context.Context, r *ledgerv1.ListChargesRequest,
	options ...grpc.CallOption) (*ledgerv1.ListChargesResponse, error) {
	answer, err := w.LedgerServiceClient.ListCharges(ctx, r, options...)
	return heard(w, answer, err)
}
