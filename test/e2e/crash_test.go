package e2e

import (
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/test/stage"
)

var crashSeed = flag.Uint64("crash.seed", 0, "seed of the crash tests; 0 takes one from the clock")

// rounds is how often services are killed in the life of one job.
const rounds = 6

// TestKilledAgainAndAgain: from the moment a job is queued until after it should have ended, some
// services or all are killed with -9 at random moments and started again. The job completes, and is
// paid what its owner signed for, once.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with: go test ./test/e2e -run '^TestKilledAgainAndAgain$' -crash.seed=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := processes(t)
	u := s.user(t)
	going := u.start(u.long("5s"))
	going.await(t, "the job in the queue", func(e jobrun.Event) bool {
		return e.Kind == jobrun.KindSubmitted
	})
	all := []string{
		stage.Ledger, stage.Broker, stage.Storage, stage.Scheduler, stage.HostAlpha,
	}
	for round := range rounds {
		wait := time.Duration(random.Int64N(int64(1500 * time.Millisecond)))
		var struck []string
		for _, name := range all {
			if round == 0 || random.IntN(2) == 0 { // all of them at least once
				struck = append(struck, name)
			}
		}
		timer := time.NewTimer(wait)
		<-timer.C
		t.Logf("after %v: killed %v", wait, struck)
		restart(t, s, struck...)
	}
	report := going.end()
	if !report.Completed() {
		t.Fatalf("it ended %q, %q\n%s", report.Result, report.Reason, going.view)
	}
	if len(report.Outputs) != 1 || going.files[report.Outputs[0].File] != "kept" {
		t.Errorf("outputs %+v, files %v", report.Outputs, going.files)
	}
	checkBill(t, report.Bill)
	paidRight(t, s, u, report)
	if t.Failed() {
		t.Logf("what was shown:\n%s", going.view)
	}
}

// paidRight executes the chain again (which checks that money is conserved): each lease was paid
// what its highest note says and no more, and the bill is the chain's.
func paidRight(t *testing.T, s *scene, u *user, report *jobrun.Report) {
	t.Helper()
	paid, due := map[tx.LeaseID]tx.Grains{}, map[tx.LeaseID]tx.Grains{}
	leases := map[tx.LeaseID]bool{}
	for _, e := range replay(u.ctx, t, s).list {
		for i, op := range e.Tx.Operations {
			switch op := op.(type) {
			case *tx.PlaceLease:
				if i < len(e.Receipt.Outcomes) {
					leases[op.Lease.ID(u.Anchor)] = true
				}
			case *tx.Charge:
				if i < len(e.Receipt.Outcomes) {
					paid[op.Note.Lease] += e.Receipt.Outcomes[i].Amount
				}
				due[op.Note.Lease] = max(due[op.Note.Lease], op.Note.Cumulative)
			}
		}
	}
	total := tx.Grains(0)
	for lease, amount := range paid {
		if total += amount; amount != due[lease] {
			t.Errorf("lease %v was paid %d, its highest note says %d", lease, amount, due[lease])
		}
	}
	if total != tx.Grains(report.Bill.Paid) {
		t.Errorf("%d grains paid on %d leases, the bill says %s", total, len(leases),
			report.Bill.Paid)
	}
	const most = 3 // leases of attempts that were lost before their container began
	if len(leases) == 0 || len(leases) > most {
		t.Errorf("%d leases: %v", len(leases), slices.Collect(maps.Keys(leases)))
	}
	if warned := strings.Join(report.Warnings, "\n"); strings.Contains(warned, "charge") {
		t.Errorf("warnings %s", warned)
	}
}
