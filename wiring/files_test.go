package wiring_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	gateway "github.com/united-containers/ucn/services/gateway/wire"
	storage "github.com/united-containers/ucn/services/storage/wire"
)

// Bounds of the storage behind files.
const (
	filesMaxBlob = 100_000
	filesQuota   = 250_000
)

// files is a gateway in front of a real storage service on real files.
type files struct {
	url      string
	audience sig.AccountID
}

// newFiles starts both; change may be nil.
func newFiles(t *testing.T, change func(*storage.Config)) *files {
	t.Helper()
	operator := eventtest.NewOperator(1)
	own := operator.Instance(t, "gateway")
	f := &files{audience: own.Cert.Operator}
	told := kittest.NewTelemetry(t, kittest.NewLog(t))
	pipe := &rpc.Pipe{}
	f.serveStorage(t, pipe, told, change)
	bus := broker.Default()
	bus.Dir, bus.Services = t.TempDir(), nil
	b, err := broker.New(bus, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, b)
	cfg := gateway.Default()
	cfg.HTTP.Addr = "127.0.0.1:0"
	g, err := gateway.New(t.Context(), cfg, &instance.Instance{
		Service: "gateway", Identity: own.Identity, Certificate: own.Cert,
		Chain: eventtest.Chain, Telemetry: told.MustService(t, "gateway"), Now: time.Now,
		Dialer:  rpc.NewPipeDialer(pipe, rpc.ClientDeps{}),
		Connect: func(name string) (*nats.Conn, error) { return b.Connect(name) },
	})
	if err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, g)
	f.url = g.URL()
	return f
}

func (f *files) serveStorage(
	t *testing.T, pipe *rpc.Pipe, told *kittest.Telemetry, change func(*storage.Config),
) {
	t.Helper()
	cfg := storage.Default()
	cfg.Dir, cfg.AnyAccount, cfg.OpenUploads = t.TempDir(), true, 2
	cfg.MaxBlob, cfg.Quota = filesMaxBlob, filesQuota
	if change != nil {
		change(&cfg)
	}
	own := eventtest.NewOperator(1).Instance(t, "storage")
	s, err := storage.New(t.Context(), cfg, &instance.Instance{
		Telemetry: told.MustService(t, "storage"), Certificate: own.Cert,
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := pipe.Listen("storage")
	if err != nil {
		t.Fatal(err)
	}
	front, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{
		Auth:     &token.Verifier{Audience: f.audience, Chains: []string{eventtest.Chain}},
		Listener: listener, Public: s.PublicMethods(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Register(front)
	kittest.Run(t, s)
	kittest.Run(t, front)
}

// ask is one request and what must come back.
type ask struct {
	name, method, path string
	header             map[string]string
	body               []byte
	user               byte // 0: Alice
	scopes             []string
	status             int
	reason             string // of a failure
	headers            map[string]string
}

// do sends a request, checks its answer and returns it.
func (f *files) do(t *testing.T, a ask) (*http.Response, []byte) {
	t.Helper()
	out, err := http.NewRequestWithContext(t.Context(), a.method, f.url+a.path,
		bytes.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if a.scopes == nil {
		a.scopes = []string{"file"}
	}
	text, err := token.Issue(keys.SingleSigner(sig.FromSeed([32]byte{50 + a.user})), token.Claims{
		Chain: eventtest.Chain, Audience: f.audience, Scopes: a.scopes,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	out.Header.Set("Authorization", "Bearer "+text)
	for name, value := range a.header {
		out.Header.Set(name, value)
	}
	got, err := http.DefaultClient.Do(out)
	if err != nil {
		t.Fatalf("%s: %v", a.name, err)
	}
	defer func() { _ = got.Body.Close() }() // read to its end below
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatalf("%s: read: %v", a.name, err)
	}
	var failure struct{ Reason, Message string }
	if a.reason != "" && a.method != "HEAD" {
		if err := json.Unmarshal(body, &failure); err != nil {
			t.Errorf("%s: the failure is no JSON: %q", a.name, body)
		}
	}
	if got.StatusCode != a.status || a.method != "HEAD" && failure.Reason != a.reason {
		t.Errorf("%s: status %d, %.200s; want %d %s", a.name, got.StatusCode, body, a.status, a.reason)
	}
	for name, want := range a.headers {
		if says := got.Header.Get(name); says != want {
			t.Errorf("%s: %s is %q, want %q", a.name, name, says, want)
		}
	}
	return got, body
}

func (f *files) put(t *testing.T, body []byte, user byte) (cid string) {
	t.Helper()
	_, answer := f.do(t, ask{name: "put", method: "PUT", path: "/v1/files", body: body, user: user,
		status: 201})
	var stored struct{ CID string }
	if err := json.Unmarshal(answer, &stored); err != nil || stored.CID == "" {
		t.Fatalf("put: %s, %v", answer, err)
	}
	return stored.CID
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	return b
}

func TestRangesOfStoredFiles(t *testing.T) {
	f := newFiles(t, nil)
	data := pattern(70_000)
	name := f.put(t, data, 0)
	path, etag := "/v1/files/"+name, `"`+name+`"`
	whole := map[string]string{"Content-Length": "70000", "ETag": etag, "Content-Range": ""}
	for _, a := range []struct {
		ask
		first, last int
	}{
		{ask{name: "whole", status: 200, headers: whole}, 0, 69_999},
		{ask{name: "one range", header: map[string]string{"Range": "bytes=5-40000"}, status: 206,
			headers: map[string]string{"Content-Range": "bytes 5-40000/70000"}}, 5, 40_000},
		{ask{name: "the last bytes", header: map[string]string{"Range": "bytes=-3"}, status: 206,
			headers: map[string]string{"Content-Length": "3"}}, 69_997, 69_999},
		{ask{name: "more than there is", header: map[string]string{"Range": "bytes=69999-90000"},
			status: 206, headers: map[string]string{"Content-Range": "bytes 69999-69999/70000"}},
			69_999, 69_999},
		{ask{name: "several ranges", header: map[string]string{"Range": "bytes=0-1,5-9"},
			status: 200, headers: whole}, 0, 69_999},
		{ask{name: "another unit", header: map[string]string{"Range": "lines=0-1"}, status: 200,
			headers: whole}, 0, 69_999},
		{ask{name: "if it is still this", status: 206,
			header: map[string]string{"Range": "bytes=1-2", "If-Range": etag}}, 1, 2},
		{ask{name: "it is another", status: 200, headers: whole,
			header: map[string]string{"Range": "bytes=1-2", "If-Range": `"other"`}}, 0, 69_999},
		{ask{name: "not modified", status: 304, headers: map[string]string{"ETag": etag},
			header: map[string]string{"If-None-Match": etag}}, 0, -1},
		{ask{name: "outside", header: map[string]string{"Range": "bytes=70000-"}, status: 416,
			reason:  "RANGE_NOT_SATISFIABLE",
			headers: map[string]string{"Content-Range": "bytes */70000", "ETag": ""}}, 0, -1},
		{ask{name: "no last bytes", header: map[string]string{"Range": "bytes=-0"}, status: 416,
			reason: "RANGE_NOT_SATISFIABLE"}, 0, -1},
		{ask{name: "head", method: "HEAD", status: 200, headers: whole}, 0, -1},
		{ask{name: "head outside", method: "HEAD", status: 416,
			header:  map[string]string{"Range": "bytes=70000-"},
			headers: map[string]string{"Content-Range": "bytes */70000"}}, 0, -1},
	} {
		a.path = path
		if a.method == "" {
			a.method = "GET"
		}
		_, body := f.do(t, a.ask)
		if a.reason == "" && !bytes.Equal(body, data[a.first:a.last+1]) {
			t.Errorf("%s: %d other bytes than %d to %d", a.name, len(body), a.first, a.last)
		}
	}
}

func TestStoredFilesAreRefused(t *testing.T) {
	f := newFiles(t, nil)
	mine, foreign := f.put(t, []byte("mine"), 0), f.put(t, []byte("another's"), 1)
	nobody := cid.OfFile([32]byte{1}).String()
	for _, a := range []ask{
		{name: "nobody's", method: "GET", path: "/v1/files/" + nobody, status: 404,
			reason: "BLOB_NOT_FOUND"},
		{name: "another's is answered like nobody's", method: "GET", path: "/v1/files/" + foreign,
			status: 404, reason: "BLOB_NOT_FOUND"},
		{name: "head of another's", method: "HEAD", path: "/v1/files/" + foreign, status: 404},
		{name: "stat of another's", method: "GET", path: "/v1/files/" + foreign + ":stat",
			status: 404, reason: "BLOB_NOT_FOUND"},
		{name: "removal of another's", method: "DELETE", path: "/v1/files/" + foreign, status: 404,
			reason: "BLOB_NOT_FOUND"},
		{name: "no CID", method: "GET", path: "/v1/files/picture.png", status: 400,
			reason: "BAD_CID"},
		{name: "a CID of another version", method: "GET", status: 400, reason: "BAD_CID",
			path: "/v1/files/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"},
		{name: "a token for something else", method: "GET", path: "/v1/files/" + mine,
			scopes: []string{"job"}, status: 403, reason: "SCOPE_MISSING"},
		{name: "a token for reading", method: "PUT", path: "/v1/files", body: []byte("x"),
			scopes: []string{"file:read"}, status: 403, reason: "SCOPE_MISSING"},
		{name: "a path in a file", method: "GET", path: "/v1/files/" + mine + "/inside",
			status: 400, reason: "NOT_A_DIRECTORY"},
		{name: "other bytes than its CID says", method: "PUT", path: "/v1/files?cid=" + nobody,
			body: []byte("x"), status: 400, reason: "CID_MISMATCH"},
		{name: "a name that is too long", method: "PUT", body: []byte("x"), status: 400,
			path: "/v1/files?name=" + strings.Repeat("n", 300), reason: "BAD_STORAGE_REQUEST"},
		{name: "larger than a file may be", method: "PUT", path: "/v1/files",
			body: make([]byte, filesMaxBlob+1), status: 413, reason: "BLOB_TOO_LARGE"},
		{name: "pages of nonsense", method: "GET", path: "/v1/files?page_token=AAAA", status: 400,
			reason: "BAD_STORAGE_REQUEST"},
		{name: "a page that is too long", method: "GET", path: "/v1/files?page_size=1001",
			status: 400, reason: "BAD_STORAGE_REQUEST"},
		{name: "removal of whatever", method: "POST", path: "/v1/files:removeMany",
			body: []byte("{}"), status: 400, reason: "BAD_STORAGE_REQUEST"},
		{name: "expiry in the past", method: "POST", path: "/v1/files/" + mine + ":setExpiry",
			body: []byte(`{"expires_ms":"1"}`), status: 400, reason: "BAD_STORAGE_REQUEST"},
		{name: "a collection", method: "POST", path: "/v1/storage:collect", body: []byte("{}"),
			status: 403, reason: "NOT_OPERATOR"},
	} {
		f.do(t, a)
	}
	f.do(t, ask{name: "pin", method: "POST", path: "/v1/files/" + mine + ":pin",
		body: []byte("{}"), status: 200})
	f.do(t, ask{name: "removal of a pinned one", method: "DELETE", path: "/v1/files/" + mine,
		status: 409, reason: "REFERENCE_PINNED"})
	if _, body := f.do(t, ask{name: "whole", method: "GET", path: "/v1/files/" + mine,
		status: 200}); string(body) != "mine" {
		t.Errorf("after all that it is %q", body)
	}
}

// TestCursorsOverREST: a place in one list says nothing about another.
func TestCursorsOverREST(t *testing.T) {
	f := newFiles(t, nil)
	for i := range 3 {
		f.put(t, []byte{byte(i)}, 0)
	}
	got, body := f.do(t, ask{name: "list", method: "GET", path: "/v1/files?page_size=1",
		status: 200})
	var page struct {
		Next string `json:"next_page_token"`
	}
	if err := json.Unmarshal(body, &page); err != nil || page.Next == "" ||
		!strings.Contains(got.Header.Get("Link"), `rel="next"`) {
		t.Fatalf("first page %s, Link %q, %v", body, got.Header.Get("Link"), err)
	}
	f.do(t, ask{name: "a place in a list, for a removal", method: "POST", status: 400,
		path:   "/v1/files:removeMany",
		body:   fmt.Appendf(nil, `{"all":true,"page_token":%q}`, page.Next),
		reason: "BAD_STORAGE_REQUEST"})
	f.do(t, ask{name: "its own", method: "GET", status: 200,
		path: "/v1/files?page_size=1&page_token=" + page.Next})
}

func TestUploadsAreRefused(t *testing.T) {
	f := newFiles(t, nil)
	start := func(user byte) string {
		t.Helper()
		_, body := f.do(t, ask{name: "start", method: "POST", path: "/v1/uploads", user: user,
			body: []byte(`{"kind":"KIND_FILE","size":"10"}`), status: 200})
		var got struct{ Upload struct{ ID string } }
		if err := json.Unmarshal(body, &got); err != nil || got.Upload.ID == "" {
			t.Fatalf("start: %s, %v", body, err)
		}
		return "/v1/uploads/" + got.Upload.ID
	}
	at := func(offset string) map[string]string { return map[string]string{"Upload-Offset": offset} }
	one, two := start(0), start(0)
	foreign := start(1)
	gone := "/v1/uploads/" + strings.Repeat("0", 32)
	f.do(t, ask{name: "five bytes", method: "PATCH", path: one, header: at("0"),
		body: []byte("01234"), status: 204, headers: map[string]string{"Upload-Offset": "5"}})
	for _, a := range []ask{
		{name: "a third one", method: "POST", path: "/v1/uploads", status: 429,
			body: []byte(`{"kind":"KIND_FILE"}`), reason: "TOO_MANY_UPLOADS"},
		{name: "one too large", method: "POST", path: "/v1/uploads", status: 413, user: 1,
			body: []byte(`{"kind":"KIND_FILE","size":"100001"}`), reason: "BLOB_TOO_LARGE"},
		{name: "of no kind", method: "POST", path: "/v1/uploads", status: 400, user: 1,
			body: []byte(`{"size":"1"}`), reason: "BAD_STORAGE_REQUEST"},
		{name: "bytes twice", method: "PATCH", path: one, header: at("0"), body: []byte("01234"),
			status: 409, reason: "UPLOAD_OFFSET_MISMATCH"},
		{name: "a gap", method: "PATCH", path: one, header: at("6"), body: []byte("6"),
			status: 409, reason: "UPLOAD_OFFSET_MISMATCH"},
		{name: "no offset", method: "PATCH", path: one, body: []byte("5"), status: 400,
			reason: "REQUEST_INVALID"},
		{name: "another's", method: "PATCH", path: foreign, header: at("0"), body: []byte("x"),
			status: 404, reason: "UPLOAD_NOT_FOUND"},
		{name: "where another's is", method: "GET", path: foreign, status: 404,
			reason: "UPLOAD_NOT_FOUND"},
		{name: "one that is gone", method: "PATCH", path: gone, header: at("0"),
			body: []byte("x"), status: 404, reason: "UPLOAD_NOT_FOUND"},
		{name: "the end of one that is gone", method: "POST", path: gone + ":finish",
			body: []byte("{}"), status: 404, reason: "UPLOAD_NOT_FOUND"},
		{name: "no id", method: "GET", path: "/v1/uploads/x", status: 400,
			reason: "BAD_STORAGE_REQUEST"},
		{name: "its end too early", method: "POST", path: one + ":finish", body: []byte("{}"),
			status: 400, reason: "BLOB_SIZE_MISMATCH"},
		{name: "more than announced", method: "PATCH", path: two, header: at("0"),
			body: []byte("0123456789a"), status: 400, reason: "BLOB_SIZE_MISMATCH"},
	} {
		f.do(t, a)
	}
	f.do(t, ask{name: "five more", method: "PATCH", path: one, header: at("5"),
		body: []byte("56789"), status: 204, headers: map[string]string{"Upload-Offset": "10"}})
	for range 2 { // the end may be asked for again
		f.do(t, ask{name: "end", method: "POST", path: one + ":finish", body: []byte("{}"),
			status: 200})
	}
	f.do(t, ask{name: "after its end", method: "PATCH", path: one, header: at("10"),
		body: []byte("a"), status: 409, reason: "UPLOAD_FINISHED"})
	f.do(t, ask{name: "abort", method: "DELETE", path: two, status: 200})
	f.do(t, ask{name: "after its abort", method: "GET", path: two, status: 404,
		reason: "UPLOAD_NOT_FOUND"})
}

// TestNoRoomForFiles: neither a quota nor a disk gets larger by trying again soon.
func TestNoRoomForFiles(t *testing.T) {
	quota := newFiles(t, nil)
	for i := range 2 {
		quota.put(t, append(pattern(filesMaxBlob-1), byte(i)), 0)
	}
	full := newFiles(t, func(c *storage.Config) { c.Reserve = config.Size(1 << 60) })
	for reason, f := range map[string]*files{
		"STORAGE_QUOTA_EXCEEDED": quota, "STORAGE_FULL": full,
	} {
		none := map[string]string{"Retry-After": ""}
		f.do(t, ask{name: "put", method: "PUT", path: "/v1/files", body: pattern(filesMaxBlob),
			status: 507, reason: reason, headers: none})
		f.do(t, ask{name: "upload", method: "POST", path: "/v1/uploads", status: 507, reason: reason,
			body: []byte(`{"kind":"KIND_FILE","size":"100000"}`), headers: none})
	}
	quota.put(t, []byte("others have room"), 1)
}
