package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/test/stage"
)

// TestOriginalIsKept: a host is frozen while a program runs on it, until a replacement runs on
// another host. Back again, it goes on with the program, which was started once, in the container
// that it has; the replacement is stopped. Every lease is paid for its own time.
func TestOriginalIsKept(t *testing.T) {
	keptDespite(t, (*scene).freeze)
}

// TestOriginalIsKeptOverACrash is the same with a host whose process is killed and starts again.
func TestOriginalIsKeptOverACrash(t *testing.T) {
	keptDespite(t, func(s *scene, t *testing.T, name string) func() {
		if err := s.Services[name].Kill(); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := s.Services[name].Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// keptDespite takes a host away, until what takes returns is called.
func keptDespite(t *testing.T, take func(s *scene, t *testing.T, name string) (back func())) {
	t.Helper()
	t.Parallel()
	s := processes(t)
	u := s.user(t)
	f := u.job("out", "up", "sleep", "50s", "out", "done", "write", "/out/a", "kept")
	f.Outputs = []jobfile.Output{output("/out/a")}
	f.Disconnect = jobfile.Disconnect{LostAfter: 10 * time.Second, Policy: "keep-original"}
	going := u.start(f)
	going.running("up")
	original := s.containers(t, stage.HostAlpha)
	if len(original) != 1 {
		t.Fatalf("containers %q", original)
	}
	back := take(s, t, stage.HostAlpha)
	s.awaitContainers(t, stage.HostBeta, 1)
	back()
	s.awaitContainers(t, stage.HostBeta, 0)
	if now := s.containers(t, stage.HostAlpha); len(now) != 1 || now[0] != original[0] {
		t.Errorf("containers %q, then %q", original, now)
	}
	report := going.end()
	if !report.Completed() || len(report.Outputs) != 1 ||
		going.files[report.Outputs[0].File] != "kept" {
		t.Fatalf("it ended %q, %q: %+v\n%s", report.Result, report.Reason, report.Outputs, going.view)
	}
	checkBill(t, report.Bill)
	going.wentOn(t, original[0])
	paidDisjoint(t, s, report.Bill)
}

// wentOn wants the job to have completed in the container of its first attempt, under another one.
func (f *following) wentOn(t *testing.T, original string) {
	t.Helper()
	j, _, _ := f.jobOf()
	kept := ""
	for _, a := range j.GetRuns()[0].GetAttempts() {
		s := a.GetStatus()
		t.Logf("attempt %x for %x: %v, %v, %d grains", s.GetAttempt(), s.GetContinues(),
			s.GetOutcome().GetReason(), s.GetOutcome().GetMessage(), s.GetAmount())
		if s.GetOutcome().GetReason() == jobv1.EndReason_END_REASON_COMPLETED {
			kept += fmt.Sprintf("%x ", s.GetContinues())
		}
	}
	if kept != original+" " {
		t.Errorf("completed as what continues %q, want %q", kept, original)
	}
}

// paidDisjoint executes the chain again, which checks that money is conserved: the leases of the
// lane follow each other, none is paid for more than its time, and together they are the bill.
func paidDisjoint(t *testing.T, s *scene, bill *jobrun.Bill) {
	t.Helper()
	type span struct {
		lease      tx.Lease
		from, upto tx.Millis
		paid       tx.Grains
	}
	leases := map[tx.LeaseID]*span{}
	total := tx.Grains(0)
	var last *span
	for _, e := range replay(t.Context(), t, s).list {
		for i, op := range e.Tx.Operations {
			switch o := op.(type) {
			case *tx.PlaceLease:
				now := &span{lease: o.Lease, from: e.Time, upto: e.Time}
				if last != nil && last.lease.Epoch >= now.lease.Epoch {
					t.Errorf("epoch %d after %d", now.lease.Epoch, last.lease.Epoch)
				}
				if last != nil {
					last.upto = e.Time
				}
				leases[tx.LeaseID(e.Receipt.Outcomes[i].Created)], last = now, now
			case *tx.Charge:
				total += e.Receipt.Outcomes[i].Amount
				leases[o.Note.Lease].paid += e.Receipt.Outcomes[i].Amount
				if last.upto = max(last.upto, e.Time); o.Note.Upto > e.Time {
					t.Errorf("a note of the future: %+v", o.Note)
				}
			}
		}
	}
	for id, l := range leases {
		most, err := price.Accrued(l.lease.Rate, l.upto-l.from)
		if err != nil || l.paid > most+l.lease.Upfront {
			t.Errorf("lease %x was paid %d of at most %d, %v", id[:4], l.paid, most, err)
		}
	}
	if len(leases) != 3 || total != tx.Grains(bill.Paid) || total == 0 {
		t.Errorf("%d leases were paid %d, the bill says %s", len(leases), total, bill.Paid)
	}
}

// freeze stops the process of a service from being scheduled until thaw is called.
func (s *scene) freeze(t *testing.T, name string) (thaw func()) {
	t.Helper()
	pid := s.Services[name].PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw = func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil &&
			!strings.Contains(err.Error(), "no such process") {
			t.Error(err)
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// awaitContainers waits until a host's engine has so many.
func (s *scene) awaitContainers(t *testing.T, host string, want int) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		have := s.containers(t, host)
		if len(have) == want {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s has containers %q, want %d", host, have, want)
		}
	}
}
