package cli_test

import (
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// A ledger that lists charges which its own blocks do not hold is found out by --proof.
func TestBillOfALyingLedger(t *testing.T) {
	u := started(t, honest)
	job := result(t, u.must("job", "run", imageCID, "--no-outputs", "--json"))["job"].(string)
	if out := u.must("job", "bill", job, "--proof"); !strings.Contains(out, "verified: 1 receipts") {
		t.Errorf("an honest ledger: %s", out)
	}
	other := u.net.Ledger.TransactionAt(1)
	for name, lie := range map[string]func(*ledgerv1.ChargeEntry){
		"less was paid":       func(c *ledgerv1.ChargeEntry) { c.Paid-- },
		"more was paid":       func(c *ledgerv1.ChargeEntry) { c.Paid++ },
		"in no transaction":   func(c *ledgerv1.ChargeEntry) { c.Transaction = make([]byte, 32) },
		"in none that can be": func(c *ledgerv1.ChargeEntry) { c.Transaction = []byte{1} },
		"in another's":        func(c *ledgerv1.ChargeEntry) { c.Transaction = other[:] },
	} {
		u.net.Ledger.Lie = lie
		if out, _, code := u.run("job", "bill", job, "--proof"); code == 0 {
			t.Errorf("%s, and the proof holds: %s", name, out)
		}
	}
}

// The bill tells what the scheduler took for each lease, and --proof finds a ledger out that tells
// something else.
func TestBillOfLeaseFees(t *testing.T) {
	u := started(t, honest)
	u.net.Market.LeaseFee = 50_000
	job := result(t, u.must("job", "run", imageCID, "--no-outputs", "--json"))["job"].(string)
	for name, lie := range map[string]func(*ledgerv1.LeaseEntry){
		"less was taken":   func(e *ledgerv1.LeaseEntry) { e.Fee-- },
		"more was taken":   func(e *ledgerv1.LeaseEntry) { e.Fee++ },
		"in another's":     func(e *ledgerv1.LeaseEntry) { e.Transaction = make([]byte, 32) },
		"in none that can": func(e *ledgerv1.LeaseEntry) { e.Transaction = nil },
	} {
		u.net.Ledger.LieOfLease = lie
		if out, _, code := u.run("job", "bill", job, "--proof"); code == 0 {
			t.Errorf("%s, and the proof holds: %s", name, out)
		}
	}
	u.net.Ledger.LieOfLease = nil
	out := u.must("job", "bill", job, "--proof")
	if !strings.Contains(out, "verified: 2 receipts") || !strings.Contains(out, "0.00005 UCN") {
		t.Errorf("an honest ledger: %s", out)
	}
	if out := u.must("market"); !strings.Contains(out, "0.00005 UCN to the scheduler") {
		t.Errorf("the market says %s", out)
	}
}

// Anyone can open an escrow that names a job. Only its owner's count.
func TestBillLeavesForeignEscrowsOut(t *testing.T) {
	u := started(t, honest)
	job := result(t, u.must("job", "run", imageCID, "--no-outputs", "--json"))["job"].(string)
	before := u.must("job", "bill", job)
	raw, err := id.ParseBech32(id.Job, job)
	if err != nil {
		t.Fatal(err)
	}
	u.net.SendAsOperator(t, &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: raw[:], Amount: block.UCN,
		Terms: tx.Terms{
			MaxRate: tx.GrainsPerHour(block.UCN), MaxTotal: block.UCN, Trust: 1, Expires: 1 << 50,
			AckKeys: []sig.PublicKey{sig.FromSeed([32]byte{9}).Public()},
		},
	})
	if after := u.must("job", "bill", job); after != before {
		t.Errorf("the bill was\n%s\nand is\n%s", before, after)
	}
}
