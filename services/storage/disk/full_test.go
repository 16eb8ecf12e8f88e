package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

const (
	insideNamespace = "UCN_DISK_TEST_NAMESPACE"
	smallDisk       = 48 << 20
)

// TestFullDisk runs TestInsideSmallDisk in a mount namespace of its own, where it may mount a small
// file system that goes away with the process.
func TestFullDisk(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestInsideSmallDisk$", "-test.v")
	cmd.Env = append(os.Environ(), insideNamespace+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestInsideSmallDisk")) {
		t.Fatalf("in a small file system: %v\n%s", err, out)
	}
}

// TestInsideSmallDisk does nothing but in the process TestFullDisk starts.
func TestInsideSmallDisk(t *testing.T) {
	dir := os.Getenv(insideNamespace)
	if dir == "" {
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDisk)); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "store")
	box, cfg := &recorder{}, config(dir, storage.DefaultLimits())
	cfg.Outbox = box.open
	d := open(t, cfg)
	put := func(size int, seed uint64, announce bool) error {
		p := storage.Put{Account: storagetest.Alice(), Kind: cid.File}
		if announce {
			p.Size = int64(size)
		}
		_, err := d.Put(t.Context(), p, bytes.NewReader(storagetest.Bytes(size, seed)))
		return err
	}
	for _, announce := range []bool{true, false} {
		if err := put(smallDisk, 1, announce); !errors.Is(err, storage.ReasonFull) {
			t.Errorf("a blob as large as the disk: %v", err)
		}
		checkConsistent(t, d, dir)
	}
	n := fillUp(t, put)
	checkConsistent(t, d, dir)

	// Others fill the disk to the last byte: puts are refused, reads go on, nothing breaks.
	occupy(t, filepath.Join(filepath.Dir(dir), "others"))
	if err := put(10, 1000, true); !errors.Is(err, storage.ReasonFull) {
		t.Errorf("on a disk with no byte left: %v", err)
	}
	checkConsistent(t, d, dir)
	if err := os.Remove(filepath.Join(filepath.Dir(dir), "others")); err != nil {
		t.Fatal(err)
	}
	freeAndRefill(t, d, put, n)
	checkConsistent(t, d, dir)
	uploadOnFullDisk(t, d, filepath.Join(filepath.Dir(dir), "others"))
	checkConsistent(t, d, dir)
	checkTold(t, box, d)
}

// uploadOnFullDisk: an upload that finds the disk full keeps what it has, is told so, and goes on
// once there is room.
func uploadOnFullDisk(t *testing.T, d *disk.Disk, others string) {
	t.Helper()
	ctx, data := t.Context(), storagetest.Bytes(12<<20, 77)
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.File}
	u, err := d.StartUpload(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	push := func(from, to int64) error {
		u, err = d.AppendUpload(ctx, p.Account, u.ID, from, bytes.NewReader(data[from:to]))
		return err
	}
	if err := push(0, 2<<20); err != nil {
		t.Fatal(err)
	}
	occupy(t, others)
	if err := push(2<<20, int64(len(data))); !errors.Is(err, storage.ReasonFull) ||
		fault.KindOf(err) != fault.ResourceExhausted {
		t.Errorf("an append on a full disk: %v", err)
	}
	if u, err = d.Upload(ctx, p.Account, u.ID); err != nil || u.Offset != 2<<20 {
		t.Errorf("on a full disk the upload is at %d, %v", u.Offset, err)
	}
	if _, err := d.StartUpload(ctx, p); !errors.Is(err, storage.ReasonFull) {
		t.Errorf("a start on a full disk: %v", err)
	}
	if _, err := d.FinishUpload(ctx, p.Account, u.ID); !errors.Is(err, storage.ReasonFull) {
		t.Errorf("an end on a full disk: %v", err)
	}
	if all, err := d.ListUploads(ctx, p.Account); err != nil || len(all) != 1 {
		t.Errorf("uploads %+v, %v", all, err)
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	if err := push(u.Offset, int64(len(data))); err != nil {
		t.Fatalf("after making room: %v", err)
	}
	stored, err := d.FinishUpload(ctx, p.Account, u.ID)
	if err != nil || stored.Ref.CID != storagetest.CIDOf(cid.File, data) {
		t.Errorf("after making room: %+v, %v", stored, err)
	}
}

func fillUp(t *testing.T, put func(int, uint64, bool) error) int {
	t.Helper()
	for n := range smallDisk >> 20 {
		if err := put(1<<20, uint64(n), false); errors.Is(err, storage.ReasonFull) {
			if n < 10 {
				t.Errorf("full after %d MiB", n)
			}
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the disk never was full")
	return 0
}

func occupy(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
}

func freeAndRefill(t *testing.T, d *disk.Disk, put func(int, uint64, bool) error, n int) {
	t.Helper()
	refs, err := d.List(t.Context(), storagetest.Alice(), cid.CID{}, storage.MaxPage)
	if err != nil || len(refs) != n {
		t.Fatalf("%d references, %v; want %d", len(refs), err, n)
	}
	for _, ref := range refs {
		if err := d.Remove(t.Context(), storagetest.Alice(), ref.CID); err != nil {
			t.Fatalf("remove on a full disk: %v", err)
		}
	}
	if err := put(1<<20, 500, true); err != nil {
		t.Errorf("put after making room: %v", err)
	}
}

// TestStartOnAFullDisk is refused at once, and leaves nothing that a start with room minds.
func TestStartOnAFullDisk(t *testing.T) {
	dir, inside := kittest.SmallDisk(t, smallDisk)
	if !inside {
		return
	}
	others, cfg := filepath.Join(dir, "others"), config(filepath.Join(dir, "store"),
		storage.DefaultLimits())
	kittest.Occupy(t, others)
	if _, err := disk.Open(cfg); !errors.Is(err, storage.ReasonFull) {
		t.Fatalf("a start on a full disk: %v", err)
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	open(t, cfg)
}
