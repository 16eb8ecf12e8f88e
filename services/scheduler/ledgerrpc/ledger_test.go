package ledgerrpc_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/submit"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/ledgerrpc"
)

// fake is a ledger that answers what a test says.
type fake struct {
	ledgerv1.LedgerServiceClient
	escrow *ledgerv1.GetEscrowResponse
	lease  *ledgerv1.GetLeaseResponse
	chain  *ledgerv1.GetChainResponse
	leases *ledgerv1.GetLeasesResponse
	err    error
	result *ledgerv1.SubmitResult
	lost   bool
	sent   []*tx.Transaction
}

func (f *fake) GetEscrow(
	context.Context, *ledgerv1.GetEscrowRequest, ...grpc.CallOption,
) (*ledgerv1.GetEscrowResponse, error) {
	return f.escrow, f.err
}

func (f *fake) GetLease(
	context.Context, *ledgerv1.GetLeaseRequest, ...grpc.CallOption,
) (*ledgerv1.GetLeaseResponse, error) {
	return f.lease, f.err
}

func (f *fake) GetLeases(
	context.Context, *ledgerv1.GetLeasesRequest, ...grpc.CallOption,
) (*ledgerv1.GetLeasesResponse, error) {
	return f.leases, f.err
}

func (f *fake) GetChain(
	context.Context, *ledgerv1.GetChainRequest, ...grpc.CallOption,
) (*ledgerv1.GetChainResponse, error) {
	return f.chain, f.err
}

func (f *fake) GetAccount(
	context.Context, *ledgerv1.GetAccountRequest, ...grpc.CallOption,
) (*ledgerv1.GetAccountResponse, error) {
	return &ledgerv1.GetAccountResponse{}, f.err
}

func (f *fake) SubmitStream(
	context.Context, ...grpc.CallOption,
) (grpc.BidiStreamingClient[ledgerv1.SubmitStreamRequest, ledgerv1.SubmitStreamResponse], error) {
	return &stream{fake: f}, f.err
}

type stream struct {
	grpc.BidiStreamingClient[ledgerv1.SubmitStreamRequest, ledgerv1.SubmitStreamResponse]
	fake *fake
}

func (s *stream) Send(r *ledgerv1.SubmitStreamRequest) error {
	for _, raw := range r.GetTransactions() {
		t, err := tx.Decode(raw)
		if err != nil {
			return err
		}
		s.fake.sent = append(s.fake.sent, t)
	}
	return nil
}

func (s *stream) CloseSend() error { return nil }

func (s *stream) Recv() (*ledgerv1.SubmitStreamResponse, error) {
	if s.fake.lost {
		return nil, away()
	}
	return &ledgerv1.SubmitStreamResponse{Results: []*ledgerv1.SubmitResult{s.fake.result}}, nil
}

func away() error { return fault.New(fault.Unavailable, "PEER_UNAVAILABLE", "away") }

func open(f *fake) (*ledgerrpc.Ledger, *submit.Sender) {
	sender := submit.New(submit.Config{
		Ledger: f, Key: sig.FromSeed([32]byte{1}), Chain: "main", Now: time.Now,
	})
	return ledgerrpc.New(f, sender, "main", sig.Anchor{1}), sender
}

func lease() tx.Lease {
	return tx.Lease{
		Escrow: tx.EscrowID{1}, Subject: make([]byte, 32), Epoch: 1, Payee: sig.AccountID{2},
		AgentKey: sig.FromSeed([32]byte{2}).Public(), Rate: 5, Budget: 7, Trust: 1,
		AckKeys:     []sig.PublicKey{sig.FromSeed([32]byte{3}).Public()},
		ClaimWindow: 86_400_000, PriceHash: tx.Hash{1}, OfferHash: tx.Hash{2}, PlaceBy: 1, Until: 2,
	}
}

func signed() scheduler.SignedLease {
	l := lease()
	return scheduler.SignedLease{
		Lease: l, Signature: sig.FromSeed([32]byte{2}).Sign(l.Preimage(sig.Anchor{1})),
	}
}

func receipt(r chainv1.Reason) *ledgerv1.SubmitResult {
	s := chainv1.Status_STATUS_OK
	if r != 0 {
		s = chainv1.Status_STATUS_FAILED
	}
	return &ledgerv1.SubmitResult{Height: 1, Receipt: &chainv1.Receipt{Status: s, Reason: r}}
}

func refusal(reason string) *ledgerv1.SubmitResult {
	return &ledgerv1.SubmitResult{ErrorReason: reason}
}

func TestPlaceAndEnd(t *testing.T) {
	tests := map[string]struct {
		fake       fake
		place, end error // nil = success; errAny = an error that says nothing
	}{
		"committed":      {fake{result: receipt(0)}, nil, nil},
		"there already":  {fake{result: receipt(chainv1.Reason_REASON_LEASE_EXISTS)}, nil, noEnd},
		"ended already":  {fake{result: receipt(chainv1.Reason_REASON_LEASE_ENDED)}, refused, nil},
		"leaf is gone":   {fake{result: receipt(chainv1.Reason_REASON_LEASE_UNKNOWN)}, refused, nil},
		"too late":       {fake{result: receipt(chainv1.Reason_REASON_LEASE_LATE)}, notPlaced, noEnd},
		"not its own":    {fake{result: receipt(chainv1.Reason_REASON_NOT_PARTY)}, refused, noEnd},
		"above max_rate": {fake{result: receipt(chainv1.Reason_REASON_MAX_RATE)}, noRoom, noEnd},
		"beyond trust":   {fake{result: receipt(chainv1.Reason_REASON_TRUST_EXCEEDED)}, noRoom, noEnd},
		"not assigner":   {fake{result: receipt(chainv1.Reason_REASON_NOT_ASSIGNER)}, noRoom, noEnd},
		"not a lease":    {fake{result: receipt(chainv1.Reason_REASON_LEASE_INVALID)}, refused, noEnd},
		"cannot pay":     {fake{result: refusal("CANNOT_PAY")}, notPlaced, errAny},
		"ledger is away": {fake{err: away()}, notPlaced, errAny},
		"answer is lost": {fake{lost: true}, errAny, errAny},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, sender := open(&tt.fake)
				defer sender.Close()
				check(t, "PlaceLease", l.PlaceLease(t.Context(), signed(), 7),
					tt.place)
				check(t, "EndLease", l.EndLease(t.Context(), tx.LeaseID{1}), tt.end)
			})
		})
	}
}

var (
	refused   = scheduler.ErrLeaseRefused
	noRoom    = scheduler.ErrEscrow
	notPlaced = scheduler.ErrNotPlaced
	noEnd     = scheduler.ErrEndRefused
	errAny    = errors.New("any")
)

func check(t *testing.T, what string, err, want error) {
	t.Helper()
	says := errors.Is(err, refused) || errors.Is(err, notPlaced) && what == "PlaceLease" ||
		errors.Is(err, noEnd)
	switch {
	case want == nil && err != nil, want == errAny && (err == nil || says),
		want != nil && want != errAny && !errors.Is(err, want):
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}

// TestCallerThatLeaves does not know whether the lease is placed.
func TestCallerThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sender := open(&fake{lost: true})
		defer sender.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := l.PlaceLease(ctx, signed(), 7)
		if err == nil || errors.Is(err, refused) || errors.Is(err, notPlaced) {
			t.Errorf("PlaceLease = %v, want an error that says nothing", err)
		}
	})
}

// TestLeaseThatNobodyCanPlace is its host's doing.
func TestLeaseThatNobodyCanPlace(t *testing.T) {
	l, sender := open(&fake{})
	defer sender.Close()
	s := signed()
	s.Signature = sig.Signature{}
	if err := l.PlaceLease(t.Context(), s, 7); !errors.Is(err, refused) {
		t.Errorf("PlaceLease = %v, want %v", err, refused)
	}
}

func TestReads(t *testing.T) {
	owner, assigner := sig.AccountID{5}, sig.AccountID{6}
	key := sig.FromSeed([32]byte{3}).Public()
	escrow := &chainv1.Escrow{
		Owner: owner[:], Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: make([]byte, 32),
		Balance: 100, Payees: [][]byte{owner[:]}, Reserved: 7, Rate: 8, Risk: 9, Paid: 10,
		Terms: &chainv1.Terms{
			Floor: 1, MaxRate: 2, MaxTotal: 3, Trust: 4, AckKeys: [][]byte{key[:]},
			Assigner: assigner[:], Expires: math.MaxUint64,
		},
	}
	terms := tx.Lease{
		Escrow: tx.EscrowID{1}, Subject: owner[:], Slot: 7, Payee: owner, AgentKey: key,
		AckKeys: []sig.PublicKey{key}, PriceHash: tx.Hash{6}, OfferHash: tx.Hash{7},
	}
	f := &fake{
		escrow: &ledgerv1.GetEscrowResponse{Escrow: escrow, Unreserved: 50},
		lease: &ledgerv1.GetLeaseResponse{Lease: &chainv1.LeaseState{
			Lease: terms.PB(), Until: 5000, End: 4000,
		}},
	}
	l, _ := open(f)
	got, err := l.Escrow(t.Context(), tx.EscrowID{1})
	if err != nil || got.Owner != owner || got.Assigner != assigner || !got.ForJob ||
		got.Unreserved != 50 || got.Used != 17 || got.Rate != 8 || got.Risk != 9 ||
		len(got.Payees) != 1 || len(got.AckKeys) != 1 || got.Floor != 1 || got.Trust != 4 {
		t.Errorf("Escrow = %+v, %v", got, err)
	}
	if _, err := got.Expires.MarshalJSON(); err != nil {
		t.Errorf("an escrow that never expires cannot be written down: %v", err)
	}
	state, err := l.Lease(t.Context(), tx.LeaseID{1})
	if err != nil || state.Until.UnixMilli() != 5000 || state.Ended.UnixMilli() != 4000 ||
		state.Leaf.Lease.Slot != 7 {
		t.Errorf("Lease = %+v, %v", state, err)
	}
	// The accrual clock is 40 s behind: what expires by it at 100 s does so at 140 s.
	f.escrow.Escrow.Terms.Expires, f.escrow.Now, f.escrow.Accrual = 100_000, 90_000, 50_000
	if got, err = l.Escrow(t.Context(), tx.EscrowID{1}); err != nil ||
		got.Expires.UnixMilli() != 140_000 {
		t.Errorf("Escrow expires at %v, %v", got.Expires, err)
	}
	f.escrow.Escrow.Terms.Expires = math.MaxUint64
	if got, err = l.Escrow(t.Context(), tx.EscrowID{1}); err != nil ||
		got.Expires.Before(time.UnixMilli(1<<40)) {
		t.Errorf("an escrow that never expires does so at %v, %v", got.Expires, err)
	}
	f.escrow.Escrow.Owner = owner[1:]
	if _, err := l.Escrow(t.Context(), tx.EscrowID{1}); err == nil {
		t.Error("an owner of 31 bytes is believed")
	}
	for name, err := range map[string]error{
		"not found": fault.New(fault.NotFound, "LEDGER_NOT_FOUND", "none"), "away": away(),
	} {
		f.err = err
		_, errEscrow := l.Escrow(t.Context(), tx.EscrowID{1})
		_, errLease := l.Lease(t.Context(), tx.LeaseID{1})
		for _, got := range []error{errEscrow, errLease} {
			if got == nil || errors.Is(got, scheduler.ErrNotFound) != (name == "not found") {
				t.Errorf("%s: %v", name, got)
			}
		}
	}
}

// TestLeases: what is on the chain is told, what is not is left out, and an answer that does not
// fit the question is not believed.
func TestLeases(t *testing.T) {
	ids := []tx.LeaseID{{1}, {2}, {3}}
	entry := func(n int, state *chainv1.LeaseState) *ledgerv1.GetLeasesEntry {
		return &ledgerv1.GetLeasesEntry{Id: ids[n][:], Lease: state}
	}
	terms := lease()
	running := &chainv1.LeaseState{Until: 5000, Lease: terms.PB()}
	settled := &chainv1.LeaseState{
		Until: 5000, End: 4000, Settled: true, Withheld: 3, Lease: terms.PB(),
	}
	good := []*ledgerv1.GetLeasesEntry{entry(0, running), entry(1, nil), entry(2, settled)}
	f := &fake{leases: &ledgerv1.GetLeasesResponse{Leases: good}}
	l, sender := open(f)
	defer sender.Close()
	got, err := l.Leases(t.Context(), ids)
	const window = 86_400_000
	want := map[tx.LeaseID]scheduler.LeaseState{
		ids[0]: {
			Until: time.UnixMilli(5000), Claimable: time.UnixMilli(5000 + window),
			Leaf: tx.LeaseState{Lease: terms, Until: 5000},
		},
		ids[2]: {
			Until: time.UnixMilli(5000), Ended: time.UnixMilli(4000), Settled: true,
			Claimable: time.UnixMilli(4000 + window),
			Leaf:      tx.LeaseState{Lease: terms, Until: 5000, End: 4000, Settled: true, Withheld: 3},
		},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Leases: %v\n%s", err, diff)
	}
	for name, answer := range map[string][]*ledgerv1.GetLeasesEntry{
		"fewer": good[:2], "more": append(good[:3:3], good[0]), "none": nil,
		"another's": {good[0], good[0], good[2]}, "of no id": {good[0], {}, good[2]},
		"no lease": {good[0], entry(1, &chainv1.LeaseState{}), good[2]},
	} {
		f.leases = &ledgerv1.GetLeasesResponse{Leases: answer}
		if got, err := l.Leases(t.Context(), ids); err == nil {
			t.Errorf("%s: believed as %v", name, got)
		}
	}
	f.err = away()
	if _, err := l.Leases(t.Context(), ids); !errors.Is(err, fault.Unavailable) {
		t.Errorf("away: %v", err)
	}
}

func TestVerifyLease(t *testing.T) {
	l, _ := open(&fake{})
	s := signed()
	id, err := l.VerifyLease(&s.Lease, s.Signature)
	if err != nil || id != s.Lease.ID(sig.Anchor{1}) {
		t.Errorf("VerifyLease = %v, %v", id, err)
	}
	elsewhere := sig.FromSeed([32]byte{2}).Sign(s.Lease.Preimage(sig.Anchor{2}))
	stranger := sig.FromSeed([32]byte{9}).Sign(s.Lease.Preimage(sig.Anchor{1}))
	for name, forged := range map[string]sig.Signature{
		"of another chain": elsewhere, "of a stranger": stranger, "none": {},
	} {
		_, err := l.VerifyLease(&s.Lease, forged)
		if err == nil || !strings.Contains(err.Error(), "agent") {
			t.Errorf("signature %s: %v", name, err)
		}
	}
}

// TestNow is what a block made now would have, never before the last block; a ledger that does not
// tell is not believed to be in 1970.
func TestNow(t *testing.T) {
	head := &chainv1.Header{Time: 5000}
	for name, tt := range map[string]struct {
		chain *ledgerv1.GetChainResponse
		err   error
		want  int64
	}{
		"told":              {&ledgerv1.GetChainResponse{Head: head, Now: 7000}, nil, 7000},
		"only the head":     {&ledgerv1.GetChainResponse{Head: head}, nil, 5000},
		"not told":          {&ledgerv1.GetChainResponse{}, nil, 0},
		"beyond any date":   {&ledgerv1.GetChainResponse{Now: math.MaxUint64}, nil, 253_402_300_799_000},
		"the ledger is off": {nil, away(), 0},
	} {
		t.Run(name, func(t *testing.T) {
			l, sender := open(&fake{chain: tt.chain, err: tt.err})
			defer sender.Close()
			got, err := l.Now(t.Context())
			if (err == nil) != (tt.want != 0) || err == nil && got.UnixMilli() != tt.want {
				t.Errorf("Now = %v, %v", got, err)
			}
		})
	}
}
