package podman

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// kindOf is the kind of file system that a folder is on.
func kindOf(t *testing.T, dir string) int64 {
	t.Helper()
	var on unix.Statfs_t
	if err := unix.Statfs(dir, &on); err != nil {
		t.Fatal(err)
	}
	return int64(on.Type)
}

func TestUnlinkedFilesAreSeen(t *testing.T) {
	dir := t.TempDir()
	make1 := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			_, err = f.Write(make([]byte, 1<<20))
		}
		if err = errors.Join(err, f.Sync()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() }) // it may be closed already
		return f
	}
	count := func() uint64 {
		n, err := unlinkedBytes("/proc", []int{os.Getpid(), 1 << 30}, kindOf(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		return n >> 20
	}
	before := count()
	make1("kept")
	open, mapped := make1("open"), make1("mapped")
	again, err := unix.Dup(int(open.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(again) }()
	memory, err := unix.Mmap(int(mapped.Fd()), 0, 1<<20, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if n := count(); n != before {
		t.Errorf("%d MiB of files that have names", n-before)
	}
	err = errors.Join(os.Remove(open.Name()), os.Remove(mapped.Name()), mapped.Close())
	if err != nil {
		t.Fatal(err)
	}
	if n := count(); n != before+2 {
		t.Errorf("%d MiB, want one open twice and one mapped", n-before)
	}
	n, err := unlinkedBytes("/proc", []int{os.Getpid()}, unix.OVERLAYFS_SUPER_MAGIC)
	if kindOf(t, dir) != unix.OVERLAYFS_SUPER_MAGIC && (n != 0 || err != nil) {
		t.Errorf("%d bytes on another kind of file system, %v", n, err)
	}
	if err := unix.Munmap(memory); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != before+1 {
		t.Errorf("%d MiB after the mapping is gone", n-before)
	}
}

// TestTooManyOpenFiles: a process cannot hide behind more than is looked at.
func TestTooManyOpenFiles(t *testing.T) {
	u := &unlinked{proc: "/proc", seen: map[inode]bool{}, left: 2}
	if err := u.process(os.Getpid()); !errors.Is(err, errTreeTooBig) {
		t.Errorf("process = %v", err)
	}
}

// TestDeletedFilesAreMeasured: what a program writes to its root and deletes takes disk while it is
// open, and is measured.
func TestDeletedFilesAreMeasured(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	s := executortest.Spec(img.ID, "hide", "hide", "/big", "20", "forever")
	c, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for e, err := range c.Logs(t.Context(), executor.LogPos{}, true) {
		if err != nil || string(e.Data) != "hide ok" {
			t.Fatalf("the guest says %q, %v", e.Data, err)
		}
		break
	}
	u, err := c.Usage(t.Context())
	if err != nil || u.Disk < 20<<20 || !u.Measured.Has(executor.MeterDisk) {
		t.Errorf("disk %d, measured %v, %v", u.Disk, u.Measured, err)
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestMeasuringDiskIsBounded: many files, and many containers, are looked at more seldom.
func TestMeasuringDiskIsBounded(t *testing.T) {
	for _, tt := range []struct {
		took       time.Duration
		containers int
		want       time.Duration
	}{
		{time.Millisecond, 1, diskEvery}, {300 * time.Millisecond, 1, 6 * time.Second},
		{10 * time.Millisecond, 100, 20 * time.Second}, {time.Second, 100, diskLate},
		{0, 0, diskEvery},
	} {
		if got := diskAge(tt.took, tt.containers); got != tt.want {
			t.Errorf("%v with %d: %v, want %v", tt.took, tt.containers, got, tt.want)
		}
	}
}
