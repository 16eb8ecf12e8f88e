package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/id"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// parsed is what a command printed with --json.
func parsed[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// arrayByCommand: tasks of an array run side by side on podman, the bill has each, and the chain
// tells all of it after the escrow is closed.
func arrayByCommand(t *testing.T, s *scene) {
	u := s.user(t)
	const tasks = 5
	out := u.must("job", "run", string(s.image.ID), "--json", "--array", "5", "--parallel", "3",
		"--cpu", "0.1", "--memory", "32MiB", "--disk", "16MiB", "--", "out", "one")
	r := report(t, out)
	if !r.Completed() || len(r.Bill.Charges) != tasks {
		t.Fatalf("it ended %q: %s; %d charges", r.Result, r.Reason, len(r.Bill.Charges))
	}
	type billed struct {
		Paid   string
		Proofs int `json:"proofs_verified"`
		Leases []struct {
			Lease string
			Slot  uint32
			Paid  string
		}
	}
	b := parsed[billed](t, u.must("job", "bill", r.Job, "--proof", "--json"))
	lanes := map[uint32]bool{}
	for _, l := range b.Leases {
		lanes[l.Slot] = true
	}
	if len(b.Leases) != tasks || len(lanes) != 3 || b.Proofs == 0 || b.Paid != r.Bill.Paid.String() {
		t.Errorf("the bill is %+v; the report says %s", b, r.Bill.Paid)
	}
	if text := u.must("job", "tasks", r.Job); !strings.Contains(text, "no task") {
		t.Errorf("tasks that did not complete: %s", text)
	}
	if !r.Bill.Closed {
		u.must("escrow", "close", r.Bill.Escrow, "--json")
	}
	u.explore(r.Job, r.Bill.Escrow, b.Leases[0].Lease)
}

// explore reads the life of a closed escrow in every way.
func (u *user) explore(job, escrow, lease string) {
	u.t.Helper()
	type event struct{ Kind string }
	kinds := map[string]int{}
	for _, e := range parsed[[]event](u.t, u.must("escrow", "story", escrow, "--json")) {
		kinds[e.Kind]++
	}
	if kinds["open-escrow"] != 1 || kinds["place-lease"] != 5 || kinds["close-escrow"] != 1 {
		u.t.Errorf("the escrow's life: %v", kinds)
	}
	type listed struct {
		Escrow string
		Open   bool
	}
	open := parsed[[]listed](u.t, u.must("escrow", "ls", "--json"))
	all := parsed[[]listed](u.t, u.must("escrow", "ls", "--job", job, "--all", "--json"))
	if len(open) != 0 || len(all) != 1 || all[0].Escrow != escrow || all[0].Open {
		u.t.Errorf("open escrows %v, of the job %v", open, all)
	}
	type charge struct{ Final bool }
	charges := parsed[[]charge](u.t, u.must("chain", "charges", lease, "--json"))
	if n := len(charges); n == 0 || !charges[n-1].Final {
		u.t.Errorf("charges of the lease: %v", charges)
	}
	type sent struct{ Operations []string }
	history := parsed[[]sent](u.t, u.must("wallet", "history", "--sent", "--limit", "0", "--json"))
	if len(history) < 2 || history[len(history)-1].Operations[0] != "open-escrow" {
		u.t.Errorf("the wallet's history: %v", history)
	}
	for _, query := range []string{job, escrow, lease, "1"} {
		if text := u.must("chain", "search", query); !strings.Contains(text, "ucn ") {
			u.t.Errorf("search %s found %q", query, text)
		}
	}
	if text := u.must("chain", "lease", lease, "--proof"); !strings.Contains(text, "verified") {
		u.t.Errorf("the lease's absence: %s", text)
	}
	watched := u.must("chain", "watch", "--from", "0", "--count", "2")
	if text := watched; strings.Count(text, "block") != 2 {
		u.t.Errorf("watched %q", text)
	}
	about := u.must("chain", "watch", "--from", "0", "--count", "3", "--escrow", escrow, "--json")
	if strings.Count(about, `"transactions":[`) != 3 {
		u.t.Errorf("watched of the escrow %q", about)
	}
	u.must("chain", "supply")
	u.must("chain", "fees", "--operations", "10")
}

// holdbackByCommand: part of the pay waits for the owner's word. Accepted it goes to the host,
// rejected it burns.
func holdbackByCommand(t *testing.T, s *scene) {
	u := s.user(t)
	const held = "0.000002"
	run := func() *jobrun.Report {
		r := report(t, u.must("job", "run", string(s.image.ID), "--json", "--holdback", held, "--cpu",
			"0.1", "--memory", "32MiB", "--disk", "16MiB", "--", "out", "one"))
		if !r.Completed() || r.Bill.Held.String() != held || r.Bill.Closed {
			t.Fatalf("it ended %q: %s; held back %s", r.Result, r.Reason, r.Bill.Held)
		}
		return r
	}
	type supply struct {
		Escrows string
		Burned  string `json:"burned_grains"`
	}
	type decision struct{ Amount string }
	good := run()
	d := parsed[decision](t, u.must("job", "accept", good.Job, "--json"))
	if d.Amount != held {
		t.Errorf("accepted %s, want %s", d.Amount, held)
	}
	u.must("escrow", "close", good.Bill.Escrow)
	b := parsed[struct{ Paid string }](t, u.must("job", "bill", good.Job, "--json"))
	if want := (good.Bill.Paid + good.Bill.Held).String(); b.Paid != want {
		t.Errorf("the bill says that %s was paid, want %s with the holdback", b.Paid, want)
	}
	bad := run()
	why := filepath.Join(t.TempDir(), "why.txt")
	if err := os.WriteFile(why, []byte("it is black"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := parsed[supply](t, u.must("chain", "supply", "--json"))
	d = parsed[decision](t, u.must("job", "reject", bad.Job, "--evidence", why, "--json"))
	after := parsed[supply](t, u.must("chain", "supply", "--json"))
	if d.Amount != held || before.Burned == after.Burned {
		t.Errorf("rejected %s; supply %+v, then %+v", d.Amount, before, after)
	}
	u.must("escrow", "close", bad.Bill.Escrow)
}

// replicasByCommand: two replicas stay on hosts of their own until the job is cancelled.
func replicasByCommand(t *testing.T, s *scene) {
	u := s.user(t)
	out := u.must("job", "run", string(s.image.ID), "--json", "--detach", "--trigger", "always",
		"--replicas", "2", "--lost-after", "1h", "--cpu", "0.1", "--memory", "32MiB", "--disk",
		"16MiB", "--", "out", "up", "sleep", "10m")
	job := events(t, out)[0].Job
	u.bothRun(job)
	type run struct {
		State    string
		Attempts []struct{ Host string }
	}
	runs := parsed[[]run](t, u.must("job", "runs", job, "--json"))
	if len(runs) != 2 || runs[0].Attempts[0].Host == runs[1].Attempts[0].Host {
		t.Errorf("runs %+v", runs)
	}
	if text := u.must("job", "ls", "--active", "--trigger", "always"); !strings.Contains(text, job) {
		t.Errorf("job ls: %s", text)
	}
	u.must("job", "cancel", job)
	var exit *exec.ExitError
	if err := u.ucn("job", "wait", job).Run(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("waited for a cancelled job: %v", err)
	}
}

// bothRun waits until two runs of a job run.
func (u *user) bothRun(text string) {
	u.t.Helper()
	raw, err := id.ParseBech32(id.Job, text)
	if err != nil {
		u.t.Fatal(err)
	}
	stream, err := u.Scheduler.WatchJob(u.ctx, &schedulerv1.WatchJobRequest{Job: raw[:]})
	for err == nil {
		var answer *schedulerv1.WatchJobResponse
		answer, err = stream.Recv()
		if answer.GetJob().GetCounts().GetRunning() == 2 {
			return
		}
	}
	u.t.Fatalf("its replicas do not run: %v", err)
}

// foldersByCommand: a folder comes back as it was, and a job reads it as input.
func foldersByCommand(t *testing.T, s *scene) {
	u := s.user(t)
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "back")
	for path, text := range map[string]string{"a": "first", "deep/er/b": "second"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, path)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, path), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	root := strings.TrimSpace(u.must("file", "put", from))
	u.must("file", "get", root, "-o", to)
	if diff := exec.CommandContext(u.ctx, "diff", "-r", from, to); diff.Run() != nil {
		t.Error("the folder came back different")
	}
	info, err := os.Stat(filepath.Join(to, "deep", "er", "b"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	u.must("file", "pin", root)
	if err := u.ucn("file", "rm", root).Run(); err == nil {
		t.Error("a pinned folder was removed")
	}
	u.must("file", "unpin", root)
	u.must("file", "expire", root, "--in", "1h")
	if text := u.must("file", "usage"); !strings.Contains(text, "held") {
		t.Errorf("usage: %s", text)
	}
	u.must("file", "rm", root)
	if err := os.Symlink("/etc/passwd", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := u.ucn("file", "put", from).Run(); err == nil {
		t.Error("a link was stored")
	}
}
