package cli_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/keys"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
)

// operating is a user whose wallet "op" is the operator's.
func operating(t *testing.T) *user {
	t.Helper()
	u := started(t, honest)
	text, err := keys.EncodeSigning(u.net.OperatorKey(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Create(filepath.Join(u.data, "wallets", "op.key"), text); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestHostCommands: the operator lists, looks into, drains and evicts over the bus.
func TestHostCommands(t *testing.T) {
	u := operating(t)
	if out := u.must("host", "ls", "--wallet", "op"); !strings.Contains(out, clitest.Host) ||
		!strings.Contains(out, "takes work") {
		t.Errorf("host ls says %q", out)
	}
	status := &jobv1.AttemptStatus{
		Job: make([]byte, 32), Lease: make([]byte, 32), Attempt: []byte{0xab, 0xcd},
		State: jobv1.State_STATE_RUNNING, Amount: 5_000_000_000, EvictAt: 1_800_000_000_000,
	}
	u.net.Desk.Tell(&executorv1.GetHostResponse{
		Offer:    &marketv1.Offer{Host: clitest.Host, Prices: clitest.Prices().PB()},
		Draining: true, Reason: "new disks", EvictAt: 1_800_000_000_000,
		Warnings: []string{"the payee has\x1b no account"}, ClockAheadMs: -1500,
		Abilities: []*executorv1.Ability{{Name: "freeze", Present: true},
			{Name: "The disk is small.", Detail: "Add one."}},
		Policy: &executorv1.HostPolicy{DenyImages: []string{"bafybad"}, MaxRunTimeMs: 3_600_000},
	}, nil, &executorv1.ListAttemptsResponse{
		Attempts: []*jobv1.AttemptStatus{status}, NextPageToken: "1",
	}, &executorv1.ListAttemptsResponse{Attempts: []*jobv1.AttemptStatus{status}})
	out := u.must("host", "show", clitest.Host, "--wallet", "op")
	for _, want := range []string{
		"new disks", "evicts what still runs", "freeze    yes", "abcd", "running, goes",
		"asks      0.0036/core·h, 0.001/run\n", "note      The disk is small. Add one.\n",
		"warning   the payee has",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("host show lacks %q: %s", want, out)
		}
	}
	if n := strings.Count(out, "abcd"); n != 2 {
		t.Errorf("%d attempts of two pages", n)
	}
	var shown map[string]any
	text := u.must("host", "show", clitest.Host, "--wallet", "op", "--json")
	if err := json.Unmarshal([]byte(text), &shown); err != nil || shown["draining"] != true ||
		shown["clock_ahead_ms"] != -1500.0 || len(shown["warnings"].([]any)) != 1 {
		t.Errorf("%v in %s", err, text)
	}
	if out := u.must("host", "policy", clitest.Host, "--wallet", "op"); !strings.Contains(out,
		"bafybad") || !strings.Contains(out, "1h0m0s") {
		t.Errorf("host policy says %q", out)
	}
	u.must("host", "drain", clitest.Host, "--wallet", "op", "--evict-after", "2h", "--reason", "x")
	u.must("host", "undrain", clitest.Host, "--wallet", "op")
	u.must("host", "evict", clitest.Host, "abcd", "--wallet", "op", "--notice", "10m")
	heard := u.net.Desk.Heard()
	want := []proto.Message{
		&executorv1.DrainRequest{EvictAfterMs: 7_200_000, Reason: "x"},
		&executorv1.UndrainRequest{},
		&executorv1.EvictRequest{Attempt: []byte{0xab, 0xcd}, NoticeMs: 600_000},
	}
	for i, m := range heard[len(heard)-len(want):] {
		if !proto.Equal(m, want[i]) {
			t.Errorf("call %d was %v, want %v", i, m, want[i])
		}
	}
}

// TestHostRefusals: another's host is never shown a token that opens an operator's doors.
func TestHostRefusals(t *testing.T) {
	u := operating(t)
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"host", "drain", clitest.Host}, cli.ExitFailed, "another operator's"},
		{[]string{"host", "show", "nobody", "--wallet", "op"}, cli.ExitFailed, "no offer"},
		{[]string{"host", "evict", clitest.Host, "zz", "--wallet", "op"}, cli.ExitUsage, "attempt"},
		{[]string{"host", "evict", clitest.Host, "ab", "--wallet", "op", "--notice", "-1s"},
			cli.ExitUsage, "negative"},
		{[]string{"host", "drain", clitest.Host, "--wallet", "op", "--evict-after", "-1s"},
			cli.ExitUsage, "negative"},
		{[]string{"host", "show", clitest.Host, "--wallet", "op", "--attempts", "1001"},
			cli.ExitUsage, "--attempts"},
		{[]string{"host", "drain"}, cli.ExitUsage, "arg"},
	} {
		if _, bad, code := u.run(tt.args...); code != tt.code || !strings.Contains(bad, tt.says) {
			t.Errorf("%q: exit %d, %q; want %d, %q", tt.args, code, bad, tt.code, tt.says)
		}
	}
	if heard := u.net.Desk.Heard(); len(heard) != 0 {
		t.Errorf("the host heard %v", heard)
	}
	if out := u.must("host", "ls"); strings.Contains(out, clitest.Host) {
		t.Errorf("another's host is listed: %q", out)
	}
	if out := u.must("host", "ls", "--all"); !strings.Contains(out, clitest.Host) {
		t.Errorf("--all lists %q", out)
	}
}

// TestJobTop: the table shows what the host says, and a host that does not answer spoils only its
// own line.
func TestJobTop(t *testing.T) {
	running, end := make(chan string, 1), make(chan struct{})
	u := started(t, func(u *user) clitest.Script {
		return func(v *clitest.Visit) *jobv1.Outcome {
			v.Running()
			running <- "on"
			<-end
			return honest(u)(v)
		}
	})
	if out := u.must("job", "top", "--once"); !strings.Contains(out, "nothing runs") {
		t.Errorf("without jobs: %q", out)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		u.run("job", "run", imageCID, "--no-outputs", "--name", "sky")
	}()
	<-running
	if out := u.must("job", "top", "--once"); !strings.Contains(out, "no such attempt") {
		t.Errorf("a host that knows nothing: %q", out)
	}
	now := uint64(time.Now().UnixMilli())
	u.net.Desk.Tell(nil, &executorv1.StatsResponse{
		State: jobv1.State_STATE_RUNNING, Time: now, Started: now - 61_000, CpuMilli: 480,
		Memory: 12 << 20, Reserved: &jobv1.Resources{CpuMilli: 500, Memory: 64 << 20},
		Usage: &jobv1.Usage{BytesIn: 2048}, Amount: 25_000_000, Budget: 1_000_000_000,
		EvictAt: now + 600_000,
	})
	out := u.must("job", "top", "--once")
	for _, want := range []string{
		"sky", clitest.Host, "running, goes in 10m00s", "0.48/0.5", "12.0 MiB/64.0 MiB", "0.025",
		"1m01s",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the table lacks %q: %s", want, out)
		}
	}
	u.net.Desk.Tell(nil, &executorv1.StatsResponse{
		State: jobv1.State_STATE_STARTING, Waiting: "its image waits for its turn", Time: now,
	})
	if out := u.must("job", "top", "--once"); !strings.Contains(out,
		"starting: its image waits for its turn") {
		t.Errorf("of a start that waits: %s", out)
	}
	u.net.Desk.Tell(nil, &executorv1.StatsResponse{
		State: jobv1.State_STATE_RUNNING, Time: now, CpuMilli: 480, Amount: 25_000_000,
	})
	var rows []map[string]any
	text := u.must("job", "top", "--once", "--json")
	if err := json.Unmarshal([]byte(text), &rows); err != nil || len(rows) != 1 ||
		rows[0]["cpu_milli"] != 480.0 || rows[0]["due"] != "0.025" {
		t.Errorf("%v: %s", err, text)
	}
	if _, bad, code := u.run("job", "top", "--interval", "1ms"); code != cli.ExitUsage {
		t.Errorf("an interval of 1 ms: exit %d, %s", code, bad)
	}
	job, _ := rows[0]["job"].(string)
	live := make(chan string, 1)
	go func() {
		out, _, _ := u.run("job", "top", job, "--interval", "500ms", "--json")
		live <- out
	}()
	close(end)
	<-ended
	lines := strings.Split(strings.TrimSpace(<-live), "\n") // it ends by itself
	for _, line := range lines {
		if err := json.Unmarshal([]byte(line), &rows); err != nil {
			t.Errorf("%v: %q", err, line)
		}
	}
}
