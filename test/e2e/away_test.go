package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/test/stage"
)

// away is for how long nobody answers a host or its owner.
const away = 8 * time.Second

// TestEverybodyButTheHostsAway: ledger, broker, storage and scheduler are killed with -9 at once
// and stay away for a while, in which one job runs on and another ends. Back again, both complete:
// each container was started once, its time is paid once, and what was acknowledged before is
// there, once: a transfer, a file, and a job that nobody had begun.
func TestEverybodyButTheHostsAway(t *testing.T) {
	t.Parallel()
	s := processes(t)
	u, other, third := s.user(t), s.user(t), s.user(t)
	runsOn, ends := u.start(u.long("15s")), other.start(other.long("4s"))
	runsOn.running("up")
	ends.running("up")
	before := s.containers(t, stage.HostAlpha)
	if len(before) != 2 {
		t.Fatalf("containers %q", before)
	}
	target, kept := sig.AccountID{0: 0xaa}, third.acknowledged(sig.AccountID{0: 0xaa})
	queued := third.start(third.long("1s"))
	queued.await(t, "the job in the queue", func(e jobrun.Event) bool {
		return e.Kind == jobrun.KindSubmitted
	})
	host := s.Services[stage.HostAlpha].PID()
	gone := []string{stage.Scheduler, stage.Storage, stage.Broker, stage.Ledger}
	for _, name := range gone {
		if err := s.Services[name].Kill(); err != nil {
			t.Fatal(err)
		}
	}
	timer := time.NewTimer(away)
	<-timer.C
	slices.Reverse(gone)
	for _, name := range gone {
		if err := s.Services[name].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	bills := map[*user]*jobrun.Bill{}
	for _, f := range []*following{runsOn, ends, queued} {
		bills[f.u] = f.whole(t)
	}
	if pid := s.Services[stage.HostAlpha].PID(); pid != host {
		t.Errorf("the host ended: process %d, then %d", host, pid)
	}
	paidEach(t, s, bills)
	want := tx.Grains(stage.UCN) - maxDeposit // a new account costs its state deposit
	if sum, err := third.Balance(third.ctx, target); err != nil || sum != want {
		t.Errorf("the acknowledged transfer brought %d, %v", sum, err)
	}
	if text, err := third.read(third.ctx, kept.String()); err != nil || text != "acknowledged" {
		t.Errorf("the acknowledged file: %q, %v", text, err)
	}
}

// acknowledged does what must outlive any crash, and waits for the answers.
func (u *user) acknowledged(to sig.AccountID) cid.CID {
	u.t.Helper()
	_, err := u.Sender.Send(u.ctx, &tx.Transfer{To: to, Amount: stage.UCN})
	if err != nil {
		u.t.Fatal(err)
	}
	stored, err := blob.New(u.Storage).Put(u.ctx, blob.Put{Kind: cid.File},
		strings.NewReader("acknowledged"))
	if err != nil {
		u.t.Fatal(err)
	}
	return stored.CID
}

// whole waits for a job's end: it completed with its output, and its program ran once.
func (f *following) whole(t *testing.T) *jobrun.Bill {
	t.Helper()
	report := f.end()
	if !report.Completed() {
		t.Fatalf("it ended %q, %q\n%s", report.Result, report.Reason, f.view)
	}
	if len(report.Outputs) != 1 || f.files[report.Outputs[0].File] != "kept" {
		t.Errorf("outputs %+v, files %v", report.Outputs, f.files)
	}
	text := ""
	for _, e := range f.find(jobrun.KindLog) {
		text += e.Text + " "
	}
	if text != "up done write ok " {
		t.Errorf("log %q\n%s", text, f.view)
	}
	checkBill(t, report.Bill)
	return report.Bill
}

// paidEach executes the chain again, which checks that money is conserved: every job had the lease
// that ran it, and leases were paid what their highest notes say, once.
func paidEach(t *testing.T, s *scene, bills map[*user]*jobrun.Bill) {
	t.Helper()
	paid, due := map[tx.LeaseID]tx.Grains{}, map[tx.LeaseID]tx.Grains{}
	for _, e := range replay(t.Context(), t, s).list {
		for i, op := range e.Tx.Operations {
			charge, is := op.(*tx.Charge)
			if !is {
				continue
			}
			if i < len(e.Receipt.Outcomes) {
				paid[charge.Note.Lease] += e.Receipt.Outcomes[i].Amount
			}
			due[charge.Note.Lease] = max(due[charge.Note.Lease], charge.Note.Cumulative)
		}
	}
	if len(paid) != len(bills) {
		t.Errorf("%d leases were paid for %d jobs", len(paid), len(bills))
	}
	total, billed := tx.Grains(0), tx.Grains(0)
	for lease, amount := range paid {
		if total += amount; amount != due[lease] || amount == 0 {
			t.Errorf("lease %v was paid %d, its highest note says %d", lease, amount, due[lease])
		}
	}
	for _, b := range bills {
		billed += tx.Grains(b.Paid)
	}
	if total != billed {
		t.Errorf("%d grains were paid, the bills say %d", total, billed)
	}
}
