package cli_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/event"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// toldLine is a line of event ls --json.
type toldLine struct {
	Time    uint64 `json:"time_ms"`
	Topic   string
	Seq     uint64
	Type    string
	Payload json.RawMessage
	Signed  bool
	Reason  string
}

func (u *user) told(args ...string) (lines []toldLine) {
	u.t.Helper()
	text := u.must(append([]string{"event", "ls", clitest.Host, "--wallet", "op", "--json"},
		args...)...)
	if err := json.Unmarshal([]byte(text), &lines); err != nil {
		u.t.Fatalf("%v in %s", err, text)
	}
	return lines
}

func eventOf(t *testing.T, topic event.Topic, kind string, after time.Duration,
	m proto.Message) event.Event {
	t.Helper()
	e, err := event.New(t.Context(), time.Now().Add(after-time.Hour), topic, kind, m)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestEventList: an operator reads what its host said, verified, by time, over pages and topics.
func TestEventList(t *testing.T) {
	u := operating(t)
	if lines := u.told(); len(lines) != 0 {
		t.Errorf("of a host that said nothing: %v", lines)
	}
	status := &jobv1.AttemptStatus{Attempt: []byte{1}, State: jobv1.State_STATE_RUNNING}
	for i := range 25 {
		u.net.Say(t, eventOf(t, event.TopicJob, "attempt.changed", time.Duration(i)*time.Second, status))
	}
	u.net.Say(t, eventOf(t, event.TopicOperator, "policy.changed", 90*time.Second,
		&executorv1.PolicyChanged{Version: 3, Entries: 2, MaxRunTimeMs: 7_200_000,
			Hash: []byte{0xab}}))
	lines := u.told()
	if len(lines) != 26 || lines[25].Type != "policy.changed" ||
		!strings.Contains(string(lines[25].Payload), `"version": "3"`) {
		t.Fatalf("%d lines, the last %+v", len(lines), lines[len(lines)-1])
	}
	for i, e := range lines {
		if !e.Signed || i > 0 && e.Time < lines[i-1].Time {
			t.Errorf("line %d is %+v", i, e)
		}
	}
	if lines = u.told("--limit", "12", "--topic", "job"); len(lines) != 12 || lines[0].Seq != 14 {
		t.Errorf("%d lines from %+v", len(lines), lines)
	}
	if lines = u.told("--type", "policy.changed"); len(lines) != 1 || lines[0].Seq != 1 {
		t.Errorf("of one type: %+v", lines)
	}
	if lines = u.told("--epoch", "2"); len(lines) != 0 {
		t.Errorf("of an epoch that never was: %+v", lines)
	}
	out := u.must("event", "ls", clitest.Host, "--wallet", "op", "--topic", "operator")
	for _, want := range []string{"policy.changed", "version 3, 2 entries, runs up to 2h0m0s, hash ab",
		"1/1", "yes"} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q: %s", want, out)
		}
	}
	u.net.Lie(1)
	u.net.Say(t, eventOf(t, event.TopicJob, "attempt.changed", time.Minute, status))
	lines = u.told("--topic", "job", "--limit", "2")
	if len(lines) != 2 || !lines[0].Signed || lines[1].Signed ||
		!strings.Contains(lines[1].Reason, "does not follow") {
		t.Errorf("a line that is broken: %+v", lines)
	}
}

func TestEventListRefusals(t *testing.T) {
	u := operating(t)
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{clitest.Host}, cli.ExitFailed, "no offer"}, // another operator's, for this wallet
		{[]string{"scheduler"}, cli.ExitFailed, "another operator's"},
		{[]string{"nobody", "--wallet", "op"}, cli.ExitFailed, "no offer"},
		{[]string{clitest.Host, "--wallet", "op", "--limit", "0"}, cli.ExitUsage, "--limit"},
		{[]string{clitest.Host, "--wallet", "op", "--limit", "10001"}, cli.ExitUsage, "--limit"},
		{[]string{clitest.Host, "--wallet", "op", "--topic", "x"}, cli.ExitUsage, "--topic"},
		{nil, cli.ExitUsage, "arg"},
	} {
		_, bad, code := u.run(append([]string{"event", "ls"}, tt.args...)...)
		if code != tt.code || !strings.Contains(bad, tt.says) {
			t.Errorf("%q: exit %d, %q; want %d, %q", tt.args, code, bad, tt.code, tt.says)
		}
	}
}
