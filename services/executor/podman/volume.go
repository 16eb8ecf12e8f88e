package podman

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
)

// Writable mounts are file systems of their own, so that the kernel enforces their quota: an ext4
// image on a loop device where the host has both, else a tmpfs, which counts as the container's
// memory. So does one for which no loop device can be had. Small scratch is always a tmpfs.
const smallScratch = 16 << 20

// Ways to make a volume, as Abilities name them.
const (
	volumeLoop  = "loop"
	volumeTmpfs = "tmpfs"
)

// volumeFlags: no volume brings devices or set-user-id programs.
const volumeFlags = unix.MS_NOSUID | unix.MS_NODEV

// volume is where mount n of the spec is on the host.
func (a attempt) volume(n int) string { return a.path("volume", strconv.Itoa(n)) }
func (a attempt) image(n int) string  { return a.volume(n) + ".img" }

// volumeKind tells how this host enforces quotas.
func volumeKind() string {
	_, mkfs := find("", "mkfs.ext4")
	if mkfs && exists(loopControl) {
		return volumeLoop
	}
	return volumeTmpfs
}

// makeVolumes makes and mounts the writable mounts of the record. Those that are mounted stay.
func (a attempt) makeVolumes(r *record) error {
	kind := volumeKind()
	for n := range r.Spec.Mounts {
		m := &r.Spec.Mounts[n]
		if m.Kind == executor.MountInput {
			continue
		}
		how := kind
		if m.Kind == executor.MountScratch && m.Bytes <= smallScratch {
			how = volumeTmpfs
		}
		if err := a.makeVolume(n, m.Bytes, how, r.FirstID); err != nil {
			return fmt.Errorf("making mount %s: %w", m.Path, err)
		}
	}
	return nil
}

func (a attempt) makeVolume(n int, bytes uint64, how string, owner uint32) error {
	dir := a.volume(n)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if mounted(dir) {
		return nil
	}
	if how == volumeLoop {
		err := a.makeImage(n, bytes, owner)
		if !errors.Is(err, errNoLoop) {
			return err
		}
		if err := os.Remove(a.image(n)); err != nil { // or remount would mount the empty image
			return err
		}
	}
	opts := fmt.Sprintf("size=%d,mode=0755,uid=%d,gid=%d", bytes, owner, owner)
	return unix.Mount("ucn", dir, "tmpfs", volumeFlags, opts)
}

// makeImage makes a sparse ext4 image and mounts it.
func (a attempt) makeImage(n int, bytes uint64, owner uint32) error {
	img := a.image(n)
	f, err := os.OpenFile(img, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	// Without a journal: nothing here is to outlive a loss of power.
	err = errors.Join(f.Truncate(int64(bytes+bytes/16+imageOverhead)), f.Close())
	if err != nil {
		return err
	}
	mkfs, ok := find("", "mkfs.ext4")
	if !ok {
		return missing("mkfs.ext4")
	}
	id := strconv.FormatUint(uint64(owner), 10)
	out, err := exec.Command(mkfs, "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode",
		"-E", "nodiscard,lazy_itable_init=1,root_owner="+id+":"+id, img).CombinedOutput()
	if err != nil {
		return fmt.Errorf("formatting: %w: %.200s", err, out)
	}
	if err := mountImage(img, a.volume(n)); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(a.volume(n), "lost+found"))
}

// imageOverhead is what ext4 takes for itself, beside a sixteenth.
const imageOverhead = 1 << 20

// loopTries bounds how often another process may snatch the free loop device from us.
const loopTries = 64

// loopControl hands out loop devices. The kernel makes more of them when all are taken.
const loopControl = "/dev/loop-control"

// errNoLoop says that this host has no loop device for us: none is free and no more can be made.
var errNoLoop = errors.New("no loop device")

// mountImage mounts the image on a loop device that goes away with the mount.
func mountImage(img, dir string) error {
	control, err := os.OpenFile(loopControl, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoLoop, err)
	}
	defer func() { _ = control.Close() }() // nothing was written
	back, err := os.OpenFile(img, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = back.Close() }() // the loop device holds it
	config := &unix.LoopConfig{Fd: uint32(back.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoLoop, err)
		}
		err = mountLoop(n, config, dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errNoLoop, unix.EBUSY)
}

func mountLoop(n int, config *unix.LoopConfig, dir string) error {
	name := "/dev/loop" + strconv.Itoa(n)
	if !exists(name) { // no udev here
		err := unix.Mknod(name, unix.S_IFBLK|0o660, int(unix.Mkdev(loopMajor, uint32(n))))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w: making %s: %w", errNoLoop, name, err)
		}
	}
	dev, err := os.OpenFile(name, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoLoop, err)
	}
	defer func() { _ = dev.Close() }() // the mount holds it
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), config); err != nil {
		return fmt.Errorf("setting up %s: %w", name, err)
	}
	if err := unix.Mount(name, dir, "ext4", volumeFlags, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", name, err)
	}
	return nil
}

// loopMajor is the device number of loop devices.
const loopMajor = 7

// mounted tells whether something is mounted on dir.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	if unix.Lstat(dir, &here) != nil || unix.Lstat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

// remount mounts the volume again after a reboot, if it was an image.
func (a attempt) remount(n int) error {
	if mounted(a.volume(n)) || !exists(a.image(n)) {
		return nil
	}
	return mountImage(a.image(n), a.volume(n))
}

// dropVolumes unmounts and deletes the volumes.
func (a attempt) dropVolumes() error {
	entries, err := os.ReadDir(a.path("volume"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dropping volumes: %w", err)
	}
	for _, e := range entries {
		p := a.path("volume", e.Name())
		if !e.IsDir() {
			continue
		}
		for mounted(p) {
			if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("unmounting %s: %w", p, err)
			}
		}
	}
	if err := os.RemoveAll(a.path("volume")); err != nil {
		return fmt.Errorf("dropping volumes: %w", err)
	}
	return nil
}

// volumeUse returns the bytes that are used on the volumes.
func (a attempt) volumeUse(s *executor.ContainerSpec) uint64 {
	var sum uint64
	for n := range s.Mounts {
		var st unix.Statfs_t
		if s.Mounts[n].Kind == executor.MountInput || !mounted(a.volume(n)) ||
			unix.Statfs(a.volume(n), &st) != nil {
			continue
		}
		sum += (st.Blocks - st.Bfree) * uint64(st.Bsize)
	}
	return sum
}
