package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/token"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// sse is one server-sent event.
type sse struct {
	name, id, data string
}

// nextEvent reads one event, passing over comments.
func nextEvent(r *bufio.Reader) (sse, error) {
	var e sse
	for {
		text, err := r.ReadString('\n')
		if err != nil {
			return e, err
		}
		text = strings.TrimSuffix(text, "\n")
		field, value, _ := strings.Cut(text, ": ")
		switch {
		case text == "" && e.name != "":
			return e, nil
		case field == "event":
			e.name = value
		case field == "id":
			e.id = value
		case field == "data":
			e.data = value
		}
	}
}

// allEvents reads to the end of a body.
func allEvents(t *testing.T, body []byte) []sse {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(body))
	var out []sse
	for {
		e, err := nextEvent(r)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
}

// texts returns the lines of an event "log".
func texts(t *testing.T, e sse) []string {
	t.Helper()
	var data struct {
		Lines []struct {
			Time         int64
			Stream, Text string
		}
	}
	if err := json.Unmarshal([]byte(e.data), &data); err != nil {
		t.Fatalf("%s: %v", e.data, err)
	}
	var out []string
	for _, l := range data.Lines {
		out = append(out, fmt.Sprint(l.Time, " ", l.Stream, " ", l.Text))
	}
	return out
}

// onHost is a job with one attempt on a host.
func onHost(t *testing.T, certificate []byte, state jobv1.State, log string) *schedulerv1.Job {
	t.Helper()
	c := &identityv1.Certificate{}
	if err := canon.Unmarshal(certificate, c); err != nil {
		t.Fatal(err)
	}
	at := &schedulerv1.Attempt{Id: []byte("attempt 1"), State: state, Executor: c,
		Status: &jobv1.AttemptStatus{}}
	if state == jobv1.State_STATE_ENDED {
		at.Status.Outcome = &jobv1.Outcome{LogCid: log}
	}
	return &schedulerv1.Job{State: state, Runs: []*schedulerv1.Run{
		{Attempts: []*schedulerv1.Attempt{{Id: []byte("attempt 0")}, at}},
	}}
}

const running, over = jobv1.State_STATE_RUNNING, jobv1.State_STATE_ENDED

// chunk is n lines that begin with line from.
func chunk(from, n int, next uint64) *executorv1.LogChunk {
	c := &executorv1.LogChunk{NextOffset: next}
	for i := range n {
		c.Lines = append(c.Lines, &executorv1.LogLine{Time: uint64(from + i),
			Stream: executorv1.Stream_STREAM_STDOUT, Text: fmt.Appendf(nil, "line %d", from+i)})
	}
	return c
}

// storeLog puts lines 0 to n-1 into storage as an executor does.
func storeLog(t *testing.T, w *world, n int) string {
	t.Helper()
	var text bytes.Buffer
	for i := range n {
		fmt.Fprintf(&text, `{"time":%d,"stream":"stdout","text":"line %d"}`+"\n", i, i)
	}
	return w.files.add(t, cid.File, text.Bytes()).String()
}

func logsPath(query string) string {
	return "/v1/jobs/" + id.Bech32(id.Job, anID()) + "/logs" + query
}

func wantLines(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("%d stdout line %d", i, i))
	}
	return out
}

func TestLogFromHostResumesAfterLastEvent(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	w.host.answer(func(_ context.Context, m *executorv1.LogsRequest,
		send func(*executorv1.LogChunk) error,
	) error {
		raw := anID()
		if !m.Follow || string(m.Attempt) != "attempt 1" || !bytes.Equal(m.Job, raw[:]) {
			return fmt.Errorf("asked for %v", m)
		}
		if m.Offset == 0 {
			if err := send(chunk(0, 2, 1<<40+20)); err != nil {
				return err
			}
		}
		return send(chunk(2, 1, 1<<40+30))
	})
	_, body := w.do(t, request{method: "GET", path: logsPath("?follow=true")})
	got := allEvents(t, body)
	if len(got) != 3 || got[0].name != "log" || got[1].name != "log" || got[2].name != "end" {
		t.Fatalf("events %v", got)
	}
	if diff := cmp.Diff(wantLines(0, 2), texts(t, got[0])); diff != "" {
		t.Error(diff)
	}
	asked := w.calls.take()
	if last := asked[len(asked)-1]; last.method != "Logs" ||
		!bytes.Equal(last.request.(*executorv1.LogsRequest).GetAccount(), w.user.Account[:]) {
		t.Errorf("the host was asked %+v", last)
	}
	for name, r := range map[string]request{
		"header": {path: logsPath("?follow=true"),
			header: map[string]string{"Last-Event-ID": got[0].id}},
		"query":  {path: logsPath("?follow=1&offset=" + got[0].id)},
		"number": {path: logsPath("?follow=1&offset=1099511627796")},
	} {
		r.method = "GET"
		_, body = w.do(t, r)
		again := allEvents(t, body)
		if len(again) != 2 {
			t.Fatalf("%s: events %v", name, again)
		}
		if diff := cmp.Diff(wantLines(2, 3), texts(t, again[0])); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	ended, _ := w.do(t, request{method: "GET", path: logsPath("?follow=true"),
		header: map[string]string{"Last-Event-ID": got[2].id}})
	if ended.StatusCode != http.StatusNoContent {
		t.Errorf("after the end: status %d", ended.StatusCode)
	}
}

func TestLogGoesOnFromStorage(t *testing.T) {
	w := newWorld(t, nil)
	const lines = 700 // more than one event holds
	log := storeLog(t, w, lines)
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	w.host.answer(func(_ context.Context, m *executorv1.LogsRequest,
		send func(*executorv1.LogChunk) error,
	) error {
		if err := send(chunk(0, 5, 50)); err != nil {
			return err
		}
		// The end comes while the log is read, and the host lets go of it.
		w.jobs.set(onHost(t, w.host.Identity.Certificate, over, log))
		return fault.New(fault.FailedPrecondition, "LOG_GONE", "it is a file now")
	})
	_, body := w.do(t, request{method: "GET", path: logsPath("?follow=true")})
	var all []string
	events := allEvents(t, body)
	for _, e := range events[:len(events)-1] {
		if e.name != "log" {
			t.Fatalf("event %v", e)
		}
		all = append(all, texts(t, e)...)
	}
	if diff := cmp.Diff(wantLines(0, lines), all); diff != "" {
		t.Error(diff)
	}
	middle := events[1]
	if !strings.HasPrefix(middle.id, "stored-") {
		t.Errorf("id %q", middle.id)
	}
	from := 5 + len(texts(t, middle))
	_, body = w.do(t, request{method: "GET", path: logsPath(""),
		header: map[string]string{"Last-Event-ID": middle.id}})
	all = nil
	for _, e := range allEvents(t, body) {
		if e.name == "log" {
			all = append(all, texts(t, e)...)
		}
	}
	if diff := cmp.Diff(wantLines(from, lines), all); diff != "" {
		t.Errorf("resumed in storage: %s", diff)
	}
}

func TestLogOfUncountedReaderBeginsAnewInStorage(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(onHost(t, w.host.Identity.Certificate, over, storeLog(t, w, 3)))
	_, body := w.do(t, request{method: "GET", path: logsPath("?offset=77")})
	got := allEvents(t, body)
	if len(got) != 3 || got[0].name != "restart" || got[2].name != "end" {
		t.Fatalf("events %v", got)
	}
	if diff := cmp.Diff(wantLines(0, 3), texts(t, got[1])); diff != "" {
		t.Error(diff)
	}
}

func TestFollowedLogWaitsForAHost(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(&schedulerv1.Job{State: jobv1.State_STATE_PENDING})
	got, body := w.do(t, request{method: "GET", path: logsPath("")})
	if f := failureOf(t, body); got.StatusCode != 404 || f.Reason != "NO_ATTEMPT" {
		t.Errorf("not followed: status %d, %+v", got.StatusCode, f)
	}
	w.host.answer(func(_ context.Context, _ *executorv1.LogsRequest,
		send func(*executorv1.LogChunk) error,
	) error {
		return send(chunk(0, 1, 10))
	})
	// The headers come before any event, so that the client knows that it is connected.
	response := w.open(t.Context(), t, request{method: "GET", path: logsPath("?follow=true")})
	if response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("headers %v", response.Header)
	}
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	all, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := allEvents(t, all); len(got) != 2 || got[0].name != "log" || got[1].id != "end" {
		t.Errorf("events %v", got)
	}
}

func TestLogRefusals(t *testing.T) {
	w := newWorld(t, nil)
	w.host.answer(func(context.Context, *executorv1.LogsRequest,
		func(*executorv1.LogChunk) error,
	) error {
		return fault.New(fault.PermissionDenied, "NOT_YOURS", "only its owner may")
	})
	stranger := eventtest.NewOperator(9).Instance(t, "scheduler") // certified, but no executor
	offline := eventtest.NewOperator(2).Instance(t, "executor")
	for2 := w.token(t, readOnly(offline.Cert.Operator))
	damaged := w.files.add(t, cid.File, []byte("{}\nnonsense\n")).String()
	own := w.host.Identity.Certificate
	tests := []struct {
		name, query string
		job         *schedulerv1.Job
		status      int
		reason      string
	}{
		{"another's", "", onHost(t, own, running, ""), 403, "NOT_YOURS"},
		{"not an executor", "", onHost(t, stranger.Identity.Certificate, running, ""), 503,
			"EXECUTOR_NOT_CERTIFIED"},
		{"host away", "", onHost(t, offline.Identity.Certificate, running, ""), 503,
			"INSTANCE_NOT_CONNECTED"},
		{"no such attempt", "?attempt=abcd", onHost(t, own, running, ""), 404, "NO_ATTEMPT"},
		{"bad attempt", "?attempt=%20", onHost(t, own, running, ""), 400, "ID_INVALID"},
		{"bad follow", "?follow=maybe", onHost(t, own, running, ""), 400, "REQUEST_INVALID"},
		{"bad offset", "?offset=x", onHost(t, own, running, ""), 400, "REQUEST_INVALID"},
		{"stored too early", "?offset=stored-1", onHost(t, own, running, ""), 400,
			"REQUEST_INVALID"},
		{"lost log", "", onHost(t, own, over, cid.OfFile([32]byte{3}).String()), 404,
			"BLOB_NOT_FOUND"},
		{"log without a CID", "", onHost(t, own, over, "nonsense"), 500, "NO_LOG"},
		{"damaged log", "", onHost(t, own, over, damaged), 500, "LOG_DAMAGED"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.jobs.set(tt.job)
			ask := request{method: "GET", path: logsPath(tt.query)}
			if tt.name == "host away" {
				ask.header = map[string]string{"Ucn-Executor-Token": for2}
			}
			got, body := w.do(t, ask)
			if f := failureOf(t, body); got.StatusCode != tt.status || f.Reason != tt.reason {
				t.Errorf("status %d, %+v", got.StatusCode, f)
			}
		})
	}
	w.jobs.set(onHost(t, own, over, "")) // an empty log is no file
	_, body := w.do(t, request{method: "GET", path: logsPath("?follow=true")})
	w.host.answer(func(context.Context, *executorv1.LogsRequest,
		func(*executorv1.LogChunk) error,
	) error {
		return nil
	})
	if got := allEvents(t, body); len(got) > 1 {
		t.Errorf("an empty log: events %v", got)
	}
}

// readOnly makes claims that another operator's host may see.
func readOnly(audience sig.AccountID, scopes ...string) func(*token.Claims) {
	if len(scopes) == 0 {
		scopes = []string{"job:read"}
	}
	return func(c *token.Claims) { c.Audience, c.Scopes = audience, scopes }
}

// logOf is the request for a log that a host saw; nil if it saw none.
func (w *world) logOf() *called {
	for _, c := range w.calls.take() {
		if c.method == "Logs" {
			return &c
		}
	}
	return nil
}

// TestOwnHostsSeeNoToken: the gateway reads in its own name for whom it has proven.
func TestOwnHostsSeeNoToken(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	var instance bool
	w.host.answer(func(ctx context.Context, _ *executorv1.LogsRequest,
		send func(*executorv1.LogChunk) error,
	) error {
		c, ok := bus.InstanceFrom(ctx)
		instance = ok && c.Covers("gateway")
		return send(chunk(0, 1, 10))
	})
	get := func(text string) (*http.Response, []byte) {
		return w.do(t, request{method: "GET", path: logsPath(""), anonymous: true,
			header: map[string]string{"Authorization": "Bearer " + text}})
	}
	_, body := get(w.token(t, nil))
	seen := w.logOf()
	if seen == nil || !instance || seen.account != w.audience ||
		!bytes.Equal(seen.request.(*executorv1.LogsRequest).GetAccount(), w.user.Account[:]) {
		t.Errorf("the host saw %+v, of an instance: %v", seen, instance)
	}
	if events := allEvents(t, body); len(events) != 2 {
		t.Errorf("events %v", events)
	}
	got, body := get(w.token(t, readOnly(w.audience, "file")))
	if f := failureOf(t, body); got.StatusCode != 403 || f.Reason != "SCOPE_MISSING" ||
		w.logOf() != nil {
		t.Errorf("a token for files: status %d, %+v", got.StatusCode, f)
	}
	expired := w.token(t, func(c *token.Claims) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	got, body = get(expired)
	if f := failureOf(t, body); got.StatusCode != 401 || w.logOf() != nil {
		t.Errorf("an expired token: status %d, %+v", got.StatusCode, f)
	}
}

// TestLogEndsWithItsToken: a follower whose token runs out is told so.
func TestLogEndsWithItsToken(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	w.host.answer(func(ctx context.Context, _ *executorv1.LogsRequest,
		send func(*executorv1.LogChunk) error,
	) error {
		if err := send(chunk(0, 1, 10)); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	short := w.token(t, func(c *token.Claims) {
		c.NotAfter = time.Now().Add(time.Second - token.Skew)
	})
	_, body := w.do(t, request{method: "GET", path: logsPath("?follow=true"), anonymous: true,
		header: map[string]string{"Authorization": "Bearer " + short}})
	events := allEvents(t, body)
	if len(events) != 2 || events[1].name != "error" ||
		!strings.Contains(events[1].data, "TOKEN_EXPIRED") {
		t.Errorf("events %v", events)
	}
}

// TestHostOfAnotherOperator gets only a token that is made for it and opens nothing else.
func TestHostOfAnotherOperator(t *testing.T) {
	w := newWorld(t, nil)
	host := startHost(t, w, w.broker, eventtest.NewOperator(2))
	w.jobs.set(onHost(t, host.Identity.Certificate, running, ""))
	host.answer(func(_ context.Context, _ *executorv1.LogsRequest,
		send func(*executorv1.LogChunk) error,
	) error {
		return send(chunk(0, 1, 10))
	})
	own, job := host.Cert.Operator, id.Bech32(id.Job, anID())
	long := func(c *token.Claims) {
		readOnly(own)(c)
		c.NotAfter = time.Now().Add(2 * time.Hour)
	}
	tests := map[string]struct {
		change func(*token.Claims) // nil sends none
		status int
		reason string
	}{
		"none":              {nil, 401, "TOKEN_WRONG_AUDIENCE"},
		"another operator":  {readOnly(sig.AccountID{4}), 401, "TOKEN_WRONG_AUDIENCE"},
		"the gateway's own": {readOnly(w.audience), 401, "TOKEN_WRONG_AUDIENCE"},
		"for all of jobs":   {readOnly(own, "job"), 403, "TOKEN_TOO_WIDE"},
		"for hosts":         {readOnly(own, "job:host"), 403, "TOKEN_TOO_WIDE"},
		"for files, too":    {readOnly(own, "job:read", "file"), 403, "TOKEN_TOO_WIDE"},
		"for another job":   {readOnly(own, "job:read:x"), 403, "TOKEN_TOO_WIDE"},
		"good for long":     {long, 403, "TOKEN_TOO_WIDE"},
		"for reading":       {readOnly(own), 200, ""},
		"for reading it":    {readOnly(own, "job:read:"+job), 200, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ask := request{method: "GET", path: logsPath("")}
			if tt.change != nil {
				ask.header = map[string]string{"Ucn-Executor-Token": w.token(t, tt.change)}
			}
			got, body := w.do(t, ask)
			seen := w.logOf()
			if got.StatusCode != tt.status || (seen != nil) != (tt.status == 200) {
				t.Fatalf("status %d, the host saw %+v, %s", got.StatusCode, seen, body)
			}
			if tt.status == 200 {
				if len(seen.request.(*executorv1.LogsRequest).GetAccount()) != 0 {
					t.Error("a host of another operator was told an account")
				}
				return
			}
			f := failureOf(t, body)
			if f.Reason != tt.reason || tt.reason == "TOKEN_WRONG_AUDIENCE" &&
				(f.Metadata["audience"] != id.Bech32(id.Account, own) ||
					f.Metadata["header"] != "Ucn-Executor-Token") {
				t.Errorf("%+v", f)
			}
		})
	}
}
