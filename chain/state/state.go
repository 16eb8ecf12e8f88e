package state

import (
	"sync"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
)

// RulesVersion is the version of the state transition function that this package is.
const RulesVersion = 1

// Head is the block that the committed state is the state after.
type Head struct {
	Height uint64
	// The proposer's clock, ms since 1970.
	Time tx.Millis
	// The second clock, ms: genesis time, advanced by min(time step, max_step) per block.
	Accrual tx.Millis
}

// State is a chain's state in RAM. Reads are of the committed state, may run from any goroutine
// and beside an open Execution, and never see half a block. Begin and the Execution belong to one
// goroutine.
type State struct {
	genesis rules

	// mu separates readers from Commit: what follows changes only while it is held for writing.
	mu       sync.RWMutex
	head     Head
	chain    chainRecord
	counts   counters
	dues     dues
	accounts table[sig.AccountID, tx.Account]
	signers  table[sig.AccountID, tx.AccountSigners]
	escrows  table[tx.EscrowID, tx.Escrow]
	leases   table[tx.LeaseID, tx.LeaseState]
	lanes    table[LaneID, tx.LaneState]
	tree     *trie.Tree

	// room is reused from block to block by the open execution.
	room room
	open bool
}

// rules are what a genesis fixes.
type rules struct {
	anchor     sig.Anchor
	chain      string
	params     block.Params
	validators block.ValidatorSet
}

// chainRecord is the changing part of the chain's own leaf.
type chainRecord struct {
	minted, burned block.Counter
	prices         Prices
	genesisSupply  tx.Grains
	sums           sums
}

// sums follow the records: they are changed by the difference of every record edited.
type sums struct{ accounts, escrows, locks, lockboxes tx.Grains }

// counters tell in O(1) whether money accrues. They are derived, so no leaf holds them.
type counters struct {
	// leases that are not settled; escrows that burn and have something left to burn.
	unsettled, burning int
}

func newState(r rules) *State {
	return &State{
		genesis:  r,
		accounts: newTable[sig.AccountID, tx.Account](),
		signers:  newTable[sig.AccountID, tx.AccountSigners](),
		escrows:  newTable[tx.EscrowID, tx.Escrow](),
		leases:   newTable[tx.LeaseID, tx.LeaseState](),
		lanes:    newTable[LaneID, tx.LaneState](),
		tree:     trie.New(),
	}
}

// Head returns the height and clocks of the committed state.
func (s *State) Head() Head {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.head
}

// Root returns the committed state root.
func (s *State) Root() trie.Hash {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tree.Root()
}

// Prices returns what the next block charges.
func (s *State) Prices() Prices {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.chain.prices
}

// Params returns the chain's parameters.
func (s *State) Params() block.Params { return s.genesis.params }

// Validators returns the set that signs the next header; the caller must not change it.
func (s *State) Validators() block.ValidatorSet { return s.genesis.validators }
