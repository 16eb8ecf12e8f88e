package wire_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
)

// folder holds a directory of one entry.
func (w *world) folder(t *testing.T, name string, c cid.CID, size int) (cid.CID, []byte) {
	t.Helper()
	raw, made, err := dir.Encode([]dir.Entry{{Name: name, CID: c, Size: int64(size), Mode: 0o755}})
	if err != nil {
		t.Fatal(err)
	}
	w.files.add(t, cid.Directory, raw)
	return made, raw
}

// fetched gets a file, or a part of it; bytes are nil when a client can tell that it is not whole.
func (w *world) fetched(t *testing.T, path, span string) (*http.Response, []byte) {
	t.Helper()
	got := w.open(t.Context(), t, request{method: "GET", path: path,
		header: map[string]string{"Range": span}})
	body, err := io.ReadAll(got.Body)
	if err := got.Body.Close(); err != nil {
		t.Error(err)
	}
	if err != nil {
		return got, nil
	}
	return got, body
}

// TestFileInsideADirectory: files and directories at a path, whole and in part, are served under
// the CID that stands there.
func TestFileInsideADirectory(t *testing.T) {
	w := newWorld(t, nil)
	data := someBytes(300_000)
	file := w.files.add(t, cid.File, data)
	inner, innerRaw := w.folder(t, "c.bin", file, len(data))
	root, _ := w.folder(t, "b", inner, len(data))
	for path, want := range map[string]struct {
		c    cid.CID
		data []byte
	}{"/b/c.bin": {file, data}, "/b": {inner, innerRaw}} {
		url := "/v1/files/" + root.String() + path
		got, body := w.fetched(t, url, "")
		if got.StatusCode != 200 || !bytes.Equal(body, want.data) ||
			got.Header.Get("ETag") != `"`+want.c.String()+`"` {
			t.Errorf("%s: status %d, %d bytes, %v", path, got.StatusCode, len(body), got.Header)
		}
		got, body = w.fetched(t, url, "bytes=3-40")
		if got.StatusCode != 206 || !bytes.Equal(body, want.data[3:41]) {
			t.Errorf("a part of %s: status %d, %d bytes", path, got.StatusCode, len(body))
		}
	}
	got, body := w.fetched(t, "/v1/files/"+root.String()+"/b/x", "")
	if got.StatusCode != 404 || failureOf(t, body).Reason != "NO_SUCH_PATH" {
		t.Errorf("nothing there: status %d, %s", got.StatusCode, body)
	}
}

// TestALyingStorageSubstitutesNothing: whatever it names or sends for a path, a client gets what
// the directories name or can tell that it did not.
func TestALyingStorageSubstitutesNothing(t *testing.T) {
	w := newWorld(t, nil)
	data, other := someBytes(300_000), someBytes(300_001)[:300_000]
	file, evil := w.files.add(t, cid.File, data), w.files.add(t, cid.File, other)
	inner, innerRaw := w.folder(t, "c.bin", file, len(data))
	evilInner, evilRaw := w.folder(t, "c.bin", evil, len(other))
	root, _ := w.folder(t, "b", inner, len(data))
	evilRoot, evilRootRaw := w.folder(t, "b", evilInner, len(other))
	type says map[string]struct {
		c    cid.CID
		data []byte
	}
	for name, lie := range map[string]says{
		"another file":           {"b/c.bin": {evil, other}},
		"other bytes":            {"b/c.bin": {file, other}},
		"a shorter file":         {"b/c.bin": {file, data[:1000]}},
		"another directory":      {"b": {inner, evilRaw}, "b/c.bin": {evil, other}},
		"another, named as such": {"b": {evilInner, evilRaw}, "b/c.bin": {evil, other}},
		"another root":           {"": {root, evilRootRaw}, "b/c.bin": {evil, other}},
		"a whole other tree": {"": {evilRoot, evilRootRaw}, "b": {evilInner, evilRaw},
			"b/c.bin": {evil, other}},
		"no directory":              {"b": {inner, data[:20]}, "b/c.bin": {evil, other}},
		"a cut directory":           {"b": {inner, innerRaw[:len(innerRaw)-1]}, "b/c.bin": {evil, other}},
		"the directory as the file": {"b/c.bin": {inner, innerRaw}},
	} {
		w.files.at = func(path string) (cid.CID, []byte) { return lie[path].c, lie[path].data }
		for _, span := range []string{"", "bytes=0-99", "bytes=200000-"} {
			got, body := w.fetched(t, "/v1/files/"+root.String()+"/b/c.bin", span)
			if got.StatusCode < 300 && body != nil {
				t.Errorf("%s, range %q: status %d, %d bytes", name, span, got.StatusCode, len(body))
			}
			if got.StatusCode >= 300 && (got.StatusCode != 500 ||
				failureOf(t, body).Reason != "FILE_NOT_GENUINE") {
				t.Errorf("%s, range %q: status %d, %s", name, span, got.StatusCode, body)
			}
		}
		got, _ := w.do(t, request{method: "HEAD", path: "/v1/files/" + root.String() + "/b/c.bin"})
		if etag := got.Header.Get("ETag"); got.StatusCode < 300 && etag != `"`+file.String()+`"` {
			t.Errorf("%s: HEAD names %s", name, etag)
		}
	}
}
