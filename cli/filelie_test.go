package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// TestAStorageCannotNameWhatIsAtAPath: the directories do, each verified.
func TestAStorageCannotNameWhatIsAtAPath(t *testing.T) {
	u := started(t, honest)
	evil := u.net.Storage.Keep([]byte("EVIL content"))
	u.net.Storage.Says = func(r *storagev1.StatRequest) *storagev1.Reference {
		if r.GetPath() == "" {
			return nil
		}
		return &storagev1.Reference{Cid: evil, Size: 12}
	}
	folder := filepath.Join(t.TempDir(), "d")
	plant(t, folder, map[string]string{"data/a.csv": "true content", "data/deep/b": "b", "c": "c"})
	root := strings.TrimSpace(u.must("file", "put", folder))
	to := filepath.Join(t.TempDir(), "a.csv")
	u.must("file", "get", root+"/data/a.csv", "-o", to)
	mustHold(t, to, []byte("true content"))
	if out := u.must("file", "get", root+"/data/a.csv", "-o", "-"); out != "true content" {
		t.Errorf("standard output: %q", out)
	}
	if out := u.must("file", "get", root+"/data/a.csv", "--range=-7"); out != "content" {
		t.Errorf("range: %q", out)
	}
	inner := filepath.Join(t.TempDir(), "inner")
	u.must("file", "get", root+"/data", "-o", inner)
	mustBe(t, "a folder at a path", tree(t, inner), tree(t, filepath.Join(folder, "data")))
	for _, path := range []string{"/data/x", "/c/x", "/data/../c", "/data/"} {
		none := filepath.Join(t.TempDir(), "none")
		if _, complaint, code := u.run("file", "get", root+path, "-o", none); code == 0 {
			t.Errorf("%s: saved, %q", path, complaint)
		}
		if _, err := os.Lstat(none); err == nil {
			t.Errorf("%s: something was saved", path)
		}
	}
}

// TestAStorageCannotSayWhereAFileEnds: neither in a file nor on standard output.
func TestAStorageCannotSayWhereAFileEnds(t *testing.T) {
	u := started(t, honest)
	content := someBytes(100_000, 3)
	name := u.net.Storage.Keep(content)
	size := uint64(0)
	u.net.Storage.Says = func(*storagev1.StatRequest) *storagev1.Reference {
		return &storagev1.Reference{Cid: name, Size: size}
	}
	for _, size = range []uint64{0, 10, 99_999, 100_001} {
		to := filepath.Join(t.TempDir(), "x")
		for _, flags := range [][]string{{"-o", to}, {"-o", "-"}, {"--range=-5"}, {"--range=0-"},
			{"--range=0-200000"}, {"--offset=0"}, {"-o", to, "--range=-5"}} {
			out, complaint, code := u.run(append([]string{"file", "get", name}, flags...)...)
			if code == 0 || !strings.HasPrefix(string(content), out) {
				t.Errorf("size %d, %v: code %d, %d bytes, %q", size, flags, code, len(out), complaint)
			}
			if _, err := os.Lstat(to); err == nil {
				t.Errorf("size %d, %v: something was saved", size, flags)
			}
		}
	}
	size = uint64(len(content))
	if out := u.must("file", "get", name, "-o", "-"); out != string(content) {
		t.Errorf("the truth: %d bytes", len(out))
	}
	name, size = u.net.Storage.Keep(nil), 0
	if out := u.must("file", "get", name, "-o", "-"); out != "" {
		t.Errorf("the empty file: %q", out)
	}
}

// TestPartialsOfOthersAreLeftAlone: who can change a partial can change what was verified.
func TestPartialsOfOthersAreLeftAlone(t *testing.T) {
	u := started(t, honest)
	folder := filepath.Join(t.TempDir(), "d")
	plant(t, folder, map[string]string{"run.sh": "echo honest"})
	root := strings.TrimSpace(u.must("file", "put", folder))
	file := u.net.Storage.Keep([]byte("honest content"))
	write := func(mode os.FileMode) func(string) error {
		return func(path string) error {
			if err := os.WriteFile(path, []byte("honest"), mode); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	mkdir := func(mode os.FileMode) func(string) error {
		return func(path string) error {
			if err := os.Mkdir(path, mode); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	pipe := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	given := func(first func(string) error) func(string) error {
		return func(path string) error {
			if err := first(path); err != nil {
				return err
			}
			return os.Chown(path, 12345, 12345)
		}
	}
	linked := func(path string) error {
		other := filepath.Join(t.TempDir(), "other")
		if err := write(0o600)(other); err != nil {
			return err
		}
		return os.Link(other, path)
	}
	for name, one := range map[string]struct {
		cid  string
		lay  func(path string) error
		good bool
	}{
		"own file": {file, write(0o600), true}, "own file, readable": {file, write(0o644), true},
		"own folder": {root, mkdir(0o700), true}, "own folder, readable": {root, mkdir(0o755), true},
		"file of all": {file, write(0o666), false}, "folder of all": {root, mkdir(0o777), false},
		"file of a group": {file, write(0o620), false}, "file with two names": {file, linked, false},
		"folder for a file": {file, mkdir(0o700), false},
		"file for a folder": {root, write(0o600), false},
		"pipe for a file":   {file, pipe, false}, "pipe for a folder": {root, pipe, false},
		"another's file":   {file, given(write(0o600)), false},
		"another's folder": {root, given(mkdir(0o700)), false},
	} {
		if strings.HasPrefix(name, "another's") && os.Geteuid() != 0 {
			continue // only root gives files away
		}
		to := filepath.Join(t.TempDir(), "x")
		if err := one.lay(filepath.Join(filepath.Dir(to), "."+one.cid+".ucn-part")); err != nil {
			t.Fatal(err)
		}
		_, complaint, code := u.run("file", "get", one.cid, "-o", to)
		if _, err := os.Lstat(to); one.good != (code == 0) || one.good != (err == nil) {
			t.Errorf("%s: code %d, %v, %q", name, code, err, complaint)
		}
	}
}
