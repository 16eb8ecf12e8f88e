package segment

import (
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/united-containers/ucn/services/ledger"
)

// Bounds of a segment's size in bytes. One record larger than a segment gets one of its own.
const (
	DefaultSegment = 64 << 20
	MinSegment     = 4 << 10
	MaxSegment     = 1 << 30
)

// Config says where a log is and whose it is.
type Config struct {
	// Dir is the directory, made if missing (mode 0700). One process at a time.
	Dir string
	// Anchor is the chain's; a log of another chain is refused with ledger.ErrGenesis.
	Anchor ledger.Hash
	// SegmentBytes is where a new file begins; 0 means DefaultSegment.
	SegmentBytes int64
	// Log is told what was cut off at start; nil for nobody.
	Log *slog.Logger

	disk disk // replaced by tests
}

func (c Config) validate() (Config, error) {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = DefaultSegment
	}
	if c.SegmentBytes < MinSegment || c.SegmentBytes > MaxSegment {
		return c, fmt.Errorf("segment size %d is not within %d and %d", c.SegmentBytes,
			MinSegment, MaxSegment)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.disk == nil {
		c.disk = local{}
	}
	return c, nil
}

// Log is a block log in a directory. It implements ledger.Store.
type Log struct {
	config Config
	table  *crc32.Table
	lock   *os.File

	// Of Append's goroutine alone: the file that grows, how much of it is used, and a buffer.
	active file
	used   int64
	buf    []byte
	wanted int64 // bytes of the record whose write failed last

	// mu guards what readers see. It changes only after the disk has it.
	mu     sync.RWMutex
	parts  []*part
	head   ledger.Record
	filled bool
	broken error
	closed bool
}

var _ ledger.Store = (*Log)(nil)

// Open locks the directory, verifies every record in it and cuts off what a crash left unfinished.
// Errors: ledger.ErrLocked, ErrGenesis, ErrFormat, ErrCorrupt (a *CorruptError), or the disk's.
func Open(c Config) (*Log, error) {
	c, err := c.validate()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the block log's directory: %w", err)
	}
	held, err := lock(c.Dir)
	if err != nil {
		return nil, err
	}
	l := &Log{config: c, lock: held, table: crc32.MakeTable(crc32.Castagnoli)}
	if err := l.recover(); err != nil {
		if l.active != nil {
			_ = l.active.Close()
		}
		_ = held.Close()
		return nil, err
	}
	return l, nil
}

// Append implements ledger.Store.
func (l *Log) Append(ctx context.Context, r ledger.Record) error {
	if err := l.admit(ctx, r); err != nil {
		return err
	}
	if err := l.write(r); err != nil {
		err = named(err)
		l.wanted = recordHeader + int64(len(r.Bytes))
		l.mu.Lock()
		defer l.mu.Unlock()
		l.broken = err
		return fmt.Errorf("%w: append block %d: %w", ledger.ErrBroken, r.Height, err)
	}
	return nil
}

func (l *Log) admit(ctx context.Context, r ledger.Record) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case l.closed:
		return ledger.ErrClosed
	case l.broken != nil:
		return fmt.Errorf("%w: %w", ledger.ErrBroken, l.broken)
	case len(r.Bytes) > ledger.MaxRecord:
		return fmt.Errorf("%w: %d bytes are above the limit", ledger.ErrNotLinked, len(r.Bytes))
	}
	if err := l.linked(r); err != nil {
		return err
	}
	return ctx.Err()
}

// linked tells whether r follows the head. mu is held.
func (l *Log) linked(r ledger.Record) error {
	want := uint64(0)
	if l.filled {
		want = l.head.Height + 1
	}
	if r.Height != want {
		return fmt.Errorf("%w: height %d, want %d", ledger.ErrNotLinked, r.Height, want)
	}
	if r.Prev != l.head.Hash {
		return fmt.Errorf("%w: parent %x, the head is %x", ledger.ErrNotLinked, r.Prev,
			l.head.Hash)
	}
	return nil
}

// write puts r on the disk and then shows it to readers.
func (l *Log) write(r ledger.Record) error {
	length := recordHeader + int64(len(r.Bytes))
	full := l.used > segmentHeader && l.used+length > l.config.SegmentBytes
	if l.active == nil || full {
		if err := l.roll(r); err != nil {
			return err
		}
	}
	current := l.parts[len(l.parts)-1]
	l.buf = current.frame(l.buf, r)
	if _, err := l.active.WriteAt(l.buf, l.used); err != nil {
		return err
	}
	if err := l.active.Sync(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	current.add(l.used, length)
	l.used += length
	r.Bytes = nil
	l.head, l.filled = r, true
	return nil
}

// roll begins a new segment for r and lets go of the space the old one had reserved in vain.
func (l *Log) roll(r ledger.Record) error {
	next, f, err := l.create(preamble{anchor: l.config.Anchor, first: r.Height, prev: r.Prev},
		recordHeader+int64(len(r.Bytes)))
	if err != nil {
		return err
	}
	old, used := l.active, l.used
	l.mu.Lock()
	l.parts = append(l.parts, next)
	l.mu.Unlock()
	l.active, l.used = f, segmentHeader
	if old == nil {
		return nil
	}
	err = old.Truncate(used)
	if e := old.Close(); err == nil {
		err = e
	}
	return err
}

// Head implements ledger.Store.
func (l *Log) Head() (ledger.Record, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head, l.filled
}

// Err implements ledger.Store.
func (l *Log) Err() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.broken
}

// Close implements ledger.Store. It must not be called during Append.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var err error
	if l.active != nil {
		err = l.active.Close()
	}
	if e := l.lock.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close the block log in %s: %w", filepath.Base(l.config.Dir), err)
	}
	return nil
}
