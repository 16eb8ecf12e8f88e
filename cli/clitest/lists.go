package clitest

import (
	"bytes"
	"context"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// ListLeases implements the service, in one page.
func (l *Ledger) ListLeases(_ context.Context, r *ledgerv1.ListLeasesRequest) (
	*ledgerv1.ListLeasesResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &ledgerv1.ListLeasesResponse{}
	for height := range l.blocks {
		s := &l.blocks[height]
		for i, o := range s.transaction().Operations {
			place, ok := o.(*tx.PlaceLease)
			if !ok || place.Lease.Escrow != tx.EscrowID(r.GetEscrow()) ||
				i >= len(s.receipt.Outcomes) {
				continue
			}
			id := tx.LeaseID(s.receipt.Outcomes[i].Created)
			entry := &ledgerv1.LeaseEntry{
				Id: id[:], PlacedHeight: uint64(height), Lease: place.Lease.PB(),
				Fee: uint64(place.Fee), Transaction: s.receipt.Transaction[:],
			}
			if state, found := l.state.Lease(id); found {
				entry.State = state.PB()
			}
			if l.LieOfLease != nil {
				l.LieOfLease(entry)
			}
			out.Leases = append(out.Leases, entry)
		}
	}
	return out, nil
}

// ListEscrows implements the service, in one page.
func (l *Ledger) ListEscrows(_ context.Context, r *ledgerv1.ListEscrowsRequest) (
	*ledgerv1.ListEscrowsResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &ledgerv1.ListEscrowsResponse{Head: uint64(len(l.blocks))}
	out.Indexed = out.Head - l.Behind
	for height := range l.blocks {
		s := &l.blocks[height]
		t := s.transaction()
		for i, o := range t.Operations {
			open, ok := o.(*tx.OpenEscrow)
			if !ok || !bytes.Equal(open.Subject, r.GetSubject()) ||
				!bytes.Equal(t.Account[:], r.GetOwner()) || i >= len(s.receipt.Outcomes) {
				continue
			}
			id := tx.EscrowID(s.receipt.Outcomes[i].Created)
			escrow, found := l.state.Escrow(id)
			if !found && r.GetOpenness() == ledgerv1.Openness_OPENNESS_OPEN {
				continue
			}
			entry := &ledgerv1.EscrowEntry{
				Id: id[:], Owner: t.Account[:], Subject: open.Subject, Purpose: open.Purpose,
				Amount: uint64(open.Amount),
			}
			if found {
				entry.Escrow = escrow.PB()
			}
			out.Escrows = append(out.Escrows, entry)
		}
	}
	return out, nil
}

// ListCharges implements the service, in one page. Lie, if set, changes what is listed.
func (l *Ledger) ListCharges(_ context.Context, r *ledgerv1.ListChargesRequest) (
	*ledgerv1.ListChargesResponse, error,
) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &ledgerv1.ListChargesResponse{Head: uint64(len(l.blocks))}
	out.Indexed = out.Head - l.Behind
	for height := range l.blocks {
		s := &l.blocks[height]
		for i, o := range s.transaction().Operations {
			charge, ok := o.(*tx.Charge)
			if !ok || charge.Note.Lease != tx.LeaseID(r.GetLease()) ||
				i >= len(s.receipt.Outcomes) {
				continue
			}
			entry := &ledgerv1.ChargeEntry{
				Height: uint64(height), OperationIndex: uint32(i), Transaction: s.id[:],
				Note: charge.Note.PB(), Final: charge.Final,
				Countersigned: !charge.Countersignature.IsZero(),
				Paid:          uint64(s.receipt.Outcomes[i].Amount),
				Unpaid:        uint64(s.receipt.Outcomes[i].Unpaid),
				Bound:         s.receipt.Outcomes[i].Bound,
			}
			if l.Lie != nil {
				l.Lie(entry)
			}
			out.Charges = append(out.Charges, entry)
		}
	}
	return out, nil
}

// ListEscrowEvents implements the service, in one page, for the escrow itself, leases that
// are placed, charges, settlements and verdicts.
func (l *Ledger) ListEscrowEvents(ctx context.Context, r *ledgerv1.ListEscrowEventsRequest) (
	*ledgerv1.ListEscrowEventsResponse, error,
) {
	listed, err := l.ListLeases(ctx, &ledgerv1.ListLeasesRequest{Escrow: r.GetEscrow()})
	if err != nil {
		return nil, err
	}
	under := map[tx.LeaseID]bool{}
	for _, e := range listed.GetLeases() {
		under[tx.LeaseID(e.GetId())] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.NoIndex {
		return nil, fault.New(fault.FailedPrecondition, "NO_INDEX", "this ledger keeps no index")
	}
	out := &ledgerv1.ListEscrowEventsResponse{Head: uint64(len(l.blocks))}
	out.Indexed = out.Head - l.Behind
	for height := range l.blocks {
		s := &l.blocks[height]
		t := s.transaction()
		body := t.PB()
		for i, o := range t.Operations {
			if i >= len(s.receipt.Outcomes) {
				break
			}
			if about(o, tx.EscrowID(r.GetEscrow()), &s.receipt.Outcomes[i]) {
				out.Events = append(out.Events, &ledgerv1.EscrowEvent{
					Height: uint64(height), OperationIndex: uint32(i), Transaction: s.id[:],
					Account: t.Account[:], Operation: body.GetBody().GetOperations()[i],
					Outcome: s.receipt.PB().GetOutcomes()[i],
				})
			}
			for _, lease := range leasesIn(o, &s.receipt.Outcomes[i]) {
				if !under[lease] {
					continue
				}
				out.Events = append(out.Events, &ledgerv1.EscrowEvent{
					Height: uint64(height), OperationIndex: uint32(i), Transaction: s.id[:],
					Operation: body.GetBody().GetOperations()[i], Lease: lease[:],
					Outcome: s.receipt.PB().GetOutcomes()[i],
				})
			}
		}
	}
	return out, nil
}

// about tells whether an operation is about the escrow itself.
func about(o tx.Operation, escrow tx.EscrowID, outcome *tx.Outcome) bool {
	switch o := o.(type) {
	case *tx.OpenEscrow:
		return tx.EscrowID(outcome.Created) == escrow
	case *tx.TopUp:
		return o.Escrow == escrow
	case *tx.Withdraw:
		return o.Escrow == escrow
	case *tx.CloseEscrow:
		return o.Escrow == escrow
	}
	return false
}

func leasesIn(o tx.Operation, outcome *tx.Outcome) []tx.LeaseID {
	switch o := o.(type) {
	case *tx.PlaceLease:
		return []tx.LeaseID{tx.LeaseID(outcome.Created)}
	case *tx.Charge:
		return []tx.LeaseID{o.Note.Lease}
	case *tx.Accept:
		return []tx.LeaseID{o.Lease}
	case *tx.Reject:
		return []tx.LeaseID{o.Lease}
	case *tx.Settle:
		return o.Leases
	}
	return nil
}

// TransactionAt returns the id of the transaction of a height.
func (l *Ledger) TransactionAt(height int) tx.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocks[height].id
}

// Height returns the height of the newest block.
func (l *Ledger) Height() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.blocks) - 1
}

// Balance returns what an account holds, grains.
func (l *Ledger) Balance(account sig.AccountID) tx.Grains {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, _ := l.state.Account(account)
	return a.Balance
}

// Escrows returns how many escrows are open.
func (l *Ledger) Escrows() (open int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for height := range l.blocks {
		s := &l.blocks[height]
		for i, o := range s.transaction().Operations {
			if _, ok := o.(*tx.OpenEscrow); !ok || i >= len(s.receipt.Outcomes) {
				continue
			}
			if _, found := l.state.Escrow(tx.EscrowID(s.receipt.Outcomes[i].Created)); found {
				open++
			}
		}
	}
	return open
}

// Supply returns how many grains there are.
func (l *Ledger) Supply() tx.Grains {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.state.Chain()
	return c.AccountSum + c.EscrowSum + c.LockSum
}

// transaction is the block's one; the genesis has an empty one.
func (s *sealed) transaction() *tx.Transaction {
	if len(s.block.Body.Transactions) == 0 {
		return &tx.Transaction{}
	}
	t, err := tx.Decode(s.block.Body.Transactions[0])
	if err != nil {
		panic("clitest: a block of its own: " + err.Error())
	}
	return t
}
