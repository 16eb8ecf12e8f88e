package state

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
)

// LaneID names a lane: a slot of an escrow.
type LaneID struct {
	Escrow tx.EscrowID
	Slot   uint32
}

// Kinds of leaves; a state key is SHA-256(kind ‖ id), so that nobody can choose where a leaf
// stands and no two kinds meet.
const (
	kindChain   = 0
	kindAccount = 1
	kindEscrow  = 2
	kindLease   = 3
	kindLane    = 4
	kindSigners = 5
)

// ChainKey returns the state key of the chain's own leaf.
func ChainKey() trie.Key { return leafKey(kindChain, nil) }

// AccountKey returns the state key of an account.
func AccountKey(id sig.AccountID) trie.Key { return leafKey(kindAccount, id[:]) }

// SignersKey returns the state key of who may act for an account beside its key set.
func SignersKey(id sig.AccountID) trie.Key { return leafKey(kindSigners, id[:]) }

// EscrowKey returns the state key of an escrow.
func EscrowKey(id tx.EscrowID) trie.Key { return leafKey(kindEscrow, id[:]) }

// LeaseKey returns the state key of a lease.
func LeaseKey(id tx.LeaseID) trie.Key { return leafKey(kindLease, id[:]) }

// LaneKey returns the state key of a lane; its id is escrow ‖ slot, the slot big-endian.
func LaneKey(id LaneID) trie.Key { return leafKey(kindLane, id.bytes()) }

func (id LaneID) bytes() []byte {
	return binary.BigEndian.AppendUint32(id.Escrow[:], id.Slot)
}

func leafKey(kind byte, id []byte) trie.Key {
	var b [1 + 36]byte
	b[0] = kind
	n := copy(b[1:], id)
	return sha256.Sum256(b[:1+n])
}
