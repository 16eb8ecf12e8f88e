package schedulertest

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// Memory is a complete store in memory.
type Memory struct {
	// Fail is asked before each Save; an error fails it. When After is true the change is kept
	// all the same, as when a disk answers badly after it wrote.
	Fail  func(c scheduler.Change) error
	After bool

	mu     sync.Mutex
	jobs   map[job.ID]*scheduler.Job
	looks  map[job.ID]time.Time
	tasks  map[chunk][]byte
	claims map[tx.LeaseID]scheduler.Claim
	events []string
}

// chunk names a chunk of an array's tasks.
type chunk struct {
	job    job.ID
	number uint32
}

var _ scheduler.Store = (*Memory)(nil)

// Tasks implements scheduler.Store.
func (m *Memory) Tasks(_ context.Context, id job.ID, number uint32) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.tasks[chunk{id, number}]), nil
}

// Job implements scheduler.Store.
func (m *Memory) Job(_ context.Context, id job.ID) (*scheduler.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read(id)
}

func (m *Memory) read(id job.ID) (*scheduler.Job, error) {
	j, ok := m.jobs[id]
	if !ok {
		return nil, scheduler.ErrNotFound
	}
	return j.Clone(), nil
}

// Hook sets hooks while the store may be called.
func (m *Memory) Hook(set func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set()
}

// Save implements scheduler.Store.
func (m *Memory) Save(_ context.Context, c scheduler.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var failure error
	if m.Fail != nil {
		if failure = m.Fail(c); failure != nil && !m.After {
			return failure
		}
	}
	if m.jobs == nil {
		m.jobs, m.looks = map[job.ID]*scheduler.Job{}, map[job.ID]time.Time{}
		m.tasks = map[chunk][]byte{}
	}
	m.claim(c.Claims)
	m.jobs[c.Job.ID], m.looks[c.Job.ID] = c.Job.Clone(), c.Look
	for number, raw := range c.Tasks {
		m.tasks[chunk{c.Job.ID, number}] = slices.Clone(raw)
	}
	if c.Event != nil {
		m.events = append(m.events, c.Event.Type)
	}
	return failure
}

func (m *Memory) claim(claims []scheduler.Claim) {
	for _, c := range claims {
		if m.claims == nil {
			m.claims = map[tx.LeaseID]scheduler.Claim{}
		}
		m.claims[c.Lease] = c
	}
}

// Claims implements scheduler.Store.
func (m *Memory) Claims(
	_ context.Context, after scheduler.Claim, by time.Time, limit int,
) (due []scheduler.Claim, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	order := func(a, b scheduler.Claim) int {
		return cmp.Or(a.Due.Compare(b.Due), bytes.Compare(a.Lease[:], b.Lease[:]))
	}
	for _, c := range m.claims {
		if !c.Due.After(by) && (after.Due.IsZero() || order(c, after) > 0) {
			due = append(due, c)
		}
	}
	slices.SortFunc(due, order)
	return due[:min(len(due), limit)], nil
}

// Claimed implements scheduler.Store.
func (m *Memory) Claimed(_ context.Context, done, again []scheduler.Claim) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range done {
		delete(m.claims, c.Lease)
	}
	m.claim(again)
	return nil
}

// SetFail makes each Save fail with err until it is nil; nothing is kept meanwhile.
func (m *Memory) SetFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Fail = func(scheduler.Change) error { return err }
}

// Events returns the types of the events that were saved, in order.
func (m *Memory) Events() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

// all returns every job, in order of submission.
func (m *Memory) all() ([]*scheduler.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var jobs []*scheduler.Job
	for id := range maps.Keys(m.jobs) {
		j, err := m.read(id)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b *scheduler.Job) int {
		return cmp.Or(a.Submitted.Compare(b.Submitted), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return jobs, nil
}

// Jobs implements scheduler.Lister.
func (m *Memory) Jobs(_ context.Context, q scheduler.JobQuery) ([]*scheduler.Job, error) {
	jobs, err := m.all()
	order := func(j *scheduler.Job, c scheduler.Cursor) int {
		return cmp.Or(j.Submitted.Compare(c.Time), bytes.Compare(j.ID[:], c.Job[:]))
	}
	if !q.Oldest {
		slices.Reverse(jobs)
	}
	jobs = slices.DeleteFunc(jobs, func(j *scheduler.Job) bool {
		at := order(j, q.After)
		behind := q.After.IsZero() || q.Oldest && at > 0 || !q.Oldest && at < 0
		return j.Owner != q.Owner || !behind || j.Submitted.Before(q.Since) ||
			!q.Until.IsZero() && !j.Submitted.Before(q.Until)
	})
	for _, j := range jobs {
		j.Revision = nil
	}
	return jobs[:min(len(jobs), q.Limit)], err
}

// pending returns what waits, in order, by owner.
func (m *Memory) pending() (map[sig.AccountID][]scheduler.Ref, error) {
	jobs, err := m.all()
	refs := map[sig.AccountID][]scheduler.Ref{}
	for _, j := range jobs {
		if waiting := j.Waiting(); len(waiting) > 0 {
			refs[j.Owner] = append(refs[j.Owner], waiting...)
		}
	}
	for owner := range refs {
		slices.SortFunc(refs[owner], func(a, b scheduler.Ref) int {
			return a.Place().Compare(b.Place())
		})
	}
	return refs, err
}

// Owners implements scheduler.Lister.
func (m *Memory) Owners(context.Context) ([]sig.AccountID, error) {
	refs, err := m.pending()
	return slices.SortedFunc(maps.Keys(refs), sig.AccountID.Compare), err
}

// Count implements scheduler.Lister.
func (m *Memory) Count(context.Context) (c scheduler.Count, _ error) {
	refs, err := m.pending()
	for _, list := range refs {
		c.Runs += len(list)
	}
	c.Owners = len(refs)
	return c, err
}

// CountOf implements scheduler.Lister.
func (m *Memory) CountOf(_ context.Context, owner sig.AccountID) (int, error) {
	refs, err := m.pending()
	return len(refs[owner]), err
}

// Pending implements scheduler.Lister.
func (m *Memory) Pending(
	_ context.Context, q scheduler.PendingQuery,
) (page scheduler.PendingPage, _ error) {
	refs, err := m.pending()
	page.Next = q.After
	for _, ref := range refs[q.Owner] {
		switch {
		case !q.After.IsZero() && ref.Place().Compare(q.After) <= 0:
		case len(page.Refs) == min(q.Limit, scheduler.MaxPendingPage):
			page.More = true
			return page, err
		default:
			page.Next = ref.Place()
			if q.Skip == nil || !q.Skip(ref.Shape) {
				page.Refs = append(page.Refs, ref)
			}
		}
	}
	return page, err
}

// Ahead implements scheduler.Lister.
func (m *Memory) Ahead(
	_ context.Context, owner sig.AccountID, at scheduler.Place, most int,
) (n int, _ error) {
	refs, err := m.pending()
	for _, ref := range refs[owner] {
		if ref.Place().Compare(at) < 0 && n < most {
			n++
		}
	}
	return n, err
}

// Live implements scheduler.Lister.
func (m *Memory) Live(_ context.Context, after job.ID, limit int) ([]job.ID, error) {
	jobs, err := m.all()
	var ids []job.ID
	for _, j := range jobs {
		if j.Live() && bytes.Compare(j.ID[:], after[:]) > 0 {
			ids = append(ids, j.ID)
		}
	}
	slices.SortFunc(ids, func(a, b job.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids[:min(len(ids), limit)], err
}

// Due implements scheduler.Lister.
func (m *Memory) Due(
	_ context.Context, after scheduler.Cursor, by time.Time, limit int,
) ([]scheduler.Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	order := func(a, b scheduler.Cursor) int {
		return cmp.Or(a.Time.Compare(b.Time), bytes.Compare(a.Job[:], b.Job[:]))
	}
	var due []scheduler.Cursor
	for id, look := range m.looks {
		at := scheduler.Cursor{Time: look, Job: id}
		if !look.IsZero() && !look.After(by) && (after.IsZero() || order(at, after) > 0) {
			due = append(due, at)
		}
	}
	slices.SortFunc(due, order)
	return due[:min(len(due), limit)], nil
}
