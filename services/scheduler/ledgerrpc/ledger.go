// Package ledgerrpc is the scheduler's view of the chain through a ledger's gRPC service. It
// places and ends leases from the scheduler's own account and reads escrows and leases. It trusts
// that ledger for what it reads.
package ledgerrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/submit"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// Ledger implements scheduler.Ledger.
type Ledger struct {
	client ledgerv1.LedgerServiceClient
	sender *submit.Sender
	chain  string
	anchor sig.Anchor
}

var _ scheduler.Ledger = (*Ledger)(nil)

// New returns the view of one chain; sender acts for the scheduler's account on it.
func New(
	client ledgerv1.LedgerServiceClient, sender *submit.Sender, chain string, anchor sig.Anchor,
) *Ledger {
	return &Ledger{client: client, sender: sender, chain: chain, anchor: anchor}
}

// Now implements scheduler.Ledger.
func (l *Ledger) Now(ctx context.Context) (time.Time, error) {
	r, err := l.client.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: l.chain})
	if err != nil {
		return time.Time{}, fmt.Errorf("read the chain's clock: %w", err)
	}
	now := max(r.GetNow(), r.GetHead().GetTime())
	if now == 0 {
		return time.Time{}, errors.New("read the chain's clock: the ledger does not tell the time")
	}
	return timeOf(now), nil
}

// Escrow implements scheduler.Ledger.
func (l *Ledger) Escrow(ctx context.Context, id tx.EscrowID) (scheduler.Escrow, error) {
	r, err := l.client.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{Chain: l.chain, Escrow: id[:]})
	if fault.KindOf(err) == fault.NotFound || err == nil && r.GetEscrow() == nil {
		return scheduler.Escrow{}, scheduler.ErrNotFound
	} else if err != nil {
		return scheduler.Escrow{}, fmt.Errorf("read escrow: %w", err)
	}
	s, err := tx.EscrowFromPB(r.GetEscrow())
	if err != nil {
		return scheduler.Escrow{}, fmt.Errorf("read escrow: %w", err)
	}
	out := scheduler.Escrow{
		Owner: s.Owner, ForJob: s.Purpose == chainv1.Purpose_PURPOSE_JOB,
		AckKeys: s.Terms.AckKeys, Payees: s.Payees,
		Unreserved: r.GetUnreserved(), Floor: uint64(s.Terms.Floor),
		MaxRate: uint64(s.Terms.MaxRate), Rate: uint64(s.Rate),
		MaxTotal: uint64(s.Terms.MaxTotal),
		Used:     uint64(s.Paid) + uint64(s.Reserved) + uint64(s.LeaseFees),
		Trust:    uint64(s.Terms.Trust), Risk: uint64(s.Risk),
		LeaseFee: uint64(s.Terms.LeaseFee), LeaseFeeTotal: uint64(s.Terms.LeaseFeeTotal),
		LeaseFees: uint64(s.LeaseFees),
		Deadline:  uint64(s.Terms.Expires),
		Expires:   timeOf(dateOf(uint64(s.Terms.Expires), r.GetNow(), r.GetAccrual())),
	}
	if len(s.Subject) == len(out.Subject) {
		out.Subject = [32]byte(s.Subject)
	}
	out.Assigner = s.Terms.Assigner
	return out, nil
}

// Lease implements scheduler.Ledger.
func (l *Ledger) Lease(ctx context.Context, id tx.LeaseID) (scheduler.LeaseState, error) {
	r, err := l.client.GetLease(ctx, &ledgerv1.GetLeaseRequest{Chain: l.chain, Lease: id[:]})
	if fault.KindOf(err) == fault.NotFound || err == nil && r.GetLease() == nil {
		return scheduler.LeaseState{}, scheduler.ErrNotFound
	} else if err != nil {
		return scheduler.LeaseState{}, fmt.Errorf("read lease: %w", err)
	}
	return stateOf(r.GetLease())
}

func stateOf(held *chainv1.LeaseState) (scheduler.LeaseState, error) {
	leaf, err := tx.LeaseStateFromPB(held)
	if err != nil {
		return scheduler.LeaseState{}, fmt.Errorf("read lease: %w", err)
	}
	state := scheduler.LeaseState{Until: timeOf(held.GetUntil()), Settled: held.GetSettled()}
	end := held.GetUntil()
	if at := held.GetEnd(); at != 0 {
		state.Ended, end = timeOf(at), min(at, end)
	}
	state.Claimable = timeOf(min(end, maxTime) + min(held.GetLease().GetClaimWindow(), maxTime))
	state.Leaf = leaf
	return state, nil
}

// Leases implements scheduler.Ledger.
func (l *Ledger) Leases(
	ctx context.Context, ids []tx.LeaseID,
) (map[tx.LeaseID]scheduler.LeaseState, error) {
	r := &ledgerv1.GetLeasesRequest{Chain: l.chain}
	for i := range ids {
		r.Leases = append(r.Leases, ids[i][:])
	}
	answer, err := l.client.GetLeases(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	if n := len(answer.GetLeases()); n != len(ids) {
		return nil, fmt.Errorf("read leases: %d answers to %d questions", n, len(ids))
	}
	states := map[tx.LeaseID]scheduler.LeaseState{}
	for i, entry := range answer.GetLeases() {
		if !bytes.Equal(entry.GetId(), ids[i][:]) {
			return nil, fmt.Errorf("read leases: answer %d is of another lease", i)
		}
		if entry.GetLease() == nil {
			continue
		}
		if states[ids[i]], err = stateOf(entry.GetLease()); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// maxTime is the last time that is told apart, in the year 9999, so that it can be written down.
const maxTime = 253_402_300_799_000

// dateOf is when an accrual comes, if blocks go on from now: the chain's clocks stand at now and
// accrual. It can only come later.
func dateOf(at, now, accrual uint64) uint64 {
	switch {
	case accrual == 0 || now < accrual:
		return at
	case at > math.MaxUint64-(now-accrual):
		return math.MaxUint64
	}
	return at + (now - accrual)
}

func timeOf(ms uint64) time.Time { return time.UnixMilli(int64(min(ms, maxTime))) }

// PlaceLease implements scheduler.Ledger.
func (l *Ledger) PlaceLease(
	ctx context.Context, s scheduler.SignedLease, fee uint64,
) error {
	_, err := l.sender.Send(ctx, &tx.PlaceLease{
		Lease: s.Lease, Signature: s.Signature, Fee: tx.Grains(fee),
	})
	var failed *submit.FailedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failed):
		return refusal(failed.Receipt.GetReason())
	case errors.Is(err, submit.ReasonOperations): // the host's doing: nobody could place it
		return fmt.Errorf("%w: %w", scheduler.ErrLeaseRefused, err)
	case errors.Is(err, submit.ErrUnknown), ctx.Err() != nil:
		return fmt.Errorf("place lease: %w", err) // it may be in a block
	}
	return fmt.Errorf("%w: %w", scheduler.ErrNotPlaced, err)
}

// refusal tells whose affair it is that the chain did not take a lease.
func refusal(reason chainv1.Reason) error {
	switch reason {
	case chainv1.Reason_REASON_LEASE_EXISTS:
		return nil
	case chainv1.Reason_REASON_LEASE_LATE: // this end, or the ledger, was slow
		return fmt.Errorf("%w: %s", scheduler.ErrNotPlaced, reason)
	case chainv1.Reason_REASON_UNRESERVED_TOO_LOW, chainv1.Reason_REASON_BELOW_FLOOR,
		chainv1.Reason_REASON_MAX_RATE, chainv1.Reason_REASON_MAX_TOTAL,
		chainv1.Reason_REASON_TRUST_EXCEEDED, chainv1.Reason_REASON_TOO_MANY_LEASES,
		chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST, chainv1.Reason_REASON_ESCROW_EXPIRED,
		chainv1.Reason_REASON_LEASE_FEE, chainv1.Reason_REASON_LEASE_FEE_TOTAL,
		chainv1.Reason_REASON_ESCROW_UNKNOWN, chainv1.Reason_REASON_NOT_ASSIGNER,
		chainv1.Reason_REASON_ACK_KEYS_DIFFER: // the owner's, whose terms may have changed
		return fmt.Errorf("%w: %w: %s", scheduler.ErrNotPlaced, scheduler.ErrEscrow, reason)
	}
	return fmt.Errorf("%w: %s", scheduler.ErrLeaseRefused, reason)
}

// EndLease implements scheduler.Ledger.
func (l *Ledger) EndLease(ctx context.Context, id tx.LeaseID) error {
	_, err := l.sender.Send(ctx, &tx.End{Lease: id})
	var failed *submit.FailedError
	if errors.As(err, &failed) {
		switch failed.Receipt.GetReason() {
		case chainv1.Reason_REASON_LEASE_ENDED, chainv1.Reason_REASON_LEASE_UNKNOWN:
			return nil
		}
		return fmt.Errorf("%w: %s", scheduler.ErrEndRefused, failed.Receipt.GetReason())
	}
	if err != nil {
		return fmt.Errorf("end lease: %w", err)
	}
	return nil
}

// Settle implements scheduler.Ledger.
func (l *Ledger) Settle(ctx context.Context, leases []tx.LeaseID) error {
	if _, err := l.sender.Send(ctx, &tx.Settle{Leases: leases}); err != nil {
		return fmt.Errorf("settle leases: %w", err)
	}
	return nil
}

// VerifyLease checks that the agent signed the lease for this chain, and returns its id.
func (l *Ledger) VerifyLease(lease *tx.Lease, s sig.Signature) (tx.LeaseID, error) {
	if !sig.Verify(lease.AgentKey, lease.Preimage(l.anchor), s) {
		return tx.LeaseID{}, errors.New("the agent's signature does not verify")
	}
	return lease.ID(l.anchor), nil
}
