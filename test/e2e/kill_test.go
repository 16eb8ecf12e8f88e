package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/test/stage"
	"github.com/united-containers/ucn/wiring"
)

// long is a job of one host that says "up", works for a while, says "done" and leaves an output.
func (u *user) long(seconds string) jobfile.File {
	f := u.job("out", "up", "sleep", seconds, "out", "done", "write", "/out/a", "kept")
	f.Outputs = []jobfile.Output{output("/out/a")}
	return u.at(wiring.Alpha, f)
}

// TestReadoptAfterKill: an executor that is killed while a job runs and started again finishes
// that job: the container goes on, is started once, and is paid once.
func TestReadoptAfterKill(t *testing.T) {
	t.Parallel()
	s := processes(t)
	u := s.user(t)
	going := u.start(u.long("6s"))
	going.running("up")
	before := s.containers(t, stage.HostAlpha)
	restart(t, s, stage.HostAlpha)
	if after := s.containers(t, stage.HostAlpha); len(before) != 1 || before[0] != after[0] {
		t.Errorf("containers %q before the kill, %q after", before, after)
	}
	finishesOnce(t, s, going)
}

// TestControlPlaneKilled: ledger and scheduler are killed while a job runs, and started again.
func TestControlPlaneKilled(t *testing.T) {
	t.Parallel()
	s := processes(t)
	u := s.user(t)
	going := u.start(u.long("6s"))
	going.running("up")
	restart(t, s, stage.Ledger, stage.Scheduler)
	finishesOnce(t, s, going)
}

// TestBrokerAndStorageKilled: the container runs on while nobody can reach its host.
func TestBrokerAndStorageKilled(t *testing.T) {
	t.Parallel()
	s := processes(t)
	u := s.user(t)
	going := u.start(u.long("6s"))
	going.running("up")
	restart(t, s, stage.Broker, stage.Storage)
	finishesOnce(t, s, going)
}

// TestEverythingKilled: a whole network that loses power in the middle of a job comes back and
// finishes it.
func TestEverythingKilled(t *testing.T) {
	t.Parallel()
	s := processes(t)
	u := s.user(t)
	going := u.start(u.long("8s"))
	going.running("up")
	restart(t, s, stage.Ledger, stage.Broker, stage.Storage, stage.Scheduler, stage.HostAlpha)
	finishesOnce(t, s, going)
}

// restart kills the services with -9, all at once as far as can be, and starts them again.
func restart(t *testing.T, s *scene, names ...string) {
	t.Helper()
	for i := len(names) - 1; i >= 0; i-- {
		if err := s.Services[names[i]].Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if err := s.Services[name].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// finishesOnce: the job completes with its output, on one lease, with one final charge that pays
// what its note says, and the program has run once.
func finishesOnce(t *testing.T, s *scene, going *following) {
	t.Helper()
	report := going.end()
	if !report.Completed() {
		t.Fatalf("it ended %q, %q\n%s", report.Result, report.Reason, going.view)
	}
	if len(report.Outputs) != 1 || going.files[report.Outputs[0].File] != "kept" {
		t.Errorf("outputs %+v, files %v", report.Outputs, going.files)
	}
	text := ""
	for _, e := range going.find(jobrun.KindLog) {
		text += e.Text + " "
	}
	if text != "up done write ok " {
		t.Errorf("log %q", text)
	}
	if warned := strings.Join(report.Warnings, "\n"); strings.Contains(warned, "charge") {
		t.Errorf("warnings %s", warned)
	}
	checkBill(t, report.Bill)
	paidOnce(t, s, going.u, report)
}

// paidOnce executes the chain again and looks for charges, leases and notes of the user's job.
func paidOnce(t *testing.T, s *scene, u *user, report *jobrun.Report) {
	t.Helper()
	chain := replay(u.ctx, t, s)
	leases, finals, failed := map[tx.LeaseID]bool{}, 0, 0
	total := tx.Grains(0)
	cumulative := tx.Grains(0)
	for _, e := range chain.list {
		for i, op := range e.Tx.Operations {
			switch op := op.(type) {
			case *tx.PlaceLease:
				leases[op.Lease.ID(u.Anchor)] = true
			case *tx.Charge:
				total += e.Receipt.Outcomes[i].Amount
				cumulative = max(cumulative, op.Note.Cumulative)
				if op.Final {
					finals++
				}
			}
		}
		if len(e.Receipt.Outcomes) != len(e.Tx.Operations) {
			failed++
		}
	}
	if len(leases) != 1 || finals < 1 || total != cumulative || failed != 0 ||
		total != tx.Grains(report.Bill.Paid) {
		t.Errorf("%d leases, %d final charges, %d grains paid, the highest note says %d, the bill %s; "+
			"%d transactions failed", len(leases), finals, total, cumulative, report.Bill.Paid, failed)
	}
}

// containers are the attempts that a host's engine has folders for.
func (s *scene) containers(t *testing.T, host string) (names []string) {
	t.Helper()
	const eachHasAFolder = "*"
	pattern := filepath.Join(s.Dir, "data", host, "engine", "attempts", host, eachHasAFolder)
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}
