package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/tx"
	textid "github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/pebble"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// archive is a chain on which a story was told, and its service.
type archive struct {
	*server.Server
	t     *testing.T
	n     *ledgertest.Network
	story *ledgertest.Story
	chain *ledger.Chain
	stop  func() error
	disk  ledgertest.Disk
	clock atomic.Int64
}

// tellStory tells a story, and closes the escrow after it.
func tellStory(t *testing.T, index ledger.Index) *archive {
	t.Helper()
	a := newArchive(t, index)
	for step := range a.story.Steps {
		a.tell(step)
	}
	return a
}

// newArchive is a chain on which nothing was told yet.
func newArchive(t *testing.T, index ledger.Index) *archive {
	t.Helper()
	n, err := ledgertest.NewNetwork(1, ledgertest.StoryAccounts)
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{t: t, n: n, story: ledgertest.NewStory(n)}
	a.clock.Store(a.story.Begin.UnixNano())
	a.start(index)
	return a
}

// tell commits the next steps of the story, as many as are given, in one block.
func (a *archive) tell(steps ...int) {
	a.t.Helper()
	var raw [][]byte
	for _, step := range steps {
		a.clock.Store(a.story.Time(step).UnixNano())
		raw = append(raw, a.story.Steps[step])
	}
	a.commit(raw...)
}

func (a *archive) start(index ledger.Index) {
	a.t.Helper()
	now := func() time.Time { return time.Unix(0, a.clock.Load()) }
	a.chain, a.stop = ledgertest.Start(a.t, ledger.Config{Pool: ledger.DefaultPool()}, ledger.Deps{
		Genesis: a.n.Genesis, Store: a.disk.Open(), Index: index, Clock: now,
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			return solo.New(solo.Default(), a.n.MaxStep(), solo.Deps{
				Key: a.n.Proposer, Head: head, Clock: now,
			})
		},
	})
	var err error
	a.Server, err = server.New(server.Config{}, server.Deps{Chains: []*ledger.Chain{a.chain}})
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *archive) commit(raw ...[]byte) {
	a.t.Helper()
	results, _, err := a.chain.Submit(a.t.Context(), raw, ledger.Committed)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			a.t.Fatal(r.Err)
		}
		receipt, err := tx.DecodeReceipt(r.Receipt)
		if err != nil || receipt.Status != chainv1.Status_STATUS_OK {
			a.t.Fatalf("%+v, %v", receipt, err)
		}
	}
}

// do commits an operation of account 0, which a story leaves at a nonce.
func (a *archive) do(nonce uint64, o tx.Operation) {
	body := a.n.Body(0, nonce, o)
	body.ValidUntil = tx.Millis(time.Unix(0, a.clock.Load()).Add(time.Hour).UnixMilli())
	a.commit(a.n.Sign(0, body))
}

// history asks for every page of an account's history.
func (a *archive) history(r *ledgerv1.ListTransactionsRequest) []*ledgerv1.TransactionEntry {
	a.t.Helper()
	return pages(a.t, r, a.ListTransactions, (*ledgerv1.ListTransactionsResponse).GetTransactions)
}

type listRequest interface {
	proto.Message
	GetPageToken() string
}

type listResponse interface {
	GetNextPageToken() string
	GetIndexed() uint64
}

// pages reads a list page by page.
func pages[Q listRequest, R listResponse, E any](t *testing.T, r Q,
	list func(context.Context, Q) (R, error), items func(R) []E) (all []E) {
	t.Helper()
	r = proto.CloneOf(r)
	for range 1000 {
		page, err := list(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, items(page)...)
		token := page.GetNextPageToken()
		if token == "" {
			return all
		}
		m := r.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName("page_token"), protoreflect.ValueOfString(token))
	}
	t.Fatal("the list does not end")
	return nil
}

func TestHistoriesOfAStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		index, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = index.Close() }()
		a := tellStory(t, index)
		a.checkHistories(t)
		a.checkLife(t)
		a.checkSearch(t)
		a.checkProofs(t)
		// Everything is found again after a start with an index that was lost.
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
		a.start(&ledgertest.Index{})
		a.checkHistories(t)
		a.checkLife(t)
		a.checkSearch(t)
		a.checkProofs(t)
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func (a *archive) checkHistories(t *testing.T) {
	t.Helper()
	owner, assigner, host := a.n.Accounts[0], a.n.Accounts[1], a.n.Accounts[2]
	sent := ledgerv1.Direction_DIRECTION_SENT
	received := ledgerv1.Direction_DIRECTION_RECEIVED
	kinds := func(k ...ledgerv1.OperationKind) []ledgerv1.OperationKind { return k }
	tests := []struct {
		name string
		r    *ledgerv1.ListTransactionsRequest
		want int
	}{
		{"sent by the owner", &ledgerv1.ListTransactionsRequest{Account: owner[:],
			Direction: sent}, 6},
		{"the owner's transfers and closings", &ledgerv1.ListTransactionsRequest{Account: owner[:],
			Direction: sent, Kinds: kinds(1, 7)}, 2},
		{"charges of the host", &ledgerv1.ListTransactionsRequest{Account: host[:],
			Kinds: kinds(10)}, 8},
		{"charges of the owner's escrow", &ledgerv1.ListTransactionsRequest{Account: owner[:],
			Direction: received, Kinds: kinds(10)}, 8},
		{"named as assigner, paid or sent", &ledgerv1.ListTransactionsRequest{Account: assigner[:],
			Direction: received}, 3},
		{"of some heights", &ledgerv1.ListTransactionsRequest{Account: owner[:], FromHeight: 2,
			ToHeight: 3}, 2},
		{"before the story's third step", &ledgerv1.ListTransactionsRequest{Account: owner[:],
			ToTime: uint64(a.story.Time(2).UnixMilli())}, 2},
		{"of the third step alone", &ledgerv1.ListTransactionsRequest{Account: owner[:],
			FromTime: uint64(a.story.Time(2).UnixMilli()),
			ToTime:   uint64(a.story.Time(3).UnixMilli())}, 1},
		{"of a stranger", &ledgerv1.ListTransactionsRequest{Account: bytes.Repeat([]byte{9}, 32)}, 0},
	}
	for _, tt := range tests {
		newest := a.history(tt.r)
		if len(newest) != tt.want {
			t.Errorf("%s: %d transactions, want %d", tt.name, len(newest), tt.want)
		}
		tt.r.Order, tt.r.PageSize = ledgerv1.Order_ORDER_OLDEST, 1
		oldest := a.history(tt.r)
		for i := range oldest {
			other := newest[len(newest)-1-i]
			if !proto.Equal(oldest[i], other) {
				t.Errorf("%s: entry %d differs by order: %v, %v", tt.name, i, oldest[i], other)
			}
			if got := oldest[i].GetReceipt().GetTransaction(); !bytes.Equal(got, oldest[i].GetId()) {
				t.Errorf("%s: entry %d has the receipt of %x", tt.name, i, got)
			}
		}
	}
}

// checkLife looks at the escrow's whole life, leases and charges.
func (a *archive) checkLife(t *testing.T) {
	t.Helper()
	escrow, owner := a.story.Escrow, a.n.Accounts[0]
	list := &ledgerv1.ListEscrowsRequest{Owner: owner[:], Purpose: chainv1.Purpose_PURPOSE_JOB}
	escrows := pages(t, list, a.ListEscrows, (*ledgerv1.ListEscrowsResponse).GetEscrows)
	if len(escrows) != 1 || !bytes.Equal(escrows[0].GetId(), escrow[:]) ||
		escrows[0].GetOpenedTime() != uint64(a.story.Time(1).UnixMilli()) {
		t.Fatalf("the owner's escrows: %v", escrows)
	}
	list = &ledgerv1.ListEscrowsRequest{Subject: escrows[0].GetSubject(),
		Openness: ledgerv1.Openness_OPENNESS_CLOSED}
	closed := pages(t, list, a.ListEscrows, (*ledgerv1.ListEscrowsResponse).GetEscrows)
	if _, open := a.chain.State().Escrow(escrow); open == (len(closed) == 1) {
		t.Errorf("escrow open %v, %d listed as closed", open, len(closed))
	}
	events := pages(t, &ledgerv1.ListEscrowEventsRequest{Escrow: escrow[:], PageSize: 2},
		a.ListEscrowEvents, (*ledgerv1.ListEscrowEventsResponse).GetEvents)
	var kinds []ledgerv1.OperationKind
	for _, e := range events {
		kinds = append(kinds, e.GetKind())
	}
	want := []ledgerv1.OperationKind{3, 8, 10, 10, 8, 4, 10, 10, 10, 9, 11, 10, 10, 11, 10, 12}
	if !reflect.DeepEqual(kinds[:min(len(want), len(kinds))], want) {
		t.Errorf("the escrow's life is %v", kinds)
	}
	leases := pages(t, &ledgerv1.ListLeasesRequest{Escrow: escrow[:], PageSize: 1}, a.ListLeases,
		(*ledgerv1.ListLeasesResponse).GetLeases)
	var paid uint64
	for i, l := range leases {
		if !bytes.Equal(l.GetId(), a.story.Leases[i][:]) {
			t.Errorf("lease %d is %x", i, l.GetId())
		}
		charges := pages(t, &ledgerv1.ListChargesRequest{Lease: l.GetId(), PageSize: 3},
			a.ListCharges, (*ledgerv1.ListChargesResponse).GetCharges)
		for _, c := range charges {
			paid += c.GetPaid()
		}
	}
	if len(leases) != 2 || tx.Grains(paid) != a.story.Due() {
		t.Errorf("%d leases were paid %d grains, want %d", len(leases), paid, a.story.Due())
	}
}

func (a *archive) checkSearch(t *testing.T) {
	t.Helper()
	first, err := a.GetBlock(t.Context(), &ledgerv1.GetBlockRequest{Height: 1})
	if err != nil {
		t.Fatal(err)
	}
	id := a.history(&ledgerv1.ListTransactionsRequest{Account: a.n.Accounts[0][:],
		Order: ledgerv1.Order_ORDER_OLDEST})[0].GetId()
	account := a.n.Accounts[0]
	tests := map[string]*ledgerv1.Hit{
		"1":                                {Kind: &ledgerv1.Hit_Block{Block: 1}},
		fmt.Sprintf("%x", first.GetHash()): {Kind: &ledgerv1.Hit_Block{Block: 1}},
		fmt.Sprintf("%X", id):              {Kind: &ledgerv1.Hit_Transaction{Transaction: id}},
		fmt.Sprintf("%x", id)[:7]:          {Kind: &ledgerv1.Hit_Transaction{Transaction: id}},
		textid.Bech32(textid.Account, account): {
			Kind: &ledgerv1.Hit_Account{Account: account[:]}},
		textid.Bech32(textid.Escrow, a.story.Escrow): {
			Kind: &ledgerv1.Hit_Escrow{Escrow: a.story.Escrow[:]}},
		fmt.Sprintf("%x", a.story.Leases[1][:]): {
			Kind: &ledgerv1.Hit_Lease{Lease: a.story.Leases[1][:]}},
		textid.Bech32(textid.Job, [32]byte(bytes.Repeat([]byte{7}, 32))): {
			Kind: &ledgerv1.Hit_Job{Job: bytes.Repeat([]byte{7}, 32)}},
	}
	for query, want := range tests {
		r, err := a.Search(t.Context(), &ledgerv1.SearchRequest{Query: " " + query})
		if err != nil || len(r.GetHits()) != 1 || !proto.Equal(r.GetHits()[0], want) {
			t.Errorf("%s: found %v, %v", query, r.GetHits(), err)
		}
	}
	for _, query := range []string{"999999", fmt.Sprintf("%064x", 5), "abcdef0",
		textid.Bech32(textid.Account, [32]byte{1}), textid.Bech32(textid.Lease, account)} {
		if r, err := a.Search(t.Context(), &ledgerv1.SearchRequest{Query: query}); err != nil ||
			len(r.GetHits()) != 0 {
			t.Errorf("%s: found %v, %v", query, r.GetHits(), err)
		}
	}
}

// checkProofs verifies history and state proofs, of what is there and of what is not.
func (a *archive) checkProofs(t *testing.T) {
	t.Helper()
	trust := proof.TrustOf(a.n.Genesis)
	for height := range uint64(5) {
		r, err := a.GetHistoryProof(t.Context(), &ledgerv1.GetHistoryProofRequest{Height: height})
		if err != nil {
			t.Fatal(err)
		}
		got, err := proof.VerifyHistory(marshal(t, r.GetProof()), trust)
		found, _ := a.chain.Block(t.Context(), height)
		if err != nil || ledger.Hash(got.Hash) != found.Hash || got.Head.Height < 20 {
			t.Errorf("block %d is proven as %x: %v", height, got.Hash, err)
		}
	}
	for _, id := range []tx.EscrowID{a.story.Escrow, {1}} {
		r, err := a.GetEscrow(t.Context(), &ledgerv1.GetEscrowRequest{Escrow: id[:], Prove: true})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := proof.VerifyEscrow(marshal(t, r.GetProof()), id, trust)
		if _, open := a.chain.State().Escrow(id); err != nil || leaf.Exists != open ||
			(r.GetEscrow() != nil) != open {
			t.Errorf("escrow %x: %v, %v", id, leaf.Exists, err)
		}
	}
	for _, id := range []tx.LeaseID{a.story.Leases[0], {1}} {
		r, err := a.GetLease(t.Context(), &ledgerv1.GetLeaseRequest{Lease: id[:], Prove: true})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := proof.VerifyLease(marshal(t, r.GetProof()), id, trust)
		if _, there := a.chain.State().Lease(id); err != nil || leaf.Exists != there {
			t.Errorf("lease %x: %v, %v", id, leaf.Exists, err)
		}
	}
	a.checkLeases(t)
	supply, err := a.GetSupply(t.Context(), &ledgerv1.GetSupplyRequest{Prove: true})
	given, _ := a.n.Genesis.Supply()
	burned := new(tx.Grains)
	for _, b := range supply.GetState().GetBurned() {
		*burned = *burned<<8 | tx.Grains(b)
	}
	if err != nil || tx.Grains(supply.GetCirculating())+*burned != given || *burned == 0 ||
		supply.GetProof() == nil {
		t.Errorf("supply %v, %v; %d were given out", supply, err, given)
	}
}

// checkLeases compares what many leases are told to be in one call with what each is alone.
func (a *archive) checkLeases(t *testing.T) {
	t.Helper()
	ids := [][]byte{make([]byte, 32), a.story.Leases[1][:], a.story.Leases[0][:]}
	many, err := a.GetLeases(t.Context(), &ledgerv1.GetLeasesRequest{Leases: ids})
	if err != nil || len(many.GetLeases()) != len(ids) || many.GetHeight() == 0 {
		t.Fatalf("%d leases at height %d, %v", len(many.GetLeases()), many.GetHeight(), err)
	}
	for i, id := range ids {
		alone, err := a.GetLease(t.Context(), &ledgerv1.GetLeaseRequest{Lease: id})
		if missing := errors.Is(err, ledger.ReasonNotFound); err != nil && !missing {
			t.Fatal(err)
		}
		if got := many.GetLeases()[i]; !bytes.Equal(got.GetId(), id) ||
			!proto.Equal(got.GetLease(), alone.GetLease()) || i == 0 && got.GetLease() != nil {
			t.Errorf("lease %d of many is %v, alone %v", i, got, alone)
		}
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	raw, err := canon.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestClosedEscrowKeepsItsStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, &ledgertest.Index{})
		// Its leases made final charges: they go once their time to be placed is over.
		a.clock.Store(a.story.Time(len(a.story.Steps)).Add(time.Hour).UnixNano())
		a.do(6, &tx.Settle{Leases: a.story.Leases})
		a.do(7, &tx.CloseEscrow{Escrow: a.story.Escrow})
		a.checkLife(t)
		r, err := a.ListEscrowEvents(t.Context(), &ledgerv1.ListEscrowEventsRequest{
			Escrow: a.story.Escrow[:], Order: ledgerv1.Order_ORDER_NEWEST, PageSize: 1,
		})
		closing := ledgerv1.OperationKind_OPERATION_KIND_CLOSE_ESCROW
		if err != nil || r.GetEvents()[0].GetKind() != closing ||
			r.GetEvents()[0].GetOutcome().GetAmount() == 0 {
			t.Errorf("the last of its life: %v, %v", r, err)
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestPagesWhileBlocksCome: pages have neither holes nor doubles, whatever is committed meanwhile.
func TestPagesWhileBlocksCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, &ledgertest.Index{})
		nonce := uint64(6)
		for _, order := range []ledgerv1.Order{ledgerv1.Order_ORDER_OLDEST,
			ledgerv1.Order_ORDER_NEWEST} {
			r := &ledgerv1.ListTransactionsRequest{Account: a.n.Accounts[0][:], Order: order,
				PageSize: 3}
			before := len(a.history(r))
			seen := map[string]bool{}
			added := 0
			for {
				page, err := a.ListTransactions(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range page.GetTransactions() {
					if seen[string(e.GetId())] {
						t.Errorf("%x comes twice", e.GetId())
					}
					seen[string(e.GetId())] = true
				}
				if r.PageToken = page.GetNextPageToken(); r.GetPageToken() == "" {
					break
				}
				if added < 4 {
					a.do(nonce, &tx.Transfer{To: a.n.Accounts[1], Amount: 1})
					nonce, added = nonce+1, added+1
				}
			}
			if order == ledgerv1.Order_ORDER_OLDEST {
				before += added
			}
			if len(seen) != before {
				t.Errorf("order %v: %d transactions, want %d", order, len(seen), before)
			}
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}
