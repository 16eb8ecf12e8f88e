package segment

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// file is an open segment.
type file interface {
	io.WriterAt
	// Sync returns once what was written is on the disk (fdatasync).
	Sync() error
	Truncate(size int64) error
	Close() error
}

// disk is what can run full or break under a log.
type disk interface {
	// open opens a segment for writing, made new if it must not exist yet.
	open(path string, fresh bool) (file, error)
	// reserve claims space, so that running out of it is noticed before a record is half written.
	reserve(f file, size int64) error
	rename(from, to string) error
	// remove deletes a file; one that is not there is no error.
	remove(path string) error
	syncDir(dir string) error
}

// local is the disk of this machine.
type local struct{}

type localFile struct{ *os.File }

func (f localFile) Sync() error { return unix.Fdatasync(int(f.Fd())) }

func (local) open(path string, fresh bool) (file, error) {
	flags := os.O_RDWR | unix.O_CLOEXEC
	if fresh {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return localFile{f}, nil
}

func (local) reserve(f file, size int64) error {
	own, ok := f.(localFile)
	if !ok {
		return nil
	}
	err := unix.Fallocate(int(own.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil // a file system without it: the file grows record by record
	}
	return err
}

func (local) rename(from, to string) error { return os.Rename(from, to) }

func (local) remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (local) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

const (
	segmentSuffix = ".log"
	asideSuffix   = ".new"
)

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// create makes a segment that is found whole or not at all after a crash.
func (l *Log) create(p preamble, record int64) (*part, file, error) {
	if _, err := rand.Read(p.salt[:]); err != nil {
		return nil, nil, fmt.Errorf("salt a segment: %w", err)
	}
	path := filepath.Join(l.config.Dir, segmentName(p.first))
	f, err := l.config.disk.open(path+asideSuffix, true)
	if err != nil {
		return nil, nil, err
	}
	if err := l.fill(f, p, path, max(l.config.SegmentBytes, segmentHeader+record)); err != nil {
		_ = f.Close()
		_ = l.config.disk.remove(path + asideSuffix)
		return nil, nil, err
	}
	return newPart(path, p, l.table), f, nil
}

func (l *Log) fill(f file, p preamble, path string, size int64) error {
	if err := l.config.disk.reserve(f, size); err != nil {
		return fmt.Errorf("reserve %d bytes for a segment: %w", size, err)
	}
	if _, err := f.WriteAt(p.bytes(l.table), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := l.config.disk.rename(path+asideSuffix, path); err != nil {
		return err
	}
	return l.config.disk.syncDir(l.config.Dir)
}
