package cli_test

import (
	"os"
	"path/filepath"
	"strings"
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
