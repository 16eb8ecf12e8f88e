package wire_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/kittest"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/gateway/wire"
)

func watchPath() string { return "/v1/jobs/" + id.Bech32(id.Job, anID()) + ":watch" }

// line reads one line of a stream as JSON.
func line(t *testing.T, r *bufio.Reader) map[string]json.RawMessage {
	t.Helper()
	text, err := r.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

func TestWatchStreamsAndEndsOnShutdown(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(&schedulerv1.Job{Reason: "one"})
	response := w.open(t.Context(), t, request{method: "GET", path: watchPath()})
	defer func() { _ = response.Body.Close() }()
	reader := bufio.NewReader(response.Body)
	if got := line(t, reader); !strings.Contains(string(got["result"]), `"one"`) {
		t.Errorf("first %s", got["result"])
	}
	w.jobs.set(&schedulerv1.Job{Reason: "two"})
	if got := line(t, reader); !strings.Contains(string(got["result"]), `"two"`) {
		t.Errorf("second %s", got["result"])
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if f := failureOf(t, line(t, reader)["error"]); f.Reason != "SERVER_DRAINING" {
		t.Errorf("at the end: %+v", f)
	}
}

func TestLogEndsOnShutdownAndWhenTheClientLeaves(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	left := make(chan struct{}, 2)
	w.host.answer(func(ctx context.Context, _ *executorv1.LogsRequest,
		send func(*executorv1.LogChunk) error,
	) error {
		err := send(chunk(0, 1, 10))
		<-ctx.Done()
		left <- struct{}{}
		return err
	})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	for _, c := range []context.Context{ctx, t.Context()} {
		response := w.open(c, t, request{method: "GET", path: logsPath("?follow=true")})
		defer func() { _ = response.Body.Close() }()
		reader := bufio.NewReader(response.Body)
		if e, err := nextEvent(reader); err != nil || e.name != "log" {
			t.Fatalf("%v, %v", e, err)
		}
		if c == ctx {
			leave()
			<-left // the host was told
			continue
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		e, err := nextEvent(reader)
		if err != nil || e.name != "error" || !strings.Contains(e.data, "SERVER_DRAINING") {
			t.Errorf("at the end: %v, %v", e, err)
		}
	}
	<-left
}

func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) { c.HTTP.MaxStreams = 1 })
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	first := w.open(ctx, t, request{method: "GET", path: watchPath()})
	defer func() { _ = first.Body.Close() }()
	for _, path := range []string{watchPath(), logsPath("")} {
		got, body := w.do(t, request{method: "GET", path: path})
		if f := failureOf(t, body); got.StatusCode != 429 || f.Reason != "GATEWAY_BUSY" ||
			got.Header.Get("Retry-After") != "1" {
			t.Errorf("%s: status %d, %+v", path, got.StatusCode, f)
		}
	}
}

// TestStreamsOfBlocksOfOneClientAreFew: to the ledger all clients are one address, whose share of
// its streams one of them must not use up. Other streams are open to it still.
func TestStreamsOfBlocksOfOneClientAreFew(t *testing.T) {
	w := newWorld(t, nil)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	events := map[string]string{"Accept": "text/event-stream"}
	watch := request{method: "GET", path: fmt.Sprint("/v1/blocks:watch?from=", heldBlocks)}
	for n := range 15 {
		if watch.header = nil; n%2 == 0 {
			watch.header = events
		}
		got := w.open(ctx, t, watch)
		defer func() { _ = got.Body.Close() }()
		if got.StatusCode != 200 {
			t.Fatalf("stream %d: status %d", n, got.StatusCode)
		}
	}
	for _, header := range []map[string]string{nil, events} {
		watch.header = header
		got, body := w.do(t, watch)
		if f := failureOf(t, body); got.StatusCode != 429 || f.Reason != "GATEWAY_BUSY" {
			t.Errorf("one more: status %d, %+v", got.StatusCode, f)
		}
	}
	job := w.open(ctx, t, request{method: "GET", path: watchPath()})
	defer func() { _ = job.Body.Close() }()
	if job.StatusCode != 200 {
		t.Errorf("a watch of a job: status %d", job.StatusCode)
	}
}

func TestRateLimitPerClient(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) { c.HTTP.RatePerSecond, c.HTTP.RateBurst = 0.001, 2 })
	for n := range 3 {
		got, body := w.do(t, request{method: "GET", path: "/v1/chains/main", anonymous: true})
		if n < 2 != (got.StatusCode == 200) {
			t.Errorf("request %d: status %d, %s", n, got.StatusCode, body)
		}
		if n == 2 && (got.StatusCode != 429 || got.Header.Get("Retry-After") == "") {
			t.Errorf("status %d, %v", got.StatusCode, got.Header)
		}
	}
}

func TestTraceContinuesThroughTheGateway(t *testing.T) {
	w := newWorld(t, nil)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	w.host.answer(func(context.Context, *executorv1.LogsRequest,
		func(*executorv1.LogChunk) error,
	) error {
		return nil
	})
	for _, path := range []string{"/v1/scheduler", logsPath("")} {
		w.do(t, request{method: "GET", path: path, header: map[string]string{
			"Traceparent": "00-" + trace + "-b7ad6b7169203331-01"}})
	}
	if err := w.stop(); err != nil { // every span of the gateway has ended then
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, span := range w.told.Spans() {
		if span.SpanContext.TraceID().String() == trace {
			found[span.Name] = true
		}
	}
	for _, want := range []string{"GET /v1/scheduler", "GET /v1/jobs/{id}/logs",
		"ucn.scheduler.v1.SchedulerService/GetScheduler", "bus executor.v1/Logs"} {
		if !found[want] {
			t.Errorf("no span %q in the client's trace: %v", want, found)
		}
	}
}

func TestHealthReadinessPageAndRequestID(t *testing.T) {
	w := newWorld(t, nil)
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": `"ready":true`, "/": "/v1/jobs",
	} {
		got, body := w.do(t, request{method: "GET", path: path, anonymous: true,
			header: map[string]string{"X-Request-Id": "mine-1"}})
		if got.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: status %d, %.200s", path, got.StatusCode, body)
		}
		if got.Header.Get("X-Request-Id") != "mine-1" {
			t.Errorf("%s: request id %q", path, got.Header.Get("X-Request-Id"))
		}
		if path == "/" && (strings.Contains(string(body), "<script") ||
			strings.Contains(string(body), "http://") || strings.Contains(string(body), "src=")) {
			t.Error("the page loads something")
		}
	}
	got, _ := w.do(t, request{method: "GET", path: "/metrics", anonymous: true,
		header: map[string]string{"X-Request-Id": "two words"}})
	if got.StatusCode != 404 || strings.Contains(got.Header.Get("X-Request-Id"), " ") {
		t.Errorf("status %d, request id %q", got.StatusCode, got.Header.Get("X-Request-Id"))
	}
}

func TestMetricsWhenGiven(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) {
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "up 1\n")
		})
	})
	_, body := w.do(t, request{method: "GET", path: "/metrics", anonymous: true})
	if string(body) != "up 1\n" {
		t.Errorf("%q", body)
	}
}

// TestSlowHeadersAndBodiesAreCutOff sends half of what it promised and waits for the answer.
func TestSlowHeadersAndBodiesAreCutOff(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) {
		c.HTTP.HeaderTime, c.HTTP.StallTime = 100*time.Millisecond, 100*time.Millisecond
	})
	address := strings.TrimPrefix(w.url, "http://")
	const rest = " HTTP/1.1\r\nHost: x\r\n"
	for text, want := range map[string]string{
		"GET /v1/chains/main" + rest:                            "",
		"POST /v1/faucet" + rest + "Content-Length: 9\r\n\r\n{": "408",
		"PUT /v1/files" + rest + "Authorization: Bearer " + w.token(t, nil) +
			"\r\nContent-Length: 9\r\n\r\nx": "408",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn) // ends because the gateway closes
		if err != nil || !strings.Contains(string(answer), want) {
			t.Errorf("%.20q: %v, %.300q", text, err, answer)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestIdleConnectionsAreBounded: connections beyond the bound are closed at once, not left to wait
// behind those that do nothing.
func TestIdleConnectionsAreBounded(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) { c.HTTP.MaxConnections = 2 })
	address := strings.TrimPrefix(w.url, "http://")
	for n := range 3 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if n < 2 {
			if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := conn.Read(make([]byte, 8))
		if closed := got == 0 && errors.Is(err, io.EOF) ||
			errors.Is(err, syscall.ECONNRESET); closed != (n == 2) {
			t.Errorf("connection %d: read %d, %v", n, got, err)
		}
	}
}

// TestTLS also checks over HTTP/2 that silence longer than a client may stall ends no stream: what
// keeps it alive comes after such a silence.
func TestTLS(t *testing.T) {
	certFile, keyFile := kittest.TLS(t)
	w := newWorld(t, func(c *wire.Config) {
		c.HTTP.TLSCert, c.HTTP.TLSKey = certFile, config.SecretFile(keyFile)
		c.HTTP.StallTime, c.HTTP.KeepAlive = 50*time.Millisecond, 200*time.Millisecond
	})
	pem, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
	}}
	defer client.CloseIdleConnections()
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	w.host.answer(func(ctx context.Context, _ *executorv1.LogsRequest,
		send func(*executorv1.LogChunk) error,
	) error {
		err := send(chunk(0, 1, 10))
		<-ctx.Done()
		return err
	})
	r, err := http.NewRequestWithContext(t.Context(), "GET", w.url+logsPath("?follow=true"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.token(t, nil))
	got, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	if got.ProtoMajor != 2 || !strings.HasPrefix(w.url, "https://") {
		t.Errorf("%s over %s", w.url, got.Proto)
	}
	reader := bufio.NewReader(got.Body)
	for comments := 0; comments < 3; {
		text, err := reader.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d signs of life: %v", comments, err)
		}
		if text == ":\n" {
			comments++
		}
	}
}

func TestConfigIsRefused(t *testing.T) {
	for field, change := range map[string]func(*wire.Config){
		"http.addr":            func(c *wire.Config) { c.HTTP.Addr = "0.0.0.0:7680" },
		"http.tls_cert":        func(c *wire.Config) { c.HTTP.TLSCert = "x" },
		"http.max_body":        func(c *wire.Config) { c.HTTP.MaxBody = 1 << 40 },
		"http.max_answers":     func(c *wire.Config) { c.HTTP.MaxAnswers = 1 },
		"http.max_file":        func(c *wire.Config) { c.HTTP.MaxFile = 0 },
		"http.max_streams":     func(c *wire.Config) { c.HTTP.MaxStreams = 0 },
		"http.max_time":        func(c *wire.Config) { c.HTTP.MaxTime = 0 },
		"http.rate_per_second": func(c *wire.Config) { c.HTTP.RatePerSecond = -1 },
	} {
		c := wire.Default()
		change(&c)
		var wrong *config.Error
		if err := c.Validate(); !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	c := wire.Default()
	c.HTTP.Addr, c.HTTP.Insecure = "0.0.0.0:7680", true
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// TestBodiesThatNeverCome: a request whose body is announced and never sent must not hold its
// connection, whether or not the route reads bodies, and whatever the size of the answer.
func TestBodiesThatNeverCome(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) { c.HTTP.StallTime = 300 * time.Millisecond })
	address := strings.TrimPrefix(w.url, "http://")
	for _, line := range []string{"GET /healthz", "GET /openapi.json", "GET /nowhere",
		"GET /v1/chains/main", "GET /v1/jobs/x/logs", "PUT /v1/files", "POST /v1/transactions"} {
		for _, length := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n",
				line, length); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s, %s: the connection is still open", line, length)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestAPostStaysAPost: a form must not turn into another method behind the routes, which decide
// what is counted as a stream and for how long it may go on.
func TestAPostStaysAPost(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) { c.HTTP.MaxTime = time.Second })
	for _, override := range []string{"", "GET", "DELETE"} {
		got, body := w.do(t, request{method: "POST", path: watchPath(), header: map[string]string{
			"Content-Type":           "application/x-www-form-urlencoded",
			"X-HTTP-Method-Override": override,
		}})
		if got.StatusCode != 405 && got.StatusCode != 404 {
			t.Errorf("override %q: status %d, %s", override, got.StatusCode, body)
		}
	}
}
