package trie

import "sync"

// ref names a node in the arena: 0 is the empty subtree, the top bit marks a leaf.
type ref uint32

const (
	empty   ref = 0
	leafBit ref = 1 << 31
)

func (r ref) isLeaf() bool  { return r&leafBit != 0 }
func (r ref) isInner() bool { return r != empty && r&leafBit == 0 }

type innerNode struct {
	hash  Hash
	child [2]ref
	// number of the batch that made it.
	number uint64
}

type leafNode struct {
	key   Key
	value Hash
	hash  Hash
	// number of the batch that made it.
	number uint64
}

const (
	chunkBits = 13
	chunkSize = 1 << chunkBits
	// maxChunks bounds the arena to 2^28 nodes of each kind, about 26 GiB of leaves.
	maxChunks = 1 << 15
	// grabSize is how many node numbers a worker takes from the arena at a time.
	grabSize = 256
)

// arena holds nodes in chunks that never move, so a reader of committed nodes is not disturbed
// by a batch that adds new ones.
type arena struct {
	inners [maxChunks]*[chunkSize]innerNode
	leaves [maxChunks]*[chunkSize]leafNode

	// mu guards the numbers not in use, which the workers of one batch share.
	mu         sync.Mutex
	nextInner  uint32
	nextLeaf   uint32
	freeInners []ref
	freeLeaves []ref
}

// newArena starts the inner numbers at 1 because 0 is the empty subtree.
func newArena() *arena { return &arena{nextInner: 1} }

func (a *arena) inner(r ref) *innerNode {
	return &a.inners[r>>chunkBits][r&(chunkSize-1)]
}

func (a *arena) leaf(r ref) *leafNode {
	r &^= leafBit
	return &a.leaves[r>>chunkBits][r&(chunkSize-1)]
}

func (a *arena) hash(r ref) Hash {
	switch {
	case r == empty:
		return Hash{}
	case r.isLeaf():
		return a.leaf(r).hash
	default:
		return a.inner(r).hash
	}
}

// grabInners appends up to grabSize unused inner numbers to dst.
func (a *arena) grabInners(dst []ref) []ref {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := min(len(a.freeInners), grabSize); n > 0 {
		cut := len(a.freeInners) - n
		dst = append(dst, a.freeInners[cut:]...)
		a.freeInners = a.freeInners[:cut]
		return dst
	}
	for range grabSize {
		chunk := mustFit(a.nextInner)
		if a.inners[chunk] == nil {
			a.inners[chunk] = new([chunkSize]innerNode)
		}
		dst = append(dst, ref(a.nextInner))
		a.nextInner++
	}
	return dst
}

// grabLeaves appends up to grabSize unused leaf numbers to dst.
func (a *arena) grabLeaves(dst []ref) []ref {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := min(len(a.freeLeaves), grabSize); n > 0 {
		cut := len(a.freeLeaves) - n
		dst = append(dst, a.freeLeaves[cut:]...)
		a.freeLeaves = a.freeLeaves[:cut]
		return dst
	}
	for range grabSize {
		chunk := mustFit(a.nextLeaf)
		if a.leaves[chunk] == nil {
			a.leaves[chunk] = new([chunkSize]leafNode)
		}
		dst = append(dst, ref(a.nextLeaf)|leafBit)
		a.nextLeaf++
	}
	return dst
}

// release makes nodes usable again.
func (a *arena) release(refs []ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range refs {
		if r.isLeaf() {
			a.freeLeaves = append(a.freeLeaves, r)
		} else {
			a.freeInners = append(a.freeInners, r)
		}
	}
}

func mustFit(number uint32) uint32 {
	chunk := number >> chunkBits
	if chunk >= maxChunks {
		panic("trie: more than 2^28 nodes; the state no longer fits this arena")
	}
	return chunk
}
