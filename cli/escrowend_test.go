package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
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

// TestCloseStopsWhoPlaces: a scheduler answers every end with another lease, as one does for an
// always job. Nothing can be placed once the owner ended its leases himself, and what was placed
// just before that is ended, too.
func TestCloseStopsWhoPlaces(t *testing.T) {
	for name, host := range map[string]bool{"alone": false, "and a host ends its lease": true} {
		t.Run(name, func(t *testing.T) {
			u, job, escrow := abandoned(t, 0)
			u.must("escrow", "topup", escrow, "0.5", "--raise")
			jobID, err := id.ParseBech32(id.Job, job)
			if err != nil {
				t.Fatal(err)
			}
			placed, said, first := 0, 0, true
			u.net.Ledger.Before = func(sent *tx.Transaction) {
				end, ok := sent.Body.Operations[len(sent.Body.Operations)-1].(*tx.End)
				if said++; !ok || sent.Body.Account == u.net.Operator() {
					return
				}
				if first && host {
					u.net.SendAsOperator(u.t, &tx.End{Lease: end.Lease})
				}
				if err := u.net.Market.PlaceMore(jobID); err == nil {
					placed++
				}
				first = false
			}
			_, complaint, code := u.run("escrow", "close", escrow, "--end-leases")
			if code == 0 || !strings.Contains(complaint, "its scheduler may place no more") ||
				!strings.Contains(complaint, "2 leases got no last charge yet") || placed != 1 {
				t.Errorf("%d placed, exit code %d, %s", placed, code, complaint)
			}
			if err := u.net.Market.PlaceMore(jobID); err == nil {
				t.Error("the scheduler placed a lease after all were ended")
			}
			before := said // nothing is left to do
			if _, complaint, code := u.run("escrow", "close", escrow, "--end-leases"); code == 0 ||
				!strings.Contains(complaint, "2 leases got no last charge yet") || said != before {
				t.Errorf("once more: %d transactions, exit code %d, %s", said-before, code, complaint)
			}
			var shown struct {
				Assigner string
				LeaseFee string `json:"lease_fee"`
			}
			text := u.must("escrow", "get", escrow, "--json")
			if err := json.Unmarshal([]byte(text), &shown); err != nil || shown.Assigner != "" ||
				shown.LeaseFee != "0" {
				t.Errorf("%v: %s", err, text)
			}
		})
	}
}

// TestCloseOfExpiring: what expires gets no terms any more, with which the ends would fail.
func TestCloseOfExpiring(t *testing.T) {
	u, _, escrow := abandoned(t, 0)
	raw, err := id.ParseBech32(id.Escrow, escrow)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := u.net.Ledger.GetEscrow(t.Context(), &ledgerv1.GetEscrowRequest{Escrow: raw[:]})
	if err != nil {
		t.Fatal(err)
	}
	terms := answer.GetEscrow().GetTerms()
	terms.Expires = answer.GetAccrual() + 50_000
	text, err := protojson.Marshal(&chainv1.SetTerms{Escrow: raw[:], Terms: terms})
	if err != nil {
		t.Fatal(err)
	}
	signed, complaint, _ := u.feed(`[{"set_terms": `+string(text)+`}]`, "tx", "sign", "-")
	u.must("tx", "submit", strings.TrimSpace(signed))
	var sent []tx.Operation
	u.net.Ledger.Before = func(t *tx.Transaction) { sent = append(sent, t.Body.Operations...) }
	_, more, code := u.run("escrow", "close", escrow, "--end-leases")
	if code == 0 || !strings.Contains(more, "1 lease got no last charge yet") {
		t.Errorf("exit code %d, %s%s", code, complaint, more)
	}
	if _, ok := sent[0].(*tx.End); !ok || len(sent) != 1 {
		t.Errorf("sent %v, want the end of the lease", sent)
	}
}
