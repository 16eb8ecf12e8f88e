package segment_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/segment"
)

const insideNamespace = "UCN_SEGMENT_TEST_NAMESPACE"

// TestRealFullDisk runs TestInsideSmallDisk in a mount namespace of its own, where it may mount a
// small file system that goes away with the process.
func TestRealFullDisk(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestInsideSmallDisk$", "-test.v")
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

// TestInsideSmallDisk does nothing but in the process TestRealFullDisk starts: other files fill a
// small file system in the middle of the story, again and again, and are removed again.
func TestInsideSmallDisk(t *testing.T) {
	dir := os.Getenv(insideNamespace)
	if dir == "" {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", 256<<10)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { fullAgainAndAgain(t, dir) })
}

func fullAgainAndAgain(t *testing.T, dir string) {
	t.Helper()
	n, err := ledgertest.NewNetwork(3, ledgertest.StoryAccounts)
	if err != nil {
		t.Fatal(err)
	}
	story := ledgertest.NewStory(n)
	reference, _ := undisturbed(t, n, story)
	s := newScene(t, n, story)
	s.dir = filepath.Join(dir, "main")
	c, stop := s.start(&segment.Faulty{Random: rand.New(rand.NewPCG(1, 1))})
	refused, all := 0, story.Steps
	for done := 0; done < len(all); done = len(s.results) {
		told := *story
		told.Steps = all[:min(done+4, len(all))]
		s.story = &told
		if err := s.tell(c); err != nil {
			t.Fatal(err)
		}
		filler := fillUp(t, dir)
		s.story = story
		if err := s.tell(c); err == nil {
			break
		} else if !errors.Is(err, ledger.ReasonDiskFull) {
			t.Fatal(err)
		}
		refused++
		s.reads(c)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		s.mended(c)
	}
	if refused < 2 {
		t.Errorf("the disk was full %d times", refused)
	}
	s.check(c, reference)
	stop()
}

// fillUp leaves no room beside what the log has reserved.
func fillUp(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "filler")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		_, err := f.Write(make([]byte, 4096))
		if errors.Is(err, unix.ENOSPC) {
			return f.Name()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
