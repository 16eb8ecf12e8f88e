package schedulertest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
)

// Memory is a complete store in memory.
type Memory struct {
	// Fail is asked before each Save; an error fails it. When After is true the change is kept
	// all the same, as when a disk answers badly after it wrote.
	Fail  func(c scheduler.Change) error
	After bool

	mu     sync.Mutex
	jobs   map[job.ID][]byte
	events []string
}

var _ scheduler.Store = (*Memory)(nil)

// Job implements scheduler.Store.
func (m *Memory) Job(_ context.Context, id job.ID) (*scheduler.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read(id)
}

func (m *Memory) read(id job.ID) (*scheduler.Job, error) {
	raw, ok := m.jobs[id]
	if !ok {
		return nil, scheduler.ErrNotFound
	}
	var j scheduler.Job
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, err
	}
	return &j, nil
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
	raw, err := json.Marshal(c.Job)
	if err != nil {
		return err
	}
	if m.jobs == nil {
		m.jobs = map[job.ID][]byte{}
	}
	m.jobs[c.Job.ID] = raw
	if c.Event != nil {
		m.events = append(m.events, c.Event.Type)
	}
	return failure
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
func (m *Memory) Jobs(
	_ context.Context, owner sig.AccountID, after scheduler.Cursor, limit int,
) ([]*scheduler.Job, error) {
	jobs, err := m.all()
	slices.SortStableFunc(jobs, func(a, b *scheduler.Job) int {
		return cmp.Or(b.Submitted.Compare(a.Submitted), bytes.Compare(a.ID[:], b.ID[:]))
	})
	jobs = slices.DeleteFunc(jobs, func(j *scheduler.Job) bool {
		behind := j.Submitted.Before(after.Time) ||
			j.Submitted.Equal(after.Time) && bytes.Compare(j.ID[:], after.Job[:]) > 0
		return j.Owner != owner || !after.IsZero() && !behind
	})
	return jobs[:min(len(jobs), limit)], err
}

// Owners implements scheduler.Lister.
func (m *Memory) Owners(context.Context) ([]sig.AccountID, error) {
	jobs, err := m.all()
	var owners []sig.AccountID
	for _, j := range jobs {
		if _, waits := j.WaitingSince(); waits && !slices.Contains(owners, j.Owner) {
			owners = append(owners, j.Owner)
		}
	}
	slices.SortFunc(owners, sig.AccountID.Compare)
	return owners, err
}

// Pending implements scheduler.Lister.
func (m *Memory) Pending(
	_ context.Context, owner sig.AccountID, after scheduler.Cursor, limit int,
) ([]scheduler.Ref, error) {
	jobs, err := m.all()
	var refs []scheduler.Ref
	for _, j := range jobs {
		ref, waits := j.WaitingSince()
		behind := ref.Time.After(after.Time) ||
			ref.Time.Equal(after.Time) && bytes.Compare(ref.Job[:], after.Job[:]) > 0
		if waits && j.Owner == owner && (after.IsZero() || behind) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b scheduler.Ref) int {
		return cmp.Or(a.Time.Compare(b.Time), bytes.Compare(a.Job[:], b.Job[:]))
	})
	return refs[:min(len(refs), limit)], err
}

// Live implements scheduler.Lister.
func (m *Memory) Live(context.Context) ([]job.ID, error) {
	jobs, err := m.all()
	var ids []job.ID
	for _, j := range jobs {
		if j.Current().Live() {
			ids = append(ids, j.ID)
		}
	}
	return ids, err
}
