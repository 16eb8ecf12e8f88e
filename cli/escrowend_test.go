package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/clitest"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// TestCloseEndsLeases: a host said that the job ended, and never charged for the last time. The
// owner's close ends the lease and says how long money stays reserved; that of a job that runs is
// left alone.
func TestCloseEndsLeases(t *testing.T) {
	u := started(t, func(*user) clitest.Script {
		return func(v *clitest.Visit) *jobv1.Outcome {
			v.Running()
			return &jobv1.Outcome{
				Reason: jobv1.EndReason_END_REASON_COMPLETED, Usage: once().PB(),
			}
		}
	})
	job := strings.TrimSpace(u.must("job", "run", imageCID, "--detach", "--quiet"))
	var shown struct{ Escrow string }
	if err := json.Unmarshal([]byte(u.must("job", "get", job, "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	escrow := shown.Escrow
	before := u.net.Ledger.Height()
	u.net.Market.Lie = func(j *schedulerv1.Job) { j.State = jobv1.State_STATE_RUNNING }
	if _, complaint, code := u.run("escrow", "close", escrow); code == 0 ||
		!strings.Contains(complaint, "ucn job cancel "+job) || u.net.Ledger.Height() != before {
		t.Errorf("close while it runs: exit code %d, %s", code, complaint)
	}
	u.net.Market.Lie = func(j *schedulerv1.Job) { j.State = jobv1.State_STATE_ENDED }
	for range 2 { // the second finds them ended, and sends nothing
		if _, complaint, code := u.run("escrow", "close", escrow); code == 0 ||
			!strings.Contains(complaint, "stay reserved until about") {
			t.Errorf("close: exit code %d, %s", code, complaint)
		}
		if got := u.net.Ledger.Height(); got != before+1 {
			t.Errorf("%d transactions, want 1", got-before)
		}
	}
}

// abandoned is a job that has ended and whose host never charges for the last time, with so many
// leases more in which nothing runs.
func abandoned(t *testing.T, idle int) (u *user, job, escrow string) {
	t.Helper()
	u = started(t, func(*user) clitest.Script {
		return func(v *clitest.Visit) *jobv1.Outcome {
			v.Running()
			return &jobv1.Outcome{
				Reason: jobv1.EndReason_END_REASON_COMPLETED, Usage: once().PB(),
			}
		}
	})
	u.net.Market.Idle = idle
	job = strings.TrimSpace(u.must("job", "run", imageCID, "--detach", "--quiet"))
	var shown struct{ Escrow string }
	if err := json.Unmarshal([]byte(u.must("job", "get", job, "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	return u, job, shown.Escrow
}

// TestCloseWithoutScheduler: an owner ends his leases whatever the scheduler says, and if it does
// not know the job.
func TestCloseWithoutScheduler(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*user)
		args  []string
		says  string
	}{
		"says that it runs for ever": {
			func(u *user) {
				u.net.Market.Lie = func(j *schedulerv1.Job) { j.State = jobv1.State_STATE_RUNNING }
			}, []string{"--end-leases"}, "what runs under them is stopped",
		},
		"lost the job": {
			func(u *user) { u.net.Market.Forget() }, nil, "does not know job ucnj1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			u, _, escrow := abandoned(t, 0)
			c.spoil(u)
			before := u.net.Ledger.Height()
			_, complaint, code := u.run(append([]string{"escrow", "close", escrow}, c.args...)...)
			if code == 0 || !strings.Contains(complaint, c.says) ||
				!strings.Contains(complaint, "1 lease got no last charge yet") {
				t.Errorf("exit code %d, %s", code, complaint)
			}
			if got := u.net.Ledger.Height(); got != before+1 {
				t.Errorf("%d transactions, want 1", got-before)
			}
		})
	}
}

// TestCloseWhileHostsCharge: a host ends one of three leases just before the owner's transaction
// that ends them all, which fails. The others are ended then, and what is said is so: far less
// than their budgets can still be claimed.
func TestCloseWhileHostsCharge(t *testing.T) {
	u, _, escrow := abandoned(t, 2)
	u.net.Market.Lie = func(j *schedulerv1.Job) { j.State = jobv1.State_STATE_ENDED }
	said := 0
	u.net.Ledger.Before = func(t *tx.Transaction) {
		end, ok := t.Body.Operations[0].(*tx.End)
		if said++; ok && said == 1 {
			u.net.SendAsOperator(u.t, &tx.End{Lease: end.Lease})
		}
	}
	_, complaint, code := u.run("escrow", "close", escrow)
	if code == 0 || !strings.Contains(complaint, "the leases have ended, but 3 leases got no last") ||
		!strings.Contains(complaint, "up to 0.0") {
		t.Errorf("exit code %d, %s", code, complaint)
	}
	if said != 3 { // the one that failed, the host's before it, and one more
		t.Errorf("%d transactions, want 3", said)
	}
}
