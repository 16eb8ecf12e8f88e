package podman

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// What passes the filter is blobs that hash to their names and an index of our own, whatever the
// source holds beside them.
func TestFilterLayout(t *testing.T) {
	img := executortest.GuestImage(t)
	want, err := img.ID.Digest()
	if err != nil {
		t.Fatal(err)
	}
	var odd bytes.Buffer
	w := tar.NewWriter(&odd)
	for _, h := range []*tar.Header{
		{Name: "../../etc/passwd", Size: 1},
		{Name: "blobs/sha256/" + strings.Repeat("a", 64), Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		{Name: "blobs/sha256/../../x", Size: 1},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	config, err := filterLayout(&out, io.MultiReader(&odd, bytes.NewReader(img.Layout)), asked(want))
	if err != nil || config != img.Config {
		t.Fatalf("config %s, %v; want %s", config, err, img.Config)
	}
	names := entries(t, &out)
	if len(names) != 5 || !slices.Contains(names, "index.json") {
		t.Errorf("entries %q, want three blobs, the index and the layout's version", names)
	}
	for _, n := range names {
		if strings.Contains(n, "..") || strings.Contains(n, "aaaa") {
			t.Errorf("entry %q passed", n)
		}
	}
	other := "sha256:" + strings.Repeat("0", 64)
	_, err = filterLayout(io.Discard, bytes.NewReader(img.Layout), asked(other))
	if !errors.Is(err, executor.ErrImageMismatch) {
		t.Errorf("another image was taken for it: %v", err)
	}
}

func asked(digest string) layoutLimits {
	return layoutLimits{want: digest, most: defaultMaxUnpacked}
}

func entries(t *testing.T, r io.Reader) (names []string) {
	t.Helper()
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func FuzzFilterLayout(f *testing.F) {
	digest := "sha256:" + strings.Repeat("0", 64)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	doc := []byte(`{"manifests":[{"digest":"sha256:00"}]}`)
	h := &tar.Header{Name: "blobs/sha256/" + strings.Repeat("0", 64), Size: int64(len(doc))}
	if err := errors.Join(w.WriteHeader(h), writeAll(w, doc), w.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := filterLayout(io.Discard, bytes.NewReader(data), asked(digest)); err == nil {
			t.Error("bytes that hash to zeros")
		}
	})
}

func writeAll(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

func TestParseLog(t *testing.T) {
	at := time.Date(2026, 11, 21, 8, 21, 47, 958618129, time.UTC)
	for line, want := range map[string]executor.LogEntry{
		"2026-11-21T08:21:47.958618129+00:00 stdout F Name:\tguest x\n": {
			Stream: executor.Stdout, Time: at, Data: []byte("Name:\tguest x"),
		},
		"2026-11-21T09:21:47.958618129+01:00 stderr P part\n": {
			Stream: executor.Stderr, Time: at, Data: []byte("part"), Partial: true,
		},
		"2026-11-21T08:21:47.958618129Z stdout F \n": {
			Stream: executor.Stdout, Time: at, Data: []byte{},
		},
	} {
		got, err := parseLog([]byte(line))
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", line, d)
		}
	}
	for _, line := range []string{
		"", "\n", "2026-11-21T08:21:47Z stdout\n", "yesterday stdout F x\n",
		"2026-11-21T08:21:47Z stdin F x\n", "2026-11-21T08:21:47Z stdout X x\n",
	} {
		if e, err := parseLog([]byte(line)); err == nil {
			t.Errorf("%q was read as %+v", line, e)
		}
	}
}

func FuzzParseLog(f *testing.F) {
	f.Add([]byte("2026-11-21T08:21:47.958618129+00:00 stdout F x\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseLog(line)
		if err == nil && len(e.Data) > len(line) {
			t.Error("more data than line")
		}
	})
}

func TestTighten(t *testing.T) {
	profile, err := os.ReadFile(seccompSource)
	if err != nil {
		t.Fatalf("%v: %s", err, Install)
	}
	strict, err := tighten(profile)
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Syscalls []struct {
			Names  []string
			Action string
			Args   []any
		}
	}
	if err := json.Unmarshal(strict, &p); err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Syscalls {
		if r.Action != "SCMP_ACT_ALLOW" {
			continue
		}
		for _, n := range r.Names {
			if slices.Contains(denied, n) || n == "clone" && len(r.Args) == 0 {
				t.Errorf("%s is allowed", n)
			}
		}
	}
	for _, bad := range []string{"", "{}", `{"syscalls":[]}`, `{"syscalls":[{"names":1}]}`} {
		if _, err := tighten([]byte(bad)); err == nil {
			t.Errorf("%q was taken for a profile", bad)
		}
	}
}

func TestIDsAreNeverShared(t *testing.T) {
	dir := t.TempDir()
	d, err := openIDs(&Config{RunDir: dir, FirstID: 1000, IDCount: 2 * idsPerContainer})
	if err != nil {
		t.Fatal(err)
	}
	var owners [3]string
	for n := range owners {
		owners[n] = dir + "/" + string(rune('a'+n))
		if err := os.Mkdir(owners[n], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	claim := func(n int, want uint32) {
		t.Helper()
		got, err := d.claim(owners[n])
		if err != nil || got != want {
			t.Errorf("owner %d got %d, %v; want %d", n, got, err, want)
		}
	}
	claim(0, 1000)
	claim(1, 1000+idsPerContainer)
	claim(0, 1000) // again
	if _, err := d.claim(owners[2]); err == nil {
		t.Error("a range was handed out twice")
	}
	if err := d.release(owners[2], 1000); err != nil {
		t.Error(err)
	}
	if _, err := d.claim(owners[2]); err == nil {
		t.Error("a stranger gave the range back")
	}
	if err := d.release(owners[0], 1000); err != nil {
		t.Error(err)
	}
	claim(2, 1000)
	if err := os.Remove(owners[1]); err != nil { // its executor was deleted
		t.Fatal(err)
	}
	claim(0, 1000+idsPerContainer)
}

func TestWatcher(t *testing.T) {
	dir := t.TempDir()
	w, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	one, err := w.subscribe(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	all, err := w.subscribe(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(dir+"/two", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-all.C
	if err := writeWhole(dir+"/one", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-one.C
	all.cancel()
	one.cancel()
	again, err := w.subscribe(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
	for range again.C { // ends because it is closed
	}
	if _, err := w.subscribe(dir, ""); !errors.Is(err, os.ErrClosed) {
		t.Errorf("subscribing after close: %v", err)
	}
	again.cancel()
}
