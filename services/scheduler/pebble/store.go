// Package pebble keeps the scheduler's jobs and queue in a Pebble store on the local disk.
//
// A job is one record; its signed revision stands beside it and is written once. The listings and
// the queue are keys derived from the record, written in the same batch as the record and the event
// that tells of the change. What Save was given is synced to disk when it returns. In memory it
// holds a number per owner with pending runs, and nothing per run. It does not compact old jobs
// away.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/services/scheduler"
)

// AppendEvent writes an event into the batch that changes what it tells of; nil publishes nothing.
type AppendEvent func(b *pebble.Batch, e *scheduler.Event) error

// Store is the scheduler's store. Make it with New over a database that the caller opened and
// closes.
type Store struct {
	db     *pebble.DB
	append AppendEvent
	room   func() error
	counts counts
	recent recent
}

var _ scheduler.Store = (*Store)(nil)

// New returns a store in db.
func New(db *pebble.DB, appendEvent AppendEvent) *Store {
	return &Store{db: db, append: appendEvent}
}

// KeepRoom makes the store ask before each write; an error of check refuses it. Call it before
// first use.
func (s *Store) KeepRoom(check func() error) { s.room = check }

// held is a record as it lies in the store: when somebody must look at the job (0 = never), the
// checksum of its revision, then the job.
type held struct {
	look     time.Time
	revision uint32
	job      *scheduler.Job
}

// headSize is how many bytes stand before the job.
const headSize = timeSize + 4

func checksum(revision []byte) uint32 { return crc32.ChecksumIEEE(revision) }

// Job implements scheduler.Store.
func (s *Store) Job(_ context.Context, id job.ID) (*scheduler.Job, error) {
	h, err := s.read(id)
	if err != nil {
		return nil, err
	}
	revision, err := s.get(revisionKey(id))
	if errors.Is(err, pebble.ErrNotFound) {
		return h.job, nil
	} else if err != nil {
		return nil, fmt.Errorf("read revision: %w", err)
	}
	h.job.Revision = slices.Clone(revision)
	return h.job, nil
}

// get returns a value, which must not be changed, from memory when it was written lately.
func (s *Store) get(key []byte) ([]byte, error) {
	if value, ok := s.recent.get(key); ok {
		return value, nil
	}
	raw, closer, err := s.db.Get(key)
	if err != nil {
		return nil, err
	}
	value := slices.Clone(raw)
	return value, closer.Close()
}

func (s *Store) read(id job.ID) (h held, err error) {
	raw, err := s.get(jobKey(id))
	if errors.Is(err, pebble.ErrNotFound) {
		return h, scheduler.ErrNotFound
	} else if err != nil {
		return h, fmt.Errorf("read job: %w", err)
	}
	if len(raw) < headSize {
		return h, fmt.Errorf("record of job %x has %d bytes", id, len(raw))
	}
	h.look = timeOf(binary.BigEndian.Uint64(raw))
	h.revision = binary.BigEndian.Uint32(raw[timeSize:])
	if h.job, err = decode(raw[headSize:]); err != nil {
		return h, fmt.Errorf("job %x: %w", id, err)
	}
	return h, nil
}

// Tasks implements scheduler.Store.
func (s *Store) Tasks(_ context.Context, id job.ID, chunk uint32) ([]byte, error) {
	raw, closer, err := s.db.Get(tasksKey(id, chunk))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	if len(raw) != scheduler.TasksPerChunk {
		return nil, errors.Join(fmt.Errorf("tasks of job %x have %d bytes", id, len(raw)), closer.Close())
	}
	out := slices.Clone(raw)
	if err := closer.Close(); err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	return out, nil
}

// Save implements scheduler.Store.
func (s *Store) Save(ctx context.Context, c scheduler.Change) error {
	if s.room != nil {
		if err := s.room(); err != nil {
			return fmt.Errorf("write job: %w", err)
		}
	}
	if err := s.counts.load(s); err != nil {
		return err
	}
	before, err := s.read(c.Job.ID)
	if err != nil && !errors.Is(err, scheduler.ErrNotFound) {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	value := valueOf(c)
	if err := put(b, before, c, value); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	if c.Event != nil && s.append != nil {
		if err := s.append(b, c.Event); err != nil {
			return fmt.Errorf("append event: %w", err)
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		s.recent.drop(jobKey(c.Job.ID)) // it may be on disk all the same
		return fmt.Errorf("commit job: %w", err)
	}
	s.recent.put(jobKey(c.Job.ID), value)
	delta := len(c.Job.Waiting())
	if before.job != nil {
		delta -= len(before.job.Waiting())
	}
	s.counts.add(c.Job.Owner, delta)
	return nil
}

// valueOf is a record as it is stored.
func valueOf(c scheduler.Change) []byte {
	value := binary.BigEndian.AppendUint64(nil, ordinal(c.Look))
	value = binary.BigEndian.AppendUint32(value, checksum(c.Job.Revision))
	return append(value, encode(c.Job)...)
}

// put writes a change, with the value of its record, in place of what was held.
func put(b *pebble.Batch, before held, c scheduler.Change, value []byte) error {
	j := c.Job
	if err := b.Set(jobKey(j.ID), value, nil); err != nil {
		return err
	}
	if before.job == nil {
		at := scheduler.Cursor{Time: j.Submitted, Job: j.ID}
		if err := b.Set(ownerKey(j.Owner, at), nil, nil); err != nil {
			return err
		}
	} else if err := dropIndexes(b, before); err != nil {
		return err
	}
	if before.job == nil || before.revision != checksum(j.Revision) {
		if err := b.Set(revisionKey(j.ID), j.Revision, nil); err != nil {
			return err
		}
	}
	for chunk, raw := range c.Tasks {
		if err := b.Set(tasksKey(j.ID, chunk), raw, nil); err != nil {
			return err
		}
	}
	for _, ref := range j.Waiting() {
		if err := b.Set(queueKey(j.Owner, ref.Place()), queueValue(ref), nil); err != nil {
			return err
		}
	}
	if j.Open() {
		if err := b.Set(liveKey(j.ID), nil, nil); err != nil {
			return err
		}
	}
	if c.Look.IsZero() {
		return nil
	}
	return b.Set(dueKey(scheduler.Cursor{Time: c.Look, Job: j.ID}), nil, nil)
}

func dropIndexes(b *pebble.Batch, h held) error {
	for _, ref := range h.job.Waiting() {
		if err := b.Delete(queueKey(h.job.Owner, ref.Place()), nil); err != nil {
			return err
		}
	}
	if h.job.Open() {
		if err := b.Delete(liveKey(h.job.ID), nil); err != nil {
			return err
		}
	}
	if h.look.IsZero() {
		return nil
	}
	return b.Delete(dueKey(scheduler.Cursor{Time: h.look, Job: h.job.ID}), nil)
}
