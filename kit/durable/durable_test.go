package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/united-containers/ucn/kit/durable"
)

func TestWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := durable.Create(path, []byte("one"), durable.Private); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(path, []byte("two"), durable.Private); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that exists: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "one" {
		t.Errorf("it holds %q, %v", got, err)
	}
	if err := durable.Replace(path, []byte("three"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o644 || info.Size() != 5 {
		t.Errorf("it is %v, %v", info, err)
	}
	if err := durable.Create(filepath.Join(dir, "none", "a"), nil, durable.Private); err == nil {
		t.Error("written into a folder that does not exist")
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%d files are left, %v", len(list), err)
	}
}

// TestLeftIsSwept: what a writer that was killed has left, a key perhaps, goes with the next write;
// what another writes at this moment stays.
func TestLeftIsSwept(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".ucn-new-123")
	if err := os.WriteFile(left, []byte("a private key"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy, err := os.Create(filepath.Join(dir, ".ucn-new-456"))
	if err == nil {
		err = syscall.Flock(int(busy.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(filepath.Join(dir, "a"), []byte("one"), durable.Private); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left is still there: %v", err)
	}
	if _, err := os.Stat(busy.Name()); err != nil {
		t.Errorf("what is being written is gone: %v", err)
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(filepath.Join(dir, "a"), []byte("two"), durable.Private); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%d files are left, %v", len(list), err)
	}
}

// TestWritersAtOnce: many write into one folder; each file is whole, and none is swept from under
// its writer.
func TestWritersAtOnce(t *testing.T) {
	const writers, times = 8, 50
	dir := t.TempDir()
	var all sync.WaitGroup
	for n := range writers {
		all.Go(func() {
			content := bytes.Repeat([]byte{byte('a' + n)}, 1000)
			for range times {
				err := durable.Replace(filepath.Join(dir, "shared"), content, durable.Private)
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	got, err := os.ReadFile(filepath.Join(dir, "shared"))
	if err != nil || len(got) != 1000 || bytes.Count(got, got[:1]) != 1000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%d files are left, %v", len(list), err)
	}
}
