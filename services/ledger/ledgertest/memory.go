package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/united-containers/ucn/services/ledger"
)

// Failure is how a write goes wrong.
type Failure int

// The ways in which a write goes wrong.
const (
	// FailNot lets it succeed.
	FailNot Failure = iota
	// FailBefore loses it.
	FailBefore
	// FailAfter makes it durable and then reports an error, as a lost answer does.
	FailAfter
	// FailFull loses it for want of space.
	FailFull
)

// ErrInjected is the cause of every failure a test asked for.
var ErrInjected = errors.New("failure injected by a test")

// Disk is what survives the crash of a Memory log. The zero value is an empty disk.
type Disk struct {
	// Next decides how the next Append goes; nil lets all succeed. Set it before the log is used.
	Next func(ledger.Record) Failure
	// Mending fails a Mend; nil lets all succeed. Set it before the log is used.
	Mending func() error

	mu      sync.Mutex
	records []ledger.Record
}

// Memory is a ledger.Store without a file.
type Memory struct {
	disk *Disk

	mu     sync.Mutex
	broken error
	hidden int // records at the end whose write was reported as failed
	closed bool
}

var _ ledger.Store = (*Memory)(nil)

// Open returns the log on a disk as a new process would find it.
func (d *Disk) Open() *Memory { return &Memory{disk: d} }

// Append implements ledger.Store.
func (m *Memory) Append(ctx context.Context, r ledger.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ledger.ErrClosed
	case m.broken != nil:
		return fmt.Errorf("%w: %w", ledger.ErrBroken, m.broken)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	d := m.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.linked(r); err != nil {
		return err
	}
	failure := FailNot
	if d.Next != nil {
		failure = d.Next(r)
	}
	if failure != FailBefore && failure != FailFull {
		r.Bytes = bytes.Clone(r.Bytes)
		d.records = append(d.records, r)
	}
	if failure != FailNot {
		m.broken = ErrInjected
		if failure == FailFull {
			m.broken = fmt.Errorf("%w: %w", ledger.ErrFull, ErrInjected)
		}
		if failure == FailAfter {
			m.hidden = 1
		}
		return fmt.Errorf("%w: append block %d: %w", ledger.ErrBroken, r.Height, m.broken)
	}
	return nil
}

// Mend implements ledger.Store.
func (m *Memory) Mend(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ledger.ErrClosed
	case m.broken == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	d := m.disk
	if d.Mending != nil {
		if err := d.Mending(); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records = d.records[:len(d.records)-m.hidden]
	m.broken, m.hidden = nil, 0
	return nil
}

func (d *Disk) linked(r ledger.Record) error {
	var prev ledger.Hash
	if n := len(d.records); n > 0 {
		prev = d.records[n-1].Hash
	}
	if r.Height != uint64(len(d.records)) || r.Prev != prev || len(r.Bytes) > ledger.MaxRecord {
		return fmt.Errorf("%w: height %d", ledger.ErrNotLinked, r.Height)
	}
	return nil
}

// visible returns what readers may see: nothing of a write that failed.
func (m *Memory) visible() ([]ledger.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.closed {
		return nil, ledger.ErrClosed
	}
	return m.disk.records[:len(m.disk.records)-m.hidden], nil
}

// Head implements ledger.Store.
func (m *Memory) Head() (ledger.Record, bool) {
	records, err := m.visible()
	if err != nil || len(records) == 0 {
		return ledger.Record{}, false
	}
	head := records[len(records)-1]
	head.Bytes = nil
	return head, true
}

// Read implements ledger.Store.
func (m *Memory) Read(ctx context.Context, height uint64) (ledger.Record, error) {
	records, err := m.visible()
	if err != nil {
		return ledger.Record{}, err
	}
	if height >= uint64(len(records)) {
		return ledger.Record{}, fmt.Errorf("%w: height %d", ledger.ErrNoBlock, height)
	}
	r := records[height]
	r.Bytes = bytes.Clone(r.Bytes)
	return r, ctx.Err()
}

// Size implements ledger.Store.
func (m *Memory) Size(ctx context.Context, height uint64) (int, error) {
	r, err := m.Read(ctx, height)
	return len(r.Bytes), err
}

// Scan implements ledger.Store.
func (m *Memory) Scan(ctx context.Context, from uint64, visit func(ledger.Record) error) error {
	records, err := m.visible()
	if err != nil {
		return err
	}
	for _, r := range records[min(from, uint64(len(records))):] {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.Bytes = bytes.Clone(r.Bytes)
		if err := visit(r); err != nil {
			return err
		}
	}
	return nil
}

// Err implements ledger.Store.
func (m *Memory) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

// Close implements ledger.Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
