package jobrun

import (
	"context"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/bill"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// patience waits for a ledger that is away, for Settle since it last answered: what a ledger that
// answers has to do takes as long as it takes. It is a ledger that bills are made from.
type patience struct {
	r     *Runner
	heard time.Time
}

var _ bill.Ledger = (*patience)(nil)

func (r *Runner) patience() *patience { return &patience{r, time.Now()} }

// read calls the ledger until it answers.
func (p *patience) read(ctx context.Context, call func(context.Context) error) error {
	for {
		err := p.once(ctx, call)
		switch fault.KindOf(err) {
		case fault.Unavailable, fault.DeadlineExceeded:
		default:
			p.heard = time.Now()
			return err
		}
		if time.Since(p.heard) >= p.r.settle() || !pause(ctx, p.r.poll()) {
			return err
		}
	}
}

func (p *patience) once(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx)
}

func (p *patience) ledger() bill.Client {
	return bill.Client{Service: p.r.Session.Ledger, Chain: p.r.Session.Chain}
}

// Head implements bill.Ledger.
func (p *patience) Head(ctx context.Context) (head uint64, err error) {
	err = p.read(ctx, func(ctx context.Context) (err error) {
		head, err = p.ledger().Head(ctx)
		return err
	})
	return head, err
}

// Block implements bill.Ledger.
func (p *patience) Block(ctx context.Context, height uint64) (b *chainv1.Block, err error) {
	err = p.read(ctx, func(ctx context.Context) (err error) {
		b, err = p.ledger().Block(ctx, height)
		return err
	})
	return b, err
}

// Transaction implements bill.Ledger.
func (p *patience) Transaction(
	ctx context.Context, id tx.ID,
) (t *ledgerv1.GetTransactionResponse, err error) {
	err = p.read(ctx, func(ctx context.Context) (err error) {
		t, err = p.ledger().Transaction(ctx, id)
		return err
	})
	return t, err
}

// Events implements bill.Ledger.
func (p *patience) Events(
	ctx context.Context, escrow tx.EscrowID, upto uint64, page string,
) (list []*ledgerv1.EscrowEvent, next string, err error) {
	err = p.read(ctx, func(ctx context.Context) (err error) {
		list, next, err = p.ledger().Events(ctx, escrow, upto, page)
		return err
	})
	return list, next, err
}
