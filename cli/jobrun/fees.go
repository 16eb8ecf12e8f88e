package jobrun

import (
	"cmp"
	"fmt"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/bill"
	"github.com/united-containers/ucn/cli/jobfile"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// How many leases an owner grants fees for. Hosts may fail, and who replaces them is paid for that.
const (
	hostTries = 8 // for reasons of hosts, of each lane
	moves     = 2 // leases for each try of a task
	// LeasesOfService is for how many leases of each lane of an always job fees are granted at once.
	LeasesOfService = 1000
)

// grant returns what the scheduler may take in fees in all, when it takes so much for each lease.
// Errors: ErrFee when that is more than the owner allows, or when fees alone are all that the job
// may cost.
func grant(e *errand, fee tx.Grains) (tx.Grains, error) {
	p := &e.file.Payment
	if most := cmp.Or(p.MaxLeaseFee, jobfile.DefaultLeaseFee); amount.Amount(fee) > most {
		return 0, fmt.Errorf("%w: it takes %s for each, you allow %s; allow more with "+
			"--max-lease-fee", ErrFee, amount.Text(fee), amount.Text(most))
	}
	total := e.spec.GetPayment().GetMaxTotal()
	least := max(lanes(e.spec), uint64(e.spec.GetArray().GetCount()))
	if fees := times(least, uint64(fee)); fees > 0 && fees >= total {
		return 0, fmt.Errorf("%w: %d leases, which the job needs at least, cost %s in fees; all of it "+
			"may cost %s: raise --max-total", ErrFee, least, amount.Text(amount.Amount(fees)),
			amount.Text(amount.Amount(total)))
	}
	return tx.Grains(min(times(leasesFor(e.spec), uint64(fee)), total)), nil
}

// leasesFor is how many leases a job may take.
func leasesFor(spec *jobv1.JobSpec) uint64 {
	if spec.GetTrigger().GetAlways() != nil {
		return lanes(spec) * LeasesOfService
	}
	tasks := max(lanes(spec), uint64(spec.GetArray().GetCount()))
	tries := 1 + uint64(spec.GetLimits().GetRetries())
	return times(tasks, moves*tries) + hostTries*lanes(spec)
}

// feesText says what of an escrow may go to its scheduler.
func feesText(t *tx.Terms) string {
	if t.LeaseFee == 0 {
		return ""
	}
	return fmt.Sprintf(", of which its scheduler takes %s for each lease, at most %s in all",
		amount.Text(t.LeaseFee), amount.Text(t.LeaseFeeTotal))
}

// leaseFees adds up what the scheduler was proven to have taken, and compares it with what the
// escrow says, if that is known.
func (r *Runner) leaseFees(
	e *errand, found *bill.Found, said tx.Grains, incomplete error,
) amount.Amount {
	proven := bill.Fees(found.Placed)
	if incomplete == nil && said != 0 && proven != said {
		r.warn(e, "the ledger shows lease fees of %s, the escrow says that it paid %s",
			amount.Text(proven), amount.Text(said))
	}
	return amount.Amount(max(proven, said))
}

// spent is what an escrow paid.
type spent struct{ hosts, fees tx.Grains }
