package server

import (
	"context"
	"fmt"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	textid "github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/rpc"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// GetChain implements the service.
func (s *Server) GetChain(_ context.Context, r *ledgerv1.GetChainRequest) (
	*ledgerv1.GetChainResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	anchor, tip, prices := c.Anchor(), c.Tip(), c.State().Prices()
	now, accrual := c.Clocks()
	return &ledgerv1.GetChainResponse{
		Genesis: c.Genesis().PB(), Anchor: anchor[:], Head: tip.Header.PB(), HeadHash: tip.Hash[:],
		Certificate: tip.Certificate.PB(), Validators: c.Genesis().Validators.PB(),
		OperationFee: uint64(prices.Operation), ByteFee: uint64(prices.Byte), Trust: trust(c),
		Now: uint64(now), Accrual: uint64(accrual),
	}, nil
}

// trust says who is trusted for what.
func trust(c *ledger.Chain) string {
	v := c.Genesis().Validators.Validators[0]
	return fmt.Sprintf("One proposer, of operator %s, is trusted for order, liveness and time. It "+
		"cannot forge or change what is committed: every block can be executed again by anyone.",
		textid.Bech32(textid.Account, v.Operator))
}

// GetAccount implements the service.
func (s *Server) GetAccount(ctx context.Context, r *ledgerv1.GetAccountRequest) (
	*ledgerv1.GetAccountResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	account, err := id[sig.AccountID](r.GetAccount(), "account")
	if err != nil {
		return nil, err
	}
	// The nonce first: one that is too old is refused and says so, one too new would stay so.
	out := &ledgerv1.GetAccountResponse{
		Id: account[:], PendingNonce: c.PendingNonce(account, r.GetSigner()),
		Height: c.State().Head().Height,
	}
	if r.GetProve() {
		return out, prove(ctx, c, account, out)
	}
	if signers, ok := c.State().Signers(account); ok {
		if out.Signers, err = message(signers.Append(nil), &chainv1.AccountSigners{}); err != nil {
			return nil, err
		}
	}
	if found, ok := c.State().Account(account); ok {
		out.Account, err = message(found.Append(nil), &chainv1.Account{})
	}
	return out, err
}

func prove(ctx context.Context, c *ledger.Chain, account sig.AccountID,
	out *ledgerv1.GetAccountResponse,
) error {
	proven, signers, err := c.ProveAccount(ctx, account)
	if err != nil {
		return err
	}
	out.Height = proven.Head.Height
	out.Proof, out.SignersProof = leafProof(&proven), leafProof(&signers)
	if value := proven.State.GetValue(); len(value) > 0 {
		if out.Account, err = message(value, &chainv1.Account{}); err != nil {
			return err
		}
	}
	if value := signers.State.GetValue(); len(value) > 0 {
		out.Signers, err = message(value, &chainv1.AccountSigners{})
	}
	return err
}

// GetEscrow implements the service.
func (s *Server) GetEscrow(ctx context.Context, r *ledgerv1.GetEscrowRequest) (
	*ledgerv1.GetEscrowResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	escrow, err := id[tx.EscrowID](r.GetEscrow(), "escrow")
	if err != nil {
		return nil, err
	}
	now, accrual := c.Clocks()
	found, ok := c.State().Escrow(escrow)
	out := &ledgerv1.GetEscrowResponse{
		Id: escrow[:], Height: c.State().Head().Height,
		Unreserved: uint64(state.Unreserved(&found, accrual)),
		Secured:    uint64(state.Secured(&found, accrual)),
		Now:        uint64(now), Accrual: uint64(accrual),
	}
	if r.GetProve() {
		proven, err := c.ProveEscrow(ctx, escrow)
		if err != nil {
			return nil, err
		}
		out.Height, out.Proof = proven.Head.Height, leafProof(&proven)
		if value := proven.State.GetValue(); len(value) > 0 {
			out.Escrow, err = message(value, &chainv1.Escrow{})
		}
		return out, err
	}
	if !ok {
		return nil, notFound("escrow", r.GetEscrow())
	}
	out.Escrow, err = message(found.Append(nil), &chainv1.Escrow{})
	return out, err
}

// GetLease implements the service.
func (s *Server) GetLease(ctx context.Context, r *ledgerv1.GetLeaseRequest) (
	*ledgerv1.GetLeaseResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	lease, err := id[tx.LeaseID](r.GetLease(), "lease")
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.GetLeaseResponse{Id: lease[:], Height: c.State().Head().Height}
	if r.GetProve() {
		proven, err := c.ProveLease(ctx, lease)
		if err != nil {
			return nil, err
		}
		out.Height, out.Proof = proven.Head.Height, leafProof(&proven)
		if value := proven.State.GetValue(); len(value) > 0 {
			out.Lease, err = message(value, &chainv1.LeaseState{})
		}
		return out, err
	}
	found, ok := c.State().Lease(lease)
	if !ok {
		return nil, notFound("lease", r.GetLease())
	}
	lane := state.LaneID{Escrow: found.Lease.Escrow, Slot: found.Lease.Slot}
	if newest, ok := c.State().Lane(lane); ok && newest.Lease != lease {
		out.SupersededBy = newest.Lease[:]
	}
	out.Lease, err = message(found.Append(nil), &chainv1.LeaseState{})
	return out, err
}

// maxLeases bounds the leases of one call.
const maxLeases = 256

// GetLeases implements the service.
func (s *Server) GetLeases(_ context.Context, r *ledgerv1.GetLeasesRequest) (
	*ledgerv1.GetLeasesResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	if n := len(r.GetLeases()); n == 0 || n > maxLeases {
		return nil, bad("%d leases are asked for: 1 to %d at once", n, maxLeases)
	}
	out := &ledgerv1.GetLeasesResponse{Height: c.State().Head().Height}
	for _, raw := range r.GetLeases() {
		lease, err := id[tx.LeaseID](raw, "lease")
		if err != nil {
			return nil, err
		}
		entry := &ledgerv1.GetLeasesEntry{Id: lease[:]}
		if found, ok := c.State().Lease(lease); ok {
			if entry.Lease, err = message(found.Append(nil), &chainv1.LeaseState{}); err != nil {
				return nil, err
			}
		}
		out.Leases = append(out.Leases, entry)
	}
	return out, nil
}

// GetTransaction implements the service.
func (s *Server) GetTransaction(ctx context.Context, r *ledgerv1.GetTransactionRequest) (
	*ledgerv1.GetTransactionResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	transaction, err := id[ledger.Hash](r.GetId(), "transaction")
	if err != nil {
		return nil, err
	}
	known, err := c.Transaction(ctx, transaction)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.GetTransactionResponse{
		Result: &ledgerv1.SubmitResult{}, Time: uint64(known.Time),
	}
	if err := fill(out.Result, &known.Result, false); err != nil {
		return nil, err
	}
	if out.Transaction, err = message(known.Raw, &chainv1.Transaction{}); err != nil {
		return nil, err
	}
	if r.GetProve() {
		out.Proof, err = transactionProof(c, known)
	}
	return out, err
}

func transactionProof(c *ledger.Chain, known *ledger.Known) (*chainv1.TransactionProof, error) {
	anchor := c.Anchor()
	transaction, receipt, err := known.Prove()
	if err != nil {
		return nil, err
	}
	return &chainv1.TransactionProof{
		Header: known.Tip.Header.PB(), Certificate: known.Tip.Certificate.PB(),
		Validators: c.Genesis().Validators.PB(), Transaction: known.Raw, Receipt: known.Receipt,
		TransactionProof: transaction.PB(), ReceiptProof: receipt.PB(), Anchor: anchor[:],
	}, nil
}

// GetBlock implements the service.
func (s *Server) GetBlock(ctx context.Context, r *ledgerv1.GetBlockRequest) (
	*ledgerv1.GetBlockResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	height := r.GetHeight()
	if len(r.GetHash()) > 0 {
		hash, err := id[ledger.Hash](r.GetHash(), "hash")
		if err != nil {
			return nil, err
		}
		if height, err = c.Height(hash); err != nil {
			return nil, err
		}
	}
	size, err := c.BlockSize(ctx, height)
	if err != nil {
		return nil, err
	}
	if !r.GetHeaderOnly() { // refused, if there is no room, before it takes any
		if err := rpc.Reserve(ctx, size); err != nil {
			return nil, err
		}
	}
	done, err := s.builds.begin(ctx, size)
	if err != nil {
		return nil, err
	}
	defer done()
	found, err := c.Block(ctx, height)
	if err != nil {
		return nil, err
	}
	if !r.GetHeaderOnly() && len(found.Raw) > maxBlock {
		return nil, fault.New(fault.ResourceExhausted, ledger.ReasonTooLarge,
			"block %d has %d bytes; ask for its header only", height, len(found.Raw))
	}
	m, err := blockMessage(found, !r.GetHeaderOnly())
	return &ledgerv1.GetBlockResponse{Hash: found.Hash[:], Block: m}, err
}

// maxBlock is what fits a message of kit/rpc at its largest.
const maxBlock = 60 << 20
