package trie

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"sync"
)

// forkSize is the number of updates from which the two halves of a subtree are worked on in
// parallel, forkDepth the depth down to which that is done (so at most 4 goroutines).
const (
	forkSize  = 512
	forkDepth = 2
)

// keptRefs bounds the lists that a worker keeps from batch to batch.
const keptRefs = 1 << 18

// worker applies updates to one subtree, in one goroutine at a time. It and its children serve
// batch after batch.
type worker struct {
	arena *arena
	// number of the batch in hand: nodes that carry it are its own and need not be kept.
	number uint64
	// children work on the other halves of forks, one per depth.
	children [forkDepth]*worker
	inners   pool
	leaves   pool
	// created and replaced nodes: dropping frees the former, committing the latter.
	created, replaced []ref
	// delta is the change of the number of leaves.
	delta int
}

// pool holds node numbers for use: free ones of the arena, and spare ones that this batch made
// and replaced again, which stand in created already.
type pool struct{ free, spare []ref }

func (w *worker) begin(a *arena, number uint64) {
	w.arena, w.number = a, number
	for _, c := range w.children {
		if c != nil {
			c.begin(a, number)
		}
	}
}

// commit frees what the batch replaced.
func (w *worker) commit() {
	w.arena.release(w.replaced)
	w.arena.release(w.inners.spare)
	w.arena.release(w.leaves.spare)
	w.reset((*worker).commit)
}

// drop frees what the batch created.
func (w *worker) drop() {
	w.arena.release(w.created)
	w.reset((*worker).drop)
}

func (w *worker) reset(child func(*worker)) {
	for _, list := range []*[]ref{&w.created, &w.replaced, &w.inners.spare, &w.leaves.spare} {
		if *list = (*list)[:0]; cap(*list) > keptRefs {
			*list = nil
		}
	}
	for _, c := range w.children {
		if c != nil {
			child(c)
		}
	}
}

// takeDelta returns the change of the number of leaves since it was last called.
func (w *worker) takeDelta() int {
	delta := w.delta
	w.delta = 0
	for _, c := range w.children {
		if c != nil {
			delta += c.takeDelta()
		}
	}
	return delta
}

// apply returns the subtree at the given depth after the updates, which are sorted and all
// belong to it.
func (w *worker) apply(at ref, depth int, ups []slot) ref {
	switch {
	case len(ups) == 0:
		return at
	case !at.isInner():
		return w.applyLeaf(at, depth, ups)
	}
	old := w.arena.inner(at).child
	left, right := w.applyHalves(old, depth, ups)
	if left == old[0] && right == old[1] && w.unchanged(at) {
		return at
	}
	w.discard(at)
	return w.join(left, right)
}

// unchanged tells whether the children of a node are what its hash was made of: a child that this
// batch made may have been replaced by another in the same place.
func (w *worker) unchanged(at ref) bool { return w.arena.inner(at).number != w.number }

func (w *worker) applyHalves(old [2]ref, depth int, ups []slot) (left, right ref) {
	cut := split(ups, depth)
	if depth < forkDepth && cut >= forkSize/2 && len(ups)-cut >= forkSize/2 {
		return w.fork(old, depth, ups[:cut], ups[cut:])
	}
	return w.apply(old[0], depth+1, ups[:cut]), w.apply(old[1], depth+1, ups[cut:])
}

// fork applies both halves at once. It stands alone so that only a fork allocates.
func (w *worker) fork(old [2]ref, depth int, lefts, rights []slot) (left, right ref) {
	if w.children[depth] == nil {
		w.children[depth] = &worker{arena: w.arena, number: w.number}
	}
	other := w.children[depth]
	var wait sync.WaitGroup
	wait.Go(func() { left = other.apply(old[0], depth+1, lefts) })
	right = w.apply(old[1], depth+1, rights)
	wait.Wait()
	return left, right
}

// applyLeaf handles a subtree that is empty or a single leaf.
func (w *worker) applyLeaf(at ref, depth int, ups []slot) ref {
	if at == empty {
		return w.build(empty, depth, ups)
	}
	leaf := w.arena.leaf(at)
	i, found := slices.BinarySearchFunc(ups, leaf, func(s slot, l *leafNode) int {
		return bytes.Compare(s.update.Key[:], l.key[:])
	})
	if !found {
		return w.build(at, depth, ups)
	}
	if u := ups[i].update; len(ups) == 1 && u.Value != nil && sha256.Sum256(u.Value) == leaf.value {
		return at
	}
	w.discard(at)
	w.delta--
	return w.build(empty, depth, ups)
}

// build makes the subtree of an optional old leaf and updates of other keys.
func (w *worker) build(carry ref, depth int, ups []slot) ref {
	switch {
	case len(ups) == 0:
		return carry
	case len(ups) == 1 && ups[0].update.Value == nil:
		return carry
	case len(ups) == 1 && carry == empty:
		return w.newLeaf(ups[0].update)
	}
	cut := split(ups, depth)
	var carries [2]ref
	if carry != empty {
		carries[bit(&w.arena.leaf(carry).key, depth)] = carry
	}
	return w.join(w.build(carries[0], depth+1, ups[:cut]), w.build(carries[1], depth+1, ups[cut:]))
}

// join makes the subtree of two halves; a single leaf stands for itself.
func (w *worker) join(left, right ref) ref {
	switch {
	case left == empty && !right.isInner():
		return right
	case right == empty && !left.isInner():
		return left
	}
	at := w.inners.spared()
	if at == empty {
		at = w.take(&w.inners, w.arena.grabInners)
	}
	n := w.arena.inner(at)
	n.child, n.number = [2]ref{left, right}, w.number
	l, r := w.arena.hash(left), w.arena.hash(right)
	n.hash = hashInner(&l, &r)
	return at
}

func (w *worker) newLeaf(u *Update) ref {
	at := w.leaves.spared()
	if at == empty {
		at = w.take(&w.leaves, w.arena.grabLeaves)
	}
	n := w.arena.leaf(at)
	n.key, n.value, n.number = u.Key, sha256.Sum256(u.Value), w.number
	n.hash = hashLeaf(&n.key, &n.value)
	w.delta++
	return at
}

// discard gives up a node: one of this batch is spare at once, a committed one stays until the
// batch is committed.
func (w *worker) discard(at ref) {
	switch {
	case at.isLeaf() && w.arena.leaf(at).number == w.number:
		w.leaves.spare = append(w.leaves.spare, at)
	case at.isInner() && w.arena.inner(at).number == w.number:
		w.inners.spare = append(w.inners.spare, at)
	default:
		w.replaced = append(w.replaced, at)
	}
}

// spared takes a spare number, empty if there is none.
func (p *pool) spared() ref {
	last := len(p.spare) - 1
	if last < 0 {
		return empty
	}
	at := p.spare[last]
	p.spare = p.spare[:last]
	return at
}

func (w *worker) take(p *pool, grab func([]ref) []ref) ref {
	if len(p.free) == 0 {
		p.free = grab(p.free)
	}
	last := len(p.free) - 1
	at := p.free[last]
	p.free = p.free[:last]
	w.created = append(w.created, at)
	return at
}

// split returns how many of the sorted updates go left at depth.
func split(ups []slot, depth int) int {
	lo, hi := 0, len(ups)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bit(&ups[mid].update.Key, depth) == 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
