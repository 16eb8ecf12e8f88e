package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// recorded returns a copy of a recorded tree, which a test may write to.
func recorded(t *testing.T, name string) *Root {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	r, err := Detect(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMeter(t *testing.T) {
	all := Has{CPU: true, Memory: true, MemoryPeak: true, OOMKills: true}
	for _, c := range []struct {
		tree    string
		version int
		want    Stat
	}{
		{"v1", 1, Stat{
			Has: all, CPU: 7349581223, Memory: 1445474304 - 365129728, MemoryPeak: 4297306112,
		}},
		{"v2", 2, Stat{
			Has: all, CPU: 8123456 * time.Microsecond, Memory: 52428800 - 12582912,
			MemoryPeak: 67108864, OOMKills: 1,
		}},
	} {
		r := recorded(t, c.tree)
		if r.Version() != c.version {
			t.Errorf("%s: version %d", c.tree, r.Version())
		}
		m, err := r.Meter("/ucn/a", "boot")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second reading uses the open files
			got, err := m.Read()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", c.tree, d)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if _, err := m.Read(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("reading after Close: %v", err)
		}
	}
}

// What a host does not have is not measured, and what is broken is not zero.
func TestMeterMissingAndBroken(t *testing.T) {
	r := recorded(t, "v2")
	dir := r.dir("", "/ucn/a")
	if err := os.Remove(filepath.Join(dir, "memory.peak")); err != nil {
		t.Fatal(err)
	}
	m, err := r.Meter("/ucn/a", "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }() // read only
	s, err := m.Read()
	if err != nil || s.Has.MemoryPeak || s.MemoryPeak != 0 || !s.Has.Memory {
		t.Errorf("%+v, %v; want no peak", s, err)
	}
	f := filepath.Join(dir, "memory.current")
	if err := os.WriteFile(f, []byte("many\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Read(); err == nil {
		t.Error("nonsense was read as a number")
	}
	if _, err := r.Meter("/ucn/none", "boot"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a group that is not there: %v", err)
	}
}

func TestV2Freeze(t *testing.T) {
	r := recorded(t, "v2")
	dir := r.dir("", "/ucn/a")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Freeze(ctx, "/ucn/a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("frozen although the kernel does not say so: %v", err)
	}
	wantFile(t, filepath.Join(dir, "cgroup.freeze"), "0")
	events := []byte("populated 1\nfrozen 1\n")
	if err := os.WriteFile(filepath.Join(dir, "cgroup.events"), events, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.Freeze(t.Context(), "/ucn/a"); err != nil {
		t.Error(err)
	}
	wantFile(t, filepath.Join(dir, "cgroup.freeze"), "1")
	if err := r.Thaw("/ucn/a"); err != nil {
		t.Error(err)
	}
	wantFile(t, filepath.Join(dir, "cgroup.freeze"), "0")
	if err := r.Thaw("/ucn/none"); err != nil {
		t.Errorf("thawing a group that is gone: %v", err)
	}
}

func TestV2Create(t *testing.T) {
	r := recorded(t, "v2")
	if err := r.Create("/ucn/b"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"/", "/ucn", "/ucn/b"} {
		// A regular file keeps the last controller written; the kernel adds them up.
		wantFile(t, filepath.Join(r.dir("", d), "cgroup.subtree_control"), "+io")
	}
	pids, err := r.Procs("/ucn")
	if err != nil || len(pids) != 1 || pids[0] != 4242 {
		t.Errorf("processes %v, %v; want those of groups below", pids, err)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != want {
		t.Errorf("%s holds %q, %v; want %q", path, b, err, want)
	}
}

// TestLive works on the control groups of this machine, whichever version they are.
func TestLive(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("control groups are made by root: run the tests as root (sudo)")
	}
	r, err := Detect(DefaultMount)
	if err != nil {
		t.Fatal(err)
	}
	top := fmt.Sprintf("/ucn-cgroup-test-%d", os.Getpid())
	path := top + "/a"
	if err := r.Create(path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it is dead if the test passed
		_ = cmd.Wait()         // killed
		if err := r.Remove(top); err != nil {
			t.Error(err)
		}
	})
	if err := r.AddProc(path, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	live(t, r, path, cmd)
}

func live(t *testing.T, r *Root, path string, cmd *exec.Cmd) {
	pids, err := r.Procs(path)
	if err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Fatalf("processes %v, %v", pids, err)
	}
	if err := r.Freeze(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if frozen, err := r.Frozen(path); err != nil || !frozen {
		t.Errorf("frozen: %v, %v", frozen, err)
	}
	if err := r.Thaw(path); err != nil {
		t.Fatal(err)
	}
	if sent, err := r.Signal(path, os.Getpid(), unix.SIGKILL); err != nil || sent {
		t.Errorf("a stranger was signalled: %v, %v", sent, err)
	}
	m, err := r.Meter(path, "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }() // read only
	for s := (Stat{}); s.CPU < 10*time.Millisecond; {
		if s, err = m.Read(); err != nil || !s.Has.CPU {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	dead := make(chan error, 1)
	go func() { dead <- cmd.Wait() }()
	if err := r.Kill(t.Context(), path); err != nil {
		t.Error(err)
	}
	if err := <-dead; err == nil {
		t.Error("it ended by itself")
	}
}

func BenchmarkMeter(b *testing.B) {
	r, err := Detect(filepath.Join("testdata", "v2"))
	if err != nil {
		b.Fatal(err)
	}
	m, err := r.Meter("/ucn/a", "boot")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close() }() // read only
	for b.Loop() {
		if _, err := m.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
