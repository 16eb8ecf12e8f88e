package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/id"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/test/stage"
	"github.com/united-containers/ucn/wiring"
)

// ucn is a command of the binary, for the user's data folder.
func (u *user) ucn(args ...string) *exec.Cmd {
	return command(u.ctx, u.Dir, args...)
}

func command(ctx context.Context, data string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Getenv(envProgram), args...)
	cmd.Env = append(os.Environ(), "UCN_DATA="+data)
	cmd.Dir = filepath.Dir(os.Getenv(envProgram))
	return cmd
}

// must runs a command and returns what it printed.
func (u *user) must(args ...string) string {
	u.t.Helper()
	cmd := u.ucn(args...)
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		u.t.Fatalf("ucn %q: %v\n%s\n%s", args, err, out.String(), bad.String())
	}
	return out.String()
}

// events reads the lines of --json. A line that is none fails the test.
func events(t *testing.T, text string) (list []jobrun.Event) {
	t.Helper()
	for line := range strings.Lines(text) {
		var e jobrun.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		list = append(list, e)
	}
	return list
}

// report is what the last event of --json tells.
func report(t *testing.T, text string) *jobrun.Report {
	t.Helper()
	list := events(t, text)
	if len(list) == 0 || list[len(list)-1].Report == nil {
		t.Fatalf("no report at the end of %s", text)
	}
	return list[len(list)-1].Report
}

// commandLine: a person's way from the image to the bill, the proof and the picture.
func commandLine(t *testing.T, s *scene) {
	u := s.user(t)
	archive, saved := filepath.Join(t.TempDir(), "guest.tar"), t.TempDir()
	if err := os.WriteFile(archive, s.image.Layout, 0o600); err != nil {
		t.Fatal(err)
	}
	pushed := u.must("image", "push", archive)
	if image := string(s.image.ID); !strings.Contains(pushed, image) {
		t.Fatalf("pushed %q, want %s", pushed, image)
	}
	out := u.must("job", "run", string(s.image.ID), "--json", "--cpu", "0.25", "--memory", "32MiB",
		"--disk", "16MiB", "--output", "/out/a:"+saved+"/a", "--", "out", "hello", "write", "/out/a",
		"text")
	r := report(t, out)
	if !r.Completed() {
		t.Fatalf("it ended %q: %s", r.Result, r.Reason)
	}
	checkBill(t, r.Bill)
	if text, err := os.ReadFile(filepath.Join(saved, "a")); err != nil || string(text) != "text" {
		t.Errorf("saved %q, %v", text, err)
	}
	if len(r.Bill.Charges) == 0 {
		t.Fatal("no charge on the bill")
	}
	if proof := u.must("verify", r.Bill.Charges[0].Transaction); !strings.Contains(proof, "verified") {
		t.Errorf("verify says %q", proof)
	}
	if listed := u.must("job", "ls"); !strings.Contains(listed, "completed") {
		t.Errorf("job ls says %q", listed)
	}
	if logged := u.must("job", "logs", r.Job); !strings.Contains(logged, "hello") {
		t.Errorf("job logs says %q", logged)
	}
}

// clientDisappears: the owner's program is killed while the job runs; the owner comes back and
// follows it to its end.
func clientDisappears(t *testing.T, s *scene) {
	u := s.user(t)
	cmd := u.ucn("job", "run", string(s.image.ID), "--json", "--cpu", "0.25", "--memory", "32MiB",
		"--disk", "16MiB", "--", "out", "up", "sleep", "5s", "out", "done")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	job := ""
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		e := events(t, lines.Text())[0]
		job = e.Job
		if e.Kind == jobrun.KindLog && e.Text == "up" {
			break
		}
	}
	if err := errors.Join(lines.Err(), cmd.Process.Kill()); err != nil || job == "" {
		t.Fatal(err, job)
	}
	_ = cmd.Wait() // it was killed
	r := report(t, u.must("job", "attach", job, "--json"))
	if !r.Completed() || r.Bill.Paid == 0 {
		t.Errorf("it ended %q: %s; paid %s", r.Result, r.Reason, r.Bill.Paid)
	}
	checkCharges(t, r.Bill)
}

// detached: nobody countersigns; the job ends and is paid within the trust its owner gave.
func detached(t *testing.T, s *scene) {
	u := s.user(t)
	out := u.must("job", "run", string(s.image.ID), "--json", "--detach", "--cpu", "0.25",
		"--memory", "32MiB", "--disk", "16MiB", "--", "out", "alone", "spin", "200ms")
	job := events(t, out)[0].Job
	if end := u.await(job); end != "END_REASON_COMPLETED" {
		t.Fatalf("it ended %s", end)
	}
	r := report(t, u.must("job", "attach", job, "--json"))
	if !r.Completed() || r.Bill.Paid == 0 {
		t.Errorf("it ended %q: %s; paid %s", r.Result, r.Reason, r.Bill.Paid)
	}
	checkCharges(t, r.Bill)
}

// await watches a job without taking part until it has ended, and returns how.
func (u *user) await(text string) string {
	u.t.Helper()
	job, err := id.ParseBech32(id.Job, text)
	if err != nil {
		u.t.Fatal(err)
	}
	stream, err := u.Scheduler.WatchJob(u.ctx, &schedulerv1.WatchJobRequest{Job: job[:]})
	if err != nil {
		u.t.Fatal(err)
	}
	last := &schedulerv1.Job{}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last.GetEndReason().String()
		} else if err != nil {
			u.t.Fatal(err)
		}
		last = r.GetJob()
	}
}

// TestSecondUpIsRefused: one process runs on a data folder; the second one names the first.
func TestSecondUpIsRefused(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := allInOne(t)
	out, err := command(ctx, s.Dir, upArgs(s.Dir)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 0 {
		t.Fatalf("a second network: %v\n%s", err, out)
	}
	if pid := strconv.Itoa(os.Getpid()); !strings.Contains(string(out), pid) ||
		!strings.Contains(string(out), "ucn down") {
		t.Errorf("it does not name process %s: %s", pid, out)
	}
}

// TestUpWithoutPodman: a machine that cannot run containers is told what to install.
func TestUpWithoutPodman(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	data := t.TempDir()
	cmd := command(ctx, data, upArgs(data)...)
	cmd.Env = []string{"PATH=" + t.TempDir(), "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "apt-get install -y podman") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestUpAndDown: the binary starts a network in the background, a wallet has money, and it stops.
func TestUpAndDown(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	data, err := stage.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(stage.Wipe(filepath.Join(data, "engine")), os.RemoveAll(data)); err != nil {
			t.Error(err)
		}
	}()
	run := func(args ...string) string {
		out, err := command(ctx, data, args...).CombinedOutput()
		if err != nil {
			t.Errorf("ucn %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	err = os.WriteFile(filepath.Join(data, "ucn.log"), []byte("of an earlier life\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if out := run(append(upArgs(data), "--detach")...); !strings.Contains(out, "is up") ||
		strings.Contains(out, "earlier") {
		t.Errorf("up says %q", out)
	}
	defer run("down")
	if out := run("wallet", "balance"); !strings.Contains(out, "9999.999") {
		t.Errorf("the default wallet holds %q", out)
	}
	if out := run("market"); strings.Count(out, wiring.Alpha)+strings.Count(out, wiring.Beta) < 3 {
		t.Errorf("the market has %q", out)
	}
	if out := run("down"); !strings.Contains(out, "down") {
		t.Errorf("down says %q", out)
	}
	log, err := os.ReadFile(filepath.Join(data, "ucn.log"))
	if err != nil || !strings.HasPrefix(string(log), "of an earlier life\n") {
		t.Errorf("the log lost what an earlier network said: %v\n%s", err, log)
	}
}

func upArgs(data string) []string {
	const anyPort = "127.0.0.1:0"
	return []string{"up", "--data", data, "--listen-api", anyPort, "--listen-rest", anyPort,
		"--listen-bus", anyPort}
}
