package trie

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
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
	tree  *Tree
	root  ref
	count int
	done  bool
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
	t.own.begin(t.arena, t.own.number+1)
	return &Batch{tree: t, root: t.root, count: t.count}, nil
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
	order := b.tree.order[:0]
	for i := range updates {
		u := &updates[i]
		order = append(order, slot{binary.BigEndian.Uint64(u.Key[:8]), u})
	}
	defer func() { b.tree.keep(order) }()
	slices.SortFunc(order, func(x, y slot) int {
		if c := cmp.Compare(x.prefix, y.prefix); c != 0 {
			return c
		}
		return bytes.Compare(x.update.Key[8:], y.update.Key[8:])
	})
	for i := 1; i < len(order); i++ {
		if order[i].update.Key == order[i-1].update.Key {
			return ErrDuplicate
		}
	}
	own := &b.tree.own
	b.root = own.apply(b.root, 0, order)
	b.count += own.takeDelta()
	return nil
}

// keptSlots bounds the memory for sorting that is left to the next update.
const keptSlots = 1 << 18

func (t *Tree) keep(order []slot) {
	clear(order)
	if t.order = order[:0]; cap(order) > keptSlots {
		t.order = nil
	}
}

// Commit makes the speculative version the committed one.
func (b *Batch) Commit() {
	b.finish()
	b.tree.root, b.tree.count = b.root, b.count
	b.tree.own.commit()
}

// Drop forgets the speculative version; the tree is as it was at Begin.
func (b *Batch) Drop() {
	b.finish()
	b.tree.own.drop()
}

func (b *Batch) finish() {
	if b.done {
		panic("trie: batch finished twice")
	}
	b.done = true
	b.tree.open = false
}
