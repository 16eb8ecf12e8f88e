package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
