package ledger

import (
	"context"
	"io"
)

// Hash is a SHA-256 value: a block hash, a transaction id, a state key.
type Hash = [32]byte

// MaxRecord bounds the bytes of one block in a log. It is far above what a chain's parameters
// allow a body to have, so that only damage exceeds it.
const MaxRecord = 64 << 20

// Record is one block as a log keeps it.
type Record struct {
	// Height counts from 0, the genesis block.
	Height uint64
	// Hash is the header hash, Prev that of the parent; Prev is zero at height 0.
	Hash, Prev Hash
	// Bytes are the canonical bytes of the block: header, body and certificate. At most MaxRecord.
	Bytes []byte
}

// Store is a chain's block log, the one truth about the chain.
//
// Durability: when Append returns nil, the record survives a crash of process and machine. When it
// fails, the record may or may not be there after the next start, whole in either case.
//
// Order: records are hash-linked and have no gaps. Append refuses with ErrNotLinked, and without
// harm, whatever is not the next height or does not name the head as its parent.
//
// Failure: after any other error of Append the store is broken: every later Append returns the
// same cause wrapped in ErrBroken (and in ErrFull when there was no room), because a file whose
// fsync failed once cannot be trusted again. Reading what was durable goes on. Mend, or opening
// the log anew, makes it good.
//
// Concurrency: one goroutine calls Append and Mend; all other methods may be called at any time,
// also during these. A reader never sees a record that is not durable.
type Store interface {
	// Append makes r durable as the new head. It does not keep r.Bytes.
	Append(ctx context.Context, r Record) error
	// Mend makes a broken store good: it looks at its files again, removes what the failed Append
	// left (that record is then not there), and writes the last one again, since what the kernel
	// says after a failed fsync cannot be trusted. When it fails the store stays as it is, and Mend
	// may be tried again. It does nothing to a store that is not broken.
	Mend(ctx context.Context) error
	// Head returns the last durable record without its bytes; false when the log is empty.
	Head() (Record, bool)
	// Read returns the record at a height, ErrNoBlock when there is none. The caller owns Bytes.
	Read(ctx context.Context, height uint64) (Record, error)
	// Size returns how many Bytes Read would return, without reading them.
	Size(ctx context.Context, height uint64) (int, error)
	// Scan calls visit for every record from the given height to the head at the time of the call,
	// ascending, until visit fails. Bytes are valid only during the visit.
	Scan(ctx context.Context, from uint64, visit func(Record) error) error
	// Err returns why the store is broken, nil while it is not.
	Err() error
	// Close lets another process open the log. Later calls fail.
	Close() error
}

// Snapshots keeps copies of the state, so that a start need not execute every block since genesis.
// They are a cache: losing all of them costs time and nothing else. Whoever loads one verifies the
// state root against the block of that height.
type Snapshots interface {
	// Save keeps what write produces as the snapshot of a height, whole or not at all.
	Save(ctx context.Context, height uint64, write func(io.Writer) error) error
	// Load calls read with each snapshot at or below the height, newest first, until one is read
	// without error. It returns false when none was. A damaged one makes read fail with io errors.
	Load(ctx context.Context, atMost uint64, read func(uint64, io.Reader) error) (bool, error)
}

// Index finds what is in blocks. It follows the log asynchronously and can always be rebuilt from
// it, so it promises no durability: after a crash it holds a prefix of what was put.
// One goroutine calls Put and Mend; the other methods may be called at any time. All may refuse
// with ReasonLag while the index cannot be asked, until Mend succeeds.
type Index interface {
	// Mend brings back an index that cannot be asked, as one whose files are damaged: whole, or
	// empty, so that Height goes back. It does nothing to one that is well.
	Mend(ctx context.Context) error
	// Put adds what blocks contain, in order of height. A repeated Put of a height changes nothing.
	Put(ctx context.Context, entries []IndexEntry) error
	// Height returns the height that was put last; false when there is none. An index holds
	// everything up to it.
	Height() (uint64, bool, error)
	// Transaction returns where a transaction is; false when it is not indexed.
	Transaction(id Hash) (Location, bool, error)
	// Block returns the height of a block hash; false when it is not indexed.
	Block(hash Hash) (uint64, bool, error)
	// Granted tells whether the faucet gave money to an account.
	Granted(account Hash) (bool, error)
	// Time returns the time in ms of the block of a height; false when it is not indexed.
	Time(height uint64) (uint64, bool, error)
	// Node returns a complete subtree of the list of header hashes; false when it is not indexed.
	Node(level uint8, i uint64) (Hash, bool, error)
	// List visits the rows of a list between two places, from included, to excluded, in order or
	// against it, until visit says false. The row's value is valid only during the visit.
	List(of ListID, span Span, visit func(Row) bool) error
	// Between returns transaction ids and block hashes from low to high, both included: at most
	// most of each.
	Between(low, high Hash, most int) (transactions, blocks []Hash, err error)
	// Close ends it. It must not be called during another call.
	Close() error
}

// IndexEntry is what an index keeps of one block.
type IndexEntry struct {
	Height       uint64
	Hash         Hash
	Transactions []Hash // in order
	// Granted are the accounts that the faucet gave money to.
	Granted []Hash

	// What follows is filled only for Put.

	// Time of the block, ms.
	Time uint64
	// Rows of lists.
	Rows []Row
	// Nodes are the subtrees of the list of header hashes that its own hash completes.
	Nodes []Node
}

// Node is a complete subtree of the list of header hashes.
type Node struct {
	Level uint8
	I     uint64
	Root  Hash
}

// List is a kind of lists; there is one of each kind per id.
type List uint8

// The kinds of lists, with what their rows' values are.
const (
	// ListAccount: transactions that an account sent or is named in; see touch.
	ListAccount List = iota + 1
	// ListOwner and ListSubject: escrows by owner and by subject; escrow, purpose, owner.
	ListOwner
	ListSubject
	// ListEvents: operations on an escrow and its leases; the lease, or nothing.
	ListEvents
	// ListLeases: leases placed under an escrow; the lease.
	ListLeases
	// ListCharges: charges of a lease; nothing.
	ListCharges
	// ListEscrow: one row, where an escrow was opened; the owner.
	ListEscrow
	// ListLease: one row, where a lease was placed; escrow, payee.
	ListLease
)

// ListID names a list.
type ListID struct {
	List List
	ID   Hash
}

// Place is an operation's place on its chain; places are ordered.
type Place struct {
	Height uint64
	// Of the transaction in the block, and of the operation in the transaction.
	Index, Operation uint32
}

// Row is an entry of a list. There is at most one per list and place.
type Row struct {
	ListID
	At    Place
	Value []byte
}

// Span is a part of a list.
type Span struct {
	// From is included, To is not.
	From, To Place
	// Newest visits the last row first.
	Newest bool
}

// Location is a transaction's place on its chain.
type Location struct {
	Height uint64
	Index  uint32
}
