package clitest

import (
	"context"

	"github.com/united-containers/ucn/chain/tx"
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
		for i, o := range s.operations() {
			place, ok := o.(*tx.PlaceLease)
			if !ok || place.Lease.Escrow != tx.EscrowID(r.GetEscrow()) ||
				i >= len(s.receipt.Outcomes) {
				continue
			}
			id := tx.LeaseID(s.receipt.Outcomes[i].Created)
			entry := &ledgerv1.LeaseEntry{
				Id: id[:], PlacedHeight: uint64(height), Lease: place.Lease.PB(),
			}
			if state, found := l.state.Lease(id); found {
				entry.State = state.PB()
			}
			out.Leases = append(out.Leases, entry)
		}
	}
	return out, nil
}

// operations are those of the block's one transaction; the genesis has none.
func (s *sealed) operations() []tx.Operation {
	if len(s.block.Body.Transactions) == 0 {
		return nil
	}
	t, err := tx.Decode(s.block.Body.Transactions[0])
	if err != nil {
		panic("clitest: a block of its own: " + err.Error())
	}
	return t.Operations
}
