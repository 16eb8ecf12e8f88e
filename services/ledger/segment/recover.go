package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/united-containers/ucn/services/ledger"
)

// maxFile is the largest segment file that can be ours.
const maxFile = MaxSegment + ledger.MaxRecord + segmentHeader + recordHeader

// recover reads all segments, verifies them, and makes the last one ready to grow. Only when
// everything before the tail is sound does it change anything.
func (l *Log) recover() error {
	names, aside, err := list(l.config.Dir)
	if err != nil {
		return fmt.Errorf("list the block log: %w", err)
	}
	var buf []byte
	torn := false
	for i, name := range names {
		path := filepath.Join(l.config.Dir, name)
		if buf, err = load(path, buf); err != nil {
			return fmt.Errorf("read the block log: %w", err)
		}
		if torn, err = l.verify(path, buf, i == len(names)-1); err != nil {
			return err
		}
	}
	for _, name := range aside {
		if err := os.Remove(filepath.Join(l.config.Dir, name)); err != nil {
			return fmt.Errorf("remove an unfinished segment: %w", err)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return l.resume(torn, int64(len(buf)))
}

func list(dir string) (segments, aside []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		switch {
		case strings.HasSuffix(e.Name(), segmentSuffix):
			segments = append(segments, e.Name())
		case strings.HasSuffix(e.Name(), segmentSuffix+asideSuffix):
			aside = append(aside, e.Name())
		}
	}
	slices.Sort(segments)
	return segments, aside, nil
}

func load(path string, buf []byte) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, &CorruptError{File: path, Why: fmt.Errorf("it has %d bytes", info.Size())}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf = slices.Grow(buf[:0], int(info.Size()))[:info.Size()]
	if _, err := f.ReadAt(buf, 0); err != nil {
		return nil, err
	}
	return buf, nil
}

// verify walks one segment. Only the last may have a torn tail.
func (l *Log) verify(path string, b []byte, last bool) (torn bool, err error) {
	p, err := parsePreamble(b, l.table)
	if errors.Is(err, ledger.ErrFormat) {
		return false, fmt.Errorf("%w: %s", err, path)
	}
	if err != nil {
		return false, &CorruptError{File: path, Why: err}
	}
	if err := l.follows(p, path); err != nil {
		return false, err
	}
	current := newPart(path, p, l.table)
	l.parts = append(l.parts, current)
	for at := segmentHeader; at < len(b); {
		r, err := current.parse(b[at:])
		if err != nil {
			return l.tail(current, b, at, last, err)
		}
		if err := l.linked(r); err != nil {
			return false, &CorruptError{File: path, Offset: int64(at), Why: err}
		}
		length := recordHeader + len(r.Bytes)
		current.add(int64(at), int64(length))
		at += length
		r.Bytes = nil
		l.head, l.filled = r, true
	}
	return false, nil
}

// follows checks that a segment belongs to the chain and continues the one before it.
func (l *Log) follows(p preamble, path string) error {
	if p.anchor != l.config.Anchor {
		return fmt.Errorf("%w: %s has anchor %x, the chain's is %x", ledger.ErrGenesis, path,
			p.anchor, l.config.Anchor)
	}
	first := ledger.Record{Height: p.first, Prev: p.prev}
	if err := l.linked(first); err != nil {
		return &CorruptError{File: path, Why: fmt.Errorf("a segment is missing: %w", err)}
	}
	if filepath.Base(path) != segmentName(p.first) {
		return &CorruptError{File: path, Why: errors.New("its name is not its first height")}
	}
	return nil
}

// tail judges what follows the last whole record of a segment.
func (l *Log) tail(p *part, b []byte, at int, last bool, cause error) (torn bool, err error) {
	rest := b[at:]
	if allZero(rest) {
		return false, nil // reserved and not used
	}
	corrupt := &CorruptError{File: p.path, Offset: int64(at), Why: cause}
	if !last {
		return false, corrupt
	}
	if next := p.find(rest); next >= 0 {
		corrupt.Why = fmt.Errorf("%w, but a valid one follows at offset %d", cause, at+next)
		return false, corrupt
	}
	if err := l.acknowledged(); err != nil {
		corrupt.Why = fmt.Errorf("%w, and %w", cause, err)
		return false, corrupt
	}
	used := len(strings.TrimRight(string(rest), "\x00"))
	l.config.Log.Warn("cut an unfinished block off the log", "file", p.path, "offset", at,
		"bytes", used, "found", cause.Error())
	return true, nil
}

// acknowledged fails when a snapshot shows that a block after the last whole one was durable. A
// snapshot is written only after its block, so what follows is damage and not what a crash left:
// cutting it off would lose what was answered for.
func (l *Log) acknowledged() error {
	heights, err := OpenSnapshots(l.config.Dir).heights()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	for _, height := range heights {
		if !l.filled || height > l.head.Height {
			return fmt.Errorf("the snapshot of height %d says that its block was durable", height)
		}
	}
	return nil
}

// resume opens the last segment, of so many bytes, to grow, with a clean and reserved rest. With
// cut it cuts off what follows the last record.
func (l *Log) resume(cut bool, size int64) error {
	p := l.parts[len(l.parts)-1]
	f, err := l.config.disk.open(p.path, false)
	if err != nil {
		return fmt.Errorf("open the block log: %w", err)
	}
	l.active, l.used = f, p.end
	if cut {
		if err := f.Truncate(p.end); err != nil {
			return fmt.Errorf("cut the block log: %w", err)
		}
		size = p.end
	}
	if size < l.config.SegmentBytes {
		if err := l.config.disk.reserve(f, l.config.SegmentBytes); err != nil {
			return fmt.Errorf("reserve space for the block log: %w", err)
		}
	}
	if err := l.rewrite(p, f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync the block log: %w", err)
	}
	return nil
}

// rewrite writes a segment's last record again, or its header when it holds none. What was read may
// be in the kernel's memory only: it must be durable before it is built on. If a sync failed, the
// kernel takes those pages for written: only writing to them again helps.
func (l *Log) rewrite(p *part, f file) error {
	from, to := p.last, p.end
	if p.count == 0 {
		from, to = 0, segmentHeader
	}
	in, err := os.Open(p.path)
	if err != nil {
		return fmt.Errorf("read the end of the block log: %w", err)
	}
	defer in.Close()
	b := make([]byte, to-from)
	if _, err := in.ReadAt(b, from); err != nil {
		return fmt.Errorf("read the end of the block log: %w", err)
	}
	if p.count == 0 {
		_, err = parsePreamble(b, l.table)
	} else {
		_, err = p.parse(b)
	}
	if err != nil {
		return &CorruptError{File: p.path, Offset: from, Why: err}
	}
	if _, err := f.WriteAt(b, from); err != nil {
		return fmt.Errorf("write the end of the block log again: %w", err)
	}
	return nil
}
