package state

import (
	"fmt"
	"slices"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// SegmentSize is the number of transactions after which the state root is taken.
const SegmentSize = 1000

// Context is what a block's header says before anything runs.
type Context struct {
	Head
	// Account that is paid the fees; it must exist.
	Proposer sig.AccountID
	// Accounts of the validators that signed the parent's certificate, in its order; the
	// proposer may be among them, and an account may stand there twice.
	CoSigners []sig.AccountID
	// Replay skips the accounts' signatures: the transactions come from a log of one's own that
	// holds only verified blocks. Signatures inside operations decide outcomes and are verified
	// still.
	Replay bool
}

// Result is what a finished block commits to.
type Result struct {
	Head
	StateRoot trie.Hash
	// State roots after every SegmentSize transactions; the last one is StateRoot.
	Segments   []trie.Hash
	Operations uint64
	// What the transactions take of the block's bytes, at most.
	Bytes uint64
	// What the next block charges.
	Prices Prices
}

// Execution is one block on top of the committed state. It belongs to one goroutine.
type Execution struct {
	s     *State
	ctx   Context
	batch *trie.Batch
	chain chainRecord
	// counts are kept like the sums, from the records edited.
	counts counters
	dues   []dueChange
	// fees were taken in this segment and are not distributed yet.
	fees       tx.Grains
	segment    int
	operations uint64
	size       uint64
	roots      []trie.Hash
	finished   bool
	*room
	step
}

// room is memory that every execution of a State uses again.
type room struct {
	updates  []trie.Update
	values   []byte
	proceeds []proceed
	outcomes []tx.Outcome
}

// Next returns the context of the next block at a time: its height and accrual.
func (s *State) Next(time tx.Millis) Head {
	s.mu.RLock()
	defer s.mu.RUnlock()
	step := min(satSub(time, s.head.Time), s.genesis.params.MaxStep)
	return Head{Height: s.head.Height + 1, Time: time, Accrual: s.head.Accrual + step}
}

// Begin opens an execution of the block that follows the committed one. Errors: ErrOpen,
// ErrContext, ErrProposer. It ends with exactly one Commit or Drop.
func (s *State) Begin(ctx Context) (*Execution, error) {
	switch {
	case s.open:
		return nil, ErrOpen
	case ctx.Time < s.head.Time || ctx.Head != s.Next(ctx.Time):
		return nil, fmt.Errorf("%w: %+v after %+v", ErrContext, ctx.Head, s.head)
	}
	if _, ok := s.accounts.base[ctx.Proposer]; !ok {
		return nil, ErrProposer
	}
	batch, err := s.tree.Begin()
	if err != nil {
		return nil, err
	}
	s.open = true
	return &Execution{s: s, ctx: ctx, batch: batch, chain: s.chain, counts: s.counts,
		room: &s.room}, nil
}

// Apply runs one transaction. An error (see exclusion.go, and sig's errors for signatures) says
// that it cannot stand in this block and leaves no trace. Outcomes of the receipt are the
// caller's.
func (x *Execution) Apply(p Prepared) (tx.Receipt, error) {
	if x.finished {
		panic("state: Apply after Finish")
	}
	t := p.Tx
	if err := x.fits(t); err != nil {
		return tx.Receipt{}, err
	}
	if err := x.s.genesis.admit(t, x.ctx.Time); err != nil {
		return tx.Receipt{}, err
	}
	if x.segment == SegmentSize {
		x.closeSegment()
	}
	receipt, err := x.applyStep(p)
	if err != nil {
		x.rollback()
		return tx.Receipt{}, err
	}
	x.settleSums()
	x.segment++
	x.operations += uint64(len(t.Operations))
	x.size += weight(t)
	x.fees += receipt.Fee
	return receipt, nil
}

// fits refuses what would make the block larger than the parameters allow.
func (x *Execution) fits(t *tx.Transaction) error {
	r := &x.s.genesis
	if x.operations+uint64(len(t.Operations)) > uint64(r.params.MaxOperations) ||
		x.size+weight(t) > r.maxWeight() {
		return ErrFull
	}
	return nil
}

// weight bounds the bytes that a transaction takes in a block's body: its body, and 70 bytes for
// a signature, 38 for a key, 24 for what frames them.
func weight(t *tx.Transaction) uint64 {
	return uint64(len(t.BodyBytes()) + 24 + 70*len(t.Signature.Signatures) +
		38*len(t.Signature.Keys.Keys))
}

// maxWeight is what a block's body has room for beside the parent's certificate, of which a
// signature takes 102 bytes.
func (r *rules) maxWeight() uint64 {
	return uint64(r.params.MaxBytes) - uint64(16+102*len(r.validators.Validators))
}

// Finish closes the block: fees, prices, conservation, state root. No Apply may follow.
func (x *Execution) Finish() Result {
	if x.finished {
		panic("state: Finish called twice")
	}
	x.finished = true
	p := &x.s.genesis.params
	full := fullness(x.operations, uint64(p.MaxOperations), x.size, x.s.genesis.maxWeight())
	ceiling := tx.Grains(p.FeeCeiling)
	x.chain.prices = Prices{
		Operation: nextPrice(x.chain.prices.Operation, p.OperationFee, ceiling, full),
		Byte:      nextPrice(x.chain.prices.Byte, p.ByteFee, ceiling, full),
	}
	if x.segment == 0 && len(x.roots) > 0 {
		// A transaction that was refused had closed the segment, which is the last one after all.
		x.roots = x.roots[:len(x.roots)-1]
	}
	x.closeSegment()
	return Result{
		Head: x.ctx.Head, StateRoot: x.batch.Root(), Segments: slices.Clone(x.roots),
		Operations: x.operations, Bytes: x.size, Prices: x.chain.prices,
	}
}

// Commit makes the finished block the committed state.
func (x *Execution) Commit() {
	if !x.finished {
		panic("state: Commit before Finish")
	}
	s := x.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts.commit()
	s.signers.commit()
	s.escrows.commit()
	s.leases.commit()
	s.lanes.commit()
	x.batch.Commit()
	s.head, s.chain, s.counts = x.ctx.Head, x.chain, x.counts
	for _, c := range x.dues {
		s.dues.change(c, x.ctx.Accrual)
	}
	s.dues.pass(x.ctx.Accrual)
	x.close()
}

// Drop forgets the block, finished or not; the state is as it was at Begin.
func (x *Execution) Drop() {
	s := x.s
	s.accounts.reset()
	s.signers.reset()
	s.escrows.reset()
	s.leases.reset()
	s.lanes.reset()
	x.batch.Drop()
	x.close()
}

func (x *Execution) close() {
	x.finished = true
	x.s.open = false
	x.s, x.batch = nil, nil
}

// closeSegment pays the segment's fees out, checks conservation and takes the state root.
func (x *Execution) closeSegment() {
	x.distribute()
	x.settleSums()
	x.chain.check(x.fees)
	x.updateTree()
	x.roots = append(x.roots, x.batch.Root())
	x.segment = 0
}

// distribute gives floor(4/5) of the fees in equal parts to the proposer and the distinct
// co-signers, the remainder of the division to the proposer, and burns the rest, with the parts
// of co-signers that have no account.
func (x *Execution) distribute() {
	receivers := []sig.AccountID{x.ctx.Proposer}
	for _, id := range x.ctx.CoSigners {
		if !slices.Contains(receivers, id) {
			receivers = append(receivers, id)
		}
	}
	shared := proposerShare(x.fees)
	part := shared / tx.Grains(len(receivers))
	paid := tx.Grains(0)
	for i, id := range receivers {
		c := x.s.accounts.get(id)
		amount := part
		if i == 0 {
			amount += shared % tx.Grains(len(receivers))
		}
		if c.live && amount > 0 {
			x.s.accounts.edit(c).Balance += amount
			paid += amount
		}
	}
	x.burn(x.fees - paid)
	x.fees = 0
}

// settleSums moves what the step changed into the sums and counters, and keeps the step.
func (x *Execution) settleSums() {
	sum, count := &x.chain.sums, &x.counts
	for i := range x.s.accounts.journal {
		u := &x.s.accounts.journal[i]
		sum.accounts += u.cell.val.Balance - u.val.Balance
		sum.locks += u.cell.val.Lock - u.val.Lock
	}
	for i := range x.s.escrows.journal {
		u := &x.s.escrows.journal[i]
		sum.escrows += u.cell.val.Balance - u.val.Balance
		sum.locks += u.cell.val.Lock - u.val.Lock
		count.burning += btoi(burns(&u.cell.val)) - btoi(burns(&u.val))
		x.changeDue(noticeDue(&u.val), noticeDue(&u.cell.val))
	}
	for i := range x.s.leases.journal {
		u := &x.s.leases.journal[i]
		count.unsettled += btoi(u.cell.live && !u.cell.val.Settled) -
			btoi(u.live && !u.val.Settled)
		x.changeDue(holdbackDue(&u.val, u.live), holdbackDue(&u.cell.val, u.cell.live))
	}
	for i := range x.s.signers.journal {
		u := &x.s.signers.journal[i]
		x.changeDue(u.val.Recovery.Due, u.cell.val.Recovery.Due)
	}
	x.s.accounts.seal()
	x.s.signers.seal()
	x.s.escrows.seal()
	x.s.leases.seal()
	x.s.lanes.seal()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rollback takes back what the step did to the records.
func (x *Execution) rollback() {
	x.s.accounts.rollback()
	x.s.signers.rollback()
	x.s.escrows.rollback()
	x.s.leases.rollback()
	x.s.lanes.rollback()
	x.chain.burned = x.burned
}

// updateTree puts the leaves that changed since the last root into the tree.
func (x *Execution) updateTree() {
	x.updates, x.values = x.updates[:0], x.values[:0]
	addLeaves(x.room, &x.s.accounts, AccountKey, (*tx.Account).Append)
	addLeaves(x.room, &x.s.signers, SignersKey, (*tx.AccountSigners).Append)
	addLeaves(x.room, &x.s.escrows, EscrowKey, (*tx.Escrow).Append)
	addLeaves(x.room, &x.s.leases, LeaseKey, (*tx.LeaseState).Append)
	addLeaves(x.room, &x.s.lanes, LaneKey, (*tx.LaneState).Append)
	x.updates = append(x.updates, trie.Update{Key: ChainKey(),
		Value: x.s.genesis.appendChain(nil, &x.chain)})
	if err := x.batch.Update(x.updates); err != nil {
		panic(fmt.Sprintf("state: two leaves at one key: %v", err))
	}
}

func addLeaves[K comparable, V any](r *room, t *table[K, V], key func(K) trie.Key,
	encode func(*V, []byte) []byte) {
	for _, c := range t.dirty {
		u := trie.Update{Key: key(c.id)}
		if c.live {
			start := len(r.values)
			r.values = encode(&c.val, r.values)
			u.Value = r.values[start:len(r.values):len(r.values)]
		}
		r.updates = append(r.updates, u)
	}
	t.clean()
}

// outcomeOK is the reason of an operation that did what it says.
const outcomeOK = chainv1.Reason_REASON_UNSPECIFIED
