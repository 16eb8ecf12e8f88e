package cli

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/bill"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// heldPayment is what an acceptance, or silence, paid of what was held back.
type heldPayment struct {
	Transaction string        `json:"transaction"`
	Height      uint64        `json:"height"`
	Time        uint64        `json:"time_ms"`
	Paid        amount.Amount `json:"paid"`
}

// heldPayments finds what of an escrow's holdbacks was paid, once for each operation.
func (b *billResult) heldPayments(ctx context.Context, l *link, escrow tx.EscrowID) error {
	type place struct {
		height           uint64
		index, operation uint32
	}
	seen := map[place]bool{}
	r := &ledgerv1.ListEscrowEventsRequest{Chain: l.Chain, Escrow: escrow[:]}
	events := 0
	return collect(0, func(size int, token string) (int, string, error) {
		r.PageSize, r.PageToken = uint32(size), token
		page, err := l.Ledger.ListEscrowEvents(ctx, r)
		for _, e := range page.GetEvents() {
			events++
			at := place{e.GetHeight(), e.GetIndex(), e.GetOperationIndex()}
			if !paysHeld(e.GetOperation()) || e.GetOutcome().GetAmount() == 0 || seen[at] {
				continue
			}
			seen[at] = true
			one := heldPayment{
				Transaction: hex.EncodeToString(e.GetTransaction()), Height: e.GetHeight(),
				Time: e.GetTime(), Paid: amount.Amount(e.GetOutcome().GetAmount()),
			}
			b.Held = append(b.Held, one)
			b.Paid += one.Paid
		}
		return events, page.GetNextPageToken(), err
	})
}

func paysHeld(o *chainv1.Operation) bool { return o.GetAccept() != nil || o.GetSettle() != nil }

// verifyHeld proves that each transaction paid what the ledger says that its acceptances and
// settlements did.
func (b *billResult) verifyHeld(ctx context.Context, l bill.Client, trust proof.Trust) error {
	said := map[string]tx.Grains{}
	for _, h := range b.Held {
		said[h.Transaction] += tx.Grains(h.Paid)
	}
	for text, sum := range said {
		t, receipt, err := provenTransaction(ctx, l, trust, text)
		if err != nil {
			return err
		}
		paid := tx.Grains(0)
		for i, o := range t.Operations {
			switch o.(type) {
			case *tx.Accept, *tx.Settle:
				if i < len(receipt.Outcomes) {
					paid += receipt.Outcomes[i].Amount
				}
			}
		}
		if paid < sum { // a settlement may also pay for other escrows
			return fmt.Errorf("%w: transaction %s", errProof, text)
		}
	}
	b.Verified += len(said)
	return nil
}

// provenTransaction returns a transaction and its receipt once they are proven.
func provenTransaction(
	ctx context.Context, l bill.Client, trust proof.Trust, text string,
) (*tx.Transaction, *tx.Receipt, error) {
	wanted, err := hexID("transaction", text)
	if err != nil {
		return nil, nil, err
	}
	answer, err := l.Transaction(ctx, tx.ID(wanted))
	if err != nil {
		return nil, nil, err
	}
	p, err := bill.Verify(answer.GetProof(), trust)
	if err != nil {
		return nil, nil, err
	}
	t, err := tx.Decode(answer.GetProof().GetTransaction())
	if err != nil || p.ID != tx.ID(wanted) || t.ID(trust.Anchor) != p.ID {
		return nil, nil, fmt.Errorf("%w: transaction %s", errProof, text)
	}
	return t, &p.Receipt, nil
}
