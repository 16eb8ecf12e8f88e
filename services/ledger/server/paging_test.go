package server_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/pebble"
)

// twin is an index in Pebble and one in memory that are fed the same. Whatever list is read, both
// must have the same rows of it.
type twin struct {
	*pebble.Index
	memory ledgertest.Index
	lists  int // that were compared
}

func (x *twin) Put(ctx context.Context, entries []ledger.IndexEntry) error {
	return errors.Join(x.memory.Put(ctx, entries), x.Index.Put(ctx, entries))
}

var errTwins = errors.New("the indexes differ")

func (x *twin) List(of ledger.ListID, span ledger.Span, visit func(ledger.Row) bool) error {
	all := func(index ledger.Index) (rows []ledger.Row, err error) {
		err = index.List(of, span, func(row ledger.Row) bool {
			row.Value = slices.Clone(row.Value)
			rows = append(rows, row)
			return true
		})
		return rows, err
	}
	disk, err := all(x.Index)
	memory, err2 := all(&x.memory)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if d := cmp.Diff(memory, disk, cmp.Transformer("text", func(b []byte) string {
		return string(b)
	})); d != "" {
		return fmt.Errorf("%w: list %v, %+v (-memory +disk)\n%s", errTwins, of, span, d)
	}
	x.lists++
	return x.Index.List(of, span, visit)
}

// cursor reads a list page by page, and all at once.
type cursor struct {
	name   string
	newest bool
	// read returns the places of a page's rows; size 0 is all of the list.
	read  func(size uint32, token string) (rows []string, next string)
	size  uint32
	token string
	// want is the list at the first page; seen is what all pages gave.
	want, seen []string
	pages      int
	done       bool
}

// cursors are of every list, in both orders.
func (a *archive) cursors(random *rand.Rand) (all []*cursor) {
	account, escrow, lease := a.n.Accounts[0][:], a.story.Escrow[:], a.story.Leases[0][:]
	for _, order := range []ledgerv1.Order{ledgerv1.Order_ORDER_OLDEST,
		ledgerv1.Order_ORDER_NEWEST} {
		add := func(name string, read func(size uint32, token string) ([]string, string)) {
			all = append(all, &cursor{
				name: fmt.Sprint(name, " ", order), newest: order == ledgerv1.Order_ORDER_NEWEST,
				read: read, size: 1 + random.Uint32N(3),
			})
		}
		add("transactions", func(size uint32, token string) ([]string, string) {
			r, err := a.ListTransactions(a.t.Context(), &ledgerv1.ListTransactionsRequest{
				Account: account, Order: order, PageSize: size, PageToken: token})
			return rowsOf(a.t, r.GetTransactions(), err), r.GetNextPageToken()
		})
		add("escrows", func(size uint32, token string) ([]string, string) {
			r, err := a.ListEscrows(a.t.Context(), &ledgerv1.ListEscrowsRequest{
				Owner: account, Order: order, PageSize: size, PageToken: token})
			return rowsOf(a.t, r.GetEscrows(), err), r.GetNextPageToken()
		})
		add("events", func(size uint32, token string) ([]string, string) {
			r, err := a.ListEscrowEvents(a.t.Context(), &ledgerv1.ListEscrowEventsRequest{
				Escrow: escrow, Order: order, PageSize: size, PageToken: token})
			return rowsOf(a.t, r.GetEvents(), err), r.GetNextPageToken()
		})
		add("leases", func(size uint32, token string) ([]string, string) {
			r, err := a.ListLeases(a.t.Context(), &ledgerv1.ListLeasesRequest{
				Escrow: escrow, Order: order, PageSize: size, PageToken: token})
			return rowsOf(a.t, r.GetLeases(), err), r.GetNextPageToken()
		})
		add("charges", func(size uint32, token string) ([]string, string) {
			r, err := a.ListCharges(a.t.Context(), &ledgerv1.ListChargesRequest{
				Lease: lease, Order: order, PageSize: size, PageToken: token})
			return rowsOf(a.t, r.GetCharges(), err), r.GetNextPageToken()
		})
	}
	return all
}

// rowsOf returns what tells the rows of a list apart: their place, or what was made there.
func rowsOf[R any](t *testing.T, rows []R, err error) (names []string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		switch r := any(row).(type) {
		case interface{ GetOperationIndex() uint32 }:
			at := any(row).(interface {
				GetHeight() uint64
				GetIndex() uint32
			})
			names = append(names, fmt.Sprint(at.GetHeight(), "/", at.GetIndex(), "/",
				r.GetOperationIndex()))
		case interface{ GetTransaction() []byte }:
			names = append(names, fmt.Sprintf("%x", r.GetTransaction()))
		case interface{ GetId() []byte }:
			names = append(names, fmt.Sprintf("%x", r.GetId()))
		default:
			t.Fatalf("%T has no name", row)
		}
	}
	return names
}

// next reads one more page.
func (c *cursor) next() {
	if c.pages == 0 {
		c.want, _ = c.read(0, "")
	}
	rows, token := c.read(c.size, c.token)
	c.seen, c.token = append(c.seen, rows...), token
	c.pages++
	if c.done = token == ""; c.done && !c.newest {
		c.want, _ = c.read(0, "") // it goes on to what came meanwhile
	}
}

// TestPagesWhileBlocksComeAtRandom reads every list in both orders, page by page, while the rest of
// a story is committed between any two pages: no row comes twice and none is lost. To replay one:
// go test ./services/ledger/server -run 'AtRandom/seed=7$'.
func TestPagesWhileBlocksComeAtRandom(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { pagesAtRandom(t, seed) })
		})
	}
}

func pagesAtRandom(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	disk, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = disk.Close() }()
	index := &twin{Index: disk}
	a := newArchive(t, index)
	told := 5 + random.IntN(5) // escrow and first lease are there
	for step := range told {
		a.tell(step)
	}
	cursors := a.cursors(random)
	for open, turns := slices.Clone(cursors), 0; len(open) > 0; turns++ {
		if turns > 1000 {
			t.Fatal("a list does not end")
		}
		if told < len(a.story.Steps) && random.IntN(3) == 0 {
			var next []int
			for range 1 + random.IntN(4) {
				if told < len(a.story.Steps) {
					next = append(next, told)
					told++
				}
			}
			a.tell(next...)
		}
		i := random.IntN(len(open))
		if open[i].next(); open[i].done {
			open = slices.Delete(open, i, i+1)
		}
	}
	for _, c := range cursors {
		if len(c.want) == 0 || !slices.Equal(c.seen, c.want) {
			t.Errorf("%s in %d pages of %d: %v, want %v", c.name, c.pages, c.size, c.seen, c.want)
		}
	}
	if index.lists == 0 {
		t.Error("no list was compared")
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
}
