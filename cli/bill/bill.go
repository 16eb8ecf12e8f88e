// Package bill finds out from a chain what an owner paid for a job, and proves it: every charge of
// the job's leases with its transaction, block, and receipt, each verified against a certified
// header and the genesis, without trust in the ledger that answers.
//
// A ledger that leaves charges out is found out by the leases' own sum.
package bill

import (
	"context"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// MaxBlocks is how many blocks one search looks through.
const MaxBlocks = 20_000

// Errors of a search.
var (
	ErrTooFar = errors.New("too many blocks to look through")
	ErrLies   = errors.New("the ledger's proof does not hold")
)

// Ledger is what a search reads. ledgerv1.LedgerServiceClient wrapped by Of is one.
type Ledger interface {
	Head(ctx context.Context) (uint64, error)
	Block(ctx context.Context, height uint64) (*chainv1.Block, error)
	Transaction(ctx context.Context, id tx.ID) (*ledgerv1.GetTransactionResponse, error)
}

// Charge is one charge of a lease as the chain executed it.
type Charge struct {
	Transaction tx.ID
	Height      uint64
	// Time of the block.
	Time  tx.Millis
	Lease tx.LeaseID
	Note  tx.Note
	Final bool
	// Countersigned says that the owner acknowledged this very note.
	Countersigned bool
	// Paid is what this charge moved; Unpaid what the note asks beyond it, because of Bound.
	Paid   tx.Grains
	Unpaid tx.Grains
	Bound  chainv1.Bound
}

// Charges returns every charge of the leases in the blocks from a height on, in their order. Every
// one was proven to stand in a certified block with its receipt. Errors wrap ErrTooFar, ErrLies, or
// are the ledger's.
func Charges(
	ctx context.Context, l Ledger, trust proof.Trust, leases []tx.LeaseID, from uint64,
) ([]Charge, error) {
	wanted := make(map[tx.LeaseID]bool, len(leases))
	for _, lease := range leases {
		wanted[lease] = true
	}
	head, err := l.Head(ctx)
	if err != nil {
		return nil, err
	}
	if head >= from && head-from >= MaxBlocks {
		return nil, fmt.Errorf("%w: from %d to %d", ErrTooFar, from, head)
	}
	var list []Charge
	for height := from; height <= head; height++ {
		b, err := l.Block(ctx, height)
		if err != nil {
			return nil, err
		}
		for _, raw := range b.GetBody().GetTransactions() {
			found, err := inTransaction(ctx, l, trust, wanted, raw)
			if err != nil {
				return nil, fmt.Errorf("block %d: %w", height, err)
			}
			list = append(list, found...)
		}
	}
	return list, nil
}

// inTransaction returns the charges of one transaction of a block, proven.
func inTransaction(
	ctx context.Context, l Ledger, trust proof.Trust, wanted map[tx.LeaseID]bool, raw []byte,
) ([]Charge, error) {
	t, err := tx.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLies, err)
	}
	if !holds(t, wanted) {
		return nil, nil
	}
	id := t.ID(trust.Anchor)
	answer, err := l.Transaction(ctx, id)
	if err != nil {
		return nil, err
	}
	proven, err := Verify(answer.GetProof(), trust)
	if err != nil {
		return nil, err
	}
	if proven.ID != id || len(proven.Receipt.Outcomes) > len(t.Operations) {
		return nil, fmt.Errorf("%w: it is about another transaction", ErrLies)
	}
	var list []Charge
	for i, operation := range t.Operations {
		c, ok := operation.(*tx.Charge)
		if !ok || !wanted[c.Note.Lease] || i >= len(proven.Receipt.Outcomes) {
			continue
		}
		out := &proven.Receipt.Outcomes[i]
		list = append(list, Charge{
			Transaction: id, Height: proven.Header.Height, Time: proven.Header.Time,
			Lease: c.Note.Lease, Note: c.Note, Final: c.Final,
			Countersigned: !c.Countersignature.IsZero(),
			Paid:          out.Amount, Unpaid: out.Unpaid, Bound: out.Bound,
		})
	}
	return list, nil
}

func holds(t *tx.Transaction, wanted map[tx.LeaseID]bool) bool {
	for _, operation := range t.Operations {
		if c, ok := operation.(*tx.Charge); ok && wanted[c.Note.Lease] {
			return true
		}
	}
	return false
}

// Verify checks a proof as it came in a message. Errors wrap ErrLies and the cause.
func Verify(m *chainv1.TransactionProof, trust proof.Trust) (proof.Proven, error) {
	raw, err := canon.Marshal(m)
	if err != nil {
		return proof.Proven{}, fmt.Errorf("%w: %w", ErrLies, err)
	}
	proven, err := proof.VerifyTransaction(raw, trust)
	if err != nil {
		return proof.Proven{}, fmt.Errorf("%w: %w", ErrLies, err)
	}
	return proven, nil
}

// Sum adds up what the charges paid.
func Sum(charges []Charge) (total tx.Grains) {
	for _, c := range charges {
		total += c.Paid
	}
	return total
}

// Client reads through a ledger's gRPC service.
type Client struct {
	Service ledgerv1.LedgerServiceClient
	Chain   string
}

var _ Ledger = Client{}

// Head implements Ledger.
func (c Client) Head(ctx context.Context) (uint64, error) {
	r, err := c.Service.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: c.Chain})
	if err != nil {
		return 0, fmt.Errorf("read the chain: %w", err)
	}
	return r.GetHead().GetHeight(), nil
}

// Block implements Ledger.
func (c Client) Block(ctx context.Context, height uint64) (*chainv1.Block, error) {
	r, err := c.Service.GetBlock(ctx, &ledgerv1.GetBlockRequest{Chain: c.Chain, Height: height})
	if err != nil {
		return nil, fmt.Errorf("read block %d: %w", height, err)
	}
	return r.GetBlock(), nil
}

// Transaction implements Ledger.
func (c Client) Transaction(
	ctx context.Context, id tx.ID,
) (*ledgerv1.GetTransactionResponse, error) {
	r, err := c.Service.GetTransaction(ctx, &ledgerv1.GetTransactionRequest{
		Chain: c.Chain, Id: id[:], Prove: true,
	})
	if err != nil {
		return nil, fmt.Errorf("read transaction %s: %w", id, err)
	}
	return r, nil
}
