package wire_test

import (
	"context"

	"google.golang.org/grpc"

	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

func (f *fakeLedger) ListTransactions(
	ctx context.Context, m *ledgerv1.ListTransactionsRequest,
) (*ledgerv1.ListTransactionsResponse, error) {
	return &ledgerv1.ListTransactionsResponse{}, f.calls.note(ctx, "ListTransactions", m)
}

func (f *fakeLedger) ListEscrows(
	ctx context.Context, m *ledgerv1.ListEscrowsRequest,
) (*ledgerv1.ListEscrowsResponse, error) {
	return &ledgerv1.ListEscrowsResponse{}, f.calls.note(ctx, "ListEscrows", m)
}

func (f *fakeLedger) ListEscrowEvents(
	ctx context.Context, m *ledgerv1.ListEscrowEventsRequest,
) (*ledgerv1.ListEscrowEventsResponse, error) {
	return &ledgerv1.ListEscrowEventsResponse{}, f.calls.note(ctx, "ListEscrowEvents", m)
}

func (f *fakeLedger) ListLeases(
	ctx context.Context, m *ledgerv1.ListLeasesRequest,
) (*ledgerv1.ListLeasesResponse, error) {
	return &ledgerv1.ListLeasesResponse{}, f.calls.note(ctx, "ListLeases", m)
}

func (f *fakeLedger) ListCharges(
	ctx context.Context, m *ledgerv1.ListChargesRequest,
) (*ledgerv1.ListChargesResponse, error) {
	return &ledgerv1.ListChargesResponse{}, f.calls.note(ctx, "ListCharges", m)
}

func (f *fakeLedger) Search(
	ctx context.Context, m *ledgerv1.SearchRequest,
) (*ledgerv1.SearchResponse, error) {
	return &ledgerv1.SearchResponse{}, f.calls.note(ctx, "Search", m)
}

func (f *fakeLedger) GetSupply(
	ctx context.Context, m *ledgerv1.GetSupplyRequest,
) (*ledgerv1.GetSupplyResponse, error) {
	return &ledgerv1.GetSupplyResponse{}, f.calls.note(ctx, "GetSupply", m)
}

func (f *fakeLedger) GetFees(
	ctx context.Context, m *ledgerv1.GetFeesRequest,
) (*ledgerv1.GetFeesResponse, error) {
	return &ledgerv1.GetFeesResponse{}, f.calls.note(ctx, "GetFees", m)
}

func (f *fakeLedger) GetHistoryProof(
	ctx context.Context, m *ledgerv1.GetHistoryProofRequest,
) (*ledgerv1.GetHistoryProofResponse, error) {
	return &ledgerv1.GetHistoryProofResponse{}, f.calls.note(ctx, "GetHistoryProof", m)
}

func (f *fakeLedger) GetBlock(
	ctx context.Context, m *ledgerv1.GetBlockRequest,
) (*ledgerv1.GetBlockResponse, error) {
	out := &ledgerv1.GetBlockResponse{}
	if m.GetHeight() == largeBlock {
		out.Block = large(largeBlock)
	}
	return out, f.calls.note(ctx, "GetBlock", m)
}

// noBlocks is from where there are none.
const noBlocks = 404

// heldBlocks is from where the stream does not end by itself.
const heldBlocks = 403

// WatchBlocks sends two blocks and ends.
func (f *fakeLedger) WatchBlocks(
	m *ledgerv1.WatchBlocksRequest, s grpc.ServerStreamingServer[ledgerv1.WatchBlocksResponse],
) error {
	if err := f.calls.note(s.Context(), "WatchBlocks", m); err != nil {
		return err
	}
	if m.GetFrom() == heldBlocks {
		if err := s.Send(&ledgerv1.WatchBlocksResponse{Block: &chainv1.Block{}}); err != nil {
			return err
		}
		<-s.Context().Done()
		return s.Context().Err()
	}
	if m.GetFrom() == noBlocks {
		return nil
	}
	for i := range uint64(2) {
		block := &chainv1.Block{Header: &chainv1.Header{Height: m.GetFrom() + i}}
		if m.GetFrom()+i == largeBlock {
			block = large(largeBlock)
		}
		err := s.Send(&ledgerv1.WatchBlocksResponse{Block: block})
		if err != nil {
			return err
		}
	}
	return nil
}
