// Package pebble keeps an outbox and cursors in a Pebble database that its owner shares: every key
// lies under a prefix of the owner's choice, and writes go into the owner's batch.
//
// Signed envelopes and cursors are durable (fsync) before the calls that write them return. An
// owner that commits its own batches without sync may lose its last changes and their events
// together in a power failure, never one without the other.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/event"
)

// Kinds of keys, behind the prefix.
const (
	kindDraft    = 'd' // position -> draft
	kindUnsent   = 'u' // position -> place of the envelope
	kindHead     = 'h' // topic -> epoch, seq, hash
	kindEnvelope = 'e' // topic, epoch, seq -> envelope
	kindCursor   = 'c' // instance, topic -> epoch, seq, hash, envelope
	kindFork     = 'f' // instance, topic -> proof that the instance signed two histories
)

// MaxPrefix bounds a prefix, in bytes.
const MaxPrefix = 64

// Outbox is an outbox inside a database. It is safe for concurrent use. There must be only one per
// database and prefix.
type Outbox struct {
	db      *db.DB
	prefix  []byte
	draft   atomic.Uint64 // last position given to a draft
	oldest  atomic.Uint64 // no draft that waits has a lower position
	unsent  atomic.Uint64 // last position given to an envelope
	changed chan struct{}
	room    func() error
	keep    uint64 // envelopes per topic
}

var (
	_ event.Outbox[*db.Batch] = (*Outbox)(nil)
	_ event.Queue             = (*Outbox)(nil)
	_ event.History           = (*Outbox)(nil)
)

// NewOutbox opens the outbox under a prefix that no other key of the database begins with.
func NewOutbox(database *db.DB, prefix string) (*Outbox, error) {
	if len(prefix) == 0 || len(prefix) > MaxPrefix {
		return nil, fmt.Errorf("open outbox: prefix of %d bytes, want 1 to %d",
			len(prefix), MaxPrefix)
	}
	o := &Outbox{db: database, prefix: []byte(prefix), changed: make(chan struct{}, 1),
		keep: event.MaxKept}
	var err error
	var first, draft, unsent uint64
	if first, draft, err = o.positions(kindDraft); err == nil {
		_, unsent, err = o.positions(kindUnsent)
	}
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	o.oldest.Store(max(first, 1) - 1)
	o.draft.Store(draft)
	o.unsent.Store(unsent)
	o.changed <- struct{}{}
	return o, nil
}

// positions returns the lowest and highest position among keys of a kind, 0 if there are none.
func (o *Outbox) positions(kind byte) (first, last uint64, err error) {
	it, err := o.db.NewIter(o.span(kind))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	if it.First() {
		if first, err = o.position(it.Key()); err != nil {
			return 0, 0, err
		}
	}
	if it.Last() {
		last, err = o.position(it.Key())
	}
	return first, last, err
}

// Append implements event.Outbox. The batch need not be indexed.
func (o *Outbox) Append(batch *db.Batch, e event.Event) error {
	raw, err := event.EncodeEvent(e)
	if err != nil {
		return err
	}
	if o.draft.Load()-o.oldest.Load() >= event.MaxQueued {
		return event.ErrFull
	}
	if err := batch.Set(o.key(kindDraft, o.draft.Add(1)), raw, nil); err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return nil
}

// Changed implements event.Queue.
func (o *Outbox) Changed() <-chan struct{} { return o.changed }

// Pending implements event.Queue.
func (o *Outbox) Pending(context.Context) (p event.Pending, err error) {
	highest := o.draft.Load()
	snapshot := o.db.NewSnapshot()
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	if p.Unsent, err = o.readUnsent(snapshot); err != nil {
		return event.Pending{}, fmt.Errorf("read envelopes: %w", err)
	}
	if p.Drafts, err = o.readDrafts(snapshot); err != nil {
		return event.Pending{}, fmt.Errorf("read drafts: %w", err)
	}
	if p.Heads, err = o.readHeads(snapshot); err != nil {
		return event.Pending{}, fmt.Errorf("read heads: %w", err)
	}
	if len(p.Drafts) > 0 {
		highest = p.Drafts[0].Position - 1
	}
	o.oldest.Store(highest)
	return p, nil
}

func (o *Outbox) readDrafts(from db.Reader) (drafts []event.Draft, err error) {
	err = o.scan(from, kindDraft, func(position uint64, value []byte) (int, error) {
		e, err := event.DecodeEvent(slices.Clone(value))
		drafts = append(drafts, event.Draft{Position: position, Event: e})
		return len(value), err
	})
	return drafts, err
}

func (o *Outbox) readUnsent(from db.Reader) (unsent []event.Unsent, err error) {
	err = o.scan(from, kindUnsent, func(position uint64, place []byte) (int, error) {
		raw, err := read(from, append(o.space(kindEnvelope), place...))
		unsent = append(unsent, event.Unsent{Position: position, Raw: raw})
		return len(raw), err
	})
	return unsent, err
}

// scan visits keys of a kind in order, within the bounds of event.Pending; visit returns the size
// of what it made.
func (o *Outbox) scan(
	from db.Reader, kind byte, visit func(position uint64, value []byte) (int, error),
) (err error) {
	it, err := from.NewIter(o.span(kind))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	bytes := 0
	for ok, n := it.First(), 0; ok && n < event.MaxPending && bytes < event.MaxPendingBytes; n++ {
		position, err := o.position(it.Key())
		if err != nil {
			return err
		}
		size, err := visit(position, it.Value())
		if err != nil {
			return err
		}
		bytes += size
		ok = it.Next()
	}
	return nil
}

func (o *Outbox) readHeads(from db.Reader) (map[event.Topic]event.Head, error) {
	heads := map[event.Topic]event.Head{}
	for _, topic := range event.Topics() {
		raw, err := read(from, o.headKey(topic))
		if errors.Is(err, db.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		head, _, err := decodeHead(raw)
		if err != nil {
			return nil, err
		}
		heads[topic] = head
	}
	return heads, nil
}

// KeepRoom makes the outbox ask before it writes on its own; an error of check refuses the write.
// Call it before first use.
func (o *Outbox) KeepRoom(check func() error) { o.room = check }

// KeepLast makes the outbox keep that many envelopes per topic instead of event.MaxKept. Call it
// before first use, with no less than at the start before: what it then had too much stays.
func (o *Outbox) KeepLast(n uint64) { o.keep = n }

// Seal implements event.Queue.
func (o *Outbox) Seal(_ context.Context, sealed []event.Sealed) error {
	if o.room != nil {
		if err := o.room(); err != nil {
			return fmt.Errorf("write envelopes: %w", err)
		}
	}
	batch := o.db.NewBatch()
	defer batch.Close()
	for _, one := range sealed {
		if err := o.seal(batch, one); err != nil {
			return fmt.Errorf("write envelope: %w", err)
		}
	}
	if err := batch.Commit(db.Sync); err != nil {
		return fmt.Errorf("write envelopes: %w", err)
	}
	return nil
}

func (o *Outbox) seal(batch *db.Batch, one event.Sealed) error {
	e := one.Envelope
	head := event.Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash}
	place := placeOf(e.Topic(), head)
	var dropped error
	if head.Seq > o.keep {
		old := event.Head{Epoch: head.Epoch, Seq: head.Seq - o.keep}
		dropped = batch.Delete(append(o.space(kindEnvelope), placeOf(e.Topic(), old)...), nil)
	}
	if one.Draft > 0 {
		dropped = errors.Join(dropped, batch.Delete(o.key(kindDraft, one.Draft), nil))
	}
	return errors.Join(dropped,
		batch.Set(append(o.space(kindEnvelope), place...), e.Raw, nil),
		batch.Set(o.key(kindUnsent, o.unsent.Add(1)), place, nil),
		batch.Set(o.headKey(e.Topic()), encodeHead(head), nil))
}

// Sent implements event.Queue. It does not sync: what is forgotten is sent again.
func (o *Outbox) Sent(_ context.Context, through uint64) error {
	if o.room != nil {
		if err := o.room(); err != nil {
			return fmt.Errorf("mark envelopes sent: %w", err)
		}
	}
	err := o.db.DeleteRange(o.key(kindUnsent, 0), o.key(kindUnsent, through+1), db.NoSync)
	if err != nil {
		return fmt.Errorf("mark envelopes sent: %w", err)
	}
	return nil
}

// Kept implements event.History.
func (o *Outbox) Kept(
	_ context.Context, topic event.Topic, behind event.Head,
) (out [][]byte, err error) {
	next := event.Head{Epoch: behind.Epoch, Seq: behind.Seq + 1}
	end := event.Head{Epoch: behind.Epoch, Seq: next.Seq + event.MaxPending}
	it, err := o.db.NewIter(&db.IterOptions{
		LowerBound: append(o.space(kindEnvelope), placeOf(topic, next)...),
		UpperBound: append(o.space(kindEnvelope), placeOf(topic, end)...),
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	bytes := 0
	for ok := it.First(); ok && bytes < event.MaxPendingBytes; ok = it.Next() {
		seq := binary.BigEndian.Uint64(it.Key()[len(it.Key())-8:])
		if seq != next.Seq+uint64(len(out)) {
			break
		}
		out = append(out, slices.Clone(it.Value()))
		bytes += len(it.Value())
	}
	return out, nil
}

// Range implements event.History.
func (o *Outbox) Range(
	_ context.Context, topic event.Topic, epoch uint64,
) (oldest uint64, newest event.Head, err error) {
	raw, err := read(o.db, o.headKey(topic))
	if errors.Is(err, db.ErrNotFound) {
		return 0, event.Head{}, nil
	}
	if err != nil {
		return 0, event.Head{}, fmt.Errorf("read head: %w", err)
	}
	if newest, _, err = decodeHead(raw); err != nil {
		return 0, event.Head{}, err
	}
	if epoch == math.MaxUint64 {
		return 0, newest, nil
	}
	it, err := o.db.NewIter(&db.IterOptions{
		LowerBound: append(o.space(kindEnvelope), placeOf(topic, event.Head{Epoch: epoch})...),
		UpperBound: append(o.space(kindEnvelope), placeOf(topic, event.Head{Epoch: epoch + 1})...),
	})
	if err != nil {
		return 0, event.Head{}, fmt.Errorf("read history: %w", err)
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	if it.First() {
		oldest = binary.BigEndian.Uint64(it.Key()[len(it.Key())-8:])
	}
	return oldest, newest, nil
}
