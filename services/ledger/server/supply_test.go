package server_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

// TestSupplyOfEarlierBlocks: what is said of a block later is what was said while it was the head;
// what is not kept is refused with what is.
func TestSupplyOfEarlierBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, nil)
		then := map[uint64]*ledgerv1.GetSupplyResponse{}
		supply := func(height uint64, prove bool) (*ledgerv1.GetSupplyResponse, error) {
			return a.GetSupply(t.Context(), &ledgerv1.GetSupplyRequest{Height: height, Prove: prove})
		}
		for nonce := uint64(6); nonce < 6+ledger.MaxSupplies; nonce++ {
			a.do(nonce, &tx.Transfer{To: a.n.Accounts[1], Amount: tx.Grains(nonce)})
			r, err := supply(0, false)
			if err != nil {
				t.Fatal(err)
			}
			then[r.GetHeight()] = r
		}
		head := a.chain.Head().Height
		first := head + 1 - ledger.MaxSupplies
		for _, height := range []uint64{first, first + 1, head - 1, head} {
			got, err := supply(height, false)
			if err != nil || !proto.Equal(got, then[height]) || got.GetHeight() != height {
				t.Errorf("block %d: %v, %v; it was %v", height, got, err, then[height])
			}
		}
		proven, err := supply(head, true)
		if err != nil || proven.GetProof() == nil {
			t.Errorf("the head's proof: %v", err)
		}
		refused := func(height uint64, prove bool, reason fault.Reason, from string) {
			t.Helper()
			_, err := supply(height, prove)
			if !errors.Is(err, reason) || fault.From(err).Value("first") != from {
				t.Errorf("block %d: %v", height, err)
			}
		}
		text := func(n uint64) string { return strconv.FormatUint(n, 10) }
		refused(first-1, false, ledger.ReasonNotKept, text(first))
		refused(head-1, true, ledger.ReasonNotKept, text(head))
		refused(head+1, false, ledger.ReasonNotFound, "")
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// slow is an index that takes nothing more once it is told so.
type slow struct {
	ledgertest.Index
	stopped bool
}

var errSlow = errors.New("the index takes nothing")

func (s *slow) Put(ctx context.Context, entries []ledger.IndexEntry) error {
	if s.stopped {
		return errSlow
	}
	return s.Index.Put(ctx, entries)
}

// TestIncompleteListsSaySo: while the index is behind, every list names how far.
func TestIncompleteListsSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		index := &slow{}
		a := tellStory(t, index)
		account, escrow := a.n.Accounts[0][:], a.story.Escrow[:]
		lease := a.story.Leases[0][:]
		type answer interface {
			GetIndexed() uint64
			GetHead() uint64
		}
		ask := func() []answer {
			history, err := a.ListTransactions(t.Context(),
				&ledgerv1.ListTransactionsRequest{Account: account})
			escrows, err2 := a.ListEscrows(t.Context(), &ledgerv1.ListEscrowsRequest{Owner: account})
			events, err3 := a.ListEscrowEvents(t.Context(),
				&ledgerv1.ListEscrowEventsRequest{Escrow: escrow})
			leases, err4 := a.ListLeases(t.Context(), &ledgerv1.ListLeasesRequest{Escrow: escrow})
			charges, err5 := a.ListCharges(t.Context(), &ledgerv1.ListChargesRequest{Lease: lease})
			if err := errors.Join(err, err2, err3, err4, err5); err != nil {
				t.Fatal(err)
			}
			return []answer{history, escrows, events, leases, charges}
		}
		head := a.chain.Head().Height
		for i, r := range ask() {
			if r.GetIndexed() != head || r.GetHead() != head {
				t.Errorf("list %d is of %d of %d, want all of %d", i, r.GetIndexed(), r.GetHead(),
					head)
			}
		}
		index.stopped = true
		a.do(6, &tx.Transfer{To: a.n.Accounts[1], Amount: 1})
		for i, r := range ask() {
			if r.GetIndexed() != head || r.GetHead() != head+1 {
				t.Errorf("list %d is of %d of %d, want %d of %d", i, r.GetIndexed(), r.GetHead(),
					head, head+1)
			}
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}
