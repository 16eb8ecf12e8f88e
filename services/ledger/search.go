package ledger

import (
	"context"
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
)

// Kind of what a search found.
type Kind uint8

// The kinds.
const (
	KindBlock Kind = iota + 1
	KindTransaction
	KindAccount
	KindEscrow
	KindLease
	KindJob
)

// Hit is something that a searched text stands for.
type Hit struct {
	Kind Kind
	ID   Hash
	// Height of a block.
	Height uint64
}

// MaxHits bounds what one search finds.
const MaxHits = 20

// SearchID returns everything that has an id: what is on the chain, and what was.
func (c *Chain) SearchID(ctx context.Context, id Hash) ([]Hit, error) {
	var hits []Hit
	if height, err := c.Height(id); err == nil {
		hits = append(hits, Hit{KindBlock, id, height})
	}
	if at, err := c.locate(id); err == nil {
		hits = append(hits, Hit{KindTransaction, id, at.Height})
	}
	if _, found := c.state.Account(sig.AccountID(id)); found {
		hits = append(hits, Hit{Kind: KindAccount, ID: id})
	}
	if c.deps.Index == nil {
		return hits, nil
	}
	indexed, err := c.awaitIndex(ctx)
	if err != nil {
		return hits, err
	}
	for _, of := range []struct {
		list List
		kind Kind
	}{{ListEscrow, KindEscrow}, {ListLease, KindLease}, {ListSubject, KindJob}} {
		_, found, err := c.birth(ListID{of.list, id})
		if err != nil {
			return hits, err
		}
		if found {
			hits = append(hits, Hit{Kind: of.kind, ID: id})
		}
	}
	return hits, c.stillIndexed(indexed)
}

// SearchBetween returns transactions and blocks with ids from low to high.
func (c *Chain) SearchBetween(ctx context.Context, low, high Hash) ([]Hit, error) {
	if c.deps.Index == nil {
		return nil, nil
	}
	indexed, err := c.awaitIndex(ctx)
	if err != nil {
		return nil, err
	}
	transactions, blocks, err := c.deps.Index.Between(low, high, MaxHits)
	if err != nil {
		return nil, err
	}
	var hits []Hit
	for _, id := range blocks {
		height, found, err := c.deps.Index.Block(id)
		if err != nil {
			return nil, err
		}
		if found {
			hits = append(hits, Hit{KindBlock, id, height})
		}
	}
	for _, id := range transactions {
		hits = append(hits, Hit{Kind: KindTransaction, ID: id})
	}
	return hits[:min(len(hits), MaxHits)], c.stillIndexed(indexed)
}

// HistoryProof is what proves that a block is an ancestor of a certified one.
type HistoryProof struct {
	Head     Tip
	Ancestor block.Header
	Proof    block.ListProof
}

// ProveHistory proves that the block of a height is an ancestor of the last indexed one. Faults:
// ReasonNotFound when it is not below it; ReasonNoIndex, ReasonLag.
func (c *Chain) ProveHistory(ctx context.Context, height uint64) (*HistoryProof, error) {
	if c.deps.Index == nil {
		return nil, noIndex()
	}
	indexed, err := c.awaitIndex(ctx)
	if err != nil {
		return nil, err
	}
	if height >= indexed {
		return nil, fault.New(fault.NotFound, ReasonNotFound,
			"block %d is not an ancestor of block %d, the last that is indexed", height, indexed)
	}
	head, err := c.Block(ctx, indexed)
	if err != nil {
		return nil, err
	}
	ancestor, err := c.Block(ctx, height)
	if err != nil {
		return nil, err
	}
	p, err := block.ProveStored(height, indexed, c.node)
	if err != nil {
		return nil, fmt.Errorf("prove block %d before block %d: %w", height, indexed, err)
	}
	return &HistoryProof{
		Head:     Tip{head.Block.Header, head.Hash, head.Block.Certificate},
		Ancestor: ancestor.Block.Header, Proof: p,
	}, nil
}

// Proven is a leaf of the state with the proof that leads to a certified header.
type Proven struct {
	state.Proof
	Tip Tip
}

// ProveEscrow proves an escrow's leaf, or that there is none.
func (c *Chain) ProveEscrow(ctx context.Context, id tx.EscrowID) (Proven, error) {
	return c.certified(ctx, c.state.ProveEscrow(id))
}

// ProveLease proves a lease's leaf, or that there is none.
func (c *Chain) ProveLease(ctx context.Context, id tx.LeaseID) (Proven, error) {
	return c.certified(ctx, c.state.ProveLease(id))
}

// ProveAccount proves the leaves of an account and of who may act for it beside its key set, or
// that there is none, both under one header.
func (c *Chain) ProveAccount(ctx context.Context, id sig.AccountID) (
	account, signers Proven, err error,
) {
	one, two := c.state.ProveActors(id)
	if account, err = c.certified(ctx, one); err != nil {
		return account, signers, err
	}
	return account, Proven{two, account.Tip}, nil
}

// ProveChain proves the chain's own leaf.
func (c *Chain) ProveChain(ctx context.Context) (Proven, error) {
	return c.certified(ctx, c.state.ProveChain())
}

// certified adds the header that a state proof leads to.
func (c *Chain) certified(ctx context.Context, proof state.Proof) (Proven, error) {
	tip := c.Tip()
	if tip.Header.Height != proof.Head.Height { // a block came between
		found, err := c.Block(ctx, proof.Head.Height)
		if err != nil {
			return Proven{}, err
		}
		tip = Tip{found.Block.Header, found.Hash, found.Block.Certificate}
	}
	return Proven{proof, tip}, nil
}
