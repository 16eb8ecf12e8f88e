package clitest

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Ledger is a chain in memory: the real state transition function, one transaction per block,
// certified headers and proofs. Nothing is durable.
type Ledger struct {
	ledgerv1.UnimplementedLedgerServiceServer

	Genesis *block.Genesis
	// Behind is how far lists say that the index is behind; set it while nobody asks.
	Behind uint64
	// Ahead is how far the chain's clock is ahead of ours; set it while nobody asks.
	Ahead time.Duration
	// Before is told of each transaction that is about to be executed; set it while nobody asks.
	Before func(*tx.Transaction)
	// NoIndex: what happened to escrows is not listed; set it while nobody asks.
	NoIndex bool
	// Lie changes the charges that are listed; set it while nobody asks.
	Lie func(*ledgerv1.ChargeEntry)
	// LieOfLease changes the leases that are listed.
	LieOfLease func(*ledgerv1.LeaseEntry)
	// LieOfAccount changes what is told of accounts; set it while nobody asks.
	LieOfAccount func(*ledgerv1.GetAccountResponse)
	// LieOfHistory is the same for proofs of history.
	LieOfHistory func(*ledgerv1.GetHistoryProofResponse)
	// LieOfSupply is the same for the supply.
	LieOfSupply func(*ledgerv1.GetSupplyResponse)
	// LieOfTransaction and LieOfBlock do the same for those.
	LieOfTransaction func(*ledgerv1.GetTransactionResponse)
	LieOfBlock       func(*ledgerv1.GetBlockResponse)

	proposer sig.PrivateKey

	mu     sync.Mutex // guards the chain
	state  *state.State
	blocks []sealed
	byID   map[tx.ID]int
}

type sealed struct {
	block   block.Block
	id      tx.ID
	receipt tx.Receipt
}

var _ ledgerv1.LedgerServiceServer = (*Ledger)(nil)

// NewLedger begins a chain on which the four accounts have money.
func NewLedger(who block.LocalAccounts) (*Ledger, error) {
	l := &Ledger{proposer: sig.FromSeed([32]byte{200}), byID: map[tx.ID]int{}}
	at := tx.Millis(time.Now().Add(-time.Minute).UnixMilli())
	var err error
	if l.Genesis, err = block.Local([32]byte{1}, at, l.proposer.Public(), who); err != nil {
		return nil, err
	}
	if l.state, err = state.New(l.Genesis); err != nil {
		return nil, err
	}
	h := l.Genesis.Header(tx.Hash(l.state.Root()))
	l.blocks = []sealed{{block: block.Block{Header: h}}}
	return l, nil
}

// now is the chain's time.
func (l *Ledger) now() tx.Millis { return tx.Millis(time.Now().Add(l.Ahead).UnixMilli()) }

// Apply executes one transaction as a block of its own.
func (l *Ledger) Apply(raw []byte) *ledgerv1.SubmitResult {
	t, err := tx.Decode(raw)
	if err != nil {
		return &ledgerv1.SubmitResult{ErrorReason: "MALFORMED", ErrorMessage: err.Error()}
	}
	if l.Before != nil {
		l.Before(t)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := t.ID(l.Genesis.Anchor())
	if at, ok := l.byID[id]; ok {
		return l.result(at)
	}
	prepared, _ := l.state.Prepare(t) // execution judges
	x, err := l.state.Begin(state.Context{
		Head:     l.state.Next(l.now()),
		Proposer: l.Genesis.Validators.Validators[0].Account,
	})
	if err != nil {
		return &ledgerv1.SubmitResult{ErrorReason: "DROPPED", ErrorMessage: err.Error()}
	}
	receipt, err := x.Apply(prepared)
	if err != nil {
		x.Drop()
		return &ledgerv1.SubmitResult{Id: id[:], ErrorReason: "CANNOT_PAY", ErrorMessage: err.Error()}
	}
	l.seal(t, receipt, x.Finish())
	x.Commit()
	l.byID[id] = len(l.blocks) - 1
	return l.result(len(l.blocks) - 1)
}

// seal makes the block of one transaction.
func (l *Ledger) seal(t *tx.Transaction, receipt tx.Receipt, result state.Result) {
	anchor := l.Genesis.Anchor()
	entry := block.TransactionEntry(t.ID(anchor), t.Witness())
	body := block.Body{Transactions: [][]byte{t.Append(nil)}}
	last := l.blocks[len(l.blocks)-1].block.Header
	h := block.Header{
		Version: block.Version, Chain: l.Genesis.Chain, Height: result.Height,
		Prev: last.Hash(anchor), Time: result.Time, Accrual: result.Accrual,
		StateRoot: tx.Hash(result.StateRoot), SegmentsRoot: block.EmptyRoot(),
		TransactionsRoot: block.Root([][]byte{entry[:]}),
		ReceiptsRoot:     block.Root([][]byte{receipt.Append(nil)}),
		ExitsRoot:        block.EmptyRoot(), HistoryRoot: block.Root(l.hashes()),
		BodyHash: block.BodyHash(body.Append(nil)), BodyLength: uint64(len(body.Append(nil))),
		OperationCount: result.Operations, RulesVersion: block.RulesVersion,
		SignersHash:     l.Genesis.Validators.Hash(),
		NextSignersHash: l.Genesis.Validators.Hash(),
		Proposer:        l.Genesis.Validators.Validators[0].Account,
	}
	l.blocks = append(l.blocks, sealed{
		block: block.Block{Header: h, Body: body,
			Certificate: block.SignHeader(&h, anchor, l.proposer)},
		id: t.ID(anchor), receipt: receipt,
	})
}

// hashes are those of all headers.
func (l *Ledger) hashes() [][]byte {
	out := make([][]byte, len(l.blocks))
	for i := range l.blocks {
		hash := l.blocks[i].block.Header.Hash(l.Genesis.Anchor())
		out[i] = hash[:]
	}
	return out
}

func (l *Ledger) result(at int) *ledgerv1.SubmitResult {
	s := &l.blocks[at]
	return &ledgerv1.SubmitResult{
		Id: s.id[:], Finality: ledgerv1.Finality_FINALITY_COMMITTED, Height: uint64(at),
		Receipt: s.receipt.PB(),
	}
}

// Submit implements the service.
func (l *Ledger) Submit(_ context.Context, r *ledgerv1.SubmitRequest) (
	*ledgerv1.SubmitResponse, error,
) {
	return &ledgerv1.SubmitResponse{Result: l.Apply(r.GetTransaction())}, nil
}

// SubmitStream implements the service.
func (l *Ledger) SubmitStream(stream ledgerv1.LedgerService_SubmitStreamServer) error {
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		answer := &ledgerv1.SubmitStreamResponse{}
		for _, raw := range request.GetTransactions() {
			answer.Results = append(answer.Results, l.Apply(raw))
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// GetChain implements the service.
func (l *Ledger) GetChain(context.Context, *ledgerv1.GetChainRequest) (
	*ledgerv1.GetChainResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head, anchor := &l.blocks[len(l.blocks)-1].block, l.Genesis.Anchor()
	hash, prices := head.Header.Hash(anchor), l.state.Prices()
	return &ledgerv1.GetChainResponse{
		Genesis: l.Genesis.PB(), Anchor: anchor[:], Head: head.Header.PB(), HeadHash: hash[:],
		Certificate: head.Certificate.PB(), Validators: l.Genesis.Validators.PB(),
		OperationFee: uint64(prices.Operation), ByteFee: uint64(prices.Byte), Trust: "a test",
		Now: uint64(l.now()), Accrual: uint64(head.Header.Accrual),
	}, nil
}

// GetAccount implements the service.
func (l *Ledger) GetAccount(_ context.Context, r *ledgerv1.GetAccountRequest) (
	*ledgerv1.GetAccountResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	account, ok := l.state.Account(sig.AccountID(r.GetAccount()))
	out := &ledgerv1.GetAccountResponse{
		Id: r.GetAccount(), Height: uint64(len(l.blocks) - 1),
		PendingNonce: l.state.Nonce(sig.AccountID(r.GetAccount()), r.GetSigner()),
	}
	if signers, ok := l.state.Signers(sig.AccountID(r.GetAccount())); ok {
		out.Signers = signers.PB()
	}
	if ok {
		out.Account = account.PB()
	}
	if r.GetProve() {
		one, two := l.state.ProveActors(sig.AccountID(r.GetAccount()))
		out.Proof, out.SignersProof = l.proof(one), l.proof(two)
	}
	if l.LieOfAccount != nil {
		l.LieOfAccount(out)
	}
	return out, nil
}

// proof joins a proof of the last state with its header. mu is held.
func (l *Ledger) proof(p state.Proof) *chainv1.AccountProof {
	head := &l.blocks[len(l.blocks)-1].block
	return proof.NewState(&head.Header, head.Certificate, p.State)
}

func notFound(what string) error {
	return fault.New(fault.NotFound, "NOT_FOUND", "no such %s", what)
}

// GetEscrow implements the service.
func (l *Ledger) GetEscrow(_ context.Context, r *ledgerv1.GetEscrowRequest) (
	*ledgerv1.GetEscrowResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := tx.EscrowID(r.GetEscrow())
	escrow, ok := l.state.Escrow(id)
	if !ok && !r.GetProve() {
		return nil, notFound("escrow")
	}
	out := &ledgerv1.GetEscrowResponse{
		Id: r.GetEscrow(), Height: uint64(len(l.blocks) - 1),
		Unreserved: uint64(l.state.Unreserved(id, l.state.Head().Accrual)),
		Secured:    uint64(state.Secured(&escrow, l.state.Head().Accrual)),
		Now:        uint64(l.now()), Accrual: uint64(l.state.Head().Accrual),
	}
	if ok {
		out.Escrow = escrow.PB()
	}
	if r.GetProve() {
		out.Proof = l.proof(l.state.ProveEscrow(id))
	}
	return out, nil
}

// GetLease implements the service.
func (l *Ledger) GetLease(_ context.Context, r *ledgerv1.GetLeaseRequest) (
	*ledgerv1.GetLeaseResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease, ok := l.state.Lease(tx.LeaseID(r.GetLease()))
	if !ok && !r.GetProve() {
		return nil, notFound("lease")
	}
	out := &ledgerv1.GetLeaseResponse{Id: r.GetLease(), Height: uint64(len(l.blocks) - 1)}
	if ok {
		out.Lease = lease.PB()
	}
	if r.GetProve() {
		out.Proof = l.proof(l.state.ProveLease(tx.LeaseID(r.GetLease())))
	}
	return out, nil
}

// GetSupply implements the service, of the head.
func (l *Ledger) GetSupply(_ context.Context, r *ledgerv1.GetSupplyRequest) (
	*ledgerv1.GetSupplyResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.state.ProveChain()
	out := &ledgerv1.GetSupplyResponse{
		Height: uint64(len(l.blocks) - 1), State: &chainv1.ChainState{},
	}
	if err := canon.Unmarshal(p.State.GetValue(), out.State); err != nil {
		return nil, err
	}
	if r.GetProve() {
		out.Proof = l.proof(p)
	}
	if l.LieOfSupply != nil {
		l.LieOfSupply(out)
	}
	return out, nil
}

// GetHistoryProof implements the service.
func (l *Ledger) GetHistoryProof(_ context.Context, r *ledgerv1.GetHistoryProofRequest) (
	*ledgerv1.GetHistoryProofResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head := &l.blocks[len(l.blocks)-1].block
	if r.GetHeight() >= head.Header.Height {
		return nil, notFound("later block")
	}
	var hashes []tx.Hash
	for _, hash := range l.hashes() {
		hashes = append(hashes, tx.Hash(hash))
	}
	m, err := proof.NewHistory(&head.Header, head.Certificate,
		&l.blocks[r.GetHeight()].block.Header, hashes)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.GetHistoryProofResponse{Proof: m}
	if l.LieOfHistory != nil {
		l.LieOfHistory(out)
	}
	return out, nil
}

// GetTransaction implements the service.
func (l *Ledger) GetTransaction(_ context.Context, r *ledgerv1.GetTransactionRequest) (
	*ledgerv1.GetTransactionResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.byID[tx.ID(r.GetId())]
	if !ok {
		return nil, notFound("transaction")
	}
	s := &l.blocks[at]
	raw := s.block.Body.Transactions[0]
	t, err := tx.Decode(raw)
	if err != nil {
		return nil, err
	}
	entry := block.TransactionEntry(s.id, t.Witness())
	source := proof.Source{
		Anchor: l.Genesis.Anchor(), Header: s.block.Header, Certificate: s.block.Certificate,
		Validators:   l.Genesis.Validators,
		Transactions: []tx.Hash{block.LeafHash(entry[:])},
		Receipts:     []tx.Hash{block.LeafHash(s.receipt.Append(nil))},
	}
	out := &ledgerv1.GetTransactionResponse{
		Result: l.result(at), Transaction: t.PB(), Time: uint64(s.block.Header.Time),
		Proof: source.Transaction(0, raw, s.receipt.Append(nil)),
	}
	if l.LieOfTransaction != nil {
		l.LieOfTransaction(out)
	}
	return out, nil
}

// GetBlock implements the service.
func (l *Ledger) GetBlock(_ context.Context, r *ledgerv1.GetBlockRequest) (
	*ledgerv1.GetBlockResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.GetHeight() >= uint64(len(l.blocks)) {
		return nil, notFound("block")
	}
	b := &l.blocks[r.GetHeight()].block
	hash := b.Header.Hash(l.Genesis.Anchor())
	m := b.PB()
	if r.GetHeaderOnly() {
		m = &chainv1.Block{Header: m.GetHeader(), Certificate: m.GetCertificate()}
	}
	out := &ledgerv1.GetBlockResponse{Hash: hash[:], Block: m}
	if l.LieOfBlock != nil {
		l.LieOfBlock(out)
	}
	return out, nil
}
