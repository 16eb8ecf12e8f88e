package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
)

// step is a block on top of the committed state that is not committed.
type step struct {
	header    block.Header
	hash      Hash
	body      block.Body
	raw       []byte // canonical bytes of header and body
	execution *state.Execution
	entries   []*entry[*candidate] // those included, when the block was built from the pool
	ids       []Hash
	leaves    []tx.Hash // of the transactions' Merkle list
	receipts  [][]byte  // canonical bytes, in room
	room      []byte
	began     time.Time
	executed  time.Time
}

// timing is when a block's steps were, for those who waited for it.
type timing struct{ execute, executed, durable time.Time }

// discard forgets the block that was built and not committed.
func (c *Chain) discard() {
	if c.step != nil {
		c.step.execution.Drop()
		c.step = nil
	}
}

// Build implements App.
func (c *Chain) Build(_ context.Context, parent Header, most Limits) (Block, error) {
	c.discard()
	began := c.clock()
	if parent.Hash != c.head.Hash {
		return Block{}, fmt.Errorf("build on %x: the head is %x", parent.Hash, c.head.Hash)
	}
	params := &c.genesis.Params
	waiting := c.pool.front(min(most.Operations, int(params.MaxOperations)),
		min(most.Bytes, int(params.MaxBytes)))
	beat := most.Empty && c.state.Accruing()
	if len(waiting) == 0 && !beat {
		return Block{}, ErrNothing
	}
	s, err := c.begin(tx.Millis(most.Time), c.genesis.Validators.Validators[0].Account, false)
	if err != nil {
		return Block{}, err
	}
	s.began = began
	c.take(s, waiting)
	if len(s.entries) == 0 && !beat {
		s.execution.Drop()
		return Block{}, ErrNothing
	}
	c.finish(s, s.header.Proposer)
	c.step = s
	return c.block(s), nil
}

// take applies waiting transactions in order. Those that cannot be included are dropped from the
// pool and answered, with those that depend on them.
func (c *Chain) take(s *step, waiting []*entry[*candidate]) {
	for _, e := range waiting {
		if e.gone {
			continue
		}
		p := e.payload
		receipt, err := s.execution.Apply(p.prepared)
		if errors.Is(err, state.ErrFull) {
			return
		}
		if err != nil {
			c.dropWith(e, err)
			c.unpaid(p, err)
			continue
		}
		s.entries = append(s.entries, e)
		s.add(p, &receipt)
	}
}

func (c *Chain) dropWith(e *entry[*candidate], err error) {
	for i, d := range c.pool.drop(e) {
		refusal := dropped()
		if i == 0 {
			refusal = c.refusal(err, d.payload.prepared.Tx)
		}
		for _, w := range d.waiting {
			w.ticket.settle(w.slot, Result{ID: d.id, Err: refusal})
		}
	}
}

// begin opens a block at a time on top of the head.
func (c *Chain) begin(at tx.Millis, proposer sig.AccountID, replay bool) (*step, error) {
	s := &step{}
	s.header.Proposer = proposer
	s.body.ParentCertificate = c.head.Certificate
	var signers []sig.AccountID
	for _, one := range c.head.Certificate.Signatures {
		if v, ok := c.genesis.Validators.Find(one.Key); ok {
			signers = append(signers, v.Account)
		}
	}
	var err error
	s.execution, err = c.state.Begin(state.Context{
		Head: c.state.Next(at), Proposer: proposer, CoSigners: signers, Replay: replay,
	})
	if err != nil {
		return nil, fmt.Errorf("begin a block: %w", err)
	}
	return s, nil
}

// add takes note of a transaction that was applied.
func (s *step) add(c *candidate, receipt *tx.Receipt) {
	s.ids = append(s.ids, Hash(c.prepared.ID))
	s.leaves = append(s.leaves, c.leaf)
	s.body.Transactions = append(s.body.Transactions, c.raw)
	start := len(s.room)
	s.room = receipt.Append(s.room)
	s.receipts = append(s.receipts, s.room[start:len(s.room):len(s.room)])
}

// finish closes the execution and makes the header.
func (c *Chain) finish(s *step, proposer sig.AccountID) {
	result := s.execution.Finish()
	body := s.body.Append(nil)
	segments := make([][]byte, len(result.Segments))
	for i := range result.Segments {
		segments[i] = result.Segments[i][:]
	}
	parent := &c.head.Header
	s.header = block.Header{
		Version: block.Version, Chain: c.name, Height: result.Height, Prev: tx.Hash(c.head.Hash),
		Time: result.Time, Accrual: result.Accrual,
		StateRoot: tx.Hash(result.StateRoot), SegmentsRoot: block.Root(segments),
		TransactionsRoot: block.RootOfLeaves(s.leaves), ReceiptsRoot: block.Root(s.receipts),
		ExitsRoot: block.EmptyRoot(), HistoryRoot: c.history.Root(),
		BodyHash: block.BodyHash(body), BodyLength: uint64(len(body)),
		OperationCount: result.Operations, RulesVersion: state.RulesVersion,
		SignersHash: parent.NextSignersHash, NextSignersHash: parent.NextSignersHash,
		ParentCertificateHash: s.body.ParentCertificate.Hash(), Proposer: proposer,
	}
	preimage := s.header.Preimage(c.anchor)
	s.hash = sha256.Sum256(preimage)
	unsigned := block.Block{Header: s.header, Body: s.body}
	s.raw = unsigned.Append(make([]byte, 0, len(body)+headerRoom))
	s.executed = c.clock()
}

// headerRoom is more than a header's canonical bytes.
const headerRoom = 1 << 10

func (c *Chain) block(s *step) Block {
	h := c.seam(&s.header, s.hash)
	return Block{Header: h, Bytes: s.raw, Batch: Batch{
		Transactions: len(s.ids), Operations: int(s.header.OperationCount),
		Bytes: int(s.header.BodyLength),
	}}
}

// ErrInvalidBlock says that a block is not what its transactions and parent make of it.
var ErrInvalidBlock = errors.New("block is invalid")

// Verify implements App.
func (c *Chain) Verify(ctx context.Context, parent Header, b Block) error {
	if parent.Hash != c.head.Hash {
		return fmt.Errorf("verify on %x: the head is %x", parent.Hash, c.head.Hash)
	}
	decoded, err := block.Decode(b.Bytes)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidBlock, err)
	}
	ahead := decoded.Header.Time > tx.Millis(max(c.clock().UnixMilli(), 0))+maxAhead
	if ahead {
		return fmt.Errorf("%w: its time is more than 2 s ahead", ErrInvalidBlock)
	}
	return c.execute(ctx, decoded, false)
}

// maxAhead is how far a header's time may be ahead of this clock, ms.
const maxAhead = 2000

// execute runs a block that came from elsewhere, or from the log (replay), and compares every
// part of its header with what comes out. The result stays in c.step.
func (c *Chain) execute(ctx context.Context, b *block.Block, replay bool) error {
	c.discard()
	began := c.clock()
	h := &b.Header
	err := block.CheckLink(&c.head.Header, h, c.anchor, tx.Millis(c.genesis.Params.MaxStep))
	if err == nil {
		err = h.CheckBody(&b.Body)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidBlock, err)
	}
	s, err := c.begin(h.Time, h.Proposer, replay)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidBlock, err)
	}
	s.began = began
	for i, raw := range b.Body.Transactions {
		if err := c.apply(ctx, s, raw); err != nil {
			s.execution.Drop()
			return fmt.Errorf("%w: transaction %d: %w", ErrInvalidBlock, i, err)
		}
	}
	c.finish(s, h.Proposer)
	if s.header != *h {
		s.execution.Drop()
		return fmt.Errorf("%w: execution leads to header %+v, it says %+v", ErrInvalidBlock,
			s.header, *h)
	}
	c.step = s
	return nil
}

func (c *Chain) apply(ctx context.Context, s *step, raw []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t, err := tx.Decode(raw)
	if err != nil {
		return err
	}
	// Whether the committed state's key set fits does not matter: execution judges.
	prepared, _ := c.state.Prepare(t)
	receipt, err := s.execution.Apply(prepared)
	if err != nil {
		return err
	}
	s.add(newCandidate(prepared, raw), &receipt)
	return nil
}

// Commit implements App.
func (c *Chain) Commit(ctx context.Context, b Block, certificate Certificate) error {
	if c.step == nil || c.step.hash != b.Header.Hash {
		if err := c.Verify(ctx, c.seam(&c.head.Header, c.head.Hash), b); err != nil {
			return err
		}
	}
	s := c.step
	signed := block.Certificate{Signatures: make([]block.KeySignature, len(certificate))}
	for i, one := range certificate {
		signed.Signatures[i] = block.KeySignature(one)
	}
	err := signed.Verify(&s.header, c.anchor, c.genesis.Validators, c.genesis.Quorum())
	if err != nil {
		return fmt.Errorf("certificate of block %d: %w", s.header.Height, err)
	}
	c.recordRoom = appendRecord(c.recordRoom[:0], s.raw, signed, s.receipts)
	// Shutting down does not cut a write in half.
	err = c.deps.Store.Append(context.WithoutCancel(ctx), Record{
		Height: s.header.Height, Hash: s.hash, Prev: Hash(s.header.Prev), Bytes: c.recordRoom,
	})
	if err != nil {
		return err
	}
	c.settle(s, signed)
	c.snapshot(ctx)
	return nil
}

// settle shows a durable block to everyone.
func (c *Chain) settle(s *step, certificate block.Certificate) {
	durable := c.clock()
	c.step = nil
	// First of all: whoever is told by the state that a nonce is used must find by what.
	c.recent.add(IndexEntry{
		Height: s.header.Height, Hash: s.hash, Transactions: s.ids,
		Granted: c.granted(&s.body, s.receipts),
	})
	s.execution.Commit()
	if c.deps.inForce != nil {
		c.deps.inForce()
	}
	c.advance(s.header, s.hash, certificate)
	c.recent.tell()
	c.pool.remove(s.entries)
	c.unsnapped += len(s.ids)
	times := &timing{s.began, s.executed, durable}
	for i, e := range s.entries {
		r := Result{ID: e.id, Finality: Committed, Receipt: s.receipts[i],
			At: Location{s.header.Height, uint32(i)}}
		for _, w := range e.waiting {
			w.ticket.block.Store(times)
			w.ticket.settle(w.slot, r)
		}
	}
	if c.deps.Observe == nil {
		return
	}
	c.deps.Observe(BlockStats{
		Height: s.header.Height, Transactions: len(s.ids),
		Operations: int(s.header.OperationCount), Bytes: len(s.raw),
		Execute: s.executed.Sub(s.began), Durable: durable.Sub(s.executed),
		Commit: c.clock().Sub(s.began),
	})
}

// advance moves the head.
func (c *Chain) advance(h block.Header, hash Hash, certificate block.Certificate) {
	c.before = headers{size: c.history.Size(), nodes: c.history.Nodes()}
	c.history.Append(block.LeafHash(hash[:]))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = Tip{Header: h, Hash: hash, Certificate: certificate}
	c.supplies.keep(h.Height, c.state.Chain())
	c.remember(Fullness{h.Height, uint64(h.Time), h.OperationCount, h.BodyLength})
	close(c.moved)
	c.moved = make(chan struct{})
}
