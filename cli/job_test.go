package cli_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/network"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// once is the usage of the run alone: its price is 1,000,000 grains.
func once() price.Usage { return price.Usage{Runs: 1} }

const runPrice = 1_000_000

// honest runs a program that writes a picture.
func honest(u *user) clitest.Script {
	return func(v *clitest.Visit) *jobv1.Outcome {
		v.Running()
		v.Log(1, "rendering")
		note := v.Note(once(), runPrice, true)
		v.Charge(note, v.AwaitAck(note), true)
		return &jobv1.Outcome{
			Reason: jobv1.EndReason_END_REASON_COMPLETED, Amount: runPrice,
			Outputs: []*jobv1.OutputFile{{
				Path: "/out/picture.png", Cid: u.net.Storage.Keep([]byte("a picture")), Size: 9,
			}},
			Usage: once().PB(),
		}
	}
}

// started returns a user whose script may speak of the user's network.
func started(t *testing.T, script func(*user) clitest.Script) *user {
	t.Helper()
	var u *user
	u = newUser(t, func(v *clitest.Visit) *jobv1.Outcome { return script(u)(v) })
	return u
}

// ids replaces what differs between runs.
func ids(text string) string {
	for _, r := range []struct{ pattern, with string }{
		{`ucn[elj]?1[a-z0-9]{50,}`, "ID"}, {`[0-9a-f]{64}`, "HASH"}, {`[0-9a-f]{32}`, "TRACE"},
		{`\d\d:\d\d:\d\d`, "TIME"}, {`bafk[a-z0-9]+`, "CID"}, {`/\S*/picture.png`, "PICTURE"},
		{`0\.9989\d+|9999\.99\d+|0\.0000\d+`, "MONEY"}, {` +\n`, "\n"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return text
}

func TestJobRun(t *testing.T) {
	u := started(t, honest)
	picture := filepath.Join(t.TempDir(), "picture.png")
	out := u.must("job", "run", imageCID, "--output", "/out/picture.png:"+picture, "--", "-w", "64")
	want := `TIME escrow open: ID holds 1 UCN
TIME submitted ID, escrow ID, trace TRACE
TIME leased on alpha-1: leased to alpha-1
TIME running on alpha-1
rendering
TIME cost so far 0.001 UCN
TIME completed on alpha-1
TIME saved PICTURE (9 B)

result  completed
output  PICTURE -> PICTURE (9 B)

bill      escrow ID
charge 1  0.001 UCN to alpha-1 in block 3, final
          usage so far: 0.0 s, 0.00 core·s, 1 run
          prices in UCN: 0.0036/core·h, 0.001/run
          proof verified: HASH
paid      0.001 UCN in 1 charge
refunded  1 UCN
escrow    closed
fees      MONEY UCN
balance   10000 UCN before, 9999 UCN after
proof     verified: 3 receipts against certified headers
trace     TRACE
`
	got := regexp.MustCompile(`\d+\.\d+ UCN after`).ReplaceAllString(ids(out), "9999 UCN after")
	got = strings.ReplaceAll(got, "MONEY UCN before", "10000 UCN before")
	got = strings.ReplaceAll(got, "MONEY UCN after", "9999 UCN after")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if saved, err := os.ReadFile(picture); err != nil || string(saved) != "a picture" {
		t.Errorf("saved %q, %v", saved, err)
	}
	if n := len(u.net.Market.Acks()); n != 1 {
		t.Errorf("%d countersignatures", n)
	}
}

// result decodes the last line of --json.
func result(t *testing.T, out string) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var e struct {
		Event  string         `json:"event"`
		Report map[string]any `json:"report"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil || e.Event != "result" {
		t.Fatalf("the last line is no result: %v: %s", err, lines[len(lines)-1])
	}
	return e.Report
}

func TestJobRunJSON(t *testing.T) {
	u := started(t, honest)
	report := result(t, u.must("job", "run", imageCID, "--json", "--no-outputs"))
	bill := report["bill"].(map[string]any)
	charge := bill["charges"].([]any)[0].(map[string]any)
	for name, pair := range map[string][2]any{
		"result": {report["result"], "completed"}, "paid": {bill["paid"], "0.001"},
		"closed": {bill["escrow_closed"], true}, "proofs": {bill["proofs_verified"], 3.0},
		"host": {charge["host"], "alpha-1"}, "ack": {charge["countersigned"], true},
		"proof": {charge["proof_verified"], true}, "final": {charge["final"], true},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
	if warnings := report["warnings"]; warnings != nil {
		t.Errorf("warnings: %v", warnings)
	}
}

// TestLyingHost: notes that do not follow are not countersigned, and without that the chain pays
// the lease's trust at most.
func TestLyingHost(t *testing.T) {
	liars := map[string]func(v *clitest.Visit) tx.Note{
		"inflated": func(v *clitest.Visit) tx.Note { return v.Note(once(), 900_000_000, true) },
		"backwards": func(v *clitest.Visit) tx.Note {
			v.AwaitAck(v.Note(price.Usage{Runs: 1, CPUNS: 9}, runPrice, false))
			return v.Note(once(), runPrice, true)
		},
		"impossible": func(v *clitest.Visit) tx.Note {
			return v.Note(price.Usage{Runs: 500}, 500*runPrice, true)
		},
	}
	for name, lie := range liars {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, func(v *clitest.Visit) *jobv1.Outcome {
				v.Charge(lie(v), nil, true)
				return &jobv1.Outcome{Reason: jobv1.EndReason_END_REASON_COMPLETED}
			})
			out := u.must("job", "run", imageCID, "--json")
			if !strings.Contains(out, `"event":"refused"`) {
				t.Errorf("no note was refused:\n%s", out)
			}
			honest := 0
			if name == "backwards" {
				honest = 1
			}
			if n := len(u.net.Market.Acks()); n != honest {
				t.Errorf("%d notes were countersigned, want %d", n, honest)
			}
			paid := result(t, out)["bill"].(map[string]any)["paid"].(string)
			if paid > "0.001001" { // upfront and trust
				t.Errorf("the chain paid %s", paid)
			}
		})
	}
}

func TestJobThatFails(t *testing.T) {
	u := newUser(t, func(v *clitest.Visit) *jobv1.Outcome {
		note := v.Note(once(), runPrice, true)
		v.Charge(note, v.AwaitAck(note), true)
		return &jobv1.Outcome{
			Reason: jobv1.EndReason_END_REASON_FAILED, ExitCode: 7,
			Message: "the program exited with code 7",
		}
	})
	out, complaint, code := u.run("job", "run", imageCID, "--quiet")
	if code != cli.ExitJob || out != "failed\n" || complaint != "" {
		t.Errorf("exit code %d, %q, %q", code, out, complaint)
	}
}

// TestInterrupt: the first signal cancels the job, and the bill is waited for.
func TestInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	u := newUser(t, func(v *clitest.Visit) *jobv1.Outcome {
		v.Running()
		interrupt()
		<-v.Cancelled()
		note := v.Note(once(), runPrice, true)
		v.Charge(note, v.AwaitAck(note), true)
		return &jobv1.Outcome{Reason: jobv1.EndReason_END_REASON_CANCELLED}
	})
	u.ctx = ctx
	out, _, code := u.run("job", "run", imageCID, "--json")
	bill := result(t, out)["bill"].(map[string]any)
	if code != cli.ExitJob || bill["paid"] != "0.001" || bill["escrow_closed"] != true {
		t.Errorf("exit code %d, bill %v", code, bill)
	}
}

// TestRefusedJob: what the scheduler does not take costs fees, nothing else.
func TestRefusedJob(t *testing.T) {
	u := started(t, honest)
	u.net.Market.Refuse = fault.New(fault.FailedPrecondition, "ESCROW_UNFIT", "no, thanks")
	_, complaint, code := u.run("job", "run", imageCID)
	if code != cli.ExitFailed || !strings.Contains(complaint, "no, thanks") {
		t.Errorf("exit code %d, %q", code, complaint)
	}
	if balance := u.must("wallet", "balance", "--quiet"); !strings.HasPrefix(balance, "9999.998") {
		t.Errorf("the balance is %s", balance)
	}
}

func TestDamagedOutputIsNotSaved(t *testing.T) {
	u := started(t, honest)
	name := u.net.Storage.Keep([]byte("precious"))
	u.net.Storage.Damage(name)
	to := filepath.Join(t.TempDir(), "x")
	if _, complaint, code := u.run("file", "get", name, "-o", to); code != cli.ExitFailed {
		t.Errorf("exit code %d, %q", code, complaint)
	}
	left, err := os.ReadDir(filepath.Dir(to))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestDetachAndAttach: a detached job trusts its host with the budget; attaching bills it.
func TestDetachAndAttach(t *testing.T) {
	u := started(t, honest)
	begun := result(t, u.must("job", "run", imageCID, "--detach", "--json", "--max-total", "0.5"))
	var escrow map[string]any
	out := u.must("escrow", "get", begun["escrow"].(string), "--json")
	if err := json.Unmarshal([]byte(out), &escrow); err != nil {
		t.Fatal(err)
	}
	if escrow["balance"] != "0.5" || escrow["job"] != begun["job"] || escrow["trust"] != "8" {
		t.Errorf("the escrow is %v", escrow)
	}
	if !strings.Contains(u.must("job", "get", begun["job"].(string)), "leased on alpha-1") {
		t.Error("the job is not shown as leased")
	}
	report := result(t, u.must("job", "attach", begun["job"].(string), "--no-outputs", "--json"))
	bill := report["bill"].(map[string]any)
	if report["result"] != "completed" || bill["paid"] != "0.001" || len(u.net.Market.Acks()) != 1 {
		t.Errorf("got %v, bill %v", report["result"], bill)
	}
	if _, known := bill["balance_before"]; known || bill["refunded"] == "0" {
		t.Errorf("another command opened the escrow: bill %v", bill)
	}
	again := result(t, u.must("job", "attach", begun["job"].(string), "--no-outputs", "--json"))
	second := again["bill"].(map[string]any)
	if second["fees"] != bill["fees"] || second["refunded"] != bill["refunded"] ||
		again["warnings"] != nil {
		t.Errorf("the bill was %v and is %v, warnings %v", bill, second, again["warnings"])
	}
}

// TestDetachQuietly: for scripts the job alone is printed; what its escrow still holds after its
// end, and how it comes back, is told by those that tell of the end.
func TestDetachQuietly(t *testing.T) {
	u := started(t, honest)
	job := strings.TrimSpace(u.must("job", "run", imageCID, "--detach", "--quiet"))
	if !strings.HasPrefix(job, "ucnj1") || strings.ContainsAny(job, " \n\t") {
		t.Errorf("printed %q", job)
	}
	if out := u.must("job", "get", job); !strings.Contains(out, "ucn job bill "+job) ||
		strings.Contains(out, "0 UCN for") {
		t.Errorf("what it costs while it runs: %s", out)
	}
	if out := u.must("job", "cancel", job); !strings.Contains(out, "ucn escrow close ucne1") {
		t.Errorf("cancelled: %s", out)
	}
	u.net.Market.Lie = func(j *schedulerv1.Job) {
		j.State, j.EndReason = jobv1.State_STATE_ENDED, jobv1.EndReason_END_REASON_CANCELLED
	}
	if out := u.must("job", "get", job); !strings.Contains(out, "`ucn escrow close` takes that back") {
		t.Errorf("it ended: %s", out)
	}
}

// TestForeignNetwork: nothing is signed for a chain that is not the network file's.
func TestForeignNetwork(t *testing.T) {
	u := started(t, honest)
	f := u.net.File()
	f.Anchor = strings.Repeat("00", 32)
	if err := network.Save(network.Path(u.data), f); err != nil {
		t.Fatal(err)
	}
	_, complaint, code := u.run("job", "run", imageCID)
	if code != cli.ExitFailed || !strings.Contains(complaint, "another network") {
		t.Errorf("exit code %d, %q", code, complaint)
	}
}

// TestSecretsReachTheHostOnly: the values go with the task, the specification holds the names.
func TestSecretsReachTheHostOnly(t *testing.T) {
	got := ""
	u := newUser(t, func(v *clitest.Visit) *jobv1.Outcome {
		for _, s := range v.Task.GetSecrets() {
			got += s.GetName() + "=" + string(s.GetValue())
		}
		if strings.Contains(v.Task.GetRevision().String(), "hush") {
			got += " in the specification"
		}
		note := v.Note(once(), runPrice, true)
		v.Charge(note, v.AwaitAck(note), true)
		return &jobv1.Outcome{Reason: jobv1.EndReason_END_REASON_COMPLETED}
	})
	u.must("job", "run", imageCID, "--secret", "KEY=hush", "--quiet")
	if got != "KEY=hush" {
		t.Errorf("the host got %q", got)
	}
}
