package state

import (
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
)

// New returns the state at height 0 of a genesis. The accrual clock starts at the genesis time.
// Errors wrap block.ErrGenesis.
func New(g *block.Genesis) (*State, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	lock := g.Params.AccountLock
	if lock == 0 {
		return nil, fmt.Errorf("%w: account_lock is 0, and a leaf must not be empty",
			block.ErrGenesis)
	}
	s := newState(rules{g.Anchor(), g.Chain, g.Params, g.Validators})
	s.head = Head{Time: g.Time, Accrual: g.Time}
	s.chain.prices = Prices{g.Params.OperationFee, g.Params.ByteFee}
	for _, a := range g.Allocations {
		s.chain.genesisSupply += a.Amount
		s.chain.sums.accounts += a.Amount - lock
		s.chain.sums.locks += lock
		s.accounts.base[a.Account] = tx.Account{Balance: a.Amount - lock, Lock: lock}
	}
	if err := s.rebuildTree(); err != nil {
		return nil, err
	}
	s.Recount()
	return s, nil
}

// rebuildTree puts every committed leaf into the empty tree.
func (s *State) rebuildTree() error {
	updates := []trie.Update{{Key: ChainKey(), Value: s.genesis.appendChain(nil, &s.chain)}}
	updates = appendBase(updates, &s.accounts, AccountKey, (*tx.Account).Append)
	updates = appendBase(updates, &s.signers, SignersKey, (*tx.AccountSigners).Append)
	updates = appendBase(updates, &s.escrows, EscrowKey, (*tx.Escrow).Append)
	updates = appendBase(updates, &s.leases, LeaseKey, (*tx.LeaseState).Append)
	updates = appendBase(updates, &s.lanes, LaneKey, (*tx.LaneState).Append)
	batch, err := s.tree.Begin()
	if err != nil {
		return err
	}
	if err := batch.Update(updates); err != nil {
		batch.Drop()
		return err
	}
	batch.Commit()
	return nil
}

func appendBase[K comparable, V any](updates []trie.Update, t *table[K, V], key func(K) trie.Key,
	encode func(*V, []byte) []byte) []trie.Update {
	for id, v := range t.base {
		updates = append(updates, trie.Update{Key: key(id), Value: encode(&v, nil)})
	}
	return updates
}
