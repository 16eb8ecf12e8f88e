package trie

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
)

// Update sets the value at a key.
type Update struct {
	Key Key
	// Value is the leaf's bytes, read only during the call; nil deletes the key.
	Value []byte
}

var (
	// ErrOpen says that a batch is open already: a tree has at most one.
	ErrOpen = errors.New("trie: another batch is open")
	// ErrDuplicate says that a list of updates names a key twice.
	ErrDuplicate = errors.New("trie: key updated twice in one call")
)

// Batch is a speculative version of the tree. It is used by one goroutine and ends with exactly
// one Commit or Drop.
type Batch struct {
	tree     *Tree
	root     ref
	count    int
	created  []ref
	replaced []ref
	order    []slot
	own      worker
	done     bool
}

// slot is one update on its way through the recursion; prefix spares most key comparisons.
type slot struct {
	prefix uint64
	update *Update
}

// Begin opens a speculative version on top of the committed one; ErrOpen if there is one.
func (t *Tree) Begin() (*Batch, error) {
	if t.open {
		return nil, ErrOpen
	}
	t.open = true
	b := &Batch{tree: t, root: t.root, count: t.count}
	b.own.arena = t.arena
	return b, nil
}

// Root returns the hash of the speculative version.
func (b *Batch) Root() Hash { return b.tree.arena.hash(b.root) }

// Len returns the number of leaves of the speculative version.
func (b *Batch) Len() int { return b.count }

// Update applies the updates, in any order, keys distinct (else ErrDuplicate and nothing
// happens). Deleting a key that is not there does nothing. It may be called many times.
func (b *Batch) Update(updates []Update) error {
	if b.done {
		panic("trie: Update after Commit or Drop")
	}
	b.order = b.order[:0]
	for i := range updates {
		u := &updates[i]
		b.order = append(b.order, slot{binary.BigEndian.Uint64(u.Key[:8]), u})
	}
	slices.SortFunc(b.order, func(x, y slot) int {
		if c := cmp.Compare(x.prefix, y.prefix); c != 0 {
			return c
		}
		return bytes.Compare(x.update.Key[8:], y.update.Key[8:])
	})
	for i := 1; i < len(b.order); i++ {
		if b.order[i].update.Key == b.order[i-1].update.Key {
			return ErrDuplicate
		}
	}
	b.root = b.own.apply(b.root, 0, b.order)
	b.collect(&b.own)
	return nil
}

// Commit makes the speculative version the committed one.
func (b *Batch) Commit() {
	b.finish()
	b.tree.root, b.tree.count = b.root, b.count
	b.tree.arena.release(b.replaced)
}

// Drop forgets the speculative version; the tree is as it was at Begin.
func (b *Batch) Drop() {
	b.finish()
	b.tree.arena.release(b.created)
}

func (b *Batch) finish() {
	if b.done {
		panic("trie: batch finished twice")
	}
	b.done = true
	b.tree.open = false
	b.tree.arena.release(b.own.freeInners)
	b.tree.arena.release(b.own.freeLeaves)
}

func (b *Batch) collect(w *worker) {
	b.created = append(b.created, w.created...)
	b.replaced = append(b.replaced, w.replaced...)
	b.count += w.delta
	w.created, w.replaced, w.delta = w.created[:0], w.replaced[:0], 0
}

// forkSize is the number of updates from which the two halves of a subtree are worked on in
// parallel, forkDepth the depth down to which that is done (so at most 4 goroutines).
const (
	forkSize  = 512
	forkDepth = 2
)

// worker applies updates to one subtree. A node made in this batch and replaced by it again
// appears in both lists, and whichever end the batch takes frees it once.
type worker struct {
	arena      *arena
	freeInners []ref
	freeLeaves []ref
	created    []ref
	replaced   []ref
	delta      int
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
	if left == old[0] && right == old[1] {
		return at
	}
	w.replaced = append(w.replaced, at)
	return w.join(left, right)
}

func (w *worker) applyHalves(old [2]ref, depth int, ups []slot) (left, right ref) {
	cut := split(ups, depth)
	if depth >= forkDepth || cut < forkSize/2 || len(ups)-cut < forkSize/2 {
		return w.apply(old[0], depth+1, ups[:cut]), w.apply(old[1], depth+1, ups[cut:])
	}
	other := worker{arena: w.arena}
	var wait sync.WaitGroup
	wait.Go(func() { left = other.apply(old[0], depth+1, ups[:cut]) })
	right = w.apply(old[1], depth+1, ups[cut:])
	wait.Wait()
	w.absorb(&other)
	return left, right
}

func (w *worker) absorb(o *worker) {
	w.freeInners = append(w.freeInners, o.freeInners...)
	w.freeLeaves = append(w.freeLeaves, o.freeLeaves...)
	w.created = append(w.created, o.created...)
	w.replaced = append(w.replaced, o.replaced...)
	w.delta += o.delta
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
	w.replaced = append(w.replaced, at)
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
	at := w.take(&w.freeInners, w.arena.grabInners)
	n := w.arena.inner(at)
	n.child = [2]ref{left, right}
	l, r := w.arena.hash(left), w.arena.hash(right)
	n.hash = hashInner(&l, &r)
	return at
}

func (w *worker) newLeaf(u *Update) ref {
	at := w.take(&w.freeLeaves, w.arena.grabLeaves)
	n := w.arena.leaf(at)
	n.key, n.value = u.Key, sha256.Sum256(u.Value)
	n.hash = hashLeaf(&n.key, &n.value)
	w.delta++
	return at
}

func (w *worker) take(free *[]ref, grab func([]ref) []ref) ref {
	if len(*free) == 0 {
		*free = grab(*free)
	}
	last := len(*free) - 1
	at := (*free)[last]
	*free = (*free)[:last]
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
