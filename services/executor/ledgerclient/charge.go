package ledgerclient

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/submit"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	"github.com/united-containers/ucn/services/executor"
)

// ReasonNotCharged says that a block holds the charges and they failed.
const ReasonNotCharged fault.Reason = "NOT_CHARGED"

// Charge implements executor.Ledger.
func (c *Client) Charge(
	ctx context.Context, chain string, charges []executor.Charge,
) ([]executor.Charged, error) {
	sender, err := c.sender(ctx, chain)
	if err != nil {
		return nil, err
	}
	operations := make([]tx.Operation, len(charges))
	for i := range charges {
		operations[i] = operation(&charges[i])
	}
	result, err := sender.Send(ctx, operations...)
	var failed *submit.FailedError
	if errors.As(err, &failed) {
		return nil, fault.New(fault.Unavailable, ReasonNotCharged, "the charges failed: %s",
			failed.Receipt.GetReason()).Because(err)
	}
	if err != nil {
		return nil, fmt.Errorf("submit charges: %w", err)
	}
	return read(result.Receipt, len(operations))
}

// Settle implements executor.Ledger.
func (c *Client) Settle(ctx context.Context, chain string, leases []executor.LeaseID) error {
	sender, err := c.sender(ctx, chain)
	if err != nil {
		return err
	}
	operation := &tx.Settle{Leases: make([]tx.LeaseID, len(leases))}
	for i, id := range leases {
		operation.Leases[i] = tx.LeaseID(id)
	}
	if _, err := sender.Send(ctx, operation); err != nil {
		return fmt.Errorf("submit a settlement: %w", err)
	}
	return nil
}

// sender returns the one sender of this instance's account on the chain.
func (c *Client) sender(ctx context.Context, chain string) (*submit.Sender, error) {
	c.mu.Lock()
	have := c.senders[chain]
	c.mu.Unlock()
	if have != nil {
		return have, nil
	}
	anchor, err := c.Anchor(ctx, chain)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.senders[chain] == nil {
		c.senders[chain] = submit.New(submit.Config{
			Ledger: c.ledger, Key: c.key, Chain: chain, Anchor: anchor, Now: c.clock.Now,
			HeadTime: c.clock.HeadTime,
		})
	}
	return c.senders[chain], nil
}

// Close waits for submissions under way and ends the senders.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, sender := range c.senders {
		sender.Close()
	}
	clear(c.senders)
	return nil
}

func operation(c *executor.Charge) tx.Operation {
	o := &tx.Charge{Note: *c.Note.Note.TX(), Signature: c.Note.Signature, Final: c.Final}
	if c.Ack != nil {
		o.Countersignature = tx.Countersignature{Index: c.Ack.Index, Signature: c.Ack.Signature}
	}
	return o
}

func read(receipt *chainv1.Receipt, operations int) ([]executor.Charged, error) {
	if len(receipt.GetOutcomes()) != operations {
		return nil, fault.New(fault.Unavailable, ReasonNotCharged,
			"the receipt has %d outcomes for %d charges", len(receipt.GetOutcomes()), operations)
	}
	charged := make([]executor.Charged, operations)
	for i, o := range receipt.GetOutcomes() {
		charged[i].Paid = o.GetAmount()
		if o.GetBound() != chainv1.Bound_BOUND_UNSPECIFIED {
			charged[i].Bound = strings.ToLower(strings.TrimPrefix(o.GetBound().String(), "BOUND_"))
		}
	}
	return charged, nil
}
