package e2e

import (
	"testing"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
)

// jobRuns: output and log come back, the bill is usage times prices, the escrow is closed.
func jobRuns(t *testing.T, s *scene) {
	u := s.user(t)
	f := u.job("out", "hello", "write", "/out/a.txt", "written", "spin", "300ms")
	f.Outputs = append(f.Outputs, output("/out"))
	report, v := u.run(f)
	if !report.Completed() || report.ExitCode != 0 {
		t.Fatalf("it ended %q, %q\n%s", report.Result, report.Reason, v)
	}
	if lines := v.find(jobrun.KindLog); len(lines) == 0 || lines[0].Text != "hello" {
		t.Errorf("log %v", lines)
	}
	if len(report.Outputs) != 1 || report.Outputs[0].Path != "/out/a.txt" ||
		v.files[report.Outputs[0].File] != "written" {
		t.Errorf("outputs %+v, files %v", report.Outputs, v.files)
	}
	if len(report.Warnings) != 0 {
		t.Errorf("warnings %q", report.Warnings)
	}
	checkBill(t, report.Bill)
	u.closeEscrow(report)
	if report.Bill.Paid == 0 || report.Bill.LeaseFees == 0 {
		t.Error("nothing was paid for 300 ms of computing, or for a lease")
	}
}

// checkBill: the charges are right, and what was paid is what left the balance.
func checkBill(t *testing.T, b *jobrun.Bill) {
	t.Helper()
	checkCharges(t, b)
	if b.Before == nil {
		t.Fatal("the bill does not say what the balance was")
	}
	if spent := *b.Before - b.After; spent != b.Paid+b.LeaseFees+b.Fees+b.Locked {
		t.Errorf("the balance fell by %s; paid %s, lease fees %s, fees %s, locked %s", spent, b.Paid,
			b.LeaseFees, b.Fees, b.Locked)
	}
}

// checkCharges: every charge is usage x prices, proven; the last one of a lease is final.
func checkCharges(t *testing.T, b *jobrun.Bill) {
	t.Helper()
	last := map[string]jobrun.ChargeLine{}
	paid := amount.Amount(0)
	for _, c := range b.Charges {
		if !c.ProofVerified || c.Usage == nil || c.Prices == nil {
			t.Fatalf("a charge is not accounted for: %+v", c)
		}
		due, err := price.Amount(pricesOf(c.Prices), usageOf(c.Usage))
		if err != nil {
			t.Fatal(err)
		}
		if tx.Grains(c.Cumulative) > due {
			t.Errorf("charged %s for usage of %d grains: %+v", c.Cumulative, due, c)
		}
		paid += c.Paid
		last[c.Lease] = c
	}
	if paid != b.Paid {
		t.Errorf("the charges come to %s, the bill to %s", paid, b.Paid)
	}
	for _, c := range last {
		if !c.Final {
			t.Errorf("the last charge is not final: %+v", c)
		}
	}
}

func pricesOf(p *jobrun.Prices) price.Prices {
	return price.Prices{
		Model: price.Linear, WallHour: uint64(p.WallHour), CoreHour: uint64(p.CoreHour),
		MemoryGiBHour: uint64(p.MemoryGiBHour), GiBIn: uint64(p.GiBIn), GiBOut: uint64(p.GiBOut),
		DiskGiBHour: uint64(p.DiskGiBHour), Run: uint64(p.Run),
	}
}

func usageOf(u *jobrun.Usage) price.Usage {
	return price.Usage{
		WallMS: u.WallMS, CPUNS: u.CPUNS, MemoryKiBMS: u.MemoryKiBMS, MemoryPeak: u.MemoryPeak,
		BytesIn: u.BytesIn, BytesOut: u.BytesOut, DiskKiBMS: u.DiskKiBMS, Runs: u.Runs,
		Unmeasured: u.Unmeasured,
	}
}

func output(path string) jobfile.Output { return jobfile.Output{Path: path} }
