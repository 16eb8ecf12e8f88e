package cli_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli/clitest"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// held runs a job of runPrice of which a quarter is held back, and returns job and escrow.
func held(t *testing.T, u *user) (job, escrow string) {
	t.Helper()
	report := result(t, u.must("job", "run", imageCID, "--no-outputs", "--holdback", "0.00025",
		"--json"))
	bill := report["bill"].(map[string]any)
	if bill["paid"] != "0.00075" || bill["held_back"] != "0.00025" || bill["escrow_closed"] != false {
		t.Errorf("the bill: %v", bill)
	}
	return report["job"].(string), report["escrow"].(string)
}

type decided struct {
	Amount string
	Leases []struct{ Lease, State string }
}

func TestHoldbackIsAccepted(t *testing.T) {
	u := started(t, honest)
	job, escrow := held(t, u)
	text := u.must("job", "bill", job)
	if !strings.Contains(text, "0.00025 UCN held back (waits)") {
		t.Errorf("the bill: %s", text)
	}
	if _, complaint, code := u.run("escrow", "close", escrow); code == 0 ||
		!strings.Contains(complaint, "0.00025 UCN is held back") {
		t.Errorf("close: exit code %d, %s", code, complaint)
	}
	before := u.net.Ledger.Balance(u.net.Operator())
	var d decided
	if err := json.Unmarshal([]byte(u.must("job", "accept", job, "--json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.Amount != "0.00025" || len(d.Leases) != 1 || d.Leases[0].State != "accepted" {
		t.Errorf("accepted %+v", d)
	}
	if got := u.net.Ledger.Balance(u.net.Operator()) - before; got < runPrice/4 {
		t.Errorf("the host got %d grains, want %d", got, runPrice/4)
	}
	if text := u.must("job", "bill", job, "--proof"); !strings.Contains(text,
		"0.00025 UCN paid on") || !strings.Contains(text, "paid      0.001 UCN, 1 charge of") ||
		!strings.Contains(text, "verified: 2 receipts") {
		t.Errorf("the bill after the acceptance: %s", text)
	}
	for _, call := range [][]string{
		{"job", "accept", job}, {"job", "accept", job, "--lease", d.Leases[0].Lease},
		{"job", "reject", job, "--evidence", "/proc/version"},
	} {
		if _, complaint, code := u.run(call...); code != 1 {
			t.Errorf("%v once more: exit code %d, %s", call, code, complaint)
		}
	}
	u.must("escrow", "close", escrow)
}

func TestHoldbackIsRejected(t *testing.T) {
	u := started(t, honest)
	job, escrow := held(t, u)
	why := filepath.Join(t.TempDir(), "why.txt")
	if err := os.WriteFile(why, []byte("the picture is black"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]string{
		"no evidence":    {job},
		"no such file":   {job, "--evidence", "/nowhere"},
		"empty evidence": {job, "--evidence", empty},
		"no lease":       {job, "--evidence", why, "--lease", "ucnl1x"},
		"an escrow":      {escrow, "--evidence", why},
	} {
		if _, complaint, code := u.run(append([]string{"job", "reject"}, bad...)...); code != 2 {
			t.Errorf("%s: exit code %d: %s", name, code, complaint)
		}
	}
	balance, supply := u.net.Ledger.Balance(u.net.Operator()), u.net.Ledger.Supply()
	out := u.must("job", "reject", job, "--evidence", why)
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte("the picture is black")))
	if !strings.Contains(out, "0.00025 UCN") || !strings.Contains(out, hash) {
		t.Errorf("it says: %s", out)
	}
	// The operator also proposes, and gets the fees.
	if got := u.net.Ledger.Balance(u.net.Operator()); got-balance >= runPrice/4 {
		t.Errorf("the host got %d grains", got-balance)
	}
	u.must("escrow", "close", escrow)
	if burnt := supply - u.net.Ledger.Supply(); burnt < runPrice/4 {
		t.Errorf("%d grains burnt, want %d and fees", burnt, runPrice/4)
	}
}

func TestNothingIsHeldBack(t *testing.T) {
	u := started(t, func(u *user) clitest.Script {
		return func(v *clitest.Visit) *jobv1.Outcome { return honest(u)(v) }
	})
	job := result(t, u.must("job", "run", imageCID, "--no-outputs", "--json"))["job"].(string)
	if _, complaint, code := u.run("job", "accept", job); code != 1 {
		t.Errorf("exit code %d: %s", code, complaint)
	}
	if _, complaint, code := u.run("job", "run", imageCID, "--holdback", "2"); code == 0 ||
		!strings.Contains(complaint, "payment.holdback") {
		t.Errorf("a holdback above max_total: exit code %d: %s", code, complaint)
	}
}
