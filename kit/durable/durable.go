// Package durable writes small files whole: at a path there is the old content or the new, never a
// part, and what is there when a call has returned survives a power failure.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Private is the mode of files that only their owner may read.
const Private fs.FileMode = 0o600

// Files that are being written have names of this kind, and a lock for as long as that takes. What
// a process that died has left has none, and goes with the next write into the folder: it may be a
// private key.
const (
	tempPrefix  = ".ucn-new-"
	tempPattern = tempPrefix + "*" // os.CreateTemp makes it private
	tempTries   = 100              // to make one that nobody takes for left
)

// Create writes a new file. It fails with fs.ErrExist if there is one already, whatever it holds;
// the folder must exist. After another error, or when the process dies, there is no file or all of
// it: an error may also say only that it would not survive a power failure.
func Create(path string, content []byte, mode fs.FileMode) error {
	return write(path, content, mode, os.Link)
}

// Replace is Create for a file that may exist.
func Replace(path string, content []byte, mode fs.FileMode) error {
	return write(path, content, mode, os.Rename)
}

func write(
	path string, content []byte, mode fs.FileMode, place func(from, to string) error,
) error {
	dir := filepath.Dir(path)
	sweep(dir)
	temp, err := create(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync())
	if err == nil {
		err = place(temp.Name(), path)
	}
	if removed := os.Remove(temp.Name()); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	err = errors.Join(err, temp.Close()) // and with it the lock
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// create makes a file that is locked.
func create(dir string) (*os.File, error) {
	for range tempTries {
		temp, err := os.CreateTemp(dir, tempPattern)
		if err != nil {
			return nil, err
		}
		mine, err := lock(temp)
		if err != nil {
			return temp, nil // no locks here, and so nobody who sweeps
		}
		if _, gone := os.Stat(temp.Name()); mine && gone == nil {
			return temp, nil
		}
		if err := temp.Close(); err != nil { // it was taken for left before it was locked
			return nil, err
		}
	}
	return nil, fmt.Errorf("no file of our own in %s", dir)
}

// sweep removes what dead processes left in dir. What it cannot remove keeps nobody from writing.
func sweep(dir string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return // whoever writes will see
	}
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), tempPrefix) || !e.Type().IsRegular() {
			continue
		}
		left, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if mine, err := lock(left); mine && err == nil {
			_ = os.Remove(left.Name()) // the next write tries again
		}
		_ = left.Close() // only read
	}
}

// lock locks the file, until it is closed, unless somebody else has. It fails where there are no
// locks.
func lock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
