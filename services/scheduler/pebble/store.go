// Package pebble keeps the scheduler's jobs and queue in a Pebble store on the local disk.
//
// A job is one record; the listings and the queue are keys derived from it, written in the same
// batch as the record and the event that tells of the change. What Save was given is synced to
// disk when it returns. It does not compact old jobs away.
package pebble

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
)

// The first byte of a key tells the table. Keys below firstFree belong to others in the same
// store (outbox, cursors).
const (
	tableJob   = 0xa0 // job id -> record
	tableOwner = 0xa1 // owner, submitted (newest first), job id
	tableQueue = 0xa2 // owner, since, job id -> run id
	tableLive  = 0xa3 // job id
)

const (
	idSize    = 32
	timeSize  = 8
	indexSize = 1 + idSize + timeSize + idSize
)

// AppendEvent writes an event into the batch that changes what it tells of; nil publishes nothing.
type AppendEvent func(b *pebble.Batch, e *scheduler.Event) error

// Store is the scheduler's store. Make it with New over a database that the caller opened and
// closes.
type Store struct {
	db     *pebble.DB
	append AppendEvent
	room   func() error
}

var _ scheduler.Store = (*Store)(nil)

// New returns a store in db.
func New(db *pebble.DB, appendEvent AppendEvent) *Store {
	return &Store{db: db, append: appendEvent}
}

// KeepRoom makes the store ask before each write; an error of check refuses it. Call it before
// first use.
func (s *Store) KeepRoom(check func() error) { s.room = check }

// Job implements scheduler.Store.
func (s *Store) Job(_ context.Context, id job.ID) (*scheduler.Job, error) {
	return s.read(id)
}

func (s *Store) read(id job.ID) (*scheduler.Job, error) {
	raw, closer, err := s.db.Get(jobKey(id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, scheduler.ErrNotFound
	} else if err != nil {
		return nil, fmt.Errorf("read job: %w", err)
	}
	defer closer.Close()
	var j scheduler.Job
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, fmt.Errorf("decode job %x: %w", id, err)
	}
	return &j, nil
}

// Save implements scheduler.Store.
func (s *Store) Save(_ context.Context, c scheduler.Change) error {
	if s.room != nil {
		if err := s.room(); err != nil {
			return fmt.Errorf("write job: %w", err)
		}
	}
	before, err := s.read(c.Job.ID)
	if err != nil && !errors.Is(err, scheduler.ErrNotFound) {
		return err
	}
	raw, err := json.Marshal(c.Job)
	if err != nil {
		return fmt.Errorf("encode job: %w", err)
	}
	b := s.db.NewBatch()
	defer b.Close()
	if before != nil {
		if err := dropIndexes(b, before); err != nil {
			return err
		}
	}
	if err := b.Set(jobKey(c.Job.ID), raw, nil); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	if err := setIndexes(b, c.Job); err != nil {
		return err
	}
	if c.Event != nil && s.append != nil {
		if err := s.append(b, c.Event); err != nil {
			return fmt.Errorf("append event: %w", err)
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("commit job: %w", err)
	}
	return nil
}

func dropIndexes(b *pebble.Batch, j *scheduler.Job) error {
	if ref, waits := j.WaitingSince(); waits {
		if err := b.Delete(queueKey(j.Owner, ref.Cursor()), nil); err != nil {
			return fmt.Errorf("leave the queue: %w", err)
		}
	}
	if j.Current().Live() {
		if err := b.Delete(liveKey(j.ID), nil); err != nil {
			return fmt.Errorf("leave the live list: %w", err)
		}
	}
	return nil
}

func setIndexes(b *pebble.Batch, j *scheduler.Job) error {
	at := scheduler.Cursor{Time: j.Submitted, Job: j.ID}
	if err := b.Set(ownerKey(j.Owner, at), nil, nil); err != nil {
		return fmt.Errorf("enter the owner's list: %w", err)
	}
	if ref, waits := j.WaitingSince(); waits {
		if err := b.Set(queueKey(j.Owner, ref.Cursor()), ref.Run[:], nil); err != nil {
			return fmt.Errorf("enter the queue: %w", err)
		}
	}
	if j.Current().Live() {
		if err := b.Set(liveKey(j.ID), nil, nil); err != nil {
			return fmt.Errorf("enter the live list: %w", err)
		}
	}
	return nil
}

// Jobs implements scheduler.Lister.
func (s *Store) Jobs(
	_ context.Context, owner sig.AccountID, after scheduler.Cursor, limit int,
) ([]*scheduler.Job, error) {
	prefix := append([]byte{tableOwner}, owner[:]...)
	start := prefix
	if !after.IsZero() {
		start = next(ownerKey(owner, after))
	}
	var jobs []*scheduler.Job
	err := s.scan(start, prefix, limit, func(key, _ []byte) error {
		j, err := s.read(job.ID(key[indexSize-idSize:]))
		if err != nil {
			return err
		}
		jobs = append(jobs, j)
		return nil
	})
	return jobs, err
}

// Owners implements scheduler.Lister.
func (s *Store) Owners(context.Context) ([]sig.AccountID, error) {
	var owners []sig.AccountID
	start := []byte{tableQueue}
	for {
		found := false
		err := s.scan(start, []byte{tableQueue}, 1, func(key, _ []byte) error {
			owners, found = append(owners, sig.AccountID(key[1:1+idSize])), true
			return nil
		})
		if err != nil || !found {
			return owners, err
		}
		last := owners[len(owners)-1]
		start = end(append([]byte{tableQueue}, last[:]...))
	}
}

// Pending implements scheduler.Lister.
func (s *Store) Pending(
	_ context.Context, owner sig.AccountID, after scheduler.Cursor, limit int,
) ([]scheduler.Ref, error) {
	prefix := append([]byte{tableQueue}, owner[:]...)
	start := prefix
	if !after.IsZero() {
		start = next(queueKey(owner, after))
	}
	var refs []scheduler.Ref
	limit = min(limit, scheduler.MaxPendingPage)
	err := s.scan(start, prefix, limit, func(key, value []byte) error {
		if len(key) != indexSize || len(value) != len(scheduler.RunID{}) {
			return fmt.Errorf("queue entry of %d and %d bytes", len(key), len(value))
		}
		nanos := binary.BigEndian.Uint64(key[1+idSize:])
		refs = append(refs, scheduler.Ref{
			Job: job.ID(key[indexSize-idSize:]), Run: scheduler.RunID(value),
			Time: time.Unix(0, int64(nanos)),
		})
		return nil
	})
	return refs, err
}

// Live implements scheduler.Lister.
func (s *Store) Live(context.Context) ([]job.ID, error) {
	var ids []job.ID
	prefix := []byte{tableLive}
	err := s.scan(prefix, prefix, math.MaxInt, func(key, _ []byte) error {
		ids = append(ids, job.ID(key[1:]))
		return nil
	})
	return ids, err
}

// scan calls fn for keys from start that have the prefix, at most limit. Key and value are only
// valid during the call.
func (s *Store) scan(start, prefix []byte, limit int, fn func(key, value []byte) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end(prefix)})
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	for ok := it.First(); ok && limit > 0; ok = it.Next() {
		limit--
		value, err := it.ValueAndErr()
		if err == nil {
			err = fn(it.Key(), value)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	return nil
}

func jobKey(id job.ID) []byte  { return append([]byte{tableJob}, id[:]...) }
func liveKey(id job.ID) []byte { return append([]byte{tableLive}, id[:]...) }

func queueKey(owner sig.AccountID, at scheduler.Cursor) []byte {
	return indexKey(tableQueue, owner, uint64(at.Time.UnixNano()), at.Job)
}

// ownerKey sorts newest first.
func ownerKey(owner sig.AccountID, at scheduler.Cursor) []byte {
	return indexKey(tableOwner, owner, math.MaxUint64-uint64(at.Time.UnixNano()), at.Job)
}

func indexKey(table byte, owner sig.AccountID, order uint64, id job.ID) []byte {
	key := make([]byte, 0, indexSize)
	key = append(key, table)
	key = append(key, owner[:]...)
	key = binary.BigEndian.AppendUint64(key, order)
	return append(key, id[:]...)
}

// next is the smallest key behind key.
func next(key []byte) []byte { return append(slices.Clone(key), 0) }

// end is the smallest key behind all that have the prefix.
func end(prefix []byte) []byte {
	out := slices.Clone(prefix)
	for i := len(out) - 1; i >= 0; i-- {
		if out[i]++; out[i] != 0 {
			return out[:i+1]
		}
	}
	return nil
}
