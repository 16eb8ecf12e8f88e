// Package space keeps stores from writing to a disk that is about to run full. Embedded stores
// end the whole process when a write of theirs finds no room; a Guard refuses before it comes to
// that, so that what runs goes on and what comes gets an error it can act on.
package space

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reserve is how many bytes stay free: more than what all stores of one process write between two
// looks, their log files and compactions included.
const Reserve = 128 << 20

// Guard looks after the disk of one directory.
type Guard struct {
	// Dir must exist when Check is called.
	Dir string
	// Free tells the bytes that are left to us on a directory's disk; nil asks the kernel.
	Free func(dir string) (uint64, error)
}

// Check returns an error that wraps ENOSPC when less than Reserve is free. It takes a microsecond.
func (g Guard) Check() error {
	free := g.Free
	if free == nil {
		free = Free
	}
	left, err := free(g.Dir)
	if err == nil && left < Reserve {
		err = fmt.Errorf("the disk of %s has %d bytes left, %d must stay free: %w", g.Dir, left,
			uint64(Reserve), unix.ENOSPC)
	}
	return err
}

// Free returns the bytes that are left to this process on a directory's disk.
func Free(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return s.Bavail * uint64(max(s.Bsize, 0)), nil
}
