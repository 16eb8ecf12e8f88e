package proof

import (
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// NewState joins a state proof with the certified header that it leads to. The message is named
// for accounts and serves escrows and leases too.
func NewState(h *block.Header, c block.Certificate, p *chainv1.StateProof) *chainv1.AccountProof {
	return &chainv1.AccountProof{Header: h.PB(), Certificate: c.PB(), Proof: p}
}

// Leaf is what a state proof proves: Value at the header's state, or its absence.
type Leaf[T any] struct {
	Header block.Header
	Exists bool
	// The zero value if it does not exist.
	Value T
}

// VerifyAccount verifies the canonical bytes of an AccountProof about an account.
func VerifyAccount(raw []byte, id sig.AccountID, trust Trust) (Leaf[tx.Account], error) {
	return verifyLeaf(raw, state.AccountKey(id), trust, tx.DecodeAccount)
}

// VerifySigners verifies the canonical bytes of an AccountProof about who may act for an account
// beside its key set: delegates and recovery.
func VerifySigners(raw []byte, id sig.AccountID, trust Trust) (Leaf[tx.AccountSigners], error) {
	return verifyLeaf(raw, state.SignersKey(id), trust, tx.DecodeSigners)
}

// VerifyEscrow verifies the canonical bytes of an AccountProof about an escrow.
func VerifyEscrow(raw []byte, id tx.EscrowID, trust Trust) (Leaf[tx.Escrow], error) {
	return verifyLeaf(raw, state.EscrowKey(id), trust, tx.DecodeEscrow)
}

// VerifyLease verifies the canonical bytes of an AccountProof about a lease.
func VerifyLease(raw []byte, id tx.LeaseID, trust Trust) (Leaf[tx.LeaseState], error) {
	return verifyLeaf(raw, state.LeaseKey(id), trust, tx.DecodeLeaseState)
}

// VerifyChain verifies the canonical bytes of an AccountProof about the chain's own leaf: its sums,
// prices, parameters and validators.
func VerifyChain(raw []byte, trust Trust) (Leaf[*chainv1.ChainState], error) {
	return verifyLeaf(raw, state.ChainKey(), trust, func(raw []byte) (*chainv1.ChainState, error) {
		m := &chainv1.ChainState{}
		return m, canon.Unmarshal(raw, m)
	})
}

func verifyLeaf[T any](raw []byte, key trie.Key, trust Trust, decode func([]byte) (T, error)) (
	leaf Leaf[T], err error,
) {
	m := &chainv1.AccountProof{}
	if err := read(raw, m); err != nil {
		return leaf, err
	}
	header, err := trust.Certified(m.GetHeader(), m.GetCertificate())
	if err != nil {
		return leaf, err
	}
	included, err := trie.Verify(trie.Hash(header.StateRoot), m.GetProof())
	if err != nil {
		return leaf, fmt.Errorf("verify state proof at height %d: %w", header.Height, err)
	}
	if trie.Key(m.GetProof().GetKey()) != key {
		return leaf, fmt.Errorf("%w: key %x", ErrSubject, m.GetProof().GetKey())
	}
	if !included {
		return Leaf[T]{Header: header}, nil
	}
	value, err := decode(m.GetProof().GetValue())
	if err != nil {
		return leaf, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return Leaf[T]{Header: header, Exists: true, Value: value}, nil
}
