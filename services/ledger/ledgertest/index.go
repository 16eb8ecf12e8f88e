package ledgertest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/united-containers/ucn/services/ledger"
)

// Index is a ledger.Index in memory. Err, when set, is asked before every call but Mend.
type Index struct {
	Err func() error

	mu           sync.Mutex
	filled       bool
	height       uint64
	blocks       map[ledger.Hash]uint64
	transactions map[ledger.Hash]ledger.Location
	granted      map[ledger.Hash]bool
	times        map[uint64]uint64
	nodes        map[ledger.Node]ledger.Hash // Root is zero in keys
	lists        map[ledger.ListID]map[ledger.Place][]byte
}

var _ ledger.Index = (*Index)(nil)

func (x *Index) fail() error {
	if x.Err == nil {
		return nil
	}
	return x.Err()
}

// Mend implements ledger.Index.
func (x *Index) Mend(ctx context.Context) error { return ctx.Err() }

// Clear takes out all that was put.
func (x *Index) Clear() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.filled, x.height = false, 0
	x.blocks, x.transactions, x.granted = nil, nil, nil
	x.times, x.nodes, x.lists = nil, nil, nil
}

// Put implements ledger.Index.
func (x *Index) Put(ctx context.Context, entries []ledger.IndexEntry) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.fail(); err != nil {
		return err
	}
	if x.blocks == nil {
		x.blocks = map[ledger.Hash]uint64{}
		x.transactions = map[ledger.Hash]ledger.Location{}
		x.granted = map[ledger.Hash]bool{}
		x.times = map[uint64]uint64{}
		x.nodes = map[ledger.Node]ledger.Hash{}
		x.lists = map[ledger.ListID]map[ledger.Place][]byte{}
	}
	for _, e := range entries {
		x.blocks[e.Hash] = e.Height
		for i, id := range e.Transactions {
			x.transactions[id] = ledger.Location{Height: e.Height, Index: uint32(i)}
		}
		for _, account := range e.Granted {
			x.granted[account] = true
		}
		x.putLists(&e)
		x.height, x.filled = e.Height, true
	}
	return ctx.Err()
}

// Height implements ledger.Index.
func (x *Index) Height() (uint64, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.height, x.filled, x.fail()
}

// Transaction implements ledger.Index.
func (x *Index) Transaction(id ledger.Hash) (ledger.Location, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	place, found := x.transactions[id]
	return place, found, x.fail()
}

// Block implements ledger.Index.
func (x *Index) Block(hash ledger.Hash) (uint64, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	height, found := x.blocks[hash]
	return height, found, x.fail()
}

// Granted implements ledger.Index.
func (x *Index) Granted(account ledger.Hash) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.granted[account], x.fail()
}

func (x *Index) putLists(e *ledger.IndexEntry) {
	x.times[e.Height] = e.Time
	for _, n := range e.Nodes {
		x.nodes[ledger.Node{Level: n.Level, I: n.I}] = n.Root
	}
	for _, row := range e.Rows {
		if x.lists[row.ListID] == nil {
			x.lists[row.ListID] = map[ledger.Place][]byte{}
		}
		x.lists[row.ListID][row.At] = bytes.Clone(row.Value)
	}
}

// Time implements ledger.Index.
func (x *Index) Time(height uint64) (uint64, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at, found := x.times[height]
	return at, found, x.fail()
}

// Node implements ledger.Index.
func (x *Index) Node(level uint8, i uint64) (ledger.Hash, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	root, found := x.nodes[ledger.Node{Level: level, I: i}]
	return root, found, x.fail()
}

// List implements ledger.Index.
func (x *Index) List(of ledger.ListID, span ledger.Span, visit func(ledger.Row) bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	places := slices.SortedFunc(maps.Keys(x.lists[of]), comparePlaces)
	if span.Newest {
		slices.Reverse(places)
	}
	for _, at := range places {
		inside := comparePlaces(span.From, at) <= 0 && comparePlaces(at, span.To) < 0
		if inside && !visit(ledger.Row{ListID: of, At: at, Value: x.lists[of][at]}) {
			break
		}
	}
	return x.fail()
}

func comparePlaces(a, b ledger.Place) int {
	return cmp.Or(cmp.Compare(a.Height, b.Height), cmp.Compare(a.Index, b.Index),
		cmp.Compare(a.Operation, b.Operation))
}

// Between implements ledger.Index.
func (x *Index) Between(low, high ledger.Hash, most int) (transactions, blocks []ledger.Hash,
	err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return between(x.transactions, low, high, most), between(x.blocks, low, high, most), x.fail()
}

func between[V any](of map[ledger.Hash]V, low, high ledger.Hash, most int) []ledger.Hash {
	var ids []ledger.Hash
	for id := range of {
		if bytes.Compare(low[:], id[:]) <= 0 && bytes.Compare(id[:], high[:]) <= 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b ledger.Hash) int { return bytes.Compare(a[:], b[:]) })
	return ids[:min(len(ids), most)]
}

// Close implements ledger.Index.
func (x *Index) Close() error { return nil }

// TestIndex is the contract of ledger.Index. fresh gives a function that opens the same index
// again and again.
func TestIndex(t *testing.T, fresh func(t *testing.T) func() ledger.Index) {
	t.Run("Empty", func(t *testing.T) {
		x := fresh(t)()
		defer closeIndex(t, x)
		if _, found, err := x.Height(); found || err != nil {
			t.Errorf("height of an empty index: %v, %v", found, err)
		}
		if _, found, err := x.Transaction(ledger.Hash{1}); found || err != nil {
			t.Errorf("transaction of an empty index: %v, %v", found, err)
		}
		if _, found, err := x.Block(ledger.Hash{1}); found || err != nil {
			t.Errorf("block of an empty index: %v, %v", found, err)
		}
	})
	t.Run("PutTwiceAndReopen", func(t *testing.T) {
		reopen := fresh(t)
		x := reopen()
		entries := indexEntries(50)
		for _, part := range [][]ledger.IndexEntry{entries[:20], entries[10:20], entries[20:]} {
			if err := x.Put(t.Context(), part); err != nil {
				t.Fatal(err)
			}
		}
		checkIndex(t, x, entries)
		closeIndex(t, x)
		x = reopen()
		defer closeIndex(t, x)
		checkIndex(t, x, entries)
	})
}

func closeIndex(t *testing.T, x ledger.Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func indexEntries(n int) []ledger.IndexEntry {
	name := func(kind byte, n int) ledger.Hash {
		return sha256.Sum256(binary.BigEndian.AppendUint64([]byte{kind}, uint64(n)))
	}
	entries := make([]ledger.IndexEntry, n)
	for i := range entries {
		entries[i] = ledger.IndexEntry{
			Height: uint64(i), Hash: name('b', i), Time: uint64(i) * 1000,
			Nodes: []ledger.Node{{Level: uint8(i % 3), I: uint64(i), Root: name('n', i)}},
		}
		for j := range i % 4 {
			entries[i].Rows = append(entries[i].Rows, ledger.Row{
				ListID: ledger.ListID{List: ledger.ListEvents, ID: name('e', j)},
				At:     ledger.Place{Height: uint64(i), Index: 1, Operation: uint32(j)},
				Value:  []byte{byte(i), byte(j)},
			})
		}
		if i%5 == 0 {
			entries[i].Granted = []ledger.Hash{name('g', i)}
		}
		for j := range i % 7 {
			id := name('t', i*100+j)
			entries[i].Transactions = append(entries[i].Transactions, id)
		}
	}
	return entries
}

func checkIndex(t *testing.T, x ledger.Index, entries []ledger.IndexEntry) {
	t.Helper()
	for _, e := range entries {
		if height, found, err := x.Block(e.Hash); height != e.Height || !found || err != nil {
			t.Fatalf("block %d is indexed at %d, %v, %v", e.Height, height, found, err)
		}
		for i, id := range e.Transactions {
			want := ledger.Location{Height: e.Height, Index: uint32(i)}
			if got, found, err := x.Transaction(id); got != want || !found || err != nil {
				t.Fatalf("transaction %v is indexed at %v, %v, %v", want, got, found, err)
			}
		}
	}
	for i := range entries {
		account := sha256.Sum256(binary.BigEndian.AppendUint64([]byte{'g'}, uint64(i)))
		if got, err := x.Granted(account); got != (i%5 == 0) || err != nil {
			t.Fatalf("account %d was granted: %v, %v", i, got, err)
		}
	}
	checkLists(t, x, entries)
	last := entries[len(entries)-1].Height
	if height, found, err := x.Height(); height != last || !found || err != nil {
		t.Fatalf("height is %d, %v, %v", height, found, err)
	}
}

func checkLists(t *testing.T, x ledger.Index, entries []ledger.IndexEntry) {
	t.Helper()
	want := map[ledger.ListID][]ledger.Row{}
	for _, e := range entries {
		if at, found, err := x.Time(e.Height); at != e.Time || !found || err != nil {
			t.Fatalf("block %d was at %d, %v, %v", e.Height, at, found, err)
		}
		for _, n := range e.Nodes {
			if got, found, err := x.Node(n.Level, n.I); got != n.Root || !found || err != nil {
				t.Fatalf("node %d of level %d is %x, %v, %v", n.I, n.Level, got, found, err)
			}
		}
		for _, row := range e.Rows {
			want[row.ListID] = append(want[row.ListID], row)
		}
		for _, id := range append(e.Transactions[:len(e.Transactions):len(e.Transactions)], e.Hash) {
			transactions, blocks, err := x.Between(id, id, 10)
			if err != nil || len(transactions)+len(blocks) != 1 {
				t.Fatalf("%x alone: %x, %x, %v", id, transactions, blocks, err)
			}
		}
	}
	for of, rows := range want {
		checkList(t, x, of, rows)
	}
	high := ledger.Hash(bytes.Repeat([]byte{0xff}, 32))
	all, blocks, err := x.Between(ledger.Hash{}, high, 7)
	if err != nil || len(all) != 7 || len(blocks) != 7 || bytes.Compare(all[0][:], all[6][:]) >= 0 {
		t.Errorf("the first seven: %x, %x, %v", all, blocks, err)
	}
}

func checkList(t *testing.T, x ledger.Index, of ledger.ListID, rows []ledger.Row) {
	t.Helper()
	from, to := rows[1].At, rows[len(rows)-1].At
	for _, newest := range []bool{false, true} {
		want := slices.Clone(rows[1 : len(rows)-1])
		if newest {
			slices.Reverse(want)
		}
		var got []ledger.Row
		span := ledger.Span{From: from, To: to, Newest: newest}
		err := x.List(of, span, func(row ledger.Row) bool {
			row.Value = bytes.Clone(row.Value)
			got = append(got, row)
			return true
		})
		same := slices.EqualFunc(got, want, func(a, b ledger.Row) bool {
			return a.At == b.At && a.ListID == b.ListID && bytes.Equal(a.Value, b.Value)
		})
		if err != nil || !same {
			t.Fatalf("list from %v to %v, newest first %v: %v, %v", from, to, newest, got, err)
		}
		n := 0
		if err := x.List(of, span, func(ledger.Row) bool { n++; return n < 2 }); err != nil || n != 2 {
			t.Fatalf("a list that is left after two rows visited %d, %v", n, err)
		}
	}
}
