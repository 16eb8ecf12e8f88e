package state

import (
	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Account returns a committed account. What its slices hold must not be changed.
func (s *State) Account(id sig.AccountID) (tx.Account, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a, ok := s.accounts.base[id]
	return a, ok
}

// Keys returns the key set in force of an account, zero while it has none.
func (s *State) Keys(id sig.AccountID) sig.KeySet {
	a, _ := s.Account(id)
	return a.Keys
}

// Signers returns who may act for an account beside its key set; false if nobody was ever named.
// What its slices hold must not be changed.
func (s *State) Signers(id sig.AccountID) (tx.AccountSigners, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a, ok := s.signers.base[id]
	return a, ok
}

// KeysOf returns the keys that judge a signer of an account: its key set for 0, zero while it has
// none, or the key of a delegate. Error: ErrSigner.
func (s *State) KeysOf(id sig.AccountID, signer uint32) (sig.KeySet, error) {
	if signer == 0 {
		return s.Keys(id), nil
	}
	signers, _ := s.Signers(id)
	place, found := signers.Find(signer)
	if !found {
		return sig.KeySet{}, ErrSigner
	}
	return sig.SingleKey(signers.Delegates[place].Key), nil
}

// Nonce returns the next nonce of a signer of an account, 0 for one that does not exist.
func (s *State) Nonce(id sig.AccountID, signer uint32) uint64 {
	if signer == 0 {
		a, _ := s.Account(id)
		return a.Nonce
	}
	signers, _ := s.Signers(id)
	place, found := signers.Find(signer)
	if !found {
		return 0
	}
	return signers.Delegates[place].Nonce
}

// Escrow returns a committed escrow. What its slices hold must not be changed. Burned and
// Balance are as of the last operation that touched it: Unreserved counts what burned since.
func (s *State) Escrow(id tx.EscrowID) (tx.Escrow, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.escrows.base[id]
	return e, ok
}

// Lease returns a committed lease. What its slices hold must not be changed.
func (s *State) Lease(id tx.LeaseID) (tx.LeaseState, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.leases.base[id]
	return l, ok
}

// Lane returns the lease with the highest epoch in a lane.
func (s *State) Lane(id LaneID) (tx.LaneState, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.lanes.base[id]
	return l, ok
}

// Unreserved returns what an owner could withdraw from an escrow at an accrual time: balance
// minus reserved minus what has burned by then. 0 for an escrow that does not exist.
func (s *State) Unreserved(id tx.EscrowID, accrual tx.Millis) tx.Grains {
	e, _ := s.Escrow(id)
	return Unreserved(&e, accrual)
}

// Unreserved is what an owner could withdraw from an escrow at an accrual time, from its leaf.
func Unreserved(e *tx.Escrow, accrual tx.Millis) tx.Grains {
	return unreserved(e) - burnDue(e, accrual)
}

// Withdrawable is what an owner can withdraw at an accrual time, from the escrow's leaf: of a bond
// what notice was given for, once it is due and until it lapses; of another what is unreserved.
func Withdrawable(e *tx.Escrow, accrual tx.Millis) tx.Grains {
	switch {
	case !isBond(e.Purpose):
		return Unreserved(e, accrual)
	case accrual < e.NoticeDue || lapsed(e, accrual):
		return 0
	}
	return min(e.Noticed, Unreserved(e, accrual))
}

// Delegable are the operations that a delegate may be allowed.
const Delegable tx.Operations = delegable

// Reserved is the most that can still be paid on a lease, holdback included, from its leaf.
func Reserved(l *tx.LeaseState) tx.Grains { return reservedOf(l) }

// Accruing tells whether blocks must go on coming: a lease is not settled yet, an escrow burns, or
// a delay such as the notice of a bond is not over.
func (s *State) Accruing() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.counts.unsettled > 0 || s.counts.burning > 0 || len(s.dues.count) > 0
}

// Chain returns the chain's own committed leaf: prices, supply, sums, parameters, validators.
func (s *State) Chain() block.ChainState {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.genesis.leaf(&s.chain)
}

// Proof is a state proof and the head whose state root it leads to.
type Proof struct {
	Head  Head
	State *chainv1.StateProof
}

// ProveAccount proves an account, or that it does not exist.
func (s *State) ProveAccount(id sig.AccountID) Proof {
	return prove(s, &s.accounts, id, AccountKey, (*tx.Account).Append)
}

// ProveActors proves an account and who may act for it beside its key set, or that there is no such
// leaf, both of one state.
func (s *State) ProveActors(id sig.AccountID) (account, signers Proof) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return proveHeld(s, &s.accounts, id, AccountKey, (*tx.Account).Append),
		proveHeld(s, &s.signers, id, SignersKey, (*tx.AccountSigners).Append)
}

// ProveEscrow proves an escrow, or that it does not exist.
func (s *State) ProveEscrow(id tx.EscrowID) Proof {
	return prove(s, &s.escrows, id, EscrowKey, (*tx.Escrow).Append)
}

// ProveLease proves a lease, or that it is not on the chain.
func (s *State) ProveLease(id tx.LeaseID) Proof {
	return prove(s, &s.leases, id, LeaseKey, (*tx.LeaseState).Append)
}

// ProveLane proves a lane, or that no lease stands in it.
func (s *State) ProveLane(id LaneID) Proof {
	return prove(s, &s.lanes, id, LaneKey, (*tx.LaneState).Append)
}

// ProveChain proves the chain's own leaf.
func (s *State) ProveChain() Proof {
	s.mu.RLock()
	defer s.mu.RUnlock()
	proof, _ := s.tree.Prove(ChainKey())
	proof.Value = s.genesis.appendChain(nil, &s.chain)
	return Proof{s.head, proof}
}

func prove[K comparable, V any](s *State, t *table[K, V], id K, key func(K) trie.Key,
	encode func(*V, []byte) []byte) Proof {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return proveHeld(s, t, id, key, encode)
}

// proveHeld is prove for who holds s.mu.
func proveHeld[K comparable, V any](s *State, t *table[K, V], id K, key func(K) trie.Key,
	encode func(*V, []byte) []byte) Proof {
	proof, found := s.tree.Prove(key(id))
	if found {
		v := t.base[id]
		proof.Value = encode(&v, nil)
	}
	return Proof{s.head, proof}
}
