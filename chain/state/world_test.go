package state_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Times of the test chains.
const (
	second tx.Millis = 1000
	minute           = 60 * second
	hour             = 60 * minute
	day              = 24 * hour

	genesisTime tx.Millis = 1_700_000_000_000
)

// person is a key with its account.
type person struct {
	key sig.PrivateKey
	set sig.KeySet
	id  sig.AccountID
}

func newPerson(n int) person {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	key := sig.FromSeed(seed)
	set := sig.SingleKey(key.Public())
	return person{key, set, sig.AccountOf(set)}
}

// The people of the test chains. All but stranger and newcomer have an account at genesis.
func owner() person    { return newPerson(0) }
func assigner() person { return newPerson(1) }
func host() person     { return newPerson(2) }
func agent() person    { return newPerson(3) }
func proposer() person { return newPerson(4) }
func acker() person    { return newPerson(5) }
func other() person    { return newPerson(6) }
func newcomer() person { return newPerson(7) }

const (
	lock   = 1_000
	wealth = 1_000_000_000
)

func params() block.Params {
	return block.Params{
		OperationFee: 10, ByteFee: 1, FeeCeiling: 100, AccountLock: lock, EscrowLock: 2 * lock,
		MaxOperations: 20_000, MaxBytes: 16 << 20, MaxStep: minute, SupplyCap: 1 << 62,
	}
}

func genesis(people ...person) *block.Genesis {
	g := &block.Genesis{
		Chain: block.Main, Nonce: [32]byte{7}, Time: genesisTime, Params: params(),
		RulesVersion: 1, Orderer: block.OrdererSolo,
		Validators: block.ValidatorSet{Validators: []block.Validator{{
			Key: proposer().key.Public(), Account: proposer().id, Operator: proposer().id,
		}}},
	}
	for _, p := range people {
		g.Allocations = append(g.Allocations, block.Allocation{Account: p.id, Amount: wealth})
	}
	slices.SortFunc(g.Allocations, func(a, b block.Allocation) int {
		return bytes.Compare(a.Account[:], b.Account[:])
	})
	return g
}

// world is a chain under test.
type world struct {
	t       testing.TB
	s       *state.State
	anchor  sig.Anchor
	ctx     state.Context
	results []state.Result
}

func newWorld(t testing.TB) *world {
	return worldOf(t, genesis(owner(), assigner(), host(), agent(), proposer(), acker(), other()))
}

func worldOf(t testing.TB, g *block.Genesis) *world {
	t.Helper()
	s, err := state.New(g)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, s: s, anchor: g.Anchor(), ctx: state.Context{Proposer: proposer().id}}
}

func (w *world) now() tx.Millis { return w.s.Head().Time }

// sign makes a transaction with the sender's committed nonce plus skip.
func (w *world) sign(from person, skip uint64, ops ...tx.Operation) *tx.Transaction {
	w.t.Helper()
	a, _ := w.s.Account(from.id)
	return w.signBody(from, tx.Body{
		Chain: block.Main, Account: from.id, Nonce: a.Nonce + skip, Fee: 1_000_000,
		ValidUntil: w.now() + 2*hour, Operations: ops,
	})
}

func (w *world) signBody(from person, body tx.Body) *tx.Transaction {
	w.t.Helper()
	first := w.s.Keys(from.id).IsZero() && body.Nonce == 0
	t, err := tx.Sign(body, w.anchor, from.set, first, from.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// begin opens a block that comes step after the last.
func (w *world) begin(step tx.Millis) *state.Execution {
	w.t.Helper()
	w.ctx.Head = w.s.Next(w.now() + step)
	x, err := w.s.Begin(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

// block commits a block of transactions that must all be includable and recounts the state.
func (w *world) block(step tx.Millis, txs ...*tx.Transaction) []tx.Receipt {
	w.t.Helper()
	x := w.begin(step)
	receipts := make([]tx.Receipt, 0, len(txs))
	for i, t := range txs {
		p, _ := w.s.Prepare(t)
		r, err := x.Apply(p)
		if err != nil {
			w.t.Fatalf("transaction %d: %v", i, err)
		}
		receipts = append(receipts, r)
	}
	result := x.Finish()
	x.Commit()
	w.results = append(w.results, result)
	if w.s.Root() != result.StateRoot {
		w.t.Fatalf("committed root %v, result says %v", w.s.Root(), result.StateRoot)
	}
	w.s.Recount()
	return receipts
}

// wait lets time pass in blocks of max_step, so that the accrual clock keeps up.
func (w *world) wait(d tx.Millis) {
	w.t.Helper()
	for ; d > 0; d -= min(d, minute) {
		w.block(min(d, minute))
	}
}

// do commits a block of one transaction.
func (w *world) do(from person, ops ...tx.Operation) tx.Receipt {
	w.t.Helper()
	return w.block(second, w.sign(from, 0, ops...))[0]
}

// must is do for what must succeed.
func (w *world) must(from person, ops ...tx.Operation) tx.Receipt {
	w.t.Helper()
	r := w.do(from, ops...)
	if r.Status != chainv1.Status_STATUS_OK {
		w.t.Fatalf("operation %d failed: %v", r.FailedOperation, r.Reason)
	}
	return r
}

// refused wants a transaction of one operation to fail for a reason.
func (w *world) refused(want chainv1.Reason, from person, op tx.Operation) {
	w.t.Helper()
	before, _ := w.s.Account(from.id)
	r := w.do(from, op)
	after, _ := w.s.Account(from.id)
	if r.Status != chainv1.Status_STATUS_FAILED || r.Reason != want {
		w.t.Errorf("%T: %v %v, want %v", op, r.Status, r.Reason, want)
	}
	if after.Nonce != before.Nonce+1 || after.Balance != before.Balance-r.Fee || r.Fee == 0 {
		w.t.Errorf("%T: failed and left %+v of %+v, fee %d", op, after, before, r.Fee)
	}
}

func (w *world) balance(p person) tx.Grains {
	a, _ := w.s.Account(p.id)
	return a.Balance
}
