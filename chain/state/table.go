package state

// table is one kind of record: what is committed, and over it what the open execution made of it.
// The open execution belongs to one goroutine; base changes only in commit.
type table[K comparable, V any] struct {
	base map[K]V
	over map[K]*cell[K, V]
	// touched lists the cells of over in the order of first use, for every pass over them.
	touched []*cell[K, V]
	// journal holds what the transaction in hand replaced, oldest first.
	journal []undo[K, V]
	// dirty lists the cells edited since the last state root.
	dirty []*cell[K, V]
	// slabs hold the cells, used counts them; both serve one execution after the other.
	slabs [][]cell[K, V]
	used  int
	// step numbers the transaction in hand, so that a cell is journaled once in it.
	step uint64
}

// cell is a record as the open execution sees it. val is the zero value while live is false.
type cell[K comparable, V any] struct {
	id   K
	val  V
	live bool
	// changed says that the cell was edited in this execution, dirty since the last root.
	changed, dirty bool
	step           uint64
}

type undo[K comparable, V any] struct {
	cell *cell[K, V]
	val  V
	live bool
}

const (
	// slabSize is the number of cells allocated at a time.
	slabSize = 512
	// keptSlabs is how many slabs stay from one execution to the next.
	keptSlabs = 128
)

func newTable[K comparable, V any]() table[K, V] {
	return table[K, V]{base: map[K]V{}, over: map[K]*cell[K, V]{}, step: 1}
}

// get returns the cell of id, which is not live if there is no such record.
func (t *table[K, V]) get(id K) *cell[K, V] {
	if c, ok := t.over[id]; ok {
		return c
	}
	if t.used == len(t.slabs)*slabSize {
		t.slabs = append(t.slabs, make([]cell[K, V], slabSize))
	}
	c := &t.slabs[t.used/slabSize][t.used%slabSize]
	t.used++
	*c = cell[K, V]{id: id}
	c.val, c.live = t.base[id]
	t.over[id] = c
	t.touched = append(t.touched, c)
	return c
}

// edit makes the cell's record writable. Slices and pointers in it are replaced, never written
// through: the committed record shares them.
func (t *table[K, V]) edit(c *cell[K, V]) *V {
	if c.step != t.step {
		c.step = t.step
		t.journal = append(t.journal, undo[K, V]{c, c.val, c.live})
	}
	c.changed = true
	if !c.dirty {
		c.dirty = true
		t.dirty = append(t.dirty, c)
	}
	return &c.val
}

// create makes a record that is not live so; the caller fills it in.
func (t *table[K, V]) create(c *cell[K, V]) *V {
	v := t.edit(c)
	c.live = true
	return v
}

// remove deletes the record.
func (t *table[K, V]) remove(c *cell[K, V]) {
	var zero V
	*t.edit(c) = zero
	c.live = false
}

// rollback takes back every edit of the transaction in hand.
func (t *table[K, V]) rollback() {
	for i := len(t.journal) - 1; i >= 0; i-- {
		u := &t.journal[i]
		u.cell.val, u.cell.live, u.cell.step = u.val, u.live, 0
	}
	t.journal = t.journal[:0]
}

// seal ends the transaction in hand: its edits stay.
func (t *table[K, V]) seal() {
	clear(t.journal)
	t.journal = t.journal[:0]
	t.step++
}

// clean forgets which cells are dirty, after their leaves went into the tree.
func (t *table[K, V]) clean() {
	for _, c := range t.dirty {
		c.dirty = false
	}
	t.dirty = t.dirty[:0]
}

// commit moves the execution's edits into base.
func (t *table[K, V]) commit() {
	for _, c := range t.touched {
		switch {
		case !c.changed:
		case c.live:
			t.base[c.id] = c.val
		default:
			delete(t.base, c.id)
		}
	}
	t.reset()
}

// reset forgets the execution. Memory of a block larger than most is given back.
func (t *table[K, V]) reset() {
	t.journal, t.dirty, t.touched = t.journal[:0], t.dirty[:0], t.touched[:0]
	clear(t.over)
	if len(t.slabs) > keptSlabs {
		t.slabs, t.over = t.slabs[:keptSlabs:keptSlabs], map[K]*cell[K, V]{}
		t.journal, t.dirty, t.touched = nil, nil, nil
	}
	t.used = 0
	t.step++
}
