package state_test

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// TestAgainstModel runs random blocks through the state machine and the model and compares
// everything after each.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDuel(t)
		for range rapid.IntRange(1, 12).Draw(t, "blocks") {
			d.block()
		}
	})
}

// TestSignersAgainstModel is TestAgainstModel with more of who may sign, bonds and budgets.
func TestSignersAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDuel(t)
		d.focus = true
		d.furnish()
		for range rapid.IntRange(1, 12).Draw(t, "blocks") {
			d.block()
		}
	})
}

// duel is a state machine and a model that get the same blocks.
type duel struct {
	t      *rapid.T
	g      *block.Genesis
	s      *state.State
	model  *model
	people []person
	// ids that were ever made, live or not.
	escrows []tx.EscrowID
	leases  []tx.LeaseID
	ctx     state.Context
	// sweep asks for a settlement of every lease, after time has passed.
	sweep bool
	// focus asks for signers, bonds and budgets most of the time.
	focus bool
	// next are transactions that come before any is drawn.
	next   []func() (person, mOperation)
	roots  []trie.Hash
	blocks []playedBlock
}

// playedBlock is enough to play a block again.
type playedBlock struct {
	ctx state.Context
	txs []*tx.Transaction
}

func duelGenesis() *block.Genesis {
	g := genesis(owner(), assigner(), host(), agent(), proposer(), acker())
	g.Params.MaxStep = hour
	for i := range g.Allocations {
		if g.Allocations[i].Account == agent().id {
			g.Allocations[i].Amount = lock + 500 // soon poor
		}
	}
	return g
}

func newDuel(t *rapid.T) *duel {
	g := duelGenesis()
	s, err := state.New(g)
	if err != nil {
		t.Fatal(err)
	}
	return &duel{t: t, g: g, s: s, model: newModel(g),
		people: []person{owner(), assigner(), host(), agent(), newcomer()}}
}

func pick[T any](t *rapid.T, name string, of ...T) T { return rapid.SampledFrom(of).Draw(t, name) }

// block plays one block, or a row of empty ones that lets windows pass.
func (d *duel) block() {
	step := pick(d.t, "step", second, 30*second, minute, 10*minute, hour)
	often := 3
	if d.focus {
		often = 1
	}
	if rapid.IntRange(0, often).Draw(d.t, "wait") == 0 {
		hours := rapid.IntRange(1, 30).Draw(d.t, "hours")
		if rapid.IntRange(0, 2*often).Draw(d.t, "a week and more") == 0 {
			hours += 170
		}
		for range hours {
			d.play(hour, 0)
		}
		d.sweep = true
	}
	d.play(step, rapid.IntRange(0, 12).Draw(d.t, "transactions"))
	d.compare()
}

func (d *duel) play(step tx.Millis, transactions int) {
	d.ctx.Head = d.s.Next(d.s.Head().Time + step)
	d.ctx.Proposer = proposer().id
	d.ctx.CoSigners = rapid.SliceOfN(rapid.SampledFrom([]sig.AccountID{proposer().id,
		acker().id, newPerson(99).id}), 0, 3).Draw(d.t, "co-signers")
	x, err := d.s.Begin(d.ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	d.model.time, d.model.accrual = num(d.ctx.Time), num(d.ctx.Accrual)
	played := playedBlock{ctx: d.ctx}
	fees, operations, size := num(0), 0, 0
	for range transactions {
		t, ops := d.transaction()
		p, _ := d.s.Prepare(t)
		for i := range p.Claims {
			c := &p.Claims[i]
			c.OK = sig.Verify(c.Key, c.Preimage, c.Signature)
		}
		receipt, err := x.Apply(p)
		want := d.model.apply(p.ID, t, ops)
		d.judge(t, receipt, err, want)
		if want.included {
			fees = add(fees, want.fee)
			operations += len(ops)
			size += len(t.BodyBytes()) + 24 + 70 + 38*len(t.Signature.Keys.Keys)
			played.txs = append(played.txs, t)
			d.remember(receipt)
		}
	}
	d.finish(x, played)
	d.model.endBlock(d.ctx, fees, operations, size)
}

func (d *duel) finish(x *state.Execution, played playedBlock) {
	result := x.Finish()
	if rapid.IntRange(0, 4).Draw(d.t, "drop") == 0 {
		x.Drop()
		again := replay(d.t, d.s, played)
		if again.result.StateRoot != result.StateRoot {
			d.t.Fatalf("the block came out as %v, then as %v", result.StateRoot,
				again.result.StateRoot)
		}
	} else {
		x.Commit()
	}
	d.roots = append(d.roots, result.StateRoot)
	d.blocks = append(d.blocks, played)
}

type replayed struct {
	result   state.Result
	receipts []byte
}

// replay plays a block on a state and commits it.
func replay(t rapid.TB, s *state.State, b playedBlock) (out replayed) {
	t.Helper()
	x, err := s.Begin(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range b.txs {
		p, _ := s.Prepare(one)
		r, err := x.Apply(p)
		if err != nil {
			t.Fatal(err)
		}
		out.receipts = r.Append(out.receipts)
	}
	out.result = x.Finish()
	x.Commit()
	return out
}

func (d *duel) remember(r tx.Receipt) {
	for _, o := range r.Outcomes {
		switch {
		case o.Created == tx.Hash{}:
		case o.Amount > 0:
			d.escrows = append(d.escrows, tx.EscrowID(o.Created))
		default:
			d.leases = append(d.leases, tx.LeaseID(o.Created))
		}
	}
}

// judge compares what the two said of a transaction.
func (d *duel) judge(t *tx.Transaction, got tx.Receipt, err error, want mResult) {
	d.t.Helper()
	names := ""
	for _, o := range t.Operations {
		names += fmt.Sprintf(" %T%+v", o, o)
	}
	if (err == nil) != want.included {
		d.t.Fatalf("%s: error %v, model included %v", names, err, want.included)
	}
	if err != nil {
		return
	}
	status, failed := chainv1.Status_STATUS_OK, uint32(0)
	if want.failed >= 0 {
		status, failed = chainv1.Status_STATUS_FAILED, uint32(want.failed)
	}
	expected := tx.Receipt{Transaction: got.Transaction, Status: status, FailedOperation: failed,
		Reason: want.reason, Fee: tx.Grains(want.fee.Uint64()), Outcomes: want.outcomes}
	if diff := cmp.Diff(expected, got, cmpopts.EquateEmpty()); diff != "" {
		d.t.Fatalf("%s by %x at %d (-model +state):\n%s", names, t.Account[:4], d.ctx.Time, diff)
	}
}

// endBlock gives the fees out and moves the prices.
func (m *model) endBlock(ctx state.Context, fees interface{ Uint64() uint64 }, operations,
	size int) {
	total := num(fees.Uint64())
	shared := mulDiv(total, num(4), num(5))
	names := map[sig.AccountID]bool{ctx.Proposer: true}
	for _, id := range ctx.CoSigners {
		names[id] = true
	}
	part := mulDiv(shared, num(1), num(len(names)))
	given := num(0)
	for id := range names {
		a, exists := m.accounts[id]
		if !exists {
			continue
		}
		amount := part
		if id == ctx.Proposer {
			amount = add(part, sub(shared, mulDiv(part, num(len(names)), num(1))))
		}
		a.balance, given = add(a.balance, amount), add(given, amount)
		m.accounts[id] = a
	}
	m.burned = add(m.burned, sub(total, given))
	// A test block is far from half full, so prices fall by what is lacking, and by 1 at least.
	m.operation = most(sub(m.operation, num(1)), num(m.params.OperationFee))
	m.bytes = most(sub(m.bytes, num(1)), num(m.params.ByteFee))
}

// compare compares everything that both hold, and the tree with a fresh one.
func (d *duel) compare() {
	d.t.Helper()
	d.s.Recount()
	for id, want := range d.model.accounts {
		got, ok := d.s.Account(id)
		if !ok || uint64(got.Balance) != want.balance.Uint64() ||
			uint64(got.Lock) != want.lock.Uint64() || got.Nonce != want.nonce ||
			got.Keys.IsZero() == want.signed {
			d.t.Fatalf("account %x is %+v, model says %+v", id[:4], got, want)
		}
		signers, _ := d.s.Signers(id)
		if diff := cmp.Diff(want.signers.leaf(), signers, cmpopts.EquateEmpty()); diff != "" {
			d.t.Fatalf("signers of %x (-model +state):\n%s", id[:4], diff)
		}
	}
	for _, id := range d.escrows {
		d.compareEscrow(id)
	}
	for _, id := range d.leases {
		d.compareLease(id)
	}
	chain := d.s.Chain()
	if chain.Burned.Lo != d.model.burned.Uint64() {
		d.t.Fatalf("%d burned, model says %v", chain.Burned.Lo, d.model.burned)
	}
	d.freshTree()
}

func (d *duel) compareEscrow(id tx.EscrowID) {
	d.t.Helper()
	got, ok := d.s.Escrow(id)
	want, exists := d.model.escrows[id]
	if ok != exists {
		d.t.Fatalf("escrow %v: %v, model says %v", id, ok, exists)
	}
	if !ok {
		return
	}
	g := []uint64{uint64(got.Balance), uint64(got.Lock), uint64(got.Burned), uint64(got.Paid),
		uint64(got.Reserved), uint64(got.Rate), uint64(got.Risk), uint64(got.Live),
		uint64(got.Noticed), uint64(got.NoticeDue), uint64(got.LeaseFees)}
	w := []uint64{want.balance.Uint64(), want.lock.Uint64(), want.burned.Uint64(),
		want.paid.Uint64(), d.model.reserved(id).Uint64(), d.model.rate(id).Uint64(),
		d.model.risk(id).Uint64(), uint64(d.model.live(id)),
		want.noticed.Uint64(), want.noticeDue.Uint64(), want.fees.Uint64()}
	if diff := cmp.Diff(w, g); diff != "" {
		d.t.Fatalf("escrow %v (-model +state):\n%s", id, diff)
	}
	// What trust is for: no more is ever paid without acknowledgement than the owner trusts, and
	// what may still be is counted before.
	if got.Risk > want.trusted || less(num(got.Risk), d.model.unacked(id)) {
		d.t.Fatalf("escrow %v has risk %d; %v was paid beyond what was acknowledged, %d is trusted",
			id, got.Risk, d.model.unacked(id), want.trusted)
	}
	if got.LeaseFees > want.granted {
		d.t.Fatalf("escrow %v paid %d in lease fees, %d was granted", id, got.LeaseFees, want.granted)
	}
}

func (d *duel) compareLease(id tx.LeaseID) {
	d.t.Helper()
	got, ok := d.s.Lease(id)
	want, exists := d.model.leases[id]
	if ok != exists {
		d.t.Fatalf("lease %v: %v, model says %v", id, ok, exists)
	}
	if !ok {
		return
	}
	expected := tx.LeaseState{Lease: want.Lease, From: tx.Millis(want.from.Uint64()),
		AccrualFrom: tx.Millis(want.accrualFrom.Uint64()), Budget: tx.Grains(want.budget.Uint64()),
		Until: tx.Millis(want.until.Uint64()), End: tx.Millis(want.end.Uint64()),
		NoticeDue: tx.Grains(want.noticeDue.Uint64()), Paid: tx.Grains(want.paid.Uint64()),
		Countersigned: tx.Grains(want.acked.Uint64()), Upto: tx.Millis(want.upto.Uint64()),
		RateFreed: want.lapsed, Settled: want.settled, Holdback: want.verdict,
		Withheld: tx.Grains(want.withheld.Uint64()), Spends: want.spends}
	if diff := cmp.Diff(expected, got); diff != "" {
		d.t.Fatalf("lease %v (-model +state):\n%s", id, diff)
	}
}

// freshTree restores the state from a snapshot, which builds a new tree.
func (d *duel) freshTree() {
	d.t.Helper()
	var b bytes.Buffer
	if _, err := d.s.Freeze().WriteTo(&b); err != nil {
		d.t.Fatal(err)
	}
	s, err := state.Restore(&b, d.g)
	if err != nil {
		d.t.Fatal(err)
	}
	if s.Root() != d.s.Root() || s.Accruing() != d.s.Accruing() {
		d.t.Fatalf("a fresh tree has root %v, the old one %v", s.Root(), d.s.Root())
	}
}

// TestDeterminism plays the same blocks on one processor and on four.
func TestDeterminism(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDuel(t)
		for range rapid.IntRange(1, 5).Draw(t, "blocks") {
			d.block()
		}
		var last [2][]byte
		for i, procs := range []int{1, 4} {
			old := runtime.GOMAXPROCS(procs)
			s, err := state.New(d.g)
			if err != nil {
				t.Fatal(err)
			}
			for n, b := range d.blocks {
				r := replay(t, s, b)
				if r.result.StateRoot != d.roots[n] {
					t.Fatalf("block %d: root %v, was %v", n, r.result.StateRoot, d.roots[n])
				}
				last[i] = append(last[i], r.receipts...)
			}
			runtime.GOMAXPROCS(old)
		}
		if !bytes.Equal(last[0], last[1]) {
			t.Fatal("receipts differ")
		}
	})
}
