package podman

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/united-containers/ucn/services/executor"
)

// attached counts the loop devices whose image is below dir.
func attached(t *testing.T, dir string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), dir+"/") {
			n++
		}
	}
	return n
}

// Hosts begin with 8 loop devices. More volumes than that are made at once, and every device is
// free again when its volume is dropped.
func TestMoreVolumesThanLoopDevices(t *testing.T) {
	if volumeKind() != volumeLoop {
		t.Fatal("this host has no loop devices")
	}
	const many = 12
	dir := t.TempDir()
	var made errgroup.Group
	for n := range many {
		a := attempt(filepath.Join(dir, strconv.Itoa(n)))
		t.Cleanup(func() {
			if err := a.dropVolumes(); err != nil {
				t.Error(err)
			}
		})
		made.Go(func() error {
			return a.makeVolumes(&record{Spec: executor.ContainerSpec{Mounts: []executor.Mount{
				{Kind: executor.MountOutput, Path: "/out", Bytes: 4 << 20},
			}}})
		})
	}
	if err := made.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := attached(t, dir); n != many {
		t.Errorf("%d loop devices hold volumes, want %d", n, many)
	}
	for n := range many {
		a := attempt(filepath.Join(dir, strconv.Itoa(n)))
		if !mounted(a.volume(0)) {
			t.Errorf("volume %d is not mounted", n)
		}
		if err := a.dropVolumes(); err != nil {
			t.Error(err)
		}
	}
	if n := attached(t, dir); n != 0 {
		t.Errorf("%d loop devices are not free again", n)
	}
}
