package podman

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// smallDisk opens a driver whose instance is alone on a disk of so many MiB, of which images leave
// so many to others.
func smallDisk(t *testing.T, size string, reserve uint64) *Driver {
	t.Helper()
	cfg := newConfig(t)
	if err := unix.Mount("none", cfg.Dir, "tmpfs", 0, "mode=755,size="+size); err != nil {
		t.Fatal(err)
	}
	disk := cfg.Dir
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	cfg.Dir = filepath.Join(disk, "d")
	d, err := New(cfg, "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := Wipe(context.WithoutCancel(t.Context()), cfg); err != nil {
			t.Error(err)
		}
	})
	d.i.room.reserve = reserve
	return d
}

// salted is an image whose files hold so many MiB of one letter, which pack to next to nothing.
func salted(t *testing.T, letter string, files ...int) *executortest.Image {
	t.Helper()
	var salt []string
	for _, n := range files {
		salt = append(salt, strings.Repeat(letter, n*mib))
	}
	return executortest.GuestImage(t, salt...)
}

// held opens an image whose second half comes once more is called.
func held(t *testing.T, img *executortest.Image) (open executor.OpenLayout, more func()) {
	gate := make(chan struct{})
	more = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(more)
	return func(context.Context) (io.ReadCloser, error) {
		half := len(img.Layout) / 2
		rest := &late{more: gate, Reader: bytes.NewReader(img.Layout[half:])}
		return io.NopCloser(io.MultiReader(bytes.NewReader(img.Layout[:half]), rest)), nil
	}, more
}

type late struct {
	io.Reader
	more <-chan struct{}
}

// Read implements io.Reader.
func (l *late) Read(p []byte) (int, error) {
	<-l.more
	return l.Reader.Read(p)
}

// A bomb ends alone, while it arrives: who loads, and what runs, beside it goes on, by the same
// engine.
func TestBombOnASmallDisk(t *testing.T) {
	d := smallDisk(t, "300m", 64*mib)
	first := executortest.GuestImage(t)
	if _, err := d.LoadImage(t.Context(), first.ID, "", first.Open); err != nil {
		t.Fatal(err)
	}
	c := running(t, d, first, "a")
	engine, _ := d.i.service.process()
	small, bomb := salted(t, "s", 10), salted(t, "b", 200, 200)
	open, more := held(t, small)
	done := make(chan error, 1)
	go func() {
		_, err := d.LoadImage(t.Context(), small.ID, "", open)
		done <- err
	}()
	until(t, func() bool {
		d.i.room.mu.Lock()
		defer d.i.room.mu.Unlock()
		return len(d.i.room.here) == 1
	})
	for range 3 {
		_, err := d.LoadImage(t.Context(), bomb.ID, "", bomb.Open)
		if got := verdict(err); got != "too big" {
			t.Errorf("the bomb: %s", got)
		}
	}
	more()
	if err := <-done; err != nil {
		t.Errorf("loading beside the bomb: %v", err)
	}
	if now, _ := d.i.service.process(); now != engine {
		t.Error("the engine was ended")
	}
	if state, err := c.State(t.Context()); err != nil || state != executor.StateRunning {
		t.Errorf("what runs: %s, %v", state, err)
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// When others fill the disk while an image is unpacked, the engine is ended once, who came beside
// it may come again, nothing of either stays on the disk, and with room both load.
func TestDiskFilledWhileUnpacking(t *testing.T) {
	d := smallDisk(t, "700m", 64*mib)
	if err := d.i.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	free := func() uint64 {
		disk, err := d.i.room.look()
		if err != nil {
			t.Fatal(err)
		}
		return disk.free
	}
	before, fill := free(), filepath.Join(d.i.cfg.Dir, "fill")
	large, small := salted(t, "l", 150, 150, 150), salted(t, "s", 10)
	open, more := held(t, small)
	done := make(chan error, 2)
	load := func(img *executortest.Image, open executor.OpenLayout) {
		_, err := d.LoadImage(t.Context(), img.ID, "", open)
		done <- err
	}
	go load(small, open)
	go load(large, large.Open)
	until(t, func() bool { // it is being unpacked
		list, err := filepath.Glob(d.i.path("scratch", "oci*"))
		return err == nil && len(list) > 0 && free() < before-50*mib
	})
	engine, _ := d.i.service.process()
	err := engine.Process.Signal(unix.SIGSTOP) // else it may be quicker
	if err == nil {
		err = os.WriteFile(fill, make([]byte, free()-16*mib), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := verdict(<-done); got != "too big" {
		t.Errorf("the large one: %s", got)
	}
	more()
	if got := verdict(<-done); got != "again" {
		t.Errorf("beside it: %s", got)
	}
	_, err = d.LoadImage(t.Context(), large.ID, "", large.Open)
	if got := verdict(err); got != "too big" {
		t.Errorf("the large one while the disk is full: %s", got)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	for _, img := range []*executortest.Image{small, large} {
		_, err := d.LoadImage(t.Context(), img.ID, "", img.Open)
		if err != nil {
			t.Errorf("with room again: %v", err)
		}
		if err := d.RemoveImage(t.Context(), img.ID); err != nil {
			t.Error(err)
		}
	}
	if left := before - free(); left > 32*mib {
		t.Errorf("%d MiB stay on the disk", left/mib)
	}
}

// A disk that is full for other reasons is nobody's image's fault.
func TestFullDisk(t *testing.T) {
	d := smallDisk(t, "100m", 99*mib)
	img := executortest.GuestImage(t)
	opened := false
	_, err := d.LoadImage(t.Context(), img.ID, "", func(ctx context.Context) (io.ReadCloser, error) {
		opened = true
		return img.Open(ctx)
	})
	if got := verdict(err); got != "no room now" || opened ||
		!errors.Is(err, executor.ReasonNoRoom) {
		t.Errorf("a full disk: %s, opened %v", got, opened)
	}
	d.i.room.reserve = mib
	if _, err := d.LoadImage(t.Context(), img.ID, "", img.Open); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// An engine that finds the disk full before the guard does says so in words; that is no room, too.
func TestEngineFindsTheDiskFull(t *testing.T) {
	d := smallDisk(t, "200m", mib)
	img := salted(t, "f", 150, 100)
	d.i.room.look = func() (disk, error) { return disk{free: 1 << 40}, nil } // the guard is blind
	_, err := d.LoadImage(t.Context(), img.ID, "", img.Open)
	if got := verdict(err); got != "no room now" {
		t.Errorf("%s: %v", got, err)
	}
}
