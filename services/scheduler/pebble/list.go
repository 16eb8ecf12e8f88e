package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
)

// counts are how many runs of each owner wait. They are read once and kept up with every Save.
type counts struct {
	mu     sync.Mutex
	loaded bool
	of     map[sig.AccountID]int
	runs   int
}

// load counts the queue unless that was done; it takes about a second for a million runs.
func (c *counts) load(s *Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded {
		return nil
	}
	of, runs := map[sig.AccountID]int{}, 0
	prefix := []byte{tableQueue}
	err := s.scan(prefix, end(prefix), math.MaxInt, func(key, _ []byte) (bool, error) {
		if len(key) != queueSize {
			return false, fmt.Errorf("queue entry of %d bytes", len(key))
		}
		of[sig.AccountID(key[1:1+idSize])]++
		runs++
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("count the queue: %w", err)
	}
	c.of, c.runs, c.loaded = of, runs, true
	return nil
}

func (c *counts) add(owner sig.AccountID, delta int) {
	if delta == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs += delta
	if c.of[owner] += delta; c.of[owner] <= 0 {
		delete(c.of, owner)
	}
}

// Count implements scheduler.Lister.
func (s *Store) Count(context.Context) (scheduler.Count, error) {
	if err := s.counts.load(s); err != nil {
		return scheduler.Count{}, err
	}
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	return scheduler.Count{Runs: s.counts.runs, Owners: len(s.counts.of)}, nil
}

// CountOf implements scheduler.Lister.
func (s *Store) CountOf(_ context.Context, owner sig.AccountID) (int, error) {
	if err := s.counts.load(s); err != nil {
		return 0, err
	}
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	return s.counts.of[owner], nil
}

// Owners implements scheduler.Lister.
func (s *Store) Owners(context.Context) ([]sig.AccountID, error) {
	if err := s.counts.load(s); err != nil {
		return nil, err
	}
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.counts.of), sig.AccountID.Compare), nil
}

// Jobs implements scheduler.Lister.
func (s *Store) Jobs(_ context.Context, q scheduler.JobQuery) ([]*scheduler.Job, error) {
	start := ownerKey(q.Owner, scheduler.Cursor{Time: q.Since})
	stop := end(append([]byte{tableOwner}, q.Owner[:]...))
	if !q.Until.IsZero() {
		stop = ownerKey(q.Owner, scheduler.Cursor{Time: q.Until})
	}
	if !q.After.IsZero() {
		if at := ownerKey(q.Owner, q.After); q.Oldest {
			start = later(start, next(at))
		} else {
			stop = sooner(stop, at)
		}
	}
	var jobs []*scheduler.Job
	each := func(key, _ []byte) (bool, error) {
		h, err := s.read(job.ID(key[ownerSize-idSize:]))
		jobs = append(jobs, h.job)
		return true, err
	}
	scan := s.scanBack
	if q.Oldest {
		scan = s.scan
	}
	if err := scan(start, stop, q.Limit, each); err != nil {
		return nil, err
	}
	return jobs, nil
}

func later(a, b []byte) []byte {
	if string(a) > string(b) {
		return a
	}
	return b
}

func sooner(a, b []byte) []byte {
	if string(a) < string(b) {
		return a
	}
	return b
}

// Pending implements scheduler.Lister.
func (s *Store) Pending(
	_ context.Context, q scheduler.PendingQuery,
) (page scheduler.PendingPage, err error) {
	prefix := append([]byte{tableQueue}, q.Owner[:]...)
	start := prefix
	if !q.After.IsZero() {
		start = next(queueKey(q.Owner, q.After))
	}
	limit := min(q.Limit, scheduler.MaxPendingPage)
	page.Next = q.After
	left := scheduler.MaxPendingScan
	err = s.scan(start, end(prefix), math.MaxInt, func(key, value []byte) (bool, error) {
		if len(page.Refs) == limit || left == 0 {
			page.More = true
			return false, nil
		}
		left--
		ref, err := parseRef(key, value)
		if err != nil {
			return false, err
		}
		page.Next = ref.Place()
		if q.Skip == nil || !q.Skip(ref.Shape) {
			page.Refs = append(page.Refs, ref)
		}
		return true, nil
	})
	return page, err
}

// Ahead implements scheduler.Lister.
func (s *Store) Ahead(
	_ context.Context, owner sig.AccountID, at scheduler.Place, most int,
) (n int, err error) {
	prefix := append([]byte{tableQueue}, owner[:]...)
	err = s.scan(prefix, queueKey(owner, at), most, func(_, _ []byte) (bool, error) {
		n++
		return true, nil
	})
	return n, err
}

// Live implements scheduler.Lister.
func (s *Store) Live(
	_ context.Context, after job.ID, limit int,
) (ids []job.ID, err error) {
	prefix := []byte{tableLive}
	start := prefix
	if after != (job.ID{}) {
		start = next(liveKey(after))
	}
	err = s.scan(start, end(prefix), limit, func(key, _ []byte) (bool, error) {
		ids = append(ids, job.ID(key[1:]))
		return true, nil
	})
	return ids, err
}

// Due implements scheduler.Lister.
func (s *Store) Due(
	_ context.Context, after scheduler.Cursor, by time.Time, limit int,
) (due []scheduler.Cursor, err error) {
	start := []byte{tableDue}
	if !after.IsZero() {
		start = next(dueKey(after))
	}
	stop := next(dueKey(scheduler.Cursor{Time: by, Job: lastID()}))
	err = s.scan(start, stop, limit, func(key, _ []byte) (bool, error) {
		if len(key) != dueSize {
			return false, fmt.Errorf("due entry of %d bytes", len(key))
		}
		due = append(due, scheduler.Cursor{
			Time: timeOf(binary.BigEndian.Uint64(key[1:])), Job: job.ID(key[1+timeSize:]),
		})
		return true, nil
	})
	return due, err
}

// lastID is behind every job's id.
func lastID() (id job.ID) {
	for i := range id {
		id[i] = 0xff
	}
	return id
}

// scan calls fn for keys from start up to stop, at most limit, until it returns false. Key and
// value are only valid during the call.
func (s *Store) scan(
	start, stop []byte, limit int, fn func(key, value []byte) (bool, error),
) error {
	return s.walk([2][]byte{start, stop}, limit, fn, (*pebble.Iterator).First, (*pebble.Iterator).Next)
}

// scanBack is scan from the other end.
func (s *Store) scanBack(
	start, stop []byte, limit int, fn func(key, value []byte) (bool, error),
) error {
	return s.walk([2][]byte{start, stop}, limit, fn, (*pebble.Iterator).Last, (*pebble.Iterator).Prev)
}

func (s *Store) walk(
	span [2][]byte, limit int, fn func(key, value []byte) (bool, error),
	first, step func(*pebble.Iterator) bool,
) error {
	if string(span[0]) >= string(span[1]) {
		return nil
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: span[0], UpperBound: span[1]})
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	for ok := first(it); ok && limit > 0; ok = step(it) {
		limit--
		value, err := it.ValueAndErr()
		goOn := false
		if err == nil {
			goOn, err = fn(it.Key(), value)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !goOn {
			break
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	return nil
}
