package agenttest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/services/executor"
)

// Journal keeps records in memory, in the form they have on disk.
type Journal struct {
	mu      sync.Mutex // guards all
	hook    Hook
	records map[executor.AttemptID][]byte
	events  []event.Event
	host    executor.HostState
}

var _ executor.Journal = (*Journal)(nil)

// NewJournal returns an empty journal.
func NewJournal() *Journal { return &Journal{records: map[executor.AttemptID][]byte{}} }

// SetHook replaces the hook.
func (j *Journal) SetHook(h Hook) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hook = h
}

// Events returns what was published, oldest first.
func (j *Journal) Events() []event.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events)
}

// Record returns the record of an attempt; it panics when there is none.
func (j *Journal) Record(id executor.AttemptID) executor.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return decode(j.records[id])
}

// SaveHost implements executor.Journal.
func (j *Journal) SaveHost(
	ctx context.Context, s executor.HostState, events ...event.Event,
) error {
	return j.write(ctx, "SaveHost", func() error {
		j.host = s
		j.events = append(j.events, events...)
		return nil
	})
}

// Host implements executor.Journal.
func (j *Journal) Host(context.Context) (executor.HostState, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.host, nil
}

// Save implements executor.Journal.
func (j *Journal) Save(ctx context.Context, r executor.Record, events ...event.Event) error {
	return j.write(ctx, "Save", func() error { return j.save(events, r) })
}

// SaveBoth implements executor.Journal.
func (j *Journal) SaveBoth(
	ctx context.Context, one, other executor.Record, events ...event.Event,
) error {
	return j.write(ctx, "SaveBoth", func() error { return j.save(events, one, other) })
}

func (j *Journal) save(events []event.Event, records ...executor.Record) error {
	for i := range records {
		raw, err := json.Marshal(&records[i])
		if err != nil {
			return err
		}
		j.records[records[i].Ask.Attempt] = raw
	}
	j.events = append(j.events, events...)
	return nil
}

// Publish implements executor.Journal.
func (j *Journal) Publish(ctx context.Context, events ...event.Event) error {
	return j.write(ctx, "Publish", func() error {
		j.events = append(j.events, events...)
		return nil
	})
}

func (j *Journal) write(ctx context.Context, op string, write func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	before, after := j.hook.ask(op)
	if before != nil {
		return before
	}
	if err := write(); err != nil {
		return err
	}
	return after
}

// Unclosed implements executor.Journal.
func (j *Journal) Unclosed(context.Context) ([]executor.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var open []executor.Record
	for _, raw := range j.records {
		if r := decode(raw); r.Phase != executor.PhaseClosed {
			open = append(open, r)
		}
	}
	return open, nil
}

// Held implements executor.Journal.
func (j *Journal) Held(
	_ context.Context, after executor.AttemptID, limit int,
) ([]executor.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var held []executor.Record
	for _, raw := range j.records {
		if r := decode(raw); r.Held && r.Ask.Attempt > after {
			held = append(held, r)
		}
	}
	slices.SortFunc(held, func(a, b executor.Record) int {
		return cmp.Compare(a.Ask.Attempt, b.Ask.Attempt)
	})
	return held[:min(limit, len(held))], nil
}

// Get implements executor.Journal.
func (j *Journal) Get(_ context.Context, id executor.AttemptID) (executor.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	raw, ok := j.records[id]
	if !ok {
		return executor.Record{}, executor.ErrNoAttempt
	}
	return decode(raw), nil
}

// List implements executor.Journal.
func (j *Journal) List(
	_ context.Context, before time.Time, limit int,
) ([]executor.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.sorted()
	list = slices.DeleteFunc(list, func(r executor.Record) bool {
		return !before.IsZero() && !r.Asked.Before(before)
	})
	return list[:min(limit, len(list))], nil
}

func (j *Journal) sorted() []executor.Record {
	var list []executor.Record
	for _, raw := range j.records {
		list = append(list, decode(raw))
	}
	slices.SortFunc(list, func(a, b executor.Record) int { return b.Asked.Compare(a.Asked) })
	return list
}

// Forget implements executor.Journal.
func (j *Journal) Forget(_ context.Context, keep int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.sorted() {
		if r.Phase != executor.PhaseClosed || r.Held {
			continue
		}
		if keep--; keep < 0 {
			delete(j.records, r.Ask.Attempt)
		}
	}
	return nil
}

func decode(raw []byte) (r executor.Record) {
	if err := json.Unmarshal(raw, &r); err != nil {
		panic(fmt.Sprintf("agenttest: record: %v", err))
	}
	return r
}
