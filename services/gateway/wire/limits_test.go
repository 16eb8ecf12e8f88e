package wire_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/gateway/server"
	"github.com/united-containers/ucn/services/gateway/wire"
)

// another is the same world seen by another user.
func (w *world) another(seed byte) *world {
	other := *w
	other.user = keys.SingleSigner(sig.FromSeed([32]byte{seed}))
	return &other
}

func TestRatesArePerAccount(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) {
		c.HTTP.Rates.Read = server.Rate{PerSecond: 0.001, Burst: 2}
		c.HTTP.Rates.Write = server.Rate{PerSecond: 0.001, Burst: 1}
	})
	read := request{method: "GET", path: "/v1/scheduler"}
	for i, left := range []string{"1", "0"} {
		got, body := w.do(t, read)
		if got.StatusCode != http.StatusOK || got.Header.Get("RateLimit-Policy") != `"read";q=2;w=2000` ||
			!strings.HasPrefix(got.Header.Get("RateLimit"), `"read";r=`+left) {
			t.Fatalf("request %d: status %d, %q, %q: %s", i, got.StatusCode,
				got.Header.Get("RateLimit-Policy"), got.Header.Get("RateLimit"), body)
		}
	}
	got, body := w.do(t, read)
	f := failureOf(t, body)
	if got.StatusCode != http.StatusTooManyRequests || f.Reason != "RATE_LIMITED" ||
		f.Metadata["limit"] != "read" || f.RetryAfterMS == 0 || got.Header.Get("Retry-After") == "" {
		t.Errorf("the third: status %d, %+v", got.StatusCode, f)
	}
	// Another account at the same address, and another kind, have buckets of their own.
	if got, _ := w.another(97).do(t, read); got.StatusCode != http.StatusOK {
		t.Errorf("another account: status %d", got.StatusCode)
	}
	write := request{method: "POST", path: "/v1/faucet", body: strings.NewReader("{}")}
	if got, _ := w.do(t, write); got.StatusCode != http.StatusOK {
		t.Errorf("a write: status %d", got.StatusCode)
	}
	// A forged token takes nothing from the account that it names: its address pays.
	forged := w.token(t, nil)
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	victim := w.another(96)
	for range 3 {
		w.do(t, request{method: "GET", path: "/v1/scheduler",
			header: map[string]string{"Authorization": "Bearer " + forged}})
	}
	if got, _ := victim.do(t, read); got.StatusCode != http.StatusOK {
		t.Errorf("after forged tokens: status %d", got.StatusCode)
	}
}

func TestRatesPerAddress(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) {
		c.HTTP.Rates.Address = server.Rate{PerSecond: 0.001, Burst: 2}
	})
	for i, want := range []int{200, 200, 429} {
		got, _ := w.another(byte(100+i)).do(t, request{method: "GET", path: "/v1/scheduler"})
		if got.StatusCode != want {
			t.Errorf("request %d: status %d, want %d", i, got.StatusCode, want)
		}
	}
}

func TestIdempotencyKeys(t *testing.T) {
	w := newWorld(t, nil)
	ask := func(u *world, key, body string) (*http.Response, []byte) {
		return u.do(t, request{method: "POST", path: "/v1/faucet", body: strings.NewReader(body),
			header: map[string]string{"Idempotency-Key": key}})
	}
	first, body := ask(w, "k1", `{"chain":"main"}`)
	again, same := ask(w, "k1", `{"chain":"main"}`)
	if first.StatusCode != 200 || again.StatusCode != 200 || string(body) != string(same) ||
		again.Header.Get("Idempotency-Replayed") != "true" ||
		again.Header.Get("Content-Type") != first.Header.Get("Content-Type") {
		t.Errorf("answered %d %s, then %d %s %v", first.StatusCode, body, again.StatusCode, same,
			again.Header)
	}
	if n := len(w.calls.take()); n != 1 {
		t.Errorf("it was called %d times", n)
	}
	other, text := ask(w, "k1", `{"chain":"other"}`)
	if f := failureOf(t, text); other.StatusCode != 422 || f.Reason != "IDEMPOTENCY_KEY_REUSED" {
		t.Errorf("another body: status %d, %+v", other.StatusCode, f)
	}
	if got, _ := ask(w.another(95), "k1", `{"chain":"other"}`); got.StatusCode != 200 ||
		got.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("another account's key: status %d, %v", got.StatusCode, got.Header)
	}
	if got, text := ask(w, strings.Repeat("k", 256), "{}"); got.StatusCode != 400 {
		t.Errorf("a long key: status %d, %s", got.StatusCode, text)
	}
	w.calls.take()
	w.calls.fail(fault.New(fault.Unavailable, "AWAY", "later"))
	if got, _ := ask(w, "k2", "{}"); got.StatusCode != 503 {
		t.Errorf("status %d", got.StatusCode)
	}
	w.calls.fail(nil)
	if got, _ := ask(w, "k2", "{}"); got.StatusCode != 200 || len(w.calls.take()) != 2 {
		t.Errorf("a failure that may pass was remembered: status %d", got.StatusCode)
	}
}

func TestCORS(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) {
		c.HTTP.CORSOrigins = []string{"https://app.example.org", "http://localhost:*"}
	})
	ask := func(method, origin string, more map[string]string) *http.Response {
		header := map[string]string{"Origin": origin}
		for name, value := range more {
			header[name] = value
		}
		got, _ := w.do(t, request{method: method, path: "/v1/scheduler", header: header})
		return got
	}
	for origin, allowed := range map[string]bool{
		"https://app.example.org": true, "http://localhost:5173": true, "http://localhost": true,
		"https://evil.example.org": false, "http://localhost:x": false, "null": false,
		"http://localhost:1.evil.org": false, "https://app.example.org:444": false,
	} {
		got := ask("GET", origin, nil)
		if (got.Header.Get("Access-Control-Allow-Origin") == origin) != allowed ||
			got.Header.Get("Access-Control-Allow-Credentials") != "" || got.Header.Get("Vary") != "Origin" {
			t.Errorf("%s: %v", origin, got.Header)
		}
	}
	pre := ask("OPTIONS", "http://localhost:1", map[string]string{
		"Access-Control-Request-Method": "POST"})
	if pre.StatusCode != 204 || !strings.Contains(pre.Header.Get("Access-Control-Allow-Headers"),
		"Authorization") || !strings.Contains(pre.Header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("preflight: status %d, %v", pre.StatusCode, pre.Header)
	}
	if got := ask("OPTIONS", "https://evil.example.org", map[string]string{
		"Access-Control-Request-Method": "POST"}); got.StatusCode < 400 {
		t.Errorf("a stranger's preflight: status %d", got.StatusCode)
	}
	plain := newWorld(t, nil)
	got, _ := plain.do(t, request{method: "GET", path: "/v1/scheduler",
		header: map[string]string{"Origin": "http://localhost"}})
	if got.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("origins are allowed by default")
	}
	for _, origin := range []string{"app.example.org", "ftp://x", "https://x/path", "https://"} {
		c := wire.Default()
		c.HTTP.CORSOrigins = []string{origin}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "http.cors_origins") {
			t.Errorf("origin %q: %v", origin, err)
		}
	}
	c := wire.Default()
	c.HTTP.Rates.Write = server.Rate{PerSecond: 1}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "http.rates.write") {
		t.Errorf("a rate without burst: %v", err)
	}
}

func TestPagesAreLinked(t *testing.T) {
	w := newWorld(t, nil)
	got, _ := w.do(t, request{method: "GET", path: "/v1/jobs?page_size=2&states=STATE_RUNNING"})
	want := `</v1/jobs?page_size=2&page_token=more&states=STATE_RUNNING>; rel="next"`
	if link := got.Header.Get("Link"); link != want {
		t.Errorf("Link is %q, want %q", link, want)
	}
	got, _ = w.do(t, request{method: "GET", path: "/v1/jobs?page_token=more"})
	if link := got.Header.Get("Link"); link != "" {
		t.Errorf("the last page links to %q", link)
	}
}

// heard reads n events of a stream as "name id".
func (w *world) heard(t *testing.T, path, last string, n int) (list []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	header := map[string]string{"Accept": "text/event-stream"}
	if last != "" {
		header["Last-Event-ID"] = last
	}
	got := w.open(ctx, t, request{method: "GET", path: path, header: header})
	defer func() { _ = got.Body.Close() }()
	if kind := got.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("status %d, %s", got.StatusCode, kind)
	}
	lines := bufio.NewScanner(got.Body)
	name, place := "", ""
	for len(list) < n && lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case key == "event":
			name, place = value, ""
		case key == "id":
			place = value
		case key == "" && name != "":
			list = append(list, strings.TrimSpace(name+" "+place))
			name = ""
		}
	}
	return list
}

func TestWatchesAsEvents(t *testing.T) {
	w := newWorld(t, nil)
	blocks := w.heard(t, "/v1/blocks:watch?from=7", "", 2)
	if fmt.Sprint(blocks) != "[block 7 block 8]" {
		t.Errorf("blocks: %v", blocks)
	}
	if again := w.heard(t, "/v1/blocks:watch?from=7", "8", 1); fmt.Sprint(again) != "[block 9]" {
		t.Errorf("after block 8: %v", again)
	}
	// heard fails on what is no stream of events.
	if none := w.heard(t, fmt.Sprint("/v1/blocks:watch?from=", noBlocks), "", 1); len(none) != 0 {
		t.Errorf("without blocks: %v", none)
	}
	path := "/v1/jobs/" + id.Bech32(id.Job, anID()) + ":watch"
	w.jobs.set(&schedulerv1.Job{State: jobv1.State_STATE_RUNNING})
	first := w.heard(t, path, "", 1)
	if len(first) != 1 || !strings.HasPrefix(first[0], "job ") {
		t.Fatalf("job: %v", first)
	}
	w.jobs.set(&schedulerv1.Job{State: jobv1.State_STATE_ENDED})
	if rest := w.heard(t, path, "", 2); len(rest) != 2 || rest[0] == first[0] || rest[1] != "end" {
		t.Errorf("the end: %v", rest)
	}
	last := strings.TrimPrefix(w.heard(t, path, "", 1)[0], "job ")
	if rest := w.heard(t, path, last, 1); fmt.Sprint(rest) != "[end]" {
		t.Errorf("after the end was seen: %v", rest)
	}
	w.jobs.set(&schedulerv1.Job{State: jobv1.State_STATE_ENDED, Reason: "changed"})
	if rest := w.heard(t, path, last, 2); len(rest) != 2 || rest[0] == "job "+last {
		t.Errorf("after the last change: %v", rest)
	}
	for _, bad := range []string{"/v1/blocks:watch?from=x", "/v1/blocks:watch?bodies=maybe"} {
		got, body := w.do(t, request{method: "GET", path: bad,
			header: map[string]string{"Accept": "text/event-stream"}})
		if got.StatusCode != 400 || failureOf(t, body).Reason != "REQUEST_INVALID" {
			t.Errorf("%s: status %d, %s", bad, got.StatusCode, body)
		}
	}
}

func TestDocsPageNeedsNobodyElse(t *testing.T) {
	w := newWorld(t, nil)
	got, body := w.do(t, request{method: "GET", path: "/docs", anonymous: true})
	text := string(body)
	if got.StatusCode != 200 || !strings.Contains(text, "/v1/escrows/{escrow}/events") ||
		!strings.Contains(text, `id="schema-v1Header"`) {
		t.Fatalf("status %d: %.300s", got.StatusCode, text)
	}
	// Every call says what it does, and can be tried with all that it takes.
	if strings.Contains(text, `<span class="what"></span></summary>`+"\n"+`<div class="inside">`+
		"\n\n<form>") {
		t.Error("a call has no description")
	}
	_, script := w.do(t, request{method: "GET", path: "/docs/docs.js", anonymous: true})
	for _, in := range []string{"path", "query", "header", "body", "file"} {
		if !strings.Contains(text, `data-in="`+in+`"`) ||
			!strings.Contains(string(script), `case "`+in+`":`) {
			t.Errorf("a form cannot send what goes into the %s", in)
		}
	}
	policy := got.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	for _, foreign := range []string{`src="http`, `href="http`, "//cdn", "@import"} {
		if strings.Contains(text, foreign) {
			t.Errorf("the page has %q", foreign)
		}
	}
	for path, kind := range map[string]string{"/docs/docs.js": "text/javascript",
		"/docs/docs.css": "text/css"} {
		got, _ := w.do(t, request{method: "GET", path: path, anonymous: true})
		if got.StatusCode != 200 || !strings.HasPrefix(got.Header.Get("Content-Type"), kind) {
			t.Errorf("%s: status %d, %v", path, got.StatusCode, got.Header)
		}
	}
	got, _ = w.do(t, request{method: "GET", path: "/docs/x", anonymous: true})
	if got.StatusCode != 404 {
		t.Errorf("another file: status %d", got.StatusCode)
	}
}
