package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// left runs a job that is over before its lease may be removed, and returns its escrow.
func left(t *testing.T, u *user, args ...string) string {
	t.Helper()
	u.net.Market.PlaceBy = 5 * time.Minute
	report := result(t, u.must(append([]string{"job", "run", imageCID, "--name", "render",
		"--no-outputs", "--json"}, args...)...))
	if bill := report["bill"].(map[string]any); report["escrow_closes_later"] != true ||
		bill["escrow_closed"] != false {
		t.Errorf("the report: %v", report)
	}
	return report["escrow"].(string)
}

// exists reports whether an escrow is on the chain.
func exists(t *testing.T, u *user, escrow string) bool {
	t.Helper()
	var r struct{ Exists bool }
	text := u.must("escrow", "get", escrow, "--proof", "--json")
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return r.Exists
}

func (u *user) remembered() int {
	u.t.Helper()
	list, err := filepath.Glob(filepath.Join(u.data, "unclosed", "*.json"))
	if err != nil {
		u.t.Fatal(err)
	}
	return len(list)
}

// operator is an account to send to.
func (u *user) operator() string { return u.net.File().Operator }

// TestShortJobsEscrowIsClosedLater: by the next command that signs anyway, once it can be, once.
func TestShortJobsEscrowIsClosedLater(t *testing.T) {
	u := started(t, honest)
	escrow := left(t, u)
	pay := []string{"transfer", u.operator(), "0.5"}
	told := func(step string, want bool, args ...string) {
		t.Helper()
		before := u.net.Ledger.Height()
		_, aside, code := u.run(args...)
		if code != 0 || strings.Contains(aside, "the escrow of job render is closed: 0.001 UCN came "+
			"back, fee 0.0000") != want || exists(t, u, escrow) == want {
			t.Errorf("%s: exit code %d, %q", step, code, aside)
		}
		if want && u.net.Ledger.Height() != before+2 {
			t.Errorf("%s: %d transactions, want 2", step, u.net.Ledger.Height()-before)
		}
	}
	told("before its lease can be removed", false, pay...)
	u.net.Ledger.Ahead = 6 * time.Minute
	told("a command that signs nothing", false, "wallet", "balance")
	told("a command that signs", true, pay...)
	if n := u.remembered(); n != 0 {
		t.Errorf("%d escrows are remembered still", n)
	}
	before := u.net.Ledger.Height()
	if _, aside, code := u.run(pay...); code != 0 || aside != "" ||
		u.net.Ledger.Height() != before+1 {
		t.Errorf("once more: exit code %d, %q", code, aside)
	}
}

// TestLeftEscrowIsAnothers: a reminder of another wallet or network, or one that is damaged, moves
// no money, and an escrow that was closed by hand is forgotten.
func TestLeftEscrowIsAnothers(t *testing.T) {
	u := started(t, honest)
	escrow := left(t, u)
	u.net.Ledger.Ahead = 6 * time.Minute
	file := filepath.Join(u.data, "unclosed", escrow+".json")
	own, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	for name, value := range map[string]any{
		"chain": "other", "anchor": strings.Repeat("ab", 32), "account": u.operator(),
		"not_before_ms": uint64(1) << 60,
	} {
		if err := json.Unmarshal(own, &e); err != nil {
			t.Fatal(err)
		}
		e[name] = value
		raw, err := json.Marshal(e)
		if err == nil {
			err = os.WriteFile(file, raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, aside, _ := u.run("transfer", u.operator(), "0.5"); aside != "" ||
			!exists(t, u, escrow) {
			t.Errorf("another %s: %s", name, aside)
		}
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, aside, code := u.run("transfer", u.operator(), "0.5"); aside != "" || code != 0 ||
		u.remembered() != 0 || !exists(t, u, escrow) {
		t.Errorf("a damaged reminder: exit code %d, %s", code, aside)
	}
	if err := os.WriteFile(file, own, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, aside, code := u.run("escrow", "close", escrow); code != 0 || aside != "" ||
		u.remembered() != 0 {
		t.Errorf("closed by hand: exit code %d, %s, %d remembered", code, aside, u.remembered())
	}
}

// TestLeftEscrowOfADetachedJob: what is left of it comes back after its end, never before.
func TestLeftEscrowOfADetachedJob(t *testing.T) {
	u := started(t, honest)
	u.net.Market.PlaceBy = 5 * time.Minute
	text := u.must("job", "run", imageCID, "--name", "render", "--detach", "--json")
	escrow := result(t, text)["escrow"].(string)
	u.net.Market.Lie = func(j *schedulerv1.Job) { j.State = jobv1.State_STATE_ENDED }
	u.net.Ledger.Ahead = 6 * time.Minute
	if _, aside, code := u.run("transfer", u.operator(), "0.5"); code != 0 || aside != "" ||
		!exists(t, u, escrow) {
		t.Errorf("while its host may charge: exit code %d, %s", code, aside)
	}
	if n := u.remembered(); n != 1 {
		t.Errorf("%d escrows are remembered, want 1", n)
	}
}

// TestHeldBackEscrowIsLeftAlone: what waits for the owner's word is not decided by closing.
func TestHeldBackEscrowIsLeftAlone(t *testing.T) {
	u := started(t, honest)
	escrow := left(t, u, "--holdback", "0.00025")
	u.net.Ledger.Ahead = 6 * time.Minute
	if _, aside, code := u.run("transfer", u.operator(), "0.5"); code != 0 || aside != "" ||
		!exists(t, u, escrow) || u.remembered() != 1 {
		t.Errorf("exit code %d, %s", code, aside)
	}
}
