// Package pebble keeps the scheduler's jobs and queue in a Pebble store on the local disk.
//
// A job is one record; its signed revision stands beside it and is written once. The listings and
// the queue are keys derived from the record, written in the same batch as the record and the event
// that tells of the change. What Save was given is synced to disk when it returns. In memory it
// holds a number per owner with pending runs and the jobs it dealt with last, and nothing per run.
// It does not compact old jobs away.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

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

// headSize is how many bytes stand before the job.
const headSize = timeSize + 4

func checksum(revision []byte) uint32 { return crc32.ChecksumIEEE(revision) }

// Job implements scheduler.Store.
func (s *Store) Job(_ context.Context, id job.ID) (*scheduler.Job, error) {
	h, err := s.hold(id)
	if err != nil {
		return nil, err
	}
	return h.job.Clone(), nil
}

// hold returns what is held of a job, from memory when it was read or written lately.
func (s *Store) hold(id job.ID) (held, error) {
	h, stamp, ok := s.recent.get(id)
	if ok {
		return h, nil
	}
	h, err := s.read(id)
	if err != nil {
		return h, err
	}
	revision, err := s.get(revisionKey(id))
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return h, fmt.Errorf("read revision: %w", err)
	}
	h.job.Revision = revision
	h.bytes += len(revision)
	s.recent.fill(h, stamp)
	return h, nil
}

func (s *Store) get(key []byte) ([]byte, error) {
	raw, closer, err := s.db.Get(key)
	if err != nil {
		return nil, err
	}
	value := slices.Clone(raw)
	return value, closer.Close()
}

// read reads a job from disk, without its revision.
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
	j, err := decode(raw[headSize:])
	if err != nil {
		return h, fmt.Errorf("job %x: %w", id, err)
	}
	look, revision := binary.BigEndian.Uint64(raw), binary.BigEndian.Uint32(raw[timeSize:])
	return holdOf(j, timeOf(look), revision, len(raw)), nil
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
	if err := s.checkRoom(); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	if err := s.counts.load(s); err != nil {
		return err
	}
	before, err := s.hold(c.Job.ID)
	if err != nil && !errors.Is(err, scheduler.ErrNotFound) {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	value := valueOf(c)
	after := holdOf(c.Job.Clone(), c.Look, checksum(c.Job.Revision), len(value))
	if err := put(b, c, value, [2]held{before, after}); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	if c.Event != nil && s.append != nil {
		if err := s.append(b, c.Event); err != nil {
			return fmt.Errorf("append event: %w", err)
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		s.recent.drop(c.Job.ID) // it may be on disk all the same
		return fmt.Errorf("commit job: %w", err)
	}
	s.recent.put(after)
	s.counts.add(c.Job.Owner, len(after.waiting)-len(before.waiting))
	return nil
}

// valueOf is a record as it is stored: when somebody must look at the job (0 = never), the checksum
// of its revision, then the job.
func valueOf(c scheduler.Change) []byte {
	value := binary.BigEndian.AppendUint64(make([]byte, 0, recordRoom), ordinal(c.Look))
	value = binary.BigEndian.AppendUint32(value, checksum(c.Job.Revision))
	return appendJob(value, c.Job)
}

// recordRoom holds most records.
const recordRoom = 2 << 10

// put writes a change, with the value of its record, from what was held to what is.
func put(b *pebble.Batch, c scheduler.Change, value []byte, of [2]held) error {
	j, before, after := c.Job, of[0], of[1]
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
	if before.job == nil || before.revision != after.revision {
		if err := b.Set(revisionKey(j.ID), j.Revision, nil); err != nil {
			return err
		}
	}
	for chunk, raw := range c.Tasks {
		if err := b.Set(tasksKey(j.ID, chunk), raw, nil); err != nil {
			return err
		}
	}
	for _, claim := range c.Claims {
		if err := b.Set(claimKey(claim), encodeTeller(claim.By), nil); err != nil {
			return err
		}
	}
	for _, ref := range after.waiting {
		if err := b.Set(queueKey(j.Owner, ref.Place()), queueValue(ref), nil); err != nil {
			return err
		}
	}
	if after.open {
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
	for _, ref := range h.waiting {
		if err := b.Delete(queueKey(h.job.Owner, ref.Place()), nil); err != nil {
			return err
		}
	}
	if h.open {
		if err := b.Delete(liveKey(h.job.ID), nil); err != nil {
			return err
		}
	}
	if h.look.IsZero() {
		return nil
	}
	return b.Delete(dueKey(scheduler.Cursor{Time: h.look, Job: h.job.ID}), nil)
}
