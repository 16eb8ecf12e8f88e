package ledger

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
)

// MaxSubmit is the most transactions of one submission.
const MaxSubmit = 4096

// candidate is a decoded transaction on its way into a block.
type candidate struct {
	prepared state.Prepared
	raw      []byte
	// leaf is its place in the Merkle list of its block.
	leaf tx.Hash
	// anew is how many signatures of the account's own the execution has to verify one by one.
	anew int
	// peer is who submitted it; nil for this process.
	peer *debtor
	// after is the account's key set once it has run, as far as can be known beforehand.
	after sig.KeySet
}

func newCandidate(p state.Prepared, raw []byte) *candidate {
	entry := block.TransactionEntry(p.ID, p.Tx.Witness())
	return &candidate{prepared: p, raw: raw, leaf: block.LeafHash(entry[:])}
}

// lone bounds how many signatures the execution has to verify one by one, once all are judged.
func (c *candidate) lone() int { return c.anew + c.prepared.Lone() }

// Timing says when the steps of a submission happened; a step that did not is zero. Execute and
// Commit are those of the last block that took part of it.
type Timing struct {
	Begin, Verified            time.Time
	Execute, Executed, Durable time.Time
}

// Submission is a number of transactions that were submitted together.
type Submission struct {
	ticket  *ticket
	begin   time.Time
	verify  time.Time
	session *session
}

// Wait returns what became of each, in order, once all are settled. It fails when ctx ends or the
// chain does: then nothing is known, and submitting the same bytes again tells.
func (s *Submission) Wait(ctx context.Context) ([]Result, Timing, error) {
	timing := Timing{Begin: s.begin, Verified: s.verify}
	select {
	case <-s.ticket.done:
	case <-ctx.Done():
		return nil, timing, ctx.Err()
	case <-s.session.ended:
		select {
		case <-s.ticket.done: // settled while the chain ended
		default:
			return nil, timing, s.session.failure()
		}
	}
	if b := s.ticket.block.Load(); b != nil {
		timing.Execute, timing.Executed, timing.Durable = b.execute, b.executed, b.durable
	}
	return s.ticket.results, timing, nil
}

// Submit takes transactions (canonical bytes, kept: they must not change) and waits until each is
// refused or has come as far as wait says. A transaction that was submitted before is answered
// with what became of it. Refusals are in the results; the error is about the whole call.
func (c *Chain) Submit(ctx context.Context, raw [][]byte, wait Finality) ([]Result, Timing, error) {
	s, err := c.Enqueue(ctx, raw, wait)
	if err != nil {
		return nil, Timing{}, err
	}
	return s.Wait(ctx)
}

// Enqueue is Submit without waiting for a block: when it returns, every transaction is in the pool
// or refused. Transactions of one account keep their order.
func (c *Chain) Enqueue(ctx context.Context, raw [][]byte, wait Finality) (*Submission, error) {
	if len(raw) == 0 || len(raw) > MaxSubmit {
		return nil, fault.New(fault.InvalidArgument, ReasonBatch,
			"%d transactions in one request; it takes 1 to %d", len(raw), MaxSubmit)
	}
	s := &Submission{ticket: newTicket(len(raw)), begin: c.clock(), session: c.current()}
	if err := s.session.failure(); err != nil {
		return nil, err
	}
	p := newPreparation(c, len(raw))
	if err := p.verified(ctx, raw); err != nil {
		return nil, err
	}
	s.verify = c.clock()
	for i, o := range p.offers {
		o.at, o.acceptedOnly = place{s.ticket, i}, wait == Accepted
	}
	n, operations, size, err := c.pool.add(s.session.failure, p.offers, c.nonce)
	if err != nil {
		return nil, err
	}
	p.waive()
	last := &lastBlock{}
	for _, o := range p.offers {
		if o.refusal != nil {
			s.ticket.settle(o.at.slot, c.refused(ctx, o, last))
		}
	}
	// They are in the pool: the orderer must know, also of a caller who has just left.
	batch := Batch{Transactions: n, Operations: operations, Bytes: size}
	if err := s.session.orderer.Submit(context.WithoutCancel(ctx), batch); err != nil {
		return nil, err
	}
	return s, nil
}

// verified decodes the transactions and judges all their signatures. Faults: ReasonWaste,
// ReasonChainStopped.
func (p *preparation) verified(ctx context.Context, raw [][]byte) error {
	if peer, known := p.chain.peer(ctx, raw); known {
		if refusal := p.chain.waste.tooMuch(peer, p.chain.clock()); refusal != nil {
			return refusal
		}
		p.peer = &peer
	}
	for i, bytes := range raw {
		p.prepare(i, bytes)
	}
	if hook := p.chain.deps.verifying; hook != nil {
		hook(len(p.claims))
	}
	err := p.chain.ingress.verify(ctx, p.claims, p.peer)
	if errors.Is(err, errEnded) {
		return stopped(err)
	}
	if err != nil {
		return err
	}
	p.judge()
	p.limit()
	return nil
}

// nonce returns a signer's next nonce in the committed state.
func (c *Chain) nonce(s signer) uint64 {
	return c.state.Nonce(sig.AccountID(s.account), s.number)
}

// refused makes the result of a refused offer: what became of it, if it is in a block already.
func (c *Chain) refused(ctx context.Context, o *offer[*candidate], last *lastBlock) Result {
	r := Result{Err: o.refusal}
	if o.entry == nil {
		return r
	}
	r.ID = o.entry.id
	if !repeatable(o.refusal.Reason()) {
		return r
	}
	known, err := c.transaction(context.WithoutCancel(ctx), r.ID, last)
	switch {
	case err == nil:
		r = known.Result
		r.Receipt = bytes.Clone(r.Receipt) // or each would keep its whole block in memory
		return r
	case !errors.Is(err, ReasonNotFound):
		// The refusal would say that it is in no block, which nobody can know now.
		r.Err = untold(err)
	}
	return r
}

// repeatable tells whether a transaction that is committed may be refused for the reason when it
// comes once more: its nonce is used, its time over, its key set known or replaced, prices higher,
// its delegate removed, changed or at its limit.
func repeatable(reason fault.Reason) bool {
	switch reason {
	case ReasonNonceOld, ReasonExpired, ReasonBadSignature, ReasonFeeTooLow, ReasonCannotPay,
		ReasonDropped, ReasonSigner, ReasonSignerEnded, ReasonNotAllowed, ReasonSignerLimit:
		return true
	}
	return false
}
