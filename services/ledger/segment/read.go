package segment

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/united-containers/ucn/services/ledger"
)

// readAhead is the buffer of a scan in bytes.
const readAhead = 1 << 20

// Read implements ledger.Store.
func (l *Log) Read(ctx context.Context, height uint64) (r ledger.Record, err error) {
	err = l.seek(ctx, height, func(f io.ReaderAt, p *part, at int64) error {
		r, err = l.readAt(f, p, at, height)
		return err
	})
	return r, err
}

// Size implements ledger.Store.
func (l *Log) Size(ctx context.Context, height uint64) (size int, err error) {
	err = l.seek(ctx, height, func(f io.ReaderAt, p *part, at int64) error {
		length, err := p.peek(f, at)
		if err != nil {
			return &CorruptError{File: p.path, Offset: at, Why: err}
		}
		size = int(length - recordHeader)
		return nil
	})
	return size, err
}

// seek finds where the record of a height begins.
func (l *Log) seek(ctx context.Context, height uint64,
	found func(f io.ReaderAt, p *part, at int64) error,
) error {
	p, err := l.find(height)
	if err != nil {
		return err
	}
	f, err := os.Open(p.path)
	if err != nil {
		return fmt.Errorf("read block %d: %w", height, err)
	}
	defer f.Close()
	at, skip := p.near(height)
	for ; skip > 0; skip-- {
		length, err := p.peek(f, at)
		if err != nil {
			return &CorruptError{File: p.path, Offset: at, Why: err}
		}
		at += length
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return found(f, &p, at)
}

// find returns a copy of the part that holds a height.
func (l *Log) find(height uint64) (part, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return part{}, ledger.ErrClosed
	}
	at, found := slices.BinarySearchFunc(l.parts, height, func(p *part, h uint64) int {
		switch {
		case p.holds(h):
			return 0
		case p.first > h:
			return 1
		}
		return -1
	})
	if !found {
		return part{}, fmt.Errorf("%w: height %d", ledger.ErrNoBlock, height)
	}
	return *l.parts[at], nil
}

func (m marks) peek(f io.ReaderAt, at int64) (int64, error) {
	var head [recordHeader]byte
	if _, err := f.ReadAt(head[:], at); err != nil {
		return 0, err
	}
	return m.length(head[:])
}

func (l *Log) readAt(f io.ReaderAt, p *part, at int64, height uint64) (ledger.Record, error) {
	corrupt := func(why error) (ledger.Record, error) {
		return ledger.Record{}, &CorruptError{File: p.path, Offset: at, Why: why}
	}
	length, err := p.peek(f, at)
	if err != nil {
		return corrupt(err)
	}
	b := make([]byte, length)
	if _, err := f.ReadAt(b, at); err != nil {
		return corrupt(err)
	}
	r, err := p.parse(b)
	if err != nil {
		return corrupt(err)
	}
	if r.Height != height {
		return corrupt(fmt.Errorf("it holds block %d, not %d", r.Height, height))
	}
	return r, nil
}

// Scan implements ledger.Store.
func (l *Log) Scan(ctx context.Context, from uint64, visit func(ledger.Record) error) error {
	head, filled := l.Head()
	for filled && from <= head.Height {
		p, err := l.find(from)
		if err != nil {
			return err
		}
		to := min(head.Height, p.first+p.count-1)
		if err := l.scanPart(ctx, &p, from, to, visit); err != nil {
			return err
		}
		from = to + 1
	}
	return nil
}

// scanPart visits the records of one segment from one height to another.
func (l *Log) scanPart(ctx context.Context, p *part, from, to uint64,
	visit func(ledger.Record) error,
) error {
	f, err := os.Open(p.path)
	if err != nil {
		return fmt.Errorf("scan the block log: %w", err)
	}
	defer f.Close()
	at, skip := p.near(from)
	in := bufio.NewReaderSize(io.NewSectionReader(f, at, p.end-at), readAhead)
	var buf []byte
	for height := from - skip; height <= to; height++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if buf, err = p.next(in, buf); err != nil {
			return &CorruptError{File: p.path, Offset: at, Why: err}
		}
		r, err := p.parse(buf)
		if err != nil {
			return &CorruptError{File: p.path, Offset: at, Why: err}
		}
		at += int64(len(buf))
		if height < from {
			continue
		}
		if err := visit(r); err != nil {
			return err
		}
	}
	return nil
}

// next reads the bytes of one record into buf, which it may reuse.
func (m marks) next(in *bufio.Reader, buf []byte) ([]byte, error) {
	head, err := in.Peek(recordHeader)
	if err != nil {
		return nil, err
	}
	length, err := m.length(head)
	if err != nil {
		return nil, err
	}
	buf = slices.Grow(buf[:0], int(length))[:length]
	if _, err := io.ReadFull(in, buf); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRecord, err)
	}
	return buf, nil
}
