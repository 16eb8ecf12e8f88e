package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/state"
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

// Bounds of ending the leases of one escrow.
const (
	endsAtOnce = 100 // leases that one transaction ends at first; half as many each time it fails
	endTries   = 6   // how often what is left is read again and ended
)

// ending ends the leases under an escrow that have not got their last charge.
type ending struct {
	app    *app
	link   *link
	leases []tx.LeaseID
	force  bool          // without asking whether their job has ended
	ahead  time.Duration // the chain's clock is before ours
}

// open sees to the leases that have not got their last charge. Those of a job that has ended are
// ended, so that their money is free after the hosts' claim windows and not only when the leases
// run out; then it says what stays reserved, and until when.
func (e *ending) open(ctx context.Context, escrow *chainv1.Escrow) error {
	open, _, err := unsettled(ctx, e.link, e.leases)
	if err != nil || len(open) == 0 {
		return err
	}
	if e.force {
		e.app.aside("ending %s, whatever the job does: what runs under them is stopped",
			many(len(open), "lease"))
	} else if err := e.mayEnd(ctx, escrow); err != nil {
		return err
	}
	if err := e.end(ctx, open); err != nil {
		return err
	}
	open, until, err := unsettled(ctx, e.link, e.leases)
	now := e.now()
	if err != nil || len(open) == 0 || !now.Before(until) {
		return err
	}
	if n := len(running(open, now)); n > 0 {
		return fmt.Errorf("%s could not be ended, because other charges came between: try again "+
			"at once", many(n, "lease"))
	}
	most, err := unpaid(open)
	if err != nil {
		return err
	}
	return fmt.Errorf("the leases have ended, but %s got no last charge yet: up to %s may stay "+
		"reserved until about %s; close the escrow after that", many(len(open), "lease"),
		amount.Text(most), until.Local().Format("2006-01-02 15:04"))
}

// now is the chain's time.
func (e *ending) now() time.Time { return e.link.Now().Add(e.ahead) }

// end ends leases that run. A transaction ends all of its leases or none, and fails when a host
// charged one of them for the last time meanwhile: then what is left is read again and sent.
func (e *ending) end(ctx context.Context, open map[tx.LeaseID]*chainv1.LeaseState) error {
	size := endsAtOnce
	for range endTries {
		list := running(open, e.now())
		if len(list) == 0 {
			return nil
		}
		for part := range slices.Chunk(list, size) {
			operations := make([]tx.Operation, 0, len(part))
			for _, lease := range part {
				operations = append(operations, &tx.End{Lease: lease})
			}
			if _, err := e.link.Sender.Send(ctx, operations...); err != nil && !endedBefore(err) {
				return fmt.Errorf("end the leases: %w", err)
			}
		}
		var err error
		if open, _, err = unsettled(ctx, e.link, list); err != nil {
			return err
		}
		size = max(size/2, 1)
	}
	return nil // what stands still is told by the caller
}

// endedBefore tells whether a transaction failed because one of its leases had ended.
func endedBefore(err error) bool {
	var failed *submit.FailedError
	if !errors.As(err, &failed) {
		return false
	}
	r := failed.Receipt.GetReason()
	return r == chainv1.Reason_REASON_LEASE_ENDED || r == chainv1.Reason_REASON_LEASE_UNKNOWN
}

// running are the leases that have not ended, in the order of their ids.
func running(open map[tx.LeaseID]*chainv1.LeaseState, now time.Time) (list []tx.LeaseID) {
	for lease, s := range open {
		if s.GetEnd() == 0 && s.GetUntil() > uint64(now.UnixMilli()) {
			list = append(list, lease)
		}
	}
	slices.SortFunc(list, func(x, y tx.LeaseID) int { return bytes.Compare(x[:], y[:]) })
	return list
}

// unpaid is the most that leases can still be paid.
func unpaid(open map[tx.LeaseID]*chainv1.LeaseState) (sum tx.Grains, err error) {
	for _, m := range open {
		l, err := tx.LeaseStateFromPB(m)
		if err != nil {
			return 0, fmt.Errorf("a lease: %w", err)
		}
		sum += state.Reserved(&l)
	}
	return sum, nil
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

// mayEnd refuses while the escrow's job has not ended, or when nobody knows. A job that its
// scheduler does not know is over: nobody places or ends its leases any more but the owner.
func (e *ending) mayEnd(ctx context.Context, escrow *chainv1.Escrow) error {
	err := jobOver(ctx, e.link, escrow)
	switch {
	case errors.Is(err, fault.NotFound):
		e.app.aside("the scheduler does not know job %s: its leases are ended",
			id.Bech32(id.Job, [32]byte(escrow.GetSubject())))
		return nil
	case err != nil:
		return &hinted{err, "if nobody ends it: ucn escrow close --end-leases does, and stops what " +
			"runs"}
	}
	return nil
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
