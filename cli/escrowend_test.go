package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

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
