package ledger

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Bounds of one page of a list.
const (
	MaxPage = 1000
	// maxScan is how many rows are looked at.
	maxScan = 10_000
	// maxPageBytes is how many bytes of blocks are read, less the last block.
	maxPageBytes = 64 << 20
	// maxPageRoom is how many bytes of transactions and receipts are answered, less the last.
	maxPageRoom = 2 << 20
	// indexWait is how long a list waits for the index to come to the block that was the head when
	// it was asked for, so that whoever saw a block committed finds it.
	indexWait = time.Second
)

// Page is the part of a list that is asked for.
type Page struct {
	// 1 to MaxPage.
	Size int
	// After is where the page before ended; nil for the first.
	After  *Place
	Newest bool
}

// Listed is a page of a list.
type Listed[T any] struct {
	Items []T
	// Next is where the next page goes on, nil when the list ends.
	Next *Place
	// Indexed is the last block that the list knows of, Head the last one when it was asked for:
	// what is in the blocks between is missing.
	Indexed, Head uint64
}

// listing is a list, the part of it that a query wants, and which rows.
type listing struct {
	of   ListID
	span Span
	keep func(Row) bool // nil keeps all
}

// Entry is an operation with the transaction it is in.
type Entry struct {
	At   Place
	Time tx.Millis
	Tx   *tx.Transaction
	ID   Hash
	// Raw and Receipt are canonical bytes.
	Raw, Receipt []byte
	Outcome      tx.Outcome // of the operation; zero when the transaction failed
	// Value is that of the row that led here.
	Value []byte
}

// Operation returns the operation that the entry is about.
func (e *Entry) Operation() tx.Operation { return e.Tx.Operations[e.At.Operation] }

// list reads a page of a list. Fault: ReasonNoIndex.
func (c *Chain) list(ctx context.Context, l listing, page Page) (Listed[Entry], error) {
	var out Listed[Entry]
	if c.deps.Index == nil {
		return out, noIndex()
	}
	var err error
	out.Head = c.Head().Height
	if out.Indexed, err = c.awaitIndex(ctx); err != nil {
		return out, err
	}
	rows, next, err := c.rows(l, page)
	if err == nil {
		err = c.stillIndexed(out.Indexed)
	}
	if err != nil {
		return out, err
	}
	var last lastBlock
	read, room := 0, 0
	for i, row := range rows {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		before := last.found
		if read > maxPageBytes || room > maxPageRoom {
			out.Next = &rows[i-1].At
			return out, nil
		}
		e, err := c.entry(ctx, row, &last)
		if err != nil {
			return out, err
		}
		if last.found != before {
			read += len(last.found.Raw)
		}
		room += len(e.Raw) + len(e.Receipt)
		out.Items = append(out.Items, e)
	}
	out.Next = next
	return out, nil
}

func noIndex() *fault.Error {
	return fault.New(fault.FailedPrecondition, ReasonNoIndex,
		"this ledger keeps no index of histories")
}

// rows returns a page's rows, and where the next page goes on.
func (c *Chain) rows(l listing, page Page) (rows []Row, next *Place, err error) {
	span := l.span
	span.Newest = page.Newest
	if after := page.After; after != nil && page.Newest && before(*after, span.To) {
		span.To = *after
	} else if after != nil && !page.Newest && !before(*after, span.From) {
		span.From = after.following()
	}
	if !before(span.From, span.To) {
		return nil, nil, nil
	}
	scanned := 0
	var at Place
	err = c.deps.Index.List(l.of, span, func(row Row) bool {
		if len(rows) == page.Size || scanned == maxScan {
			last := at
			next = &last
			return false
		}
		scanned++
		at = row.At
		if l.keep == nil || l.keep(row) {
			row.Value = bytes.Clone(row.Value)
			rows = append(rows, row)
		}
		return true
	})
	return rows, next, err
}

func before(a, b Place) bool {
	if a.Height != b.Height {
		return a.Height < b.Height
	}
	if a.Index != b.Index {
		return a.Index < b.Index
	}
	return a.Operation < b.Operation
}

// following returns the next place.
func (p Place) following() Place {
	if p.Operation++; p.Operation == 0 {
		if p.Index++; p.Index == 0 {
			p.Height++
		}
	}
	return p
}

// entry reads the operation that a row stands for.
func (c *Chain) entry(ctx context.Context, row Row, last *lastBlock) (Entry, error) {
	found, err := last.read(ctx, c, row.At.Height)
	if err != nil {
		return Entry{}, err
	}
	at := row.At
	if int(at.Index) >= len(found.Block.Body.Transactions) {
		return Entry{}, fmt.Errorf("the index knows transaction %d of block %d, which has %d",
			at.Index, at.Height, len(found.Block.Body.Transactions))
	}
	e := Entry{ // with bytes of its own: those of the block would keep all of it in memory
		At: at, Time: found.Block.Header.Time, Value: row.Value,
		Raw:     bytes.Clone(found.Block.Body.Transactions[at.Index]),
		Receipt: bytes.Clone(found.Receipts[at.Index]),
	}
	if e.Tx, err = tx.Decode(e.Raw); err != nil {
		return Entry{}, fmt.Errorf("block %d, transaction %d: %w", at.Height, at.Index, err)
	}
	if int(at.Operation) >= len(e.Tx.Operations) {
		return Entry{}, fmt.Errorf("the index knows operation %d of transaction %d of block %d, "+
			"which has %d", at.Operation, at.Index, at.Height, len(e.Tx.Operations))
	}
	e.ID = Hash(e.Tx.ID(c.anchor))
	receipt, err := tx.DecodeReceipt(e.Receipt)
	if err != nil {
		return Entry{}, fmt.Errorf("block %d, receipt %d: %w", at.Height, at.Index, err)
	}
	if int(at.Operation) < len(receipt.Outcomes) {
		e.Outcome = receipt.Outcomes[at.Operation]
	}
	return e, nil
}

// awaitIndex waits, for a while, until the index has the head, and returns how far it is.
func (c *Chain) awaitIndex(ctx context.Context) (uint64, error) {
	head := c.Head().Height
	wait, cancel := context.WithTimeout(ctx, indexWait)
	defer cancel()
	for {
		further := c.recent.further()
		indexed, found, err := c.indexed()
		if err != nil {
			return 0, err
		}
		if found && indexed >= head {
			return indexed, nil
		}
		select {
		case <-further:
		case <-wait.Done():
			if !found && ctx.Err() == nil {
				return 0, fault.New(fault.Unavailable, ReasonLag,
					"the index has not begun; try again").WithRetry(lagRetry)
			}
			return indexed, ctx.Err()
		}
	}
}

// stillIndexed refuses what was read from an index that was at a height and was lost meanwhile: it
// may lack what it should hold. Fault: ReasonLag.
func (c *Chain) stillIndexed(height uint64) error {
	indexed, found, err := c.indexed()
	if err == nil && (!found || indexed < height) {
		err = fault.New(fault.Unavailable, ReasonLag,
			"the index is being built anew; try again").WithRetry(lagRetry)
	}
	return err
}

// TransactionQuery is which of an account's transactions are wanted.
type TransactionQuery struct {
	Account sig.AccountID
	// Sent and Received: which of them; both false wants both.
	Sent, Received bool
	// Kinds wants those that hold an operation of one of them, bit n for kind n; 0 wants all.
	Kinds uint64
	// FromHeight and ToHeight are both included; ToHeight 0 is no bound.
	FromHeight, ToHeight uint64
	// FromTime is included, ToTime is not; 0 is no bound.
	FromTime, ToTime tx.Millis
	// Succeeded leaves out those that failed.
	Succeeded bool
}

// Sent tells whether an entry of Transactions was sent by the account.
func (e *Entry) Sent() bool {
	t, _ := parseTouch(e.Value)
	return t.flags&touchSent != 0
}

// Transactions lists the transactions that an account sent or is named in. Faults: ReasonNoIndex,
// ReasonLag.
func (c *Chain) Transactions(ctx context.Context, q TransactionQuery, page Page) (
	Listed[Entry], error,
) {
	l := listing{of: ListID{ListAccount, Hash(q.Account)}, span: everywhere(), keep: q.keeps}
	l.span.From.Height = q.FromHeight
	if q.ToHeight != 0 && q.ToHeight != math.MaxUint64 {
		l.span.To.Height = q.ToHeight + 1
	}
	if q.FromTime != 0 || q.ToTime != 0 {
		if err := c.withinTime(ctx, q, &l.span); err != nil {
			return Listed[Entry]{}, err
		}
	}
	return c.list(ctx, l, page)
}

func (q *TransactionQuery) keeps(row Row) bool {
	t, ok := parseTouch(row.Value)
	if !ok {
		return false
	}
	sent := t.flags&touchSent != 0
	return (q.Sent == q.Received || q.Sent == sent) && (q.Kinds == 0 || q.Kinds&t.kinds != 0) &&
		(!q.Succeeded || t.flags&touchFailed == 0)
}

// withinTime narrows a span to blocks of a time.
func (c *Chain) withinTime(ctx context.Context, q TransactionQuery, span *Span) error {
	if c.deps.Index == nil {
		return nil // list says so
	}
	indexed, err := c.awaitIndex(ctx)
	if err != nil {
		return err
	}
	first := func(at tx.Millis) (height uint64, err error) {
		n := sort.Search(int(indexed)+1, func(i int) bool {
			if err != nil {
				return true
			}
			time, found, failed := c.deps.Index.Time(uint64(i))
			if err = failed; err == nil && !found {
				err = fmt.Errorf("the index lacks the time of block %d", i)
			}
			return tx.Millis(time) >= at
		})
		return uint64(n), err
	}
	if q.FromTime != 0 {
		from, err := first(q.FromTime)
		if err != nil {
			return err
		}
		span.From.Height = max(span.From.Height, from)
	}
	if q.ToTime != 0 {
		to, err := first(q.ToTime)
		if err != nil {
			return err
		}
		if to <= indexed { // else blocks that are not there yet may belong to it
			span.To.Height = min(span.To.Height, to)
		}
	}
	return nil
}

// EscrowQuery is which escrows are wanted.
type EscrowQuery struct {
	// At least one of them is set.
	Owner   sig.AccountID
	Subject Hash
	// 0 wants all.
	Purpose chainv1.Purpose
	// Open and Closed: which of them; both false wants both.
	Open, Closed bool
}

// Escrows lists escrows in order of their opening; each entry is the operation that opened one,
// its id the outcome's Created. Faults: ReasonNoIndex, ReasonLag.
func (c *Chain) Escrows(ctx context.Context, q EscrowQuery, page Page) (Listed[Entry], error) {
	of := ListID{ListOwner, Hash(q.Owner)}
	if q.Subject != (Hash{}) {
		of = ListID{ListSubject, q.Subject}
	}
	keep := func(row Row) bool {
		const size = 32 + 1 + 32
		if len(row.Value) != size {
			return false
		}
		if q.Purpose != 0 && byte(q.Purpose) != row.Value[32] ||
			!q.Owner.IsZero() && !bytes.Equal(q.Owner[:], row.Value[33:]) {
			return false
		}
		_, open := c.state.Escrow(tx.EscrowID(row.Value[:32]))
		return q.Open == q.Closed || q.Open == open
	}
	return c.list(ctx, listing{of, everywhere(), keep}, page)
}

// EscrowEvents lists the operations on an escrow and its leases, closed or not. An entry's Value is
// the lease, or empty. Faults: ReasonNotFound, ReasonNoIndex, ReasonLag.
func (c *Chain) EscrowEvents(ctx context.Context, id Hash, page Page) (Listed[Entry], error) {
	return c.known(ctx, ListEscrow, listing{of: ListID{ListEvents, id}, span: everywhere()}, page)
}

// Leases lists the operations that placed leases under an escrow. Faults as EscrowEvents.
func (c *Chain) Leases(ctx context.Context, escrow Hash, page Page) (Listed[Entry], error) {
	l := listing{of: ListID{ListLeases, escrow}, span: everywhere()}
	return c.known(ctx, ListEscrow, l, page)
}

// Charges lists the charges of a lease. Faults as EscrowEvents.
func (c *Chain) Charges(ctx context.Context, lease Hash, page Page) (Listed[Entry], error) {
	l := listing{of: ListID{ListCharges, lease}, span: everywhere()}
	return c.known(ctx, ListLease, l, page)
}

// known reads a page about something that must have been on the chain.
func (c *Chain) known(ctx context.Context, births List, l listing, page Page) (
	Listed[Entry], error,
) {
	out, err := c.list(ctx, l, page)
	if err != nil || len(out.Items) > 0 {
		return out, err
	}
	_, found, err := c.birth(ListID{births, l.of.ID})
	if err == nil && !found {
		err = c.stillIndexed(out.Indexed)
	}
	if err == nil && !found {
		err = fault.New(fault.NotFound, ReasonNotFound, "nothing with id %x was on this chain",
			l.of.ID)
	}
	return out, err
}
