package disk

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

// step names one effect on the disk, so that tests can fail it or die before it.
type step string

const (
	stepCreate       step = "create temporary file"
	stepWrite        step = "write data"
	stepSync         step = "sync data"
	stepTree         step = "write outboard"
	stepSyncTree     step = "sync outboard"
	stepIntend       step = "write intent"
	stepRenameTree   step = "rename outboard"
	stepRename       step = "rename data"
	stepSyncDir      step = "sync directory"
	stepClaim        step = "commit reference"
	stepClaimed      step = "after commit"
	stepRelease      step = "commit removal"
	stepUnlink       step = "unlink data"
	stepUnlinkTree   step = "unlink outboard"
	stepUpdate       step = "commit change"
	stepUploadCreate step = "create upload"
	stepUploadRecord step = "write upload record"
	stepUploadWrite  step = "write upload"
	stepUploadSync   step = "sync upload"
	stepUploadDrop   step = "end upload"
	stepSyncUnlinked step = "sync directory after unlink"
)

const (
	outboardSuffix = ".bao"
	// indexRoom is how much must be free for a Remove to write to the index.
	indexRoom = 1 << 20
)

func (d *Disk) step(s step) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(s)
}

func (d *Disk) shard(c cid.CID) string {
	sum := c.Sum()
	return filepath.Join(d.cfg.Dir, blobsDir, hex.EncodeToString(sum[:1]))
}

func (d *Disk) path(c cid.CID) string { return filepath.Join(d.shard(c), c.String()) }

// unlink removes c's files, durably.
func (d *Disk) unlink(c cid.CID) error {
	if err := d.step(stepUnlink); err != nil {
		return err
	}
	if err := removeIfThere(d.path(c)); err != nil {
		return err
	}
	if err := d.step(stepUnlinkTree); err != nil {
		return err
	}
	if err := removeIfThere(d.path(c) + outboardSuffix); err != nil {
		return err
	}
	if err := d.step(stepSyncUnlinked); err != nil {
		return err
	}
	return syncDir(d.shard(c))
}

// whole reports whether c's files are in place with the right sizes.
func (d *Disk) whole(c cid.CID, size int64) bool {
	if info, err := os.Stat(d.path(c)); err != nil || info.Size() != size {
		return false
	}
	if size <= cid.GroupSize {
		return true
	}
	info, err := os.Stat(d.path(c) + outboardSuffix)
	return err == nil && info.Size() == cid.OutboardSize(size)
}

// room refuses, with ReasonFull, to go on when need more bytes would leave less than keep free.
func (d *Disk) room(need, keep int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(d.cfg.Dir, &s); err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	free := int64(s.Bavail) * s.Bsize
	if need > free-keep {
		return storage.Full(fmt.Errorf("%d bytes free, %d needed, %d kept free", free, need, keep))
	}
	return nil
}

// diskError turns a full disk into ReasonFull and says what was being done.
func diskError(doing step, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return storage.Full(err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
