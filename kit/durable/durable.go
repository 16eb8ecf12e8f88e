// Package durable writes small files whole: at a path there is the old content or the new, never a
// part, and what is there when a call has returned survives a power failure.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Private is the mode of files that only their owner may read.
const Private fs.FileMode = 0o600

const tempPattern = ".ucn-new-*" // os.CreateTemp makes it private

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
	temp, err := os.CreateTemp(dir, tempPattern)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err == nil {
		err = place(temp.Name(), path)
	}
	if removed := os.Remove(temp.Name()); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
