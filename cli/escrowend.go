package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/sig"
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
	// expiring is how long before it expires an escrow's terms are left alone.
	expiring = time.Minute
)

// ending ends the leases under an escrow that have not got their last charge.
type ending struct {
	app    *app
	link   *link
	escrow tx.EscrowID
	leases []tx.LeaseID
	force  bool          // without asking whether their job has ended
	ahead  time.Duration // the chain's clock is before ours
}

// open sees to the leases that have not got their last charge. Those of a job that has ended are
// ended, so that their money is free after the hosts' claim windows and not only when the leases
// run out; then it says what stays reserved, and until when. Where the scheduler's word is not
// taken, it may place no more either.
func (e *ending) open(ctx context.Context, answer *ledgerv1.GetEscrowResponse) error {
	open, _, err := unsettled(ctx, e.link, e.leases)
	if err != nil || len(open) == 0 {
		return err
	}
	stop := e.force
	if e.force {
		e.app.aside("ending %s, whatever the job does: what runs under them is stopped, and its "+
			"scheduler may place no more", many(len(open), "lease"))
	} else if stop, err = e.mayEnd(ctx, answer.GetEscrow()); err != nil {
		return err
	}
	if stop {
		if open, err = e.stop(ctx, answer, open); err != nil {
			return err
		}
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

// stop takes the right to place from the escrow's assigner, and ends what runs with it: in one
// transaction, for who may place answers an end with another lease. If that fails because a lease
// ended meanwhile, the right is taken alone. It returns what is open after that, with what was
// placed until then.
func (e *ending) stop(
	ctx context.Context, answer *ledgerv1.GetEscrowResponse,
	open map[tx.LeaseID]*chainv1.LeaseState,
) (map[tx.LeaseID]*chainv1.LeaseState, error) {
	held, err := tx.EscrowFromPB(answer.GetEscrow())
	if err != nil {
		return nil, fmt.Errorf("the escrow: %w", err)
	}
	// Terms of what expires cannot be set. Nobody can place under it either: claim windows are a day.
	expires := held.Terms.Expires <= tx.Millis(answer.GetAccrual())+tx.Millis(expiring.Milliseconds())
	if held.Terms.Assigner.IsZero() || expires {
		return open, nil
	}
	list := running(open, e.now())
	operations := append([]tx.Operation{without(e.escrow, held.Terms)},
		ends(list[:min(len(list), endsAtOnce-1)])...)
	if _, err = e.link.Sender.Send(ctx, operations...); err != nil && endedBefore(err) {
		_, err = e.link.Sender.Send(ctx, operations[0])
	}
	if err != nil {
		return nil, fmt.Errorf("take the right to place leases from the scheduler: %w", err)
	}
	return e.again(ctx)
}

// again reads which leases are there now.
func (e *ending) again(ctx context.Context) (map[tx.LeaseID]*chainv1.LeaseState, error) {
	answer, err := e.link.Ledger.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{
		Chain: e.link.Chain, Escrow: e.escrow[:],
	})
	if err != nil {
		return nil, fmt.Errorf("look the escrow up again: %w", err)
	}
	if e.leases, err = leasesUnder(ctx, e.link, e.escrow); err != nil {
		return nil, err
	}
	if live := int(answer.GetEscrow().GetLive()); len(e.leases) < live {
		return nil, fmt.Errorf("its scheduler may place no more, but the ledger lists %d of %s: try "+
			"again in a moment", len(e.leases), many(live, "lease"))
	}
	open, _, err := unsettled(ctx, e.link, e.leases)
	return open, err
}

// without are terms under which nobody but the owner can place or prolong a lease.
func without(escrow tx.EscrowID, terms tx.Terms) *tx.SetTerms {
	terms.Assigner = sig.AccountID{}
	terms.MaxRate, terms.LeaseFee, terms.LeaseFeeTotal = 0, 0, 0
	return &tx.SetTerms{Escrow: escrow, Terms: terms}
}

func ends(leases []tx.LeaseID) []tx.Operation {
	operations := make([]tx.Operation, 0, len(leases))
	for _, lease := range leases {
		operations = append(operations, &tx.End{Lease: lease})
	}
	return operations
}

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
			_, err := e.link.Sender.Send(ctx, ends(part)...)
			if err != nil && !endedBefore(err) {
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
// scheduler does not know is over, and the scheduler is to place no more for it (stop).
func (e *ending) mayEnd(ctx context.Context, escrow *chainv1.Escrow) (stop bool, _ error) {
	err := jobOver(ctx, e.link, escrow)
	switch {
	case errors.Is(err, fault.NotFound):
		e.app.aside("the scheduler does not know job %s: its leases are ended, and it may place no "+
			"more", id.Bech32(id.Job, [32]byte(escrow.GetSubject())))
		return true, nil
	case err != nil:
		return false, &hinted{err, "if nobody ends it: ucn escrow close --end-leases does, and stops " +
			"what runs"}
	}
	return false, nil
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
