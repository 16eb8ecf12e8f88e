package space_test

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/kit/space"
)

func TestCheck(t *testing.T) {
	free := func(n uint64) func(string) (uint64, error) {
		return func(string) (uint64, error) { return n, nil }
	}
	if err := (space.Guard{Dir: "/x", Free: free(space.Reserve)}).Check(); err != nil {
		t.Errorf("with the reserve free: %v", err)
	}
	err := (space.Guard{Dir: "/x", Free: free(space.Reserve - 1)}).Check()
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("below the reserve: %v, want ENOSPC", err)
	}
}

func TestFree(t *testing.T) {
	if n, err := space.Free(t.TempDir()); err != nil || n == 0 {
		t.Errorf("Free = %d, %v", n, err)
	}
	if _, err := space.Free(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("Free of no directory succeeded")
	}
}
