package podman

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// idsPerContainer is how many user and group ids a container gets: all that programs know of.
const idsPerContainer = 65_536

// ids hands out ranges of user ids so that no two containers of this machine share one, whatever
// instance they belong to. A range in use is a symbolic link in dir, named by its number, to the
// attempt's directory; a link to a directory that is gone is free.
type ids struct {
	dir   string
	first uint32
	slots uint32
}

func openIDs(c *Config) (*ids, error) {
	dir := filepath.Join(c.RunDir, "ids")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("making the directory of user id ranges: %w", err)
	}
	return &ids{dir: dir, first: c.FirstID, slots: c.IDCount / idsPerContainer}, nil
}

// claim takes the lowest free range for the attempt whose directory is owner, and returns its first
// id. Low ranges first: an engine that cannot map ids on mount keeps one image copy per range.
func (d *ids) claim(owner string) (first uint32, err error) {
	unlock, err := lockFile(filepath.Join(d.dir, "lock"), true)
	if err != nil {
		return 0, fmt.Errorf("locking the user id ranges: %w", err)
	}
	defer unlock()
	for slot := range d.slots {
		link := filepath.Join(d.dir, strconv.FormatUint(uint64(slot), 10))
		switch held, err := os.Readlink(link); {
		case err == nil && held == owner:
			return d.first + slot*idsPerContainer, nil
		case err == nil && exists(held):
			continue
		case err == nil:
			if err := os.Remove(link); err != nil {
				return 0, fmt.Errorf("freeing a user id range: %w", err)
			}
		case !errors.Is(err, fs.ErrNotExist):
			return 0, fmt.Errorf("reading the user id ranges: %w", err)
		}
		if err := os.Symlink(owner, link); err != nil {
			return 0, fmt.Errorf("claiming a user id range: %w", err)
		}
		return d.first + slot*idsPerContainer, nil
	}
	return 0, fmt.Errorf("all %d user id ranges of this host are in use", d.slots)
}

// release gives the range back; only if owner holds it.
func (d *ids) release(owner string, first uint32) error {
	unlock, err := lockFile(filepath.Join(d.dir, "lock"), true)
	if err != nil {
		return fmt.Errorf("locking the user id ranges: %w", err)
	}
	defer unlock()
	slot := (first - d.first) / idsPerContainer
	link := filepath.Join(d.dir, strconv.FormatUint(uint64(slot), 10))
	if held, err := os.Readlink(link); err != nil || held != owner {
		return nil
	}
	return os.Remove(link)
}

// mapped tells whether this process may use the ids: in a user namespace perhaps not.
func (d *ids) mapped() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	last := uint64(d.first) + uint64(d.slots)*idsPerContainer - 1
	for l := range strings.Lines(string(b)) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(l, &inside, &outside, &count); err != nil {
			return false
		}
		if inside <= uint64(d.first) && last < inside+count {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// lockFile takes the lock at path. Without wait a lock that is held is unix.EWOULDBLOCK.
func lockFile(path string, wait bool) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks; nothing was written
}
