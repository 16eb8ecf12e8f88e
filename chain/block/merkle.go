package block

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// MaxSiblings is the longest inclusion proof: the depth of a list of 2^64 entries.
const MaxSiblings = 64

// EmptyRoot is the root of a list without entries (RFC 6962 section 2.1).
func EmptyRoot() tx.Hash { return sha256.Sum256(nil) }

// LeafHash is the hash of one entry of a list.
func LeafHash(entry []byte) tx.Hash {
	var room [256]byte
	return sha256.Sum256(append(append(room[:0], 0), entry...))
}

// TransactionEntry is the entry of a transaction in the list that transactions_root commits to.
func TransactionEntry(id tx.ID, witness tx.Hash) [64]byte {
	var entry [64]byte
	copy(entry[:32], id[:])
	copy(entry[32:], witness[:])
	return entry
}

func nodeHash(left, right tx.Hash) tx.Hash {
	var node [65]byte
	node[0] = 1
	copy(node[1:], left[:])
	copy(node[33:], right[:])
	return sha256.Sum256(node[:])
}

// Root returns the root of a list of entries.
func Root(entries [][]byte) tx.Hash {
	var r CompactRange
	for _, entry := range entries {
		r.Append(LeafHash(entry))
	}
	return r.Root()
}

// RootOfLeaves returns the root of a list whose entries have the leaf hashes given.
func RootOfLeaves(leaves []tx.Hash) tx.Hash {
	var r CompactRange
	for _, leaf := range leaves {
		r.Append(leaf)
	}
	return r.Root()
}

// CompactRange is an append-only list kept as the O(log n) roots of its full subtrees. The zero
// value is the empty list. It is not safe for use by several goroutines.
type CompactRange struct {
	size  uint64
	nodes []tx.Hash // largest subtree first
}

// RestoreRange returns the range that had the size and nodes given. It fails if their numbers do
// not fit; that the nodes are the right ones shows in Root.
func RestoreRange(size uint64, nodes []tx.Hash) (*CompactRange, error) {
	if len(nodes) != bits.OnesCount64(size) {
		return nil, fmt.Errorf("list of %d entries has %d subtrees, not %d", size,
			bits.OnesCount64(size), len(nodes))
	}
	return &CompactRange{size: size, nodes: append([]tx.Hash(nil), nodes...)}, nil
}

// Append adds an entry by its leaf hash.
func (r *CompactRange) Append(leaf tx.Hash) {
	for full := r.size; full&1 == 1; full >>= 1 {
		leaf = nodeHash(r.nodes[len(r.nodes)-1], leaf)
		r.nodes = r.nodes[:len(r.nodes)-1]
	}
	r.nodes = append(r.nodes, leaf)
	r.size++
}

// Size is the number of entries.
func (r *CompactRange) Size() uint64 { return r.size }

// Nodes returns a copy of the subtree roots, which with Size restore the range.
func (r *CompactRange) Nodes() []tx.Hash { return append([]tx.Hash(nil), r.nodes...) }

// Root returns the root of the list.
func (r *CompactRange) Root() tx.Hash {
	if r.size == 0 {
		return EmptyRoot()
	}
	root := r.nodes[len(r.nodes)-1]
	for i := len(r.nodes) - 2; i >= 0; i-- {
		root = nodeHash(r.nodes[i], root)
	}
	return root
}

// ListProof proves one entry of a list.
type ListProof struct {
	Index, Size uint64
	// From the leaf up, at most MaxSiblings.
	Siblings []tx.Hash
}

// Prove returns the proof of entry number index of the list with the leaf hashes given, which
// panics if there is none.
func Prove(leaves []tx.Hash, index int) ListProof {
	if index < 0 || index >= len(leaves) {
		panic(fmt.Sprintf("block: prove entry %d of %d", index, len(leaves)))
	}
	proof := ListProof{Index: uint64(index), Size: uint64(len(leaves))}
	// The path is found from the root down and told from the leaf up.
	for len(leaves) > 1 {
		half := int(split(uint64(len(leaves))))
		if index < half {
			proof.Siblings = append(proof.Siblings, RootOfLeaves(leaves[half:]))
			leaves = leaves[:half]
			continue
		}
		proof.Siblings = append(proof.Siblings, RootOfLeaves(leaves[:half]))
		leaves, index = leaves[half:], index-half
	}
	slices.Reverse(proof.Siblings)
	return proof
}

// Verify checks that the entry stands at Index of the list of Size entries with the root given
// (RFC 9162 section 2.1.3.2). A root does not commit to the size: unless the verifier knows the
// size from elsewhere, only that the entry is in the list is proven, not where.
func (p ListProof) Verify(entry []byte, root tx.Hash) error {
	if p.Index >= p.Size || len(p.Siblings) > MaxSiblings {
		return fmt.Errorf("%w: entry %d of %d with %d siblings", ErrProof, p.Index, p.Size,
			len(p.Siblings))
	}
	at, last, hash := p.Index, p.Size-1, LeafHash(entry)
	for _, sibling := range p.Siblings {
		if last == 0 {
			return fmt.Errorf("%w: too many siblings", ErrProof)
		}
		if at&1 == 1 || at == last {
			hash = nodeHash(sibling, hash)
			for at&1 == 0 && at != 0 {
				at, last = at>>1, last>>1
			}
		} else {
			hash = nodeHash(hash, sibling)
		}
		at, last = at>>1, last>>1
	}
	if last != 0 || hash != root {
		return fmt.Errorf("%w: entry %d of %d is not under root %s", ErrProof, p.Index, p.Size, root)
	}
	return nil
}

// PB returns the message form.
func (p ListProof) PB() *chainv1.ListProof {
	out := &chainv1.ListProof{Index: p.Index, Size: p.Size}
	for i := range p.Siblings {
		out.Siblings = append(out.Siblings, p.Siblings[i][:])
	}
	return out
}

// ListProofFromPB reads the message form; siblings must be 32 bytes each.
func ListProofFromPB(m *chainv1.ListProof) (ListProof, error) {
	if len(m.GetSiblings()) > MaxSiblings {
		return ListProof{}, fmt.Errorf("%w: %d siblings", ErrProof, len(m.GetSiblings()))
	}
	out := ListProof{Index: m.GetIndex(), Size: m.GetSize()}
	for i, sibling := range m.GetSiblings() {
		if len(sibling) != len(tx.Hash{}) {
			return ListProof{}, fmt.Errorf("%w: sibling %d: %w", ErrProof, i, canon.ErrLength)
		}
		out.Siblings = append(out.Siblings, tx.Hash(sibling))
	}
	return out, nil
}

// A NodeStore returns the root of the complete subtree of 2^level entries that begins at entry
// i × 2^level of a list.
type NodeStore func(level uint, i uint64) (tx.Hash, error)

// Grow calls put with every subtree of a list that becomes complete by appending leaf as entry
// index: the leaf itself first, then upwards. node returns those that were complete before.
func Grow(index uint64, leaf tx.Hash, node NodeStore,
	put func(level uint, i uint64, root tx.Hash)) error {
	put(0, index, leaf)
	for level := uint(0); index&1 == 1; level++ {
		left, err := node(level, index-1)
		if err != nil {
			return err
		}
		leaf, index = nodeHash(left, leaf), index>>1
		put(level+1, index, leaf)
	}
	return nil
}

// ProveStored is Prove of entry index, below size, of a list of size entries whose complete
// subtrees are stored. It reads O(log² size) of them.
func ProveStored(index, size uint64, node NodeStore) (ListProof, error) {
	p := ListProof{Index: index, Size: size}
	var err error
	for low := uint64(0); size > 1; {
		half := split(size)
		var sibling tx.Hash
		if index-low < half {
			sibling, err = spanRoot(low+half, size-half, node)
			size = half
		} else {
			sibling, err = spanRoot(low, half, node)
			low, size = low+half, size-half
		}
		if err != nil {
			return ListProof{}, err
		}
		p.Siblings = append(p.Siblings, sibling)
	}
	slices.Reverse(p.Siblings)
	return p, nil
}

// spanRoot returns the root of size entries from low on.
func spanRoot(low, size uint64, node NodeStore) (tx.Hash, error) {
	if size&(size-1) == 0 {
		level := uint(bits.TrailingZeros64(size))
		return node(level, low>>level)
	}
	half := split(size)
	left, err := spanRoot(low, half, node)
	if err != nil {
		return left, err
	}
	right, err := spanRoot(low+half, size-half, node)
	return nodeHash(left, right), err
}

// split returns the largest power of two below n, which is at least 2.
func split(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }
