// Package journal is the executor's memory on its own disk: one Pebble store that holds the record
// of every attempt and the outbox of events.
//
// It promises that Save and Publish return only when everything is synced to disk, and that a
// record and the events of its change are there together or not at all, whenever the process is
// killed. A disk that fails under a write ends the process, as Pebble does: the containers go on,
// and the next life reads what is there.
//
// It does not hold values of secrets, and it is not shared: one process opens a journal at a time.
package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/united-containers/ucn/kit/event"
	room "github.com/united-containers/ucn/kit/space/pebble"
	"github.com/united-containers/ucn/services/executor"
)

// Keys of the store. What begins with another letter is the outbox's.
const (
	prefixRecord   = "r/" // attempt -> record
	prefixTime     = "t/" // time of the question (8 bytes, big-endian, ns), attempt -> nothing
	prefixUnclosed = "u/" // attempt -> nothing, while it is not closed
	prefixHeld     = "d/" // attempt -> nothing, while it is held
)

const keyHost = "h/state" // what the operator said

const (
	formatJSON  = 1       // first byte of a record: JSON follows
	maxUnclosed = 1 << 17 // records that Unclosed returns; more are a broken journal
	maxList     = 1000    // records that List returns
	maxPage     = 4 << 20 // bytes of records, as they lie here, that List and Held return beside one
)

// Outbox puts events into a batch of the store.
type Outbox = event.Outbox[*pebble.Batch]

// Options of a journal.
type Options struct {
	// FS is where the files are; nil is the disk.
	FS vfs.FS
	// Room is asked before each write, and at Open; its error refuses it. Nil asks nobody.
	Room func() error
	// Log gets Pebble's words; nil drops them.
	Log *slog.Logger
}

// Journal is an open journal. Use Open.
type Journal struct {
	db     *pebble.DB
	outbox Outbox
	room   func() error
}

var _ executor.Journal = (*Journal)(nil)

// Open opens or creates the journal in dir. outbox makes the event outbox over the same store. A
// journal that another process holds open is an error.
func Open(dir string, opt Options, outbox func(*pebble.DB) (Outbox, error)) (*Journal, error) {
	options := &pebble.Options{
		FS: opt.FS, Logger: logger{opt.Log}, FormatMajorVersion: pebble.FormatTableFormatV6,
	}
	if opt.Room == nil {
		opt.Room = func() error { return nil }
	}
	if err := opt.Room(); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	room.Patient(options, dir, opt.Log)
	db, err := pebble.Open(dir, options)
	if err != nil {
		return nil, fmt.Errorf("open the journal in %s: %w", dir, err)
	}
	box, err := outbox(db)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the outbox: %w", err), db.Close())
	}
	return &Journal{db: db, outbox: box, room: opt.Room}, nil
}

// Close closes the store; nothing may be called after it.
func (j *Journal) Close() error { return j.db.Close() }

// Save implements executor.Journal.
func (j *Journal) Save(ctx context.Context, r executor.Record, events ...event.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return j.commit(events, func(b *pebble.Batch) error { return put(b, &r) })
}

// SaveBoth implements executor.Journal.
func (j *Journal) SaveBoth(
	ctx context.Context, one, other executor.Record, events ...event.Event,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return j.commit(events, func(b *pebble.Batch) error {
		return errors.Join(put(b, &one), put(b, &other))
	})
}

// put writes a record into a batch.
func put(b *pebble.Batch, r *executor.Record) error {
	id := r.Ask.Attempt
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record of %s: %w", id, err)
	}
	if err := b.Set(recordKey(id), append([]byte{formatJSON}, raw...), nil); err != nil {
		return err
	}
	if err := b.Set(timeKey(r.Asked, id), nil, nil); err != nil {
		return err
	}
	mark := func(prefix string, set bool) error {
		key := append([]byte(prefix), id...)
		if set {
			return b.Set(key, nil, nil)
		}
		return b.Delete(key, nil)
	}
	return errors.Join(mark(prefixHeld, r.Held),
		mark(prefixUnclosed, r.Phase != executor.PhaseClosed))
}

// Publish implements executor.Journal.
func (j *Journal) Publish(ctx context.Context, events ...event.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return j.commit(events, func(*pebble.Batch) error { return nil })
}

func (j *Journal) commit(events []event.Event, fill func(*pebble.Batch) error) (err error) {
	if err := j.room(); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	batch := j.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	if err := fill(batch); err != nil {
		return fmt.Errorf("fill batch: %w", err)
	}
	for _, e := range events {
		if err := j.outbox.Append(batch, e); err != nil {
			return fmt.Errorf("append event %s: %w", e.Type, err)
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Get implements executor.Journal.
func (j *Journal) Get(_ context.Context, id executor.AttemptID) (executor.Record, error) {
	r, _, err := j.get(id)
	return r, err
}

// get also tells how long the record is here.
func (j *Journal) get(id executor.AttemptID) (r executor.Record, size int, err error) {
	raw, closer, err := j.db.Get(recordKey(id))
	if errors.Is(err, pebble.ErrNotFound) {
		return r, 0, executor.ErrNoAttempt
	}
	if err != nil {
		return r, 0, fmt.Errorf("read record of %s: %w", id, err)
	}
	size = len(raw)
	r, err = decode(raw)
	return r, size, errors.Join(err, closer.Close())
}

func decode(raw []byte) (executor.Record, error) {
	if len(raw) == 0 || raw[0] != formatJSON {
		return executor.Record{}, errors.New("record of a format that this version cannot read")
	}
	var r executor.Record
	if err := json.Unmarshal(raw[1:], &r); err != nil {
		return executor.Record{}, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

// Unclosed implements executor.Journal.
func (j *Journal) Unclosed(ctx context.Context) ([]executor.Record, error) {
	var ids []executor.AttemptID
	err := j.scan(prefixUnclosed, nil, func(key []byte) (more bool, err error) {
		if len(ids) >= maxUnclosed {
			return false, fmt.Errorf("more than %d open attempts", maxUnclosed)
		}
		ids = append(ids, executor.AttemptID(key))
		return true, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return j.read(ctx, ids, math.MaxInt)
}

// Held implements executor.Journal.
func (j *Journal) Held(
	ctx context.Context, after executor.AttemptID, limit int,
) ([]executor.Record, error) {
	from := []byte(prefixHeld)
	if after != "" {
		from = append(append(from, after...), 0)
	}
	var ids []executor.AttemptID
	err := j.iterate(prefixHeld, span{from: from}, func(key []byte) (more bool, err error) {
		ids = append(ids, executor.AttemptID(key))
		return len(ids) < limit, ctx.Err()
	}, forward)
	if err != nil {
		return nil, err
	}
	return j.read(ctx, ids, maxPage)
}

// List implements executor.Journal. It returns at most 1,000 records, of some MiB together.
func (j *Journal) List(
	ctx context.Context, before time.Time, limit int,
) ([]executor.Record, error) {
	var upper []byte
	if !before.IsZero() {
		upper = timeKey(before, "")
	}
	limit = min(limit, maxList)
	var ids []executor.AttemptID
	err := j.scanBack(prefixTime, upper, func(key []byte) (more bool, err error) {
		if len(ids) >= limit {
			return false, nil
		}
		ids = append(ids, executor.AttemptID(key[8:]))
		return true, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return j.read(ctx, ids, maxPage)
}

// read reads the records until they take most bytes: at least one, if there is one.
func (j *Journal) read(
	ctx context.Context, ids []executor.AttemptID, most int,
) ([]executor.Record, error) {
	var records []executor.Record
	for _, id := range ids {
		r, size, err := j.get(id)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
		records = append(records, r)
		if most -= size; most <= 0 {
			break
		}
	}
	return records, nil
}

// Forget implements executor.Journal.
func (j *Journal) Forget(ctx context.Context, keep int) error {
	batch := j.db.NewBatch()
	seen := 0
	err := j.scanBack(prefixTime, nil, func(key []byte) (more bool, err error) {
		id := executor.AttemptID(key[8:])
		for _, prefix := range []string{prefixUnclosed, prefixHeld} {
			_, closer, err := j.db.Get(append([]byte(prefix), id...))
			if err == nil {
				return true, closer.Close() // these stay
			}
			if !errors.Is(err, pebble.ErrNotFound) {
				return false, err
			}
		}
		seen++
		if seen <= keep {
			return true, ctx.Err()
		}
		err = errors.Join(batch.Delete(recordKey(id), nil),
			batch.Delete(append([]byte(prefixTime), key...), nil))
		return true, errors.Join(err, ctx.Err())
	})
	if err == nil {
		err = batch.Commit(pebble.NoSync)
	}
	return errors.Join(err, batch.Close())
}

// scan calls each with what follows prefix in every key, in order, until it says stop.
func (j *Journal) scan(prefix string, upper []byte, each func([]byte) (bool, error)) (err error) {
	return j.iterate(prefix, span{upto: upper}, each, forward)
}

func forward(i *pebble.Iterator, first bool) bool {
	if first {
		return i.First()
	}
	return i.Next()
}

// scanBack is scan from the end.
func (j *Journal) scanBack(prefix string, upper []byte, each func([]byte) (bool, error)) error {
	return j.iterate(prefix, span{upto: upper}, each, func(i *pebble.Iterator, first bool) bool {
		if first {
			return i.Last()
		}
		return i.Prev()
	})
}

// span bounds keys: from the first, if there is one, to before the last.
type span struct{ from, upto []byte }

func (j *Journal) iterate(
	prefix string, within span, each func([]byte) (bool, error),
	step func(i *pebble.Iterator, first bool) bool,
) (err error) {
	if within.from == nil {
		within.from = []byte(prefix)
	}
	if within.upto == nil {
		within.upto = []byte(prefix)
		within.upto[len(prefix)-1]++
	}
	i, err := j.db.NewIter(&pebble.IterOptions{LowerBound: within.from, UpperBound: within.upto})
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	for ok := step(i, true); ok; ok = step(i, false) {
		more, err := each(bytes.Clone(i.Key()[len(prefix):]))
		if err != nil || !more {
			return err
		}
	}
	return i.Error()
}

func recordKey(id executor.AttemptID) []byte { return append([]byte(prefixRecord), id...) }

func timeKey(at time.Time, id executor.AttemptID) []byte {
	key := binary.BigEndian.AppendUint64([]byte(prefixTime), uint64(at.UnixNano()))
	return append(key, id...)
}

// logger hands Pebble's words on. Its Fatalf must not return.
type logger struct{ to *slog.Logger }

func (l logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	if l.to != nil {
		l.to.Error("journal", "error", fmt.Sprintf(format, args...))
	}
}

func (l logger) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	panic("journal: " + fmt.Sprintf(format, args...))
}
