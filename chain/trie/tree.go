package trie

import (
	"crypto/sha256"
	"encoding/hex"
)

// Key is a position in the tree.
type Key [32]byte

// Hash is the SHA-256 hash of a subtree; the zero Hash is the empty one.
type Hash [32]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Tree is the committed tree. The zero value is not usable: call New.
//
// Root, Len and Prove read the committed tree and may run at the same time as each other and as
// the updates of an open Batch. Commit must not run beside them: the caller holds the lock that
// separates readers from Commit.
type Tree struct {
	arena *arena
	root  ref
	count int
	open  bool
	// own and order serve one batch after the other.
	own   worker
	order []slot
}

// New returns an empty tree.
func New() *Tree { return &Tree{arena: newArena()} }

// Root returns the hash of the committed tree.
func (t *Tree) Root() Hash { return t.arena.hash(t.root) }

// Len returns the number of committed leaves.
func (t *Tree) Len() int { return t.count }

// Get returns SHA-256 of the committed value at key, and whether there is one.
func (t *Tree) Get(key Key) (Hash, bool) {
	at := t.root
	for depth := 0; at.isInner(); depth++ {
		at = t.arena.inner(at).child[bit(&key, depth)]
	}
	if at == empty || t.arena.leaf(at).key != key {
		return Hash{}, false
	}
	return t.arena.leaf(at).value, true
}

// bit returns bit depth of the key, 0 being the most significant.
func bit(k *Key, depth int) int { return int(k[depth>>3]>>(7-depth&7)) & 1 }

const (
	leafTag  = 0x00
	innerTag = 0x01
	// maxDepth is the number of bits in a key: no path is longer.
	maxDepth = 256
)

func hashLeaf(key *Key, value *Hash) Hash {
	var b [65]byte
	b[0] = leafTag
	copy(b[1:], key[:])
	copy(b[33:], value[:])
	return sha256.Sum256(b[:])
}

func hashInner(left, right *Hash) Hash {
	var b [65]byte
	b[0] = innerTag
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}
