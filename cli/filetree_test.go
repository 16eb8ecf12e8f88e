package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
)

// plant writes files below a folder; a name that ends in a slash is an empty folder.
func plant(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// tree reads what is below a folder, with modes.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == folder {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || d.IsDir() {
			all[name] = fmt.Sprint(info.Mode())
			return err
		}
		content, err := os.ReadFile(path)
		all[name] = fmt.Sprintf("%v %x", info.Mode(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func mustBe(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	a, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("%s: %.300s, want %.300s", what, a, b)
	}
}

// TestFoldersGoOn kills a put and a get of a folder at every effect.
func TestFoldersGoOn(t *testing.T) {
	u := started(t, honest)
	from := filepath.Join(t.TempDir(), "data")
	plant(t, from, map[string]string{
		"a.csv": string(someBytes(600_000, 11)), "sub/b.bin": string(someBytes(400_000, 12)),
		"sub/deep/c": "c", "empty/": "", "z": "",
	})
	if err := os.Chmod(filepath.Join(from, "sub"), 0o555); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(from, "sub", "b.bin"), 0o400); err != nil {
		t.Fatal(err)
	}
	_, effects := u.runUntil(0, "file", "put", from)
	name := strings.TrimSpace(u.must("file", "put", from))
	want := tree(t, from)
	for k := 1; k <= len(effects); k++ {
		u.runUntil(k, "file", "put", from)
		if got := strings.TrimSpace(u.must("file", "put", from)); got != name {
			t.Errorf("put killed at %d (%s): %s, want %s", k, effects[k-1], got, name)
		}
	}
	_, effects = u.runUntil(0, "file", "get", name, "-o", filepath.Join(t.TempDir(), "all"))
	for k := 1; k <= len(effects); k++ {
		to := filepath.Join(t.TempDir(), "data")
		part := filepath.Join(filepath.Dir(to), "."+name+".ucn-part")
		u.runUntil(k, "file", "get", name, "-o", to)
		if _, err := os.Stat(to); err == nil {
			continue // the last effect came when all was here
		}
		if _, err := os.Stat(part); err == nil { // somebody meddles with it
			plant(t, part, map[string]string{"foreign/x": "x", "y": "y"})
			if err := os.Symlink("/etc", filepath.Join(part, "link")); err != nil {
				t.Fatal(err)
			}
		}
		u.must("file", "get", name, "-o", to)
		mustBe(t, fmt.Sprintf("get killed at %d (%s)", k, effects[k-1]), tree(t, to), want)
		left, err := os.ReadDir(filepath.Dir(to))
		if err != nil || len(left) != 1 {
			t.Errorf("get killed at %d: beside it %v, %v", k, left, err)
		}
	}
	listed := u.must("file", "ls", name)
	for _, want := range []string{"a.csv", "sub/", "empty/", "585.9 KiB"} {
		if !strings.Contains(listed, want) {
			t.Errorf("file ls of a folder lacks %q: %s", want, listed)
		}
	}
	if listed := u.must("file", "ls", name+"/sub/", "--json"); !strings.Contains(listed, "0400") {
		t.Errorf("file ls of a folder in it: %s", listed)
	}
	if listed := u.must("file", "ls", name+"/empty"); !strings.Contains(listed, "is empty") {
		t.Errorf("file ls of an empty folder: %s", listed)
	}
	if _, _, code := u.run("file", "ls", name+"/z"); code != cli.ExitFailed {
		t.Errorf("file ls of a file: exit code %d", code)
	}
	if _, _, code := u.run("file", "ls", "data"); code != cli.ExitUsage {
		t.Errorf("file ls of no CID: exit code %d", code)
	}
	to := filepath.Join(t.TempDir(), "b")
	u.must("file", "get", name+"/sub/b.bin", "-o", to)
	mustHold(t, to, someBytes(400_000, 12))
	if _, _, code := u.run("file", "get", name+"/sub/none", "-o", to); code != cli.ExitFailed {
		t.Errorf("a path that leads nowhere: exit code %d", code)
	}
	if _, _, code := u.run("file", "get", name, "-o", "-"); code != cli.ExitUsage {
		t.Errorf("a folder to standard output: exit code %d", code)
	}
}
