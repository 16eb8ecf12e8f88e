package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/token"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

func statsPath(query string) string {
	return "/v1/jobs/" + id.Bech32(id.Job, anID()) + "/stats" + query
}

// reading is what a host tells of an attempt.
func reading(state jobv1.State, amount uint64) *executorv1.StatsResponse {
	return &executorv1.StatsResponse{Attempt: []byte("attempt 1"), State: state, Amount: amount,
		Budget: 1 << 60, CpuMilli: 480, Usage: &jobv1.Usage{BytesIn: 7}}
}

func asEvents(r request) request {
	r.header = map[string]string{"Accept": "text/event-stream"}
	return r
}

// TestStatsOnce: the host is asked in the gateway's name for the account that it has proven, and
// what it says comes out as protobuf's JSON.
func TestStatsOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	told := reading(running, 25)
	w.host.uses(func(m *executorv1.StatsRequest) (*executorv1.StatsResponse, error) {
		raw := anID()
		if !bytes.Equal(m.Job, raw[:]) || string(m.Attempt) != "attempt 1" ||
			!bytes.Equal(m.Account, w.user.Account[:]) {
			return nil, fmt.Errorf("asked for %v", m)
		}
		return told, nil
	})
	for _, query := range []string{"", "?attempt=" + fmt.Sprintf("%x", "attempt 1")} {
		got, body := w.do(t, request{method: "GET", path: statsPath(query)})
		answer := &executorv1.StatsResponse{}
		if err := protojson.Unmarshal(body, answer); err != nil || got.StatusCode != 200 ||
			got.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%q: status %d, %v, %s", query, got.StatusCode, err, body)
		}
		if diff := cmp.Diff(told, answer, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if !strings.Contains(string(body), `"cpu_milli"`) {
			t.Errorf("not in the names of the protos: %s", body)
		}
	}
}

// TestStatsStream tells readings until the attempt has ended, and waits for a host before.
func TestStatsStream(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(&schedulerv1.Job{State: jobv1.State_STATE_PENDING})
	said := uint64(0)
	w.host.uses(func(*executorv1.StatsRequest) (*executorv1.StatsResponse, error) {
		if said++; said == 3 {
			return reading(over, said), nil
		}
		return reading(running, said), nil
	})
	response := w.open(t.Context(), t,
		asEvents(request{method: "GET", path: statsPath("?interval=500ms")}))
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range allEvents(t, body) {
		names = append(names, e.name)
		var data struct{ Amount, Attempt string }
		if err := json.Unmarshal([]byte(e.data), &data); err != nil {
			t.Fatal(err)
		}
		if e.name == "stats" && data.Amount != fmt.Sprint(len(names)) ||
			e.name == "end" && data.Attempt != fmt.Sprintf("%x", "attempt 1") {
			t.Errorf("event %+v", e)
		}
	}
	if diff := cmp.Diff([]string{"stats", "stats", "stats", "end"}, names); diff != "" {
		t.Error(diff)
	}
}

// TestStatsEndWithTheToken: nobody reads on with a token that ran out.
func TestStatsEndWithTheToken(t *testing.T) {
	w := newWorld(t, nil)
	w.jobs.set(onHost(t, w.host.Identity.Certificate, running, ""))
	w.host.uses(func(*executorv1.StatsRequest) (*executorv1.StatsResponse, error) {
		return reading(running, 1), nil
	})
	short := w.token(t, func(c *token.Claims) {
		c.NotAfter = time.Now().Add(time.Second - token.Skew)
	})
	_, body := w.do(t, request{method: "GET", path: statsPath("?interval=1m"), anonymous: true,
		header: map[string]string{"Authorization": "Bearer " + short,
			"Accept": "text/event-stream"}})
	events := allEvents(t, body)
	if len(events) != 2 || events[1].name != "error" ||
		!strings.Contains(events[1].data, "TOKEN_EXPIRED") {
		t.Errorf("events %v", events)
	}
}

func TestStatsRefusals(t *testing.T) {
	w := newWorld(t, nil)
	w.host.uses(func(*executorv1.StatsRequest) (*executorv1.StatsResponse, error) {
		return nil, fault.New(fault.PermissionDenied, "NOT_YOURS", "only its owner may")
	})
	other := eventtest.NewOperator(2).Instance(t, "executor")
	own := w.host.Identity.Certificate
	placed := onHost(t, own, running, "")
	never := &schedulerv1.Job{State: over, Runs: []*schedulerv1.Run{
		{Attempts: []*schedulerv1.Attempt{{Id: []byte("attempt 1"), State: over}}}}}
	for _, tt := range []struct {
		name, query string
		job         *schedulerv1.Job
		status      int
		reason      string
	}{
		{"another's", "", placed, 403, "NOT_YOURS"},
		{"no such attempt", "?attempt=abcd", placed, 404, "NO_ATTEMPT"},
		{"never on a host", "", never, 404, "NO_ATTEMPT"},
		{"not on a host yet", "", &schedulerv1.Job{State: jobv1.State_STATE_PENDING}, 404,
			"NO_ATTEMPT"},
		{"a bad attempt", "?attempt=%20", placed, 400, "ID_INVALID"},
		{"an interval of nothing", "?interval=0s", placed, 400, "REQUEST_INVALID"},
		{"too short an interval", "?interval=499ms", placed, 400, "REQUEST_INVALID"},
		{"too long an interval", "?interval=61s", placed, 400, "REQUEST_INVALID"},
		{"no interval", "?interval=x", placed, 400, "REQUEST_INVALID"},
		{"another operator's host", "", onHost(t, other.Identity.Certificate, running, ""), 401,
			"TOKEN_WRONG_AUDIENCE"},
	} {
		w.jobs.set(tt.job)
		got, body := w.do(t, request{method: "GET", path: statsPath(tt.query)})
		if f := failureOf(t, body); got.StatusCode != tt.status || f.Reason != tt.reason {
			t.Errorf("%s: status %d, %+v", tt.name, got.StatusCode, f)
		}
		if tt.reason == "NO_ATTEMPT" { // a stream waits for it, or does not
			continue
		}
		got, body = w.do(t, asEvents(request{method: "GET", path: statsPath(tt.query)}))
		if f := failureOf(t, body); got.StatusCode != tt.status || f.Reason != tt.reason {
			t.Errorf("%s, as a stream: status %d, %+v", tt.name, got.StatusCode, f)
		}
	}
	w.jobs.set(placed)
	got, body := w.do(t, request{method: "GET", path: statsPath(""), anonymous: true})
	if f := failureOf(t, body); got.StatusCode != http.StatusUnauthorized ||
		f.Reason != "TOKEN_MISSING" {
		t.Errorf("without a token: status %d, %+v", got.StatusCode, f)
	}
}

// TestStatsOfAnotherOperatorsHost: it sees the token that was made for it, and no account.
func TestStatsOfAnotherOperatorsHost(t *testing.T) {
	w := newWorld(t, nil)
	host := startHost(t, w, w.broker, eventtest.NewOperator(2))
	w.jobs.set(onHost(t, host.Identity.Certificate, running, ""))
	accounts := make(chan []byte, 1)
	host.uses(func(m *executorv1.StatsRequest) (*executorv1.StatsResponse, error) {
		accounts <- m.Account
		return reading(running, 1), nil
	})
	got, body := w.do(t, request{method: "GET", path: statsPath(""), header: map[string]string{
		"Ucn-Executor-Token": w.token(t, readOnly(host.Cert.Operator)),
	}})
	if got.StatusCode != 200 || len(<-accounts) != 0 {
		t.Errorf("status %d, %s", got.StatusCode, body)
	}
	got, body = w.do(t, request{method: "GET", path: statsPath(""), header: map[string]string{
		"Ucn-Executor-Token": w.token(t, readOnly(host.Cert.Operator, "job")),
	}})
	if f := failureOf(t, body); got.StatusCode != 403 || f.Reason != "TOKEN_TOO_WIDE" {
		t.Errorf("a wide token: status %d, %+v", got.StatusCode, f)
	}
	away := eventtest.NewOperator(3).Instance(t, "executor")
	w.jobs.set(onHost(t, away.Identity.Certificate, running, ""))
	got, body = w.do(t, request{method: "GET", path: statsPath(""), header: map[string]string{
		"Ucn-Executor-Token": w.token(t, readOnly(away.Cert.Operator)),
	}})
	if f := failureOf(t, body); got.StatusCode != 503 || f.Reason != "INSTANCE_NOT_CONNECTED" {
		t.Errorf("a host that is away: status %d, %+v", got.StatusCode, f)
	}
}
