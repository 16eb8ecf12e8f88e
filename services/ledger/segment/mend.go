package segment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/ledger"
)

// named says by ledger.ErrFull that the disk has no room.
func named(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ledger.ErrFull, err)
	}
	return err
}

// Mend implements ledger.Store. Readers go on meanwhile: what they see does not change.
func (l *Log) Mend(ctx context.Context) error {
	l.mu.RLock()
	closed, broken := l.closed, l.broken
	l.mu.RUnlock()
	switch {
	case closed:
		return ledger.ErrClosed
	case broken == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if err := l.mend(broken); err != nil {
		return fmt.Errorf("mend the block log: %w", named(err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = nil
	return nil
}

func (l *Log) mend(broken error) error {
	if l.active != nil {
		_ = l.active.Close() // whatever it says, its writes are looked at below
		l.active = nil
	}
	if err := l.unroll(); err != nil {
		return fmt.Errorf("remove a segment that was begun: %w", err)
	}
	if errors.Is(broken, ledger.ErrFull) {
		if err := l.probe(); err != nil {
			return fmt.Errorf("look for room: %w", err)
		}
	}
	if len(l.parts) == 0 {
		return nil
	}
	if err := l.resume(true, 0); err != nil {
		if l.active != nil {
			_ = l.active.Close()
			l.active = nil
		}
		return err
	}
	return nil
}

// unroll removes the segment that was to hold the next block and was not taken up: it would be in
// the way once that block has found its place in the one before.
func (l *Log) unroll() error {
	next := uint64(0)
	if l.filled {
		next = l.head.Height + 1
	}
	path := filepath.Join(l.config.Dir, segmentName(next))
	if err := l.config.disk.remove(path + asideSuffix); err != nil {
		return err
	}
	if n := len(l.parts); n == 0 || l.parts[n-1].path != path {
		if err := l.config.disk.remove(path); err != nil {
			return err
		}
	}
	return l.config.disk.syncDir(l.config.Dir)
}

// probe claims and gives back the room of one more segment, so that a log does not go on just to
// fail at the next block.
func (l *Log) probe() error {
	path := filepath.Join(l.config.Dir, "probe"+segmentSuffix+asideSuffix)
	f, err := l.config.disk.open(path, true)
	if err != nil {
		return err
	}
	err = l.config.disk.reserve(f, max(l.config.SegmentBytes, segmentHeader+l.wanted))
	if e := f.Close(); err == nil {
		err = e
	}
	if e := l.config.disk.remove(path); err == nil {
		err = e
	}
	return err
}
