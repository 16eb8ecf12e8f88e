package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/united-containers/ucn/kit/cid"
)

// maxReopen bounds how often a partial is opened anew because it became the target meanwhile.
const maxReopen = 5

var (
	errFetchBusy = errors.New("another command fetches this at the moment")
	errForeign   = errors.New("something that others may change is in the way")
)

// partial is what is there of a file or a folder that is not whole yet: beside its target, named by
// its content, and of one command at a time.
type partial struct {
	path string
	file *os.File // locked; a folder's, when it is one
}

// openPartial opens or makes what is there of a blob that is to become the target. The flags are of
// open(2); a folder is made without O_CREATE.
func openPartial(target string, c cid.CID, flags int) (*partial, error) {
	dir := filepath.Dir(filepath.Clean(target))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "."+c.String()+".ucn-part")
	for range maxReopen {
		file, err := openOwn(path, flags)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: it holds %s", errFetchBusy, path), file.Close())
		}
		// Whoever held it may have renamed or removed it just before.
		mine, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if there, err := os.Lstat(path); err == nil && os.SameFile(mine, there) {
			return &partial{path, file}, nil
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: %s", errFetchBusy, path)
}

// openOwn makes a partial, or opens one that is ours alone: who else may write to it, or holds it
// open, could change afterwards what was verified.
func openOwn(path string, flags int) (*os.File, error) {
	var err error
	if flags&os.O_CREATE == 0 {
		err = os.Mkdir(path, 0o700)
	} else {
		var file *os.File
		if file, err = os.OpenFile(path, flags|os.O_EXCL, 0o600); err == nil {
			return file, nil
		}
	}
	there := errors.Is(err, os.ErrExist)
	if err != nil && !there {
		return nil, err
	}
	// Not waiting: a pipe would have nobody at its other end.
	file, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil || !there {
		return file, err
	}
	info, err := file.Stat()
	if err == nil && !ours(info, flags&os.O_CREATE == 0) {
		err = fmt.Errorf("%w: %s; remove it, or save elsewhere", errForeign, path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// ours tells whether it is of the kind that is wanted, of this user, and nobody else's to change.
func ours(info os.FileInfo, folder bool) bool {
	is, known := info.Sys().(*syscall.Stat_t)
	return known && int(is.Uid) == os.Geteuid() && info.Mode()&0o022 == 0 &&
		info.IsDir() == folder && (folder || info.Mode().IsRegular() && is.Nlink == 1)
}

// leave lets go of it and removes it if there is nothing in it.
func (p *partial) leave() error {
	info, err := p.file.Stat()
	if err == nil && !info.IsDir() && info.Size() == 0 {
		err = os.Remove(p.path)
	} else if err == nil && info.IsDir() {
		_ = os.Remove(p.path) // only an empty one goes
	}
	return errors.Join(err, p.file.Close())
}

// become makes it the target.
func (p *partial) become(target string) error {
	err := os.Rename(p.path, target)
	return errors.Join(err, p.file.Close())
}

// saveTo puts what write writes into a file as a whole or not at all, making its folder. What is
// there and is no ordinary file (a device, a pipe) is written into, never replaced.
func saveTo(path string, write func(io.Writer) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return writeInto(path, write)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(dir, ".ucn-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary.Name()) // the error that counts is the first
		}
	}()
	if err = write(temporary); err == nil {
		err = errors.Join(temporary.Chmod(0o644), temporary.Sync())
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

func writeInto(path string, write func(io.Writer) error) error {
	to, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(write(to), to.Close())
}
