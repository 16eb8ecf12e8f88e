package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/submit"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// endsAtOnce is how many leases one transaction ends.
const endsAtOnce = 100

// endOpen sees to the leases that have not got their last charge. Those of a job that has ended
// are ended, so that their money is free after the hosts' claim windows and not only when the
// leases run out; then it says what stays reserved, and until when.
func endOpen(
	ctx context.Context, l *link, escrow *chainv1.Escrow, leases []tx.LeaseID,
) error {
	open, _, err := unsettled(ctx, l, leases)
	if err != nil || len(open) == 0 {
		return err
	}
	if err := jobOver(ctx, l, escrow); err != nil {
		return err
	}
	var operations []tx.Operation
	now := uint64(l.Now().UnixMilli())
	for _, lease := range leases {
		if s := open[lease]; s != nil && s.GetEnd() == 0 && s.GetUntil() > now {
			operations = append(operations, &tx.End{Lease: lease})
		}
	}
	for part := range slices.Chunk(operations, endsAtOnce) {
		// A host that charged meanwhile fails them all; what stands open still is told below.
		_, err := l.Sender.Send(ctx, part...)
		var failed *submit.FailedError
		if err != nil && (!errors.As(err, &failed) ||
			failed.Receipt.GetReason() != chainv1.Reason_REASON_LEASE_ENDED) {
			return fmt.Errorf("end the leases of a job that has ended: %w", err)
		}
	}
	open, until, err := unsettled(ctx, l, leases)
	if err != nil || len(open) == 0 || !l.Now().Before(until) {
		return err
	}
	return fmt.Errorf("the job and its leases have ended, but %s got no last charge yet: "+
		"up to %s may stay reserved until about %s; close the escrow after that",
		many(len(open), "lease"), amount.Text(unpaid(open)),
		until.Local().Format("2006-01-02 15:04"))
}

// unpaid is the most that leases can still be paid.
func unpaid(open map[tx.LeaseID]*chainv1.LeaseState) (sum tx.Grains) {
	for _, s := range open {
		sum += tx.Grains(s.GetBudget() - min(s.GetPaid(), s.GetBudget()))
	}
	return sum
}

// unsettled reads the leases without a last charge, and when the last of their claim windows is
// over as the clock goes: time in which the chain makes no blocks comes on top.
func unsettled(ctx context.Context, l *link, leases []tx.LeaseID) (
	open map[tx.LeaseID]*chainv1.LeaseState, until time.Time, err error,
) {
	open = map[tx.LeaseID]*chainv1.LeaseState{}
	for _, lease := range leases {
		answer, err := l.Ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{
			Chain: l.Chain, Lease: lease[:],
		})
		s := answer.GetLease()
		switch {
		case errors.Is(err, fault.NotFound):
			continue
		case err != nil:
			return nil, until, fmt.Errorf("look a lease up: %w", err)
		case s.GetSettled():
			continue
		}
		open[lease] = s
		end := s.GetUntil()
		if s.GetEnd() != 0 {
			end = min(end, s.GetEnd())
		}
		if t := time.UnixMilli(int64(end + s.GetLease().GetClaimWindow())); t.After(until) {
			until = t
		}
	}
	return open, until, nil
}

// jobOver refuses while the escrow's job has not ended, or when nobody knows.
func jobOver(ctx context.Context, l *link, escrow *chainv1.Escrow) error {
	if escrow.GetPurpose() != chainv1.Purpose_PURPOSE_JOB {
		return errors.New("leases under the escrow have not got their last charge: wait until " +
			"their claim windows are over")
	}
	job := [32]byte(escrow.GetSubject())
	answer, err := l.Scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: job[:]})
	if err != nil {
		return fmt.Errorf("leases under the escrow have not got their last charge, and whether "+
			"their job has ended is not known: %w", err)
	}
	if answer.GetJob().GetState() != jobv1.State_STATE_ENDED {
		return fmt.Errorf("the job runs: end it first (ucn job cancel %s)",
			id.Bech32(id.Job, job))
	}
	return nil
}
