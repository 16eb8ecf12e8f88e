package podman

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A program cannot hide what it writes in folders deeper than a path can say.
func TestTreeDeeperThanPaths(t *testing.T) {
	dir := t.TempDir()
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 200)
	for range 30 {
		if err := unix.Mkdirat(at, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err = errors.Join(err, unix.Close(at)); err != nil {
			t.Fatal(err)
		}
		at = next
	}
	if err := unix.Close(at); err != nil {
		t.Fatal(err)
	}
	if n, err := treeBytes(dir); !errors.Is(err, errTreeTooBig) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Nor in more files than are looked at.
func TestTreeOfManyFiles(t *testing.T) {
	dir := t.TempDir()
	const links = 50_000 // of one file; ext4 allows 65,000
	for n := range maxTree + 1 {
		name := filepath.Join(dir, strconv.Itoa(n))
		err := os.Link(filepath.Join(dir, strconv.Itoa(n/links*links)), name)
		if n%links == 0 {
			err = os.WriteFile(name, []byte("x"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := treeBytes(dir); !errors.Is(err, errTreeTooBig) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
