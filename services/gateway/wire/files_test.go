package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/gateway/wire"
)

// someBytes are the same on every call with the same n.
func someBytes(n int) []byte {
	r := rand.New(rand.NewPCG(7, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// sizes of files around what is read and sent at once.
func sizes() []int { return []int{0, 1, 16 << 10, 256 << 10, 256<<10 + 1, 900_001} }

func TestFilesGoThereAndBack(t *testing.T) {
	w := newWorld(t, nil)
	for _, kind := range []string{"file", "oci"} {
		for n, size := range sizes() {
			data := someBytes(size)
			w.calls.take()
			method := []string{"PUT", "POST"}[n%2]
			got, body := w.do(t, request{method: method, body: bytes.NewReader(data),
				path: "/v1/files?name=a%20b&job=j&kind=" + kind})
			var stored struct{ CID, Size string }
			if err := json.Unmarshal(body, &stored); err != nil || got.StatusCode != 201 {
				t.Fatalf("put %s of %d: status %d, %s", kind, size, got.StatusCode, body)
			}
			head := w.calls.take()[0].request.(*storagev1.PutRequest).GetHeader()
			if head.GetName() != "a b" || head.GetJob() != "j" || head.GetSize() != uint64(size) {
				t.Errorf("header %v", head)
			}
			if stored.Size != fmt.Sprint(size) ||
				got.Header.Get("Location") != "/v1/files/"+stored.CID {
				t.Errorf("stored %+v", stored)
			}
			got, body = w.do(t, request{method: "GET", path: "/v1/files/" + stored.CID})
			if got.StatusCode != http.StatusOK || !bytes.Equal(body, data) ||
				got.ContentLength != int64(size) ||
				got.Header.Get("ETag") != `"`+stored.CID+`"` {
				t.Errorf("%s of %d: status %d, %d bytes, %v", kind, size, got.StatusCode,
					len(body), got.Header)
			}
		}
	}
}

func TestFileOfUnknownLength(t *testing.T) {
	w := newWorld(t, nil)
	data := someBytes(300_000)
	got, body := w.do(t, request{method: "POST", path: "/v1/files",
		body: io.MultiReader(bytes.NewReader(data))})
	named, _, err := cid.Sum(cid.File, bytes.NewReader(data))
	if err != nil || got.StatusCode != 201 || !strings.Contains(string(body), named.String()) {
		t.Errorf("status %d, %s", got.StatusCode, body)
	}
}

func TestRanges(t *testing.T) {
	w := newWorld(t, nil)
	data := someBytes(100_000)
	for _, kind := range []cid.Kind{cid.File, cid.OCIBlob} {
		named := w.files.add(t, kind, data)
		path := "/v1/files/" + named.String()
		for header, want := range map[string]struct {
			status      int
			first, last int
		}{
			"bytes=0-0":           {206, 0, 0},
			"bytes=10-70000":      {206, 10, 70000},
			"bytes=99999-":        {206, 99999, 99999},
			"bytes=99990-9999999": {206, 99990, 99999},
			"bytes=-5":            {206, 99995, 99999},
			"bytes=-500000":       {206, 0, 99999},
			"bytes=5-2":           {200, 0, 99999},
			"bytes=0-1,5-9":       {200, 0, 99999},
			"lines=1-2":           {200, 0, 99999},
		} {
			got, body := w.do(t, request{method: "GET", path: path,
				header: map[string]string{"Range": header}})
			if got.StatusCode != want.status || !bytes.Equal(body, data[want.first:want.last+1]) {
				t.Errorf("%s %s: status %d, %d bytes", kind, header, got.StatusCode, len(body))
			}
			says := got.Header.Get("Content-Range")
			if want.status == 206 && says != fmt.Sprintf("bytes %d-%d/100000", want.first,
				want.last) {
				t.Errorf("%s: Content-Range %q", header, says)
			}
		}
		got, body := w.do(t, request{method: "GET", path: path,
			header: map[string]string{"Range": "bytes=100000-"}})
		if f := failureOf(t, body); got.StatusCode != 416 || f.Reason != "RANGE_NOT_SATISFIABLE" ||
			got.Header.Get("Content-Range") != "bytes */100000" {
			t.Errorf("beyond the end: status %d, %+v", got.StatusCode, f)
		}
	}
}

func TestConditionsAndHead(t *testing.T) {
	w := newWorld(t, nil)
	data := someBytes(1000)
	path := "/v1/files/" + w.files.add(t, cid.File, data).String()
	etag := `"` + strings.TrimPrefix(path, "/v1/files/") + `"`
	tests := []struct {
		method, header, value string
		status, length        int
	}{
		{"HEAD", "", "", 200, 0}, {"GET", "If-None-Match", `"x", ` + etag, 304, 0},
		{"GET", "If-None-Match", `"x"`, 200, 1000}, {"GET", "If-Range", etag, 206, 10},
		{"GET", "If-Range", `"x"`, 200, 1000}, {"HEAD", "If-Range", etag, 206, 0},
	}
	for _, tt := range tests {
		header := map[string]string{tt.header: tt.value, "Range": "bytes=0-9"}
		if tt.header != "If-Range" {
			delete(header, "Range")
		}
		delete(header, "")
		got, body := w.do(t, request{method: tt.method, path: path, header: header})
		if got.StatusCode != tt.status || len(body) != tt.length {
			t.Errorf("%+v: status %d, %d bytes", tt, got.StatusCode, len(body))
		}
		if tt.method == "HEAD" && tt.status == 200 && got.ContentLength != 1000 {
			t.Errorf("HEAD says %d bytes", got.ContentLength)
		}
	}
	got, body := w.do(t, request{method: "GET",
		path: "/v1/files/" + cid.OfFile([32]byte{1}).String()})
	if f := failureOf(t, body); got.StatusCode != 404 || f.Reason != "BLOB_NOT_FOUND" {
		t.Errorf("missing: status %d, %+v", got.StatusCode, f)
	}
}

// TestDamagedBytesAreNotSentWhole checks that a client can tell, whatever the storage sends.
func TestDamagedBytesAreNotSentWhole(t *testing.T) {
	w := newWorld(t, nil)
	w.files.lie = true
	for _, size := range []int{10, 600_000} {
		named := w.files.add(t, cid.File, someBytes(size))
		for _, header := range []string{"", "bytes=1-"} {
			got := w.open(t.Context(), t, request{method: "GET", path: "/v1/files/" + named.String(),
				header: map[string]string{"Range": header}})
			body, err := io.ReadAll(got.Body)
			if err == nil && got.StatusCode < 300 {
				t.Errorf("%d bytes, range %q: status %d and %d bytes", size, header,
					got.StatusCode, len(body))
			}
			if err := got.Body.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPutIsRefused(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) { c.HTTP.MaxFile = 1000 })
	for _, tt := range []struct {
		query  string
		body   io.Reader
		status int
		reason string
	}{
		{"", bytes.NewReader(someBytes(1001)), 413, "BODY_TOO_LARGE"},
		{"", io.MultiReader(bytes.NewReader(someBytes(1001))), 413, "BODY_TOO_LARGE"},
		{"?kind=nonsense", strings.NewReader("x"), 400, "REQUEST_INVALID"},
		{"?cid=nonsense", strings.NewReader("x"), 400, "BAD_CID"},
	} {
		got, body := w.do(t, request{method: "PUT", path: "/v1/files" + tt.query, body: tt.body})
		if f := failureOf(t, body); got.StatusCode != tt.status || f.Reason != tt.reason {
			t.Errorf("%s: status %d, %+v", tt.query, got.StatusCode, f)
		}
	}
	if len(w.files.held) != 0 {
		t.Error("something was kept")
	}
}

// TestBrokenUploadKeepsNothing breaks the connection in the middle of a body.
func TestBrokenUploadKeepsNothing(t *testing.T) {
	w := newWorld(t, nil)
	reader, writer := io.Pipe()
	broken := errors.New("the line is cut")
	go func() {
		_, _ = writer.Write(someBytes(400_000)) // more than one chunk
		_ = writer.CloseWithError(broken)
	}()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", w.url+"/v1/files", reader)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.token(t, nil))
	if got, err := http.DefaultClient.Do(r); !errors.Is(err, broken) {
		t.Fatalf("%v, %v", got, err)
	}
	if err := w.stop(); err != nil { // all requests are over now
		t.Fatal(err)
	}
	if len(w.files.held) != 0 {
		t.Error("a part was kept")
	}
}
