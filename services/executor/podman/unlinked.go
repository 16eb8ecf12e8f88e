package podman

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpen bounds the open files and mappings of a container that are looked at.
const maxOpen = 100_000

// unlinked sums what deleted files take that a program still holds: no folder shows them, and the
// disk has them until they are let go of.
type unlinked struct {
	proc string // "/proc"
	kind int64  // of the file systems whose files count: those of volumes have bounds of their own
	seen map[inode]bool
	sum  uint64
	left int // files to look at still
}

type inode struct{ device, number uint64 }

// unlinkedBytes looks at the open files and mappings of the processes. A file that goes to and
// fro over a socket, closed in between, is not seen. It fails with errTreeTooBig when there is too
// much to look at.
func unlinkedBytes(proc string, pids []int, kind int64) (uint64, error) {
	u := &unlinked{proc: proc, kind: kind, seen: map[inode]bool{}, left: maxOpen}
	for _, pid := range pids {
		if err := u.process(pid); err != nil {
			return 0, err
		}
	}
	return u.sum, nil
}

func (u *unlinked) process(pid int) error {
	dir := filepath.Join(u.proc, strconv.Itoa(pid))
	if err := u.folder(filepath.Join(dir, "fd")); err != nil {
		return err
	}
	if err := u.maps(dir); err != nil {
		return err
	}
	threads, err := names(filepath.Join(dir, "task"), u.left)
	if err != nil {
		return err
	}
	for _, name := range threads {
		id, err := strconv.Atoi(name)
		if err != nil || id == pid || sharesFiles(pid, id) {
			continue
		}
		if err := u.folder(filepath.Join(dir, "task", name, "fd")); err != nil {
			return err
		}
	}
	return nil
}

// sharesFiles tells whether a thread has the process's table of open files, as nearly all have. A
// kernel that cannot tell has it looked at twice.
func sharesFiles(pid, thread int) bool {
	const kcmpFiles = 2
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(thread), kcmpFiles, 0, 0, 0)
	return errno == 0 && order == 0
}

// folder looks at the files that a folder of links names.
func (u *unlinked) folder(dir string) error {
	list, err := names(dir, u.left)
	if err != nil {
		return err
	}
	for _, name := range list {
		u.look(filepath.Join(dir, name))
	}
	u.left -= len(list)
	return nil
}

// maps looks at the deleted files that are mapped.
func (u *unlinked) maps(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "maps"))
	if err != nil {
		return goneOr(err)
	}
	for line := range strings.Lines(string(raw)) {
		if u.left--; u.left < 0 {
			return errTreeTooBig
		}
		if span, _, ok := strings.Cut(line, " "); ok && strings.HasSuffix(line, " (deleted)\n") {
			u.look(filepath.Join(dir, "map_files", span))
		}
	}
	return nil
}

// look counts the file that a link of the kernel leads to, once, if no name is left of it. What
// cannot be looked at any more is gone.
func (u *unlinked) look(link string) {
	var st unix.Stat_t
	if unix.Stat(link, &st) != nil || st.Nlink != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	var on unix.Statfs_t
	if unix.Statfs(link, &on) != nil || int64(on.Type) != u.kind {
		return
	}
	key := inode{st.Dev, st.Ino}
	if u.seen[key] {
		return
	}
	u.seen[key] = true
	const blockSize = 512 // of st_blocks, whatever the file system's
	u.sum += uint64(st.Blocks) * blockSize
}

// names lists a folder that may vanish and may not hold more than the bound.
func names(dir string, most int) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, goneOr(err)
	}
	list, err := f.Readdirnames(most + 1)
	err = errors.Join(goneOr(err), f.Close())
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking at open files: %w", err)
	case len(list) > most:
		return nil, errTreeTooBig
	}
	return list, nil
}

// goneOr drops the errors of a process, or a folder, that is over.
func goneOr(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
