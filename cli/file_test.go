package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// largeFile is just large enough for an upload that is resumed.
const largeFile = 8<<20 + 12345

var errBroken = fault.New(fault.Unavailable, "STORAGE_CLOSED", "the storage is shutting down")

// someBytes are the same for the same seed.
func someBytes(n int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	_, _ = r.Read(b) // never fails
	return b
}

// saveAs writes a file into a folder of its own.
func saveAs(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mustHold checks that a folder holds one file of this name and content, and nothing else.
func mustHold(t *testing.T, path string, content []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%s: %d bytes, %v; want %d", path, len(got), err, len(content))
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside it: %v, %v", left, err)
	}
}

// document reads what --json printed.
func document(t *testing.T, out string) (all map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("no JSON: %v: %s", err, out)
	}
	return all
}

// death ends a user's command at the n-th effect of storage, as a signal would, and counts effects.
type death struct {
	mu   sync.Mutex
	seen []string
	at   int
	end  context.CancelFunc
}

func (d *death) effect(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen = append(d.seen, name); len(d.seen) == d.at {
		d.end()
	}
	return nil
}

// runUntil runs a command that dies at its n-th effect; 0: never.
func (u *user) runUntil(n int, args ...string) (code int, effects []string) {
	u.t.Helper()
	ctx, cancel := context.WithCancel(u.t.Context())
	defer cancel()
	d := &death{at: n, end: cancel}
	u.net.Storage.Hook(d.effect)
	u.ctx = ctx
	_, _, code = u.run(args...)
	u.ctx = u.t.Context()
	u.net.Storage.Quiet()
	u.net.Storage.Hook(nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	return code, d.seen
}

// telling picks effects: every call, and of its chunks the first, one in the middle, the last.
func telling(effects []string) (picked []int) {
	chunks := []int{}
	flush := func() {
		if len(chunks) > 0 {
			picked = append(picked, chunks[0], chunks[len(chunks)/2], chunks[len(chunks)-1])
		}
		chunks = nil
	}
	for i, name := range effects {
		if strings.HasSuffix(name, " chunk") {
			chunks = append(chunks, i+1)
			continue
		}
		flush()
		picked = append(picked, i+1)
	}
	flush()
	return picked
}

func TestPutGoesOnAfterItsDeath(t *testing.T) {
	u := started(t, honest)
	_, effects := u.runUntil(0, "file", "put", saveAs(t, "first", someBytes(largeFile, 0)))
	if len(effects) < 40 {
		t.Fatalf("effects: %v", effects)
	}
	for _, k := range telling(effects) {
		path := saveAs(t, "scene", someBytes(largeFile, uint64(k)))
		u.net.Storage.Moved()
		code, _ := u.runUntil(k, "file", "put", path, "--json")
		before := u.net.Storage.Moved().In
		if code == cli.ExitOK && k < len(effects) {
			t.Errorf("killed at %d (%s): exit code 0", k, effects[k-1])
		}
		out := document(t, u.must("file", "put", path, "--json"))
		after := u.net.Storage.Moved().In
		if !u.net.Storage.Held(out["cid"].(string)) || out["size"] != float64(largeFile) {
			t.Errorf("killed at %d (%s): then %v", k, effects[k-1], out)
		}
		// Chunks that were on their way when it died may be sent once more.
		if before+after > largeFile+1<<20 {
			t.Errorf("killed at %d (%s): %d and %d bytes were sent of %d", k, effects[k-1], before,
				after, largeFile)
		}
		resumed, _ := out["resumed"].(float64)
		if after > 0 && int64(resumed)+after != largeFile {
			t.Errorf("killed at %d: %v resumed, %d sent", k, resumed, after)
		}
	}
}

// failing returns a hook that fails each effect named once.
func failing(names ...string) func(string) error {
	var mu sync.Mutex
	count := map[string]int{}
	return func(name string) error {
		mu.Lock()
		defer mu.Unlock()
		count[name]++
		for _, one := range names {
			what, n, _ := strings.Cut(one, "#")
			if what == name && n == fmt.Sprint(count[name]) {
				return errBroken
			}
		}
		return nil
	}
}

func TestPutGoesOnOverBrokenConnections(t *testing.T) {
	u := started(t, honest)
	content := someBytes(largeFile, 1)
	path := saveAs(t, "scene", content)
	u.net.Storage.Hook(failing("AppendUpload chunk#3", "GetUpload#1", "AppendUpload#2",
		"AppendUpload done#1", "FinishUpload#1", "FinishUpload done#1"))
	out := document(t, u.must("file", "put", path, "--json"))
	if !u.net.Storage.Held(out["cid"].(string)) || out["resumed"] != nil {
		t.Errorf("got %v", out)
	}
	if in := u.net.Storage.Moved().In; in > largeFile+2<<20 {
		t.Errorf("%d bytes were sent of %d", in, largeFile)
	}
	u.net.Storage.Hook(nil)
	if again := document(t, u.must("file", "put", path, "--json")); again["held_before"] != true ||
		u.net.Storage.Moved().In != 0 {
		t.Errorf("what is held was sent again: %v", again)
	}
}

// TestPutBeginsAnew: an upload that the service gave up meanwhile.
func TestPutBeginsAnew(t *testing.T) {
	u := started(t, honest)
	path := saveAs(t, "scene", someBytes(largeFile, 2))
	once := failing("AppendUpload chunk#9")
	u.net.Storage.Hook(func(name string) error {
		err := once(name)
		if err != nil {
			u.net.Storage.Forget()
		}
		return err
	})
	if out := document(t, u.must("file", "put", path, "--json")); out["size"] != float64(largeFile) {
		t.Errorf("got %v", out)
	}
}

func TestUploadsAreListedAndGivenUp(t *testing.T) {
	u := started(t, honest)
	if out := u.must("file", "uploads"); !strings.Contains(out, "no upload") {
		t.Errorf("without any: %s", out)
	}
	path := saveAs(t, "scene", someBytes(largeFile, 20))
	if code, _ := u.runUntil(12, "file", "put", path); code == cli.ExitOK {
		t.Fatal("it was not killed")
	}
	var list []struct {
		Upload, Name string
		Offset, Size uint64
	}
	out := u.must("file", "uploads", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 ||
		list[0].Name != "scene" || list[0].Offset == 0 || list[0].Size != largeFile {
		t.Fatalf("%v: %s", err, out)
	}
	if out := u.must("file", "uploads", "--abort", list[0].Upload); !strings.Contains(out,
		"no upload") {
		t.Errorf("after it was given up: %s", out)
	}
	if _, _, code := u.run("file", "uploads", "--abort", list[0].Upload); code != cli.ExitFailed {
		t.Errorf("given up twice: exit code %d", code)
	}
}

func TestPutOfAFileThatChanges(t *testing.T) {
	u := started(t, honest)
	path := saveAs(t, "scene", someBytes(largeFile, 3))
	for name, change := range map[string]func() error{
		"other bytes": func() error { return os.WriteFile(path, someBytes(largeFile, 4), 0o600) },
		"shorter":     func() error { return os.Truncate(path, largeFile/2) },
	} {
		if err := os.WriteFile(path, someBytes(largeFile, 3), 0o600); err != nil {
			t.Fatal(err)
		}
		u.net.Storage.Hook(func(effect string) error {
			if effect != "StartUpload" {
				return nil
			}
			return change()
		})
		_, complaint, code := u.run("file", "put", path)
		if code != cli.ExitFailed || !strings.Contains(complaint, "changed while it was sent") {
			t.Errorf("%s: exit code %d: %s", name, code, complaint)
		}
		left, err := u.net.Storage.ListUploads(t.Context(), nil)
		if err != nil || len(left.GetUploads()) > 0 {
			t.Errorf("%s: left: %v, %v", name, left, err)
		}
	}
}

// TestUnreachableStorageIsToldAtOnce: patience is for services that answered before.
func TestUnreachableStorageIsToldAtOnce(t *testing.T) {
	u := started(t, honest)
	u.net.Storage.Hook(func(string) error { return errBroken })
	for _, args := range [][]string{
		{"file", "put", saveAs(t, "scene", someBytes(largeFile, 5))},
		{"file", "put", saveAs(t, "small", []byte("small"))},
		{"file", "get", u.net.Storage.Keep([]byte("there")), "-o", filepath.Join(t.TempDir(), "x")},
	} {
		if _, complaint, code := u.run(args...); code != cli.ExitFailed ||
			!strings.Contains(complaint, "shutting down") {
			t.Errorf("%v: exit code %d: %s", args, code, complaint)
		}
	}
}

func TestGetGoesOnAfterItsDeath(t *testing.T) {
	u := started(t, honest)
	for kind, name := range map[storagev1.Kind]string{
		storagev1.Kind_KIND_FILE: "file", storagev1.Kind_KIND_OCI_BLOB: "image's blob",
	} {
		content := someBytes(3<<20+777, 6)
		file := u.net.Storage.KeepAs(kind, content)
		_, effects := u.runUntil(0, "file", "get", file, "-o", filepath.Join(t.TempDir(), "x"))
		for _, k := range telling(effects) {
			to := filepath.Join(t.TempDir(), "sub", "x")
			u.net.Storage.Moved()
			code, _ := u.runUntil(k, "file", "get", file, "-o", to)
			if _, err := os.Stat(to); (err == nil) != (code == cli.ExitOK) {
				t.Errorf("%s killed at %d (%s): exit code %d, %v", name, k, effects[k-1], code, err)
			}
			part, err := os.Stat(filepath.Join(filepath.Dir(to), "."+file+".ucn-part"))
			u.net.Storage.Moved()
			out := document(t, u.must("file", "get", file, "-o", to, "--json"))
			mustHold(t, to, content)
			if err != nil {
				continue
			}
			resumed, _ := out["resumed"].(float64)
			if int64(resumed) < part.Size()-cid.GroupSize || int64(resumed) > part.Size() {
				t.Errorf("%s killed at %d (%s): %d bytes were here, %v resumed", name, k,
					effects[k-1], part.Size(), resumed)
			}
			if sent := u.net.Storage.Moved().Out; sent > int64(len(content))-int64(resumed)+64<<10 {
				t.Errorf("%s killed at %d: %d bytes sent, %v were here", name, k, sent, resumed)
			}
		}
	}
}

// TestWrongPartialIsFound: whatever lies there, what is saved is right.
func TestWrongPartialIsFound(t *testing.T) {
	u := started(t, honest)
	content := someBytes(1<<20+5, 7)
	wrong := func(at int) []byte {
		b := bytes.Clone(content[:600_000])
		b[at] ^= 1
		return b
	}
	for _, kind := range []storagev1.Kind{storagev1.Kind_KIND_FILE, storagev1.Kind_KIND_OCI_BLOB} {
		file := u.net.Storage.KeepAs(kind, content)
		for name, test := range map[string]struct {
			part []byte
			anew bool
		}{
			"a wrong beginning": {wrong(0), true}, "a wrong middle": {wrong(400_000), true},
			"other bytes, as many": {someBytes(len(content), 8), true},
			"other bytes, more":    {someBytes(2*len(content), 8), true},
			"the right ones":       {content[:600_000], false},
			"all of it":            {content, false},
			"all and more":         {append(bytes.Clone(content), "tail"...), false},
			"nearly nothing":       {content[:5], false},
		} {
			to := filepath.Join(t.TempDir(), "x")
			part := filepath.Join(filepath.Dir(to), "."+file+".ucn-part")
			if err := os.WriteFile(part, test.part, 0o600); err != nil {
				t.Fatal(err)
			}
			u.net.Storage.Moved()
			_, complaint, code := u.run("file", "get", file, "-o", to)
			if code != cli.ExitOK || strings.Contains(complaint, "fetched anew") != test.anew {
				t.Errorf("%v, %s: exit code %d: %s", kind, name, code, complaint)
			}
			mustHold(t, to, content)
			// Of a file it is found before a byte is fetched for nothing.
			sent := u.net.Storage.Moved().Out
			if kind == storagev1.Kind_KIND_FILE && sent > int64(len(content))+600<<10 {
				t.Errorf("%s: %d bytes were sent", name, sent)
			}
			if !test.anew && len(test.part) >= len(content) && sent > 0 {
				t.Errorf("%s: %d bytes were sent for what was here", name, sent)
			}
		}
	}
}

func TestGetGoesOnOverBrokenConnections(t *testing.T) {
	u := started(t, honest)
	content := someBytes(2<<20, 9)
	for _, kind := range []storagev1.Kind{storagev1.Kind_KIND_FILE, storagev1.Kind_KIND_OCI_BLOB} {
		file := u.net.Storage.KeepAs(kind, content)
		to := filepath.Join(t.TempDir(), "x")
		u.net.Storage.Hook(failing("Get chunk#4", "Get#2", "Get chunk#7"))
		u.net.Storage.Moved()
		u.must("file", "get", file, "-o", to)
		mustHold(t, to, content)
		if sent := u.net.Storage.Moved().Out; sent > int64(len(content))+1<<20 {
			t.Errorf("%v: %d bytes were sent of %d", kind, sent, len(content))
		}
	}
	file := u.net.Storage.Keep(content)
	u.net.Storage.Hook(failing("Get chunk#4", "Get#2", "Get chunk#7"))
	if out := u.must("file", "get", file, "-o", "-"); out != string(content) {
		t.Errorf("to standard output: %d bytes of %d", len(out), len(content))
	}
}

func TestGetOfParts(t *testing.T) {
	u := started(t, honest)
	content := someBytes(100_000, 10)
	file := u.net.Storage.Keep(content)
	image := u.net.Storage.KeepAs(storagev1.Kind_KIND_OCI_BLOB, content)
	empty := u.net.Storage.Keep(nil)
	for _, test := range []struct {
		args        []string
		first, last int // of what is printed
	}{
		{[]string{"--range", "0-0"}, 0, 1}, {[]string{"--range", "5-69999"}, 5, 70_000},
		{[]string{"--range", "99999-"}, 99_999, 100_000},
		{[]string{"--range=-10"}, 99_990, 100_000}, {[]string{"--range=-900000"}, 0, 100_000},
		{[]string{"--range", "99990-200000"}, 99_990, 100_000},
		{[]string{"--offset", "7"}, 7, 100_000}, {[]string{"--length", "9"}, 0, 9},
		{[]string{"--offset", "16384", "--length", "16384"}, 16_384, 32_768},
	} {
		out := u.must(append([]string{"file", "get", file}, test.args...)...)
		if out != string(content[test.first:test.last]) {
			t.Errorf("%v: %d other bytes", test.args, len(out))
		}
	}
	if out := u.must("file", "get", empty, "--offset", "0"); out != "" {
		t.Errorf("of an empty file: %q", out)
	}
	to := filepath.Join(t.TempDir(), "part")
	u.must("file", "get", file, "--range", "10-19", "-o", to)
	mustHold(t, to, content[10:20])
	for _, test := range []struct {
		args []string
		code int
	}{
		{[]string{file, "--range", "100000-"}, 1}, {[]string{file, "--offset", "100001"}, 1},
		{[]string{file, "--offset", "99999", "--length", "2"}, 1},
		{[]string{file, "--range", "5-2"}, 2}, {[]string{file, "--range", "x"}, 2},
		{[]string{file, "--range", "5"}, 2}, {[]string{file, "--range=-"}, 2},
		{[]string{file, "--range=-0"}, 2}, {[]string{file, "--range", "1-2,5-6"}, 2},
		{[]string{file, "--range", "1-2", "--length", "1"}, 2},
		{[]string{file, "--offset=-1"}, 2}, {[]string{image, "--range", "0-1"}, 2},
		{[]string{file + "/a", "--range", "0-1"}, 1},
	} {
		out, complaint, code := u.run(append([]string{"file", "get"}, test.args...)...)
		if code != test.code || out != "" {
			t.Errorf("%v: exit code %d, want %d: %s", test.args, code, test.code, complaint)
		}
	}
}

func TestPartialBelongsToOneCommand(t *testing.T) {
	u := started(t, honest)
	file := u.net.Storage.Keep([]byte("there"))
	to := filepath.Join(t.TempDir(), "x")
	part := filepath.Join(filepath.Dir(to), "."+file+".ucn-part")
	held, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, complaint, code := u.run("file", "get", file, "-o", to); code != cli.ExitFailed ||
		!strings.Contains(complaint, "another command fetches this") {
		t.Errorf("exit code %d: %s", code, complaint)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	u.must("file", "get", file, "-o", to)
	mustHold(t, to, []byte("there"))

	victim := saveAs(t, "victim", []byte("precious"))
	if err := os.Symlink(victim, part); err != nil {
		t.Fatal(err)
	}
	if _, complaint, code := u.run("file", "get", file, "-o", to); code != cli.ExitFailed {
		t.Errorf("through a link: exit code %d: %s", code, complaint)
	}
	mustHold(t, victim, []byte("precious"))
}
