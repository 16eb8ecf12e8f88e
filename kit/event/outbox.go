package event

import "context"

// Bounds of an outbox.
const (
	MaxPending      = 1024    // events or envelopes that Queue.Pending returns at once
	MaxPendingBytes = 8 << 20 // and their bytes; one more may pass it
	MaxQueued       = 1 << 20 // events waiting in one outbox; beyond it Append fails
	MaxKept         = 1 << 16 // envelopes kept per topic, sent or not, for peers that missed some
)

// Outbox is how a service says something. Tx is the transaction type of the service's store.
//
// Append adds the event to tx and writes nothing else: the event is said exactly if tx commits,
// and never before. Events of one transaction keep their order; transactions are ordered by their
// Append. It is safe for concurrent use with different transactions. It fails for an event that
// Validate refuses, with ErrFull, or with the store's error; the caller then gives tx up.
type Outbox[Tx any] interface {
	Append(tx Tx, e Event) error
}

// Draft is an event that has no place yet. Positions rise in the order of Append; gaps mean
// nothing.
type Draft struct {
	Position uint64
	Event    Event
}

// Sealed is an envelope and the position of the draft that it was made of, 0 for none.
type Sealed struct {
	Draft    uint64
	Envelope *Envelope
}

// Unsent is an envelope in the order of Seal.
type Unsent struct {
	Position uint64 // rises; has nothing to do with positions of drafts
	Raw      []byte // canonical bytes of the envelope
}

// Pending is the front of an outbox.
type Pending struct {
	Unsent []Unsent // signed, not known to be sent; oldest first
	Drafts []Draft  // not signed; oldest first
	Heads  map[Topic]Head
}

// Queue is the side of an outbox that its one Publisher drains.
//
// Pending returns what was committed, at most MaxPending of each list. Seal durably (surviving
// power loss) and atomically removes the drafts, keeps the envelopes as unsent in the given order
// and moves the heads. After an error of Seal the caller reads Pending again before it signs
// anything: the write may have happened. Sent forgets that envelopes up to and including a position
// are unsent; it may be lost in a crash, the envelopes are then sent again. Changed receives,
// without blocking anyone, some time after Append; the transaction may commit later than that.
type Queue interface {
	Pending(ctx context.Context) (Pending, error)
	Seal(ctx context.Context, sealed []Sealed) error
	Sent(ctx context.Context, through uint64) error
	Changed() <-chan struct{}
}

// History is what an instance still knows of what it said.
//
// Kept returns the canonical bytes of the envelopes of a topic behind a place (its epoch and seq
// count, its hash does not), in order and without gaps, at most MaxPending; nothing if the next one
// is not kept any more or not there yet. Range returns the oldest seq kept of an epoch of a topic,
// 0 if none is, and the newest place of the topic in any epoch.
type History interface {
	Kept(ctx context.Context, topic Topic, behind Head) ([][]byte, error)
	Range(ctx context.Context, topic Topic, epoch uint64) (oldest uint64, newest Head, err error)
}

// Cursor is how far a consumer followed a line.
type Cursor struct {
	Head
	Last []byte // canonical bytes of the envelope at Head, evidence in case of a fork
	// Fork is a proof that the instance signed two histories, canonical bytes of a ForkProof; nil
	// if none is known. Such a line is followed again only in a new epoch.
	Fork []byte
}

// Cursors keeps a consumer's cursors in the store of its effects.
//
// Cursor returns what was last committed, the zero Cursor for a line never seen. SetCursor writes
// into tx. Transact runs f with a fresh transaction and commits it durably; when f fails nothing of
// it happens and Transact returns f's error. An error of the commit may leave it done or undone;
// the consumer then reads its cursors again. One consumer uses one Cursors, from one goroutine.
type Cursors[Tx any] interface {
	Cursor(ctx context.Context, line Line) (Cursor, error)
	SetCursor(tx Tx, line Line, c Cursor) error
	Transact(ctx context.Context, f func(tx Tx) error) error
}
