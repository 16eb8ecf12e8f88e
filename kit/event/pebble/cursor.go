package pebble

import (
	"context"
	"errors"
	"fmt"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/event"
)

// Transact runs f with a fresh batch and commits it with sync, or closes it if f fails.
type Transact func(ctx context.Context, f func(batch *db.Batch) error) error

// Cursors keeps the cursors of one consumer inside a database.
type Cursors struct {
	db       *db.DB
	prefix   []byte
	transact Transact
}

var _ event.Cursors[*db.Batch] = (*Cursors)(nil)

// NewCursors returns the cursors under a prefix that no other key of the database begins with.
// transact is the owner's way to write, such as one that lets a single goroutine change its state;
// nil commits each batch with sync.
func NewCursors(database *db.DB, prefix string, transact Transact) (*Cursors, error) {
	if len(prefix) == 0 || len(prefix) > MaxPrefix {
		return nil, fmt.Errorf("open cursors: prefix of %d bytes, want 1 to %d",
			len(prefix), MaxPrefix)
	}
	c := &Cursors{db: database, prefix: []byte(prefix), transact: transact}
	if transact == nil {
		c.transact = c.commit
	}
	return c, nil
}

// Cursor implements event.Cursors.
func (c *Cursors) Cursor(_ context.Context, line event.Line) (event.Cursor, error) {
	raw, err := read(c.db, c.key(kindCursor, line))
	if errors.Is(err, db.ErrNotFound) {
		return event.Cursor{}, nil
	}
	if err != nil {
		return event.Cursor{}, fmt.Errorf("read cursor: %w", err)
	}
	head, last, err := decodeHead(raw)
	if err != nil {
		return event.Cursor{}, fmt.Errorf("read cursor: %w", err)
	}
	fork, err := read(c.db, c.key(kindFork, line))
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return event.Cursor{}, fmt.Errorf("read proof of a fork: %w", err)
	}
	return event.Cursor{Head: head, Last: last, Fork: fork}, nil
}

// SetCursor implements event.Cursors. The batch need not be indexed.
func (c *Cursors) SetCursor(batch *db.Batch, line event.Line, cursor event.Cursor) error {
	raw := append(encodeHead(cursor.Head), cursor.Last...)
	err := batch.Set(c.key(kindCursor, line), raw, nil)
	if cursor.Fork == nil {
		err = errors.Join(err, batch.Delete(c.key(kindFork, line), nil))
	} else {
		err = errors.Join(err, batch.Set(c.key(kindFork, line), cursor.Fork, nil))
	}
	if err != nil {
		return fmt.Errorf("set cursor: %w", err)
	}
	return nil
}

// Transact implements event.Cursors.
func (c *Cursors) Transact(ctx context.Context, f func(batch *db.Batch) error) error {
	return c.transact(ctx, f)
}

func (c *Cursors) commit(_ context.Context, f func(batch *db.Batch) error) error {
	batch := c.db.NewBatch()
	defer batch.Close()
	if err := f(batch); err != nil {
		return err
	}
	if err := batch.Commit(db.Sync); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (c *Cursors) key(kind byte, line event.Line) []byte {
	key := make([]byte, 0, len(c.prefix)+1+32+1)
	key = append(append(key, c.prefix...), kind)
	return append(append(key, line.Instance[:]...), topicByte(line.Topic))
}
