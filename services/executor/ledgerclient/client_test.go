package ledgerclient_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/ledgerclient"
)

// ledger answers as a LedgerService does, in this process.
type ledger struct {
	ledgerv1.LedgerServiceClient
	mu       sync.Mutex // guards all
	lease    *chainv1.LeaseState
	newer    []byte // lease of its lane
	escrow   *chainv1.Escrow
	head     *chainv1.Header
	keys     *chainv1.KeySet
	nonce    uint64
	reads    int // of accounts
	status   chainv1.Status
	bound    chainv1.Bound
	taken    []*tx.Transaction
	failWith error
	now      uint64
	nobody   bool // no account is there
}

func (l *ledger) GetChain(
	context.Context, *ledgerv1.GetChainRequest, ...grpc.CallOption,
) (*ledgerv1.GetChainResponse, error) {
	return &ledgerv1.GetChainResponse{
		Anchor: make([]byte, 32), OperationFee: 10, ByteFee: 1, Head: l.head, Now: l.now,
	}, nil
}

func (l *ledger) GetLease(
	context.Context, *ledgerv1.GetLeaseRequest, ...grpc.CallOption,
) (*ledgerv1.GetLeaseResponse, error) {
	return &ledgerv1.GetLeaseResponse{Lease: l.lease, SupersededBy: l.newer}, l.failWith
}

func (l *ledger) GetEscrow(
	context.Context, *ledgerv1.GetEscrowRequest, ...grpc.CallOption,
) (*ledgerv1.GetEscrowResponse, error) {
	return &ledgerv1.GetEscrowResponse{Escrow: l.escrow}, l.failWith
}

func (l *ledger) GetAccount(
	context.Context, *ledgerv1.GetAccountRequest, ...grpc.CallOption,
) (*ledgerv1.GetAccountResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.nobody {
		return &ledgerv1.GetAccountResponse{}, l.failWith
	}
	return &ledgerv1.GetAccountResponse{
		Account: &chainv1.Account{Keys: l.keys, Balance: 1000}, PendingNonce: l.nonce,
	}, l.failWith
}

func (l *ledger) take(raw []byte) *ledgerv1.SubmitResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, err := tx.Decode(raw)
	if err != nil {
		return &ledgerv1.SubmitResult{ErrorReason: "MALFORMED", ErrorMessage: err.Error()}
	}
	l.taken = append(l.taken, t)
	l.nonce++
	receipt := &chainv1.Receipt{Status: l.status}
	for range t.Body.Operations {
		receipt.Outcomes = append(receipt.Outcomes, &chainv1.Outcome{Amount: 7, Bound: l.bound})
	}
	id := t.ID(sig.Anchor{})
	return &ledgerv1.SubmitResult{
		Id: id[:], Finality: ledgerv1.Finality_FINALITY_COMMITTED, Height: 3, Receipt: receipt,
	}
}

func (l *ledger) SubmitStream(context.Context, ...grpc.CallOption) (
	ledgerv1.LedgerService_SubmitStreamClient, error,
) {
	return &exchange{ledger: l}, nil
}

// exchange answers each batch.
type exchange struct {
	grpc.ClientStream
	ledger  *ledger
	answers []*ledgerv1.SubmitStreamResponse
}

func (e *exchange) Send(m *ledgerv1.SubmitStreamRequest) error {
	answer := &ledgerv1.SubmitStreamResponse{}
	for _, raw := range m.GetTransactions() {
		answer.Results = append(answer.Results, e.ledger.take(raw))
	}
	e.answers = append(e.answers, answer)
	return nil
}

func (e *exchange) Recv() (*ledgerv1.SubmitStreamResponse, error) {
	if len(e.answers) == 0 {
		return nil, io.EOF
	}
	first := e.answers[0]
	e.answers = e.answers[1:]
	return first, nil
}

func (e *exchange) CloseSend() error { return nil }

func newClient(l *ledger) *ledgerclient.Client {
	return ledgerclient.New(l, sig.FromSeed([32]byte{1}), ledgerclient.Clock{Now: time.Now})
}

func TestReads(t *testing.T) {
	l := &ledger{}
	c := newClient(l)
	if _, err := c.Lease(t.Context(), "main", executor.LeaseID{}); !errors.Is(err,
		executor.ErrNoLease) {
		t.Errorf("no lease: %v", err)
	}
	if _, err := c.Escrow(t.Context(), "main", executor.EscrowID{}); !errors.Is(err,
		executor.ErrNoEscrow) {
		t.Errorf("no escrow: %v", err)
	}
	job, owner, assigner := executor.JobID{1}, sig.AccountID{2}, sig.AccountID{3}
	terms := tx.Lease{
		Escrow: tx.EscrowID{1}, Subject: job[:], Slot: 7, Payee: owner, AgentKey: sig.PublicKey{4},
		AckKeys: []sig.PublicKey{{5}}, PriceHash: tx.Hash{6}, OfferHash: tx.Hash{7},
	}
	l.lease = &chainv1.LeaseState{
		Lease: terms.PB(), From: 1000, Until: 9000, Budget: 5, Paid: 4, Settled: true,
	}
	l.escrow = &chainv1.Escrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: job[:], Owner: owner[:],
		Terms: &chainv1.Terms{Assigner: assigner[:]}, Balance: 10, Reserved: 4,
	}
	s, err := c.Lease(t.Context(), "main", executor.LeaseID{})
	if err != nil || s.From.UnixMilli() != 1000 || !s.End.IsZero() || !s.Settled || s.Paid != 4 ||
		s.Leaf.Lease.Slot != 7 || s.Leaf.From != 1000 || s.SupersededBy != (executor.LeaseID{}) {
		t.Errorf("lease %+v, %v", s, err)
	}
	l.newer = bytes.Repeat([]byte{8}, 32)
	if s, err := c.Lease(t.Context(), "main", executor.LeaseID{}); err != nil ||
		s.SupersededBy != executor.LeaseID(l.newer) {
		t.Errorf("superseded by %x, %v", s.SupersededBy, err)
	}
	const day = 24 * 3_600_000
	for _, tt := range []struct{ from, accrual, until, end, want uint64 }{
		{1000, 500, 9000, 0, 8500 + day}, {1000, 500, 9000, 3000, 2500 + day},
		{1000, 500, 9000, 1, 500 + day}, {1, 0, math.MaxUint64, 0, 1 << 53},
	} {
		l.lease = &chainv1.LeaseState{Lease: terms.PB(), From: tt.from, AccrualFrom: tt.accrual,
			Until: tt.until, End: tt.end}
		s, err := c.Lease(t.Context(), "main", executor.LeaseID{})
		if got := uint64(s.SilenceOver.UnixMilli()); err != nil || got != tt.want {
			t.Errorf("%+v: silence is over at %d, %v", tt, got, err)
		}
	}
	l.head = &chainv1.Header{Time: 70, Accrual: 60}
	if at, err := c.Time(t.Context(), "main"); err != nil || at.Block.UnixMilli() != 70 ||
		at.Accrual.UnixMilli() != 60 {
		t.Errorf("time %+v, %v", at, err)
	}
	if at, err := c.Time(t.Context(), "main"); err != nil || !at.Now.IsZero() {
		t.Errorf("a ledger that does not tell says it is %v, %v", at.Now, err)
	}
	for _, tt := range []struct{ now, want int64 }{{60, 70}, {90, 90}} {
		l.now = uint64(tt.now)
		at, err := c.Time(t.Context(), "main")
		if err != nil || at.Now.UnixMilli() != tt.want {
			t.Errorf("now %d: %+v, %v", tt.now, at, err)
		}
	}
	a, err := c.AccountOf(t.Context(), "main", owner)
	if err != nil || !a.Exists || a.Balance != 1000 {
		t.Errorf("account %+v, %v", a, err)
	}
	l.nobody = true
	if a, err = c.AccountOf(t.Context(), "main", owner); err != nil || a.Exists || a.Balance != 0 {
		t.Errorf("no account: %+v, %v", a, err)
	}
	e, err := c.Escrow(t.Context(), "main", executor.EscrowID{})
	if err != nil || e.Job != job || e.Owner != owner || e.Assigner != assigner ||
		e.Free != 6 {
		t.Errorf("escrow %+v, %v", e, err)
	}
	l.escrow.Purpose = chainv1.Purpose_PURPOSE_BOND
	if e, err = c.Escrow(t.Context(), "main", executor.EscrowID{}); err != nil || e.Job == job {
		t.Errorf("an escrow for something else names job %x, %v", e.Job, err)
	}
	l.failWith = fault.New(fault.Unavailable, "PEER_UNAVAILABLE", "gone")
	if _, err := c.Lease(t.Context(), "main", executor.LeaseID{}); !errors.Is(err,
		fault.Unavailable) {
		t.Errorf("a ledger that is away: %v", err)
	}
	if _, err := c.AccountOf(t.Context(), "main", owner); !errors.Is(err, fault.Unavailable) {
		t.Errorf("an account of a ledger that is away: %v", err)
	}
}

func TestKeySetIsRemembered(t *testing.T) {
	held := sig.SingleKey(sig.FromSeed([32]byte{9}).Public())
	l := &ledger{keys: held.PB()}
	c := newClient(l)
	for range 3 {
		got, err := c.KeySet(t.Context(), "main", sig.AccountID{1})
		if err != nil || !got.Equal(held) {
			t.Fatalf("key set %v, %v", got, err)
		}
	}
	if l.reads != 1 {
		t.Errorf("asked %d times", l.reads)
	}
}

func TestCharge(t *testing.T) {
	l := &ledger{status: chainv1.Status_STATUS_OK, bound: chainv1.Bound_BOUND_TRUST}
	c := newClient(l)
	note := executor.SignedNote{
		Note: executor.Note{Lease: executor.LeaseID{1}, Cumulative: 9}, Signature: sig.Signature{2},
	}
	ack := &executor.Ack{Note: note.Note, Index: 3, Signature: sig.Signature{4}}
	got, err := c.Charge(t.Context(), "main", []executor.Charge{
		{Note: note, Ack: ack}, {Note: note, Final: true},
	})
	want := executor.Charged{Paid: 7, Bound: "trust"}
	if err != nil || len(got) != 2 || got[0] != want || got[1] != want {
		t.Fatalf("charged %+v, %v", got, err)
	}
	if len(l.taken) != 1 || len(l.taken[0].Body.Operations) != 2 {
		t.Fatalf("%d transactions", len(l.taken))
	}
	first := l.taken[0].Body.Operations[0].(*tx.Charge)
	last := l.taken[0].Body.Operations[1].(*tx.Charge)
	if first.Countersignature.Index != 3 || first.Final || !last.Final ||
		!last.Countersignature.IsZero() || first.Note.Cumulative != 9 {
		t.Errorf("operations %+v, %+v", first, last)
	}
	if l.taken[0].Body.Account != c.Account() {
		t.Error("another account charges")
	}
	l.status = chainv1.Status_STATUS_FAILED
	if _, err := c.Charge(t.Context(), "main", []executor.Charge{{Note: note}}); !errors.Is(err,
		ledgerclient.ReasonNotCharged) {
		t.Errorf("charges that failed in a block: %v", err)
	}
}

// TestPayeeLockIsNamed: the executor acts on this bound.
func TestPayeeLockIsNamed(t *testing.T) {
	l := &ledger{status: chainv1.Status_STATUS_OK, bound: chainv1.Bound_BOUND_PAYEE_LOCK}
	note := executor.SignedNote{
		Note: executor.Note{Lease: executor.LeaseID{1}, Cumulative: 9}, Signature: sig.Signature{2},
	}
	got, err := newClient(l).Charge(t.Context(), "main", []executor.Charge{
		{Note: note, Final: true},
	})
	if err != nil || len(got) != 1 || got[0].Bound != executor.BoundPayeeLock {
		t.Errorf("charged %+v, %v", got, err)
	}
}
