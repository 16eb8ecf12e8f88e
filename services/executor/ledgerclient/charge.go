package ledgerclient

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/executor"
)

// ReasonNotCharged says that the ledger did not take a transaction of charges.
const ReasonNotCharged fault.Reason = "NOT_CHARGED"

// waiting is a call of Charge.
type waiting struct {
	ctx     context.Context
	chain   string
	charges []executor.Charge
	done    chan outcome // buffered: the worker never waits for a caller
}

type outcome struct {
	charged []executor.Charged
	err     error
}

// Charge implements executor.Ledger.
func (c *Client) Charge(
	ctx context.Context, chain string, charges []executor.Charge,
) ([]executor.Charged, error) {
	if len(charges) == 0 || len(charges) > maxBatch {
		return nil, fmt.Errorf("charge: %d charges, allowed 1 to %d", len(charges), maxBatch)
	}
	w := &waiting{ctx: ctx, chain: chain, charges: charges, done: make(chan outcome, 1)}
	select {
	case c.queue <- w:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case out := <-w.done:
		return out.charged, out.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run submits what Charge queues until ctx ends.
func (c *Client) Run(ctx context.Context, ready func()) error {
	ready()
	var next *waiting
	for {
		if next == nil {
			select {
			case next = <-c.queue:
			case <-ctx.Done():
				return nil
			}
		}
		batch, rest := c.gather(next)
		next = rest
		c.answer(batch, c.submit(ctx, batch))
	}
}

// gather takes what waits for the same chain, as long as it fits; rest is what came too much.
func (c *Client) gather(first *waiting) (batch []*waiting, rest *waiting) {
	batch, n := []*waiting{first}, len(first.charges)
	for {
		select {
		case w := <-c.queue:
			if w.ctx.Err() != nil {
				continue
			}
			if w.chain != first.chain || n+len(w.charges) > maxBatch {
				return batch, w
			}
			batch, n = append(batch, w), n+len(w.charges)
		default:
			return batch, nil
		}
	}
}

func (c *Client) answer(batch []*waiting, all outcome) {
	for _, w := range batch {
		out := outcome{err: all.err}
		if all.err == nil {
			out.charged, all.charged = all.charged[:len(w.charges)], all.charged[len(w.charges):]
		}
		w.done <- out
	}
}

func (c *Client) submit(ctx context.Context, batch []*waiting) outcome {
	ctx, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	var operations []tx.Operation
	for _, w := range batch {
		for i := range w.charges {
			operations = append(operations, operation(&w.charges[i]))
		}
	}
	raw, err := c.sign(ctx, batch[0].chain, operations)
	if err != nil {
		return outcome{err: err}
	}
	m, err := c.ledger.Submit(ctx, &ledgerv1.SubmitRequest{
		Chain: batch[0].chain, Transaction: raw, Wait: ledgerv1.Finality_FINALITY_COMMITTED,
	})
	if err != nil {
		return outcome{err: fmt.Errorf("submit charges: %w", err)}
	}
	return read(m.GetResult(), len(operations))
}

func operation(c *executor.Charge) tx.Operation {
	o := &tx.Charge{Note: *c.Note.Note.TX(), Signature: c.Note.Signature, Final: c.Final}
	if c.Ack != nil {
		o.Countersignature = tx.Countersignature{Index: c.Ack.Index, Signature: c.Ack.Signature}
	}
	return o
}

// sign makes the transaction with the account's next nonce, read fresh: another submission of this
// account may have been lost, or may have been committed without our knowing.
func (c *Client) sign(ctx context.Context, chain string, ops []tx.Operation) ([]byte, error) {
	info, err := c.ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: chain})
	if err != nil {
		return nil, fmt.Errorf("read chain %s: %w", chain, err)
	}
	if len(info.GetAnchor()) != sig.AnchorSize {
		return nil, errors.New("the ledger's anchor is malformed")
	}
	m, err := c.ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{Chain: chain, Account: c.id[:]})
	if err != nil {
		return nil, fmt.Errorf("read the instance account: %w", err)
	}
	if m.GetAccount() == nil {
		return nil, fault.New(fault.Unavailable, ReasonNotCharged,
			"the executor's instance account does not exist: its operator must fund it")
	}
	body := tx.Body{
		Chain: chain, Account: c.id, Nonce: max(m.GetPendingNonce(), m.GetAccount().GetNonce()),
		ValidUntil: tx.Millis(c.now().Add(validFor).UnixMilli()), Operations: ops,
	}
	body.Fee = feeCap(info, len(ops), len(body.Append(nil)))
	first := m.GetAccount().GetKeys() == nil
	set := sig.SingleKey(c.key.Public())
	t, err := tx.Sign(body, sig.Anchor(info.GetAnchor()), set, first, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign charges: %w", err)
	}
	return t.Append(nil), nil
}

// feeCap allows four times what the next block asks, since prices rise while a transaction waits.
func feeCap(info *ledgerv1.GetChainResponse, operations, bytes int) tx.Grains {
	const margin, spare = 4, 16 // spare: bytes that the fee field itself adds
	return tx.Grains(margin * (uint64(operations)*info.GetOperationFee() +
		uint64(bytes+spare)*info.GetByteFee()))
}

func read(r *ledgerv1.SubmitResult, operations int) outcome {
	receipt := r.GetReceipt()
	switch {
	case r.GetErrorReason() != "":
		return outcome{err: fault.New(fault.Unavailable, ReasonNotCharged,
			"the ledger refused the charges: %s", r.GetErrorMessage()).
			With("reason", r.GetErrorReason())}
	case receipt.GetStatus() != chainv1.Status_STATUS_OK:
		return outcome{err: fault.New(fault.Unavailable, ReasonNotCharged,
			"the charges failed in block %d: %s", r.GetHeight(), receipt.GetReason())}
	case len(receipt.GetOutcomes()) != operations:
		return outcome{err: fault.New(fault.Unavailable, ReasonNotCharged,
			"the receipt has %d outcomes for %d charges", len(receipt.GetOutcomes()), operations)}
	}
	charged := make([]executor.Charged, operations)
	for i, o := range receipt.GetOutcomes() {
		charged[i].Paid = o.GetAmount()
		if o.GetBound() != chainv1.Bound_BOUND_UNSPECIFIED {
			charged[i].Bound = strings.ToLower(strings.TrimPrefix(o.GetBound().String(), "BOUND_"))
		}
	}
	return outcome{charged: charged}
}
