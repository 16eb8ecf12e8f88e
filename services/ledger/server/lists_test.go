package server_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

func TestListsRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, &ledgertest.Index{})
		account, escrow := a.n.Accounts[0][:], a.story.Escrow[:]
		good, err := a.ListTransactions(t.Context(), &ledgerv1.ListTransactionsRequest{
			Account: account, PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		token := good.GetNextPageToken()
		history := func(change func(*ledgerv1.ListTransactionsRequest)) error {
			r := &ledgerv1.ListTransactionsRequest{Account: account, PageSize: 1}
			change(r)
			_, err := a.ListTransactions(t.Context(), r)
			return err
		}
		escrows := func(r *ledgerv1.ListEscrowsRequest) error {
			_, err := a.ListEscrows(t.Context(), r)
			return err
		}
		events := func(r *ledgerv1.ListEscrowEventsRequest) error {
			_, err := a.ListEscrowEvents(t.Context(), r)
			return err
		}
		_, noLease := a.ListCharges(t.Context(), &ledgerv1.ListChargesRequest{Lease: escrow})
		_, noEscrow := a.ListLeases(t.Context(), &ledgerv1.ListLeasesRequest{Escrow: account})
		_, ahead := a.GetHistoryProof(t.Context(), &ledgerv1.GetHistoryProofRequest{Height: 1 << 40})
		_, nonsense := a.Search(t.Context(), &ledgerv1.SearchRequest{Query: "hello"})
		_, short := a.Search(t.Context(), &ledgerv1.SearchRequest{Query: "abcde"})
		_, long := a.Search(t.Context(), &ledgerv1.SearchRequest{
			Query: string(bytes.Repeat([]byte("a"), 129))})
		_, fees := a.GetFees(t.Context(), &ledgerv1.GetFeesRequest{Blocks: 101})
		_, operations := a.GetFees(t.Context(), &ledgerv1.GetFeesRequest{Operations: 1001})
		_, chain := a.GetSupply(t.Context(), &ledgerv1.GetSupplyRequest{Chain: "other"})
		watch := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{From: 1 << 40}, &blocks{ctx: t.Context()})
		type list = ledgerv1.ListTransactionsRequest
		tests := []struct {
			name string
			err  error
			want fault.Reason
		}{
			{"short account", history(func(r *list) { r.Account = account[:31] }), ledger.ReasonBadRequest},
			{"page of 1,001", history(func(r *list) { r.PageSize = 1001 }), ledger.ReasonBadRequest},
			{"direction", history(func(r *list) { r.Direction = 3 }), ledger.ReasonBadRequest},
			{"order", history(func(r *list) { r.Order = 3 }), ledger.ReasonBadRequest},
			{"kind 0", history(func(r *list) { r.Kinds = append(r.Kinds, 0) }), ledger.ReasonBadRequest},
			{"kind 99", history(func(r *list) { r.Kinds = append(r.Kinds, 99) }), ledger.ReasonBadRequest},
			{"33 kinds", history(func(r *list) { r.Kinds = make([]ledgerv1.OperationKind, 33) }),
				ledger.ReasonBadRequest},
			{"heights", history(func(r *list) { r.FromHeight, r.ToHeight = 3, 2 }),
				ledger.ReasonBadRequest},
			{"times", history(func(r *list) { r.FromTime, r.ToTime = 3, 2 }), ledger.ReasonBadRequest},
			{"damaged token", history(func(r *list) { r.PageToken = "x" + token }),
				ledger.ReasonBadPageToken},
			{"token of another account", history(func(r *list) {
				r.PageToken, r.Account = token, a.n.Accounts[1][:]
			}), ledger.ReasonBadPageToken},
			{"token of another order", history(func(r *list) {
				r.PageToken, r.Order = token, ledgerv1.Order_ORDER_OLDEST
			}), ledger.ReasonBadPageToken},
			{"token of another list", events(&ledgerv1.ListEscrowEventsRequest{Escrow: escrow,
				PageToken: token}), ledger.ReasonBadPageToken},
			{"nobody's escrows", escrows(&ledgerv1.ListEscrowsRequest{}), ledger.ReasonBadRequest},
			{"zero owner", escrows(&ledgerv1.ListEscrowsRequest{Owner: make([]byte, 32)}),
				ledger.ReasonBadRequest},
			{"short subject", escrows(&ledgerv1.ListEscrowsRequest{Subject: []byte{1}}),
				ledger.ReasonBadRequest},
			{"purpose", escrows(&ledgerv1.ListEscrowsRequest{Owner: account, Purpose: 99}),
				ledger.ReasonBadRequest},
			{"openness", escrows(&ledgerv1.ListEscrowsRequest{Owner: account, Openness: 3}),
				ledger.ReasonBadRequest},
			{"no such escrow", events(&ledgerv1.ListEscrowEventsRequest{Escrow: account}),
				ledger.ReasonNotFound},
			{"leases of no escrow", noEscrow, ledger.ReasonNotFound},
			{"charges of no lease", noLease, ledger.ReasonNotFound},
			{"history ahead", ahead, ledger.ReasonNotFound},
			{"nonsense", nonsense, ledger.ReasonBadRequest},
			{"five digits", short, ledger.ReasonBadRequest},
			{"long query", long, ledger.ReasonBadRequest},
			{"101 blocks", fees, ledger.ReasonBadRequest},
			{"1,001 operations", operations, ledger.ReasonBadRequest},
			{"unknown chain", chain, ledger.ReasonChainUnknown},
			{"watch far ahead", watch, ledger.ReasonBadRequest},
			{"watch an account far ahead", a.WatchBlocks(&ledgerv1.WatchBlocksRequest{
				From: 1 << 40, Account: account}, &blocks{ctx: t.Context()}), ledger.ReasonBadRequest},
			{"watch a short account", a.WatchBlocks(&ledgerv1.WatchBlocksRequest{
				Account: account[1:]}, &blocks{ctx: t.Context()}), ledger.ReasonBadRequest},
			{"watch a short escrow", a.WatchBlocks(&ledgerv1.WatchBlocksRequest{
				Escrow: escrow[1:]}, &blocks{ctx: t.Context()}), ledger.ReasonBadRequest},
			{"watch both", a.WatchBlocks(&ledgerv1.WatchBlocksRequest{
				Account: account, Escrow: escrow}, &blocks{ctx: t.Context()}), ledger.ReasonBadRequest},
		}
		for _, tt := range tests {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%s: %v, want %s", tt.name, tt.err, tt.want)
			}
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestNoIndex: a ledger without an index says so.
func TestNoIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, nil)
		_, err := a.ListTransactions(t.Context(), &ledgerv1.ListTransactionsRequest{
			Account: a.n.Accounts[0][:]})
		_, proof := a.GetHistoryProof(t.Context(), &ledgerv1.GetHistoryProofRequest{})
		if !errors.Is(err, ledger.ReasonNoIndex) || !errors.Is(proof, ledger.ReasonNoIndex) {
			t.Errorf("got %v, %v", err, proof)
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// blocks collects a stream of blocks; it ends itself after the last that is wanted.
type blocks struct {
	grpc.ServerStream
	ctx  context.Context
	got  []*ledgerv1.WatchBlocksResponse
	want int
	each func(n int)
}

var errEnough = errors.New("enough")

func (b *blocks) Context() context.Context { return b.ctx }

func (b *blocks) Send(r *ledgerv1.WatchBlocksResponse) error {
	b.got = append(b.got, r)
	if b.each != nil {
		b.each(len(b.got))
	}
	if len(b.got) == b.want {
		return errEnough
	}
	return nil
}

func TestWatchResumesWithoutGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, nil)
		head := a.chain.Head().Height
		nonce := uint64(6)
		first := &blocks{ctx: t.Context(), want: int(head) - 2, each: func(n int) {
			if n == 3 { // a block comes while the reader is behind
				a.do(nonce, &tx.Transfer{To: a.n.Accounts[1], Amount: 1})
			}
		}}
		err := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{From: 2, Bodies: true}, first)
		rest := &blocks{ctx: t.Context(), want: 3, each: func(n int) {
			if n == 2 {
				go a.do(nonce+1, &tx.Transfer{To: a.n.Accounts[1], Amount: 1})
			}
		}}
		from := 2 + uint64(len(first.got))
		err2 := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{From: from}, rest)
		if !errors.Is(err, errEnough) || !errors.Is(err2, errEnough) {
			t.Fatalf("ended with %v, %v", err, err2)
		}
		for i, r := range append(first.got, rest.got...) {
			h := r.GetBlock().GetHeader().GetHeight()
			found, err := a.chain.Block(t.Context(), uint64(i+2))
			if h != uint64(i+2) || err != nil || !bytes.Equal(r.GetHash(), found.Hash[:]) ||
				(r.GetBlock().GetBody() != nil) != (i < len(first.got)) {
				t.Errorf("block %d came as %d: %v", i+2, h, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err = a.WatchBlocks(&ledgerv1.WatchBlocksRequest{AfterHead: true}, &blocks{ctx: ctx})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a reader that left: %v", err)
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, nil)
		r, err := a.GetFees(t.Context(), &ledgerv1.GetFeesRequest{Operations: 10, BodyBytes: 1000,
			Blocks: 3})
		if err != nil {
			t.Fatal(err)
		}
		if want := 10*r.GetOperationFee() + 1000*r.GetByteFee(); r.GetFee() != want ||
			r.GetSafeFee() <= r.GetFee() || r.GetOperationFeeCeiling() < r.GetOperationFee() {
			t.Errorf("fees %v", r)
		}
		head := a.chain.Head().Height
		for i, b := range r.GetBlocks() {
			found, _ := a.chain.Block(t.Context(), head-uint64(i))
			if b.GetHeight() != head-uint64(i) || b.GetBytes() != found.Block.Header.BodyLength ||
				b.GetOperations() != found.Block.Header.OperationCount {
				t.Errorf("block %v", b)
			}
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
		a.start(nil)
		again, err := a.GetFees(t.Context(), &ledgerv1.GetFeesRequest{Operations: 10,
			BodyBytes: 1000, Blocks: 3})
		if err != nil || len(r.GetBlocks()) != 3 || !proto.Equal(again, r) {
			t.Errorf("after a restart: %v, %v", again, err)
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}
