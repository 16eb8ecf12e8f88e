package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/cli/unclosed"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/submit"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Bounds of what one command closes beside its own work.
const (
	leftAtOnce = 8                // escrows that it looks at
	leftLeases = 100              // under one of them; more are closed by hand
	leftTime   = 10 * time.Second // for all of it
	leftAgain  = time.Minute      // until one that could not be closed is looked at again
)

// unclosed is where escrows that commands had to leave open are remembered.
func (a *app) unclosed() unclosed.Folder {
	return unclosed.Folder(filepath.Join(a.data(), "unclosed"))
}

// closeLeft closes escrows that earlier commands of the wallet had to leave open: a lease stands
// until its place_by is over, even if its job is done before, and of a detached job nobody waits
// for the end. It does so only after a command that brought a transaction of the wallet's own into
// a block, says so in a line, and leaves alone all that hosts or the owner's word may still claim.
func (a *app) closeLeft(ctx context.Context, l *link) {
	own := l.Sender != nil && l.Signer() == 0 && l.Sender.Account() == l.Account
	if !own || !l.Sender.Committed() || ctx.Err() != nil {
		return
	}
	folder := a.unclosed()
	release, err := folder.Lock()
	if err != nil {
		return // nothing was ever left, or another command is at it
	}
	defer release()
	if w, ok := l.Ledger.(*warning); ok {
		w.hush()
	}
	ctx, cancel := context.WithTimeout(ctx, leftTime)
	defer cancel()
	c := closer{app: a, link: l, folder: folder}
	if err := c.closeAll(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		a.aside("escrows of earlier jobs are not closed: %s", message(err))
	}
}

// aside tells of what was done beside the command's own work.
func (a *app) aside(format string, args ...any) {
	if !a.flags.quiet {
		printf(a.Err, "ucn: "+format+"\n", args...)
	}
}

// closer closes escrows that were left open.
type closer struct {
	app    *app
	link   *link
	folder unclosed.Folder

	now                tx.Millis // the chain's
	operation, byteFee tx.Grains
}

func (c *closer) closeAll(ctx context.Context) error {
	list, err := c.folder.List()
	if err != nil || len(list) == 0 {
		return err
	}
	chain, err := c.link.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: c.link.Chain})
	if err != nil {
		return err
	}
	c.now = tx.Millis(max(chain.GetNow(), chain.GetHead().GetTime()))
	c.operation, c.byteFee = tx.Grains(chain.GetOperationFee()), tx.Grains(chain.GetByteFee())
	anchor := hex.EncodeToString(c.link.Anchor[:])
	looked := 0
	for _, e := range list {
		if e.Chain != c.link.Chain || e.Anchor != anchor || e.Account != accountText(c.link.Account) {
			continue
		}
		if looked++; looked > leftAtOnce || tx.Millis(e.NotBefore) > c.now {
			return nil
		}
		if err := c.close(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// close closes one escrow if it can be. An error is one that the others would meet too.
func (c *closer) close(ctx context.Context, e unclosed.Escrow) error {
	escrow, err := parseEscrow(e.Escrow)
	if err != nil {
		return err
	}
	answer, err := c.link.Ledger.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{
		Chain: c.link.Chain, Escrow: escrow[:],
	})
	switch {
	case errors.Is(err, fault.NotFound):
		return c.folder.Drop(e.Escrow)
	case err != nil:
		return err
	}
	operations, err := c.ready(ctx, escrow, e.Ended, answer)
	switch {
	case err != nil:
		return err
	case operations == nil:
		e.NotBefore = uint64(c.now) + uint64(leftAgain.Milliseconds())
		return c.folder.Keep(e)
	}
	result, err := c.link.Sender.Send(ctx, operations...)
	var failed *submit.FailedError
	switch {
	case errors.As(err, &failed): // not again, for it costs a fee each time
		c.app.aside("closing the escrow of job %s failed (%s); try it later: ucn escrow close %s",
			nameOf(e), reasonText(failed.Receipt.GetReason().String(), "REASON_"), e.Escrow)
	case err != nil:
		return err
	default:
		outcomes := result.Receipt.GetOutcomes()
		back := outcomes[len(outcomes)-1].GetAmount()
		c.app.aside("the escrow of job %s is closed: %s came back, fee %s", nameOf(e),
			amount.Text(back), amount.Text(result.Receipt.GetFee()))
	}
	return c.folder.Drop(e.Escrow)
}

func nameOf(e unclosed.Escrow) string {
	return screen.Clean(first(e.Name, e.Job))
}

// ready returns what closes an escrow; nil if it must wait, or more than it holds would be paid in
// fees.
func (c *closer) ready(ctx context.Context, escrow tx.EscrowID, ended bool,
	answer *ledgerv1.GetEscrowResponse) ([]tx.Operation, error) {
	held := answer.GetEscrow()
	if held.GetLive() > leftLeases {
		return nil, nil
	}
	if !ended {
		if err := jobOver(ctx, c.link, held); err != nil {
			return nil, nil //nolint:nilerr // it runs, or nobody knows
		}
	}
	var operations []tx.Operation
	if held.GetLive() > 0 {
		leases, err := leasesUnder(ctx, c.link, escrow)
		if err != nil {
			return nil, err
		}
		if len(leases) != int(held.GetLive()) {
			return nil, nil // the ledger's index is behind
		}
		if over, err := c.over(ctx, leases); err != nil || !over {
			return nil, err
		}
		operations = append(operations, &tx.Settle{Leases: leases})
	}
	operations = append(operations, &tx.CloseEscrow{Escrow: escrow})
	const leaseBytes, otherBytes = 34, 300
	fee := c.operation*tx.Grains(len(operations)) +
		c.byteFee*tx.Grains(otherBytes+leaseBytes*held.GetLive())
	if tx.Grains(held.GetBalance()+held.GetLock()) <= fee {
		return nil, nil
	}
	return operations, nil
}

// over reports whether all leases have got their last charge and can be removed.
func (c *closer) over(ctx context.Context, leases []tx.LeaseID) (bool, error) {
	for _, lease := range leases {
		answer, err := c.link.Ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{
			Chain: c.link.Chain, Lease: lease[:],
		})
		s := answer.GetLease()
		switch {
		case errors.Is(err, fault.NotFound):
			continue
		case err != nil:
			return false, err
		case !s.GetSettled() || tx.Millis(s.GetLease().GetPlaceBy()) >= c.now:
			return false, nil
		case s.GetLease().GetHoldback() == 0:
			continue
		}
		if h, err := heldBack(ctx, c.link, lease); err != nil {
			return false, err
		} else if h != nil && h.State == "waits" && h.Held > 0 {
			return false, nil
		}
	}
	return true, nil
}
