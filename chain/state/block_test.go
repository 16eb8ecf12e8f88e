package state_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func TestFees(t *testing.T) {
	w := newWorld(t)
	w.ctx.CoSigners = []sig.AccountID{proposer().id, acker().id, acker().id, newcomer().id}
	signed := w.sign(owner(), 0, &tx.Transfer{To: other().id, Amount: 1},
		&tx.Transfer{To: other().id, Amount: 2})
	paid, shared, burned := w.balance(proposer()), w.balance(acker()), w.s.Chain().Burned.Lo
	r := w.block(second, signed)[0]
	if want := tx.Grains(2*10 + len(signed.BodyBytes())); r.Fee != want {
		t.Errorf("fee %d, want %d", r.Fee, want)
	}
	// Three distinct receivers, one without an account.
	share := r.Fee * 4 / 5
	if got := w.balance(proposer()) - paid; got != share/3+share%3 {
		t.Errorf("proposer got %d of %d", got, r.Fee)
	}
	if got := w.balance(acker()) - shared; got != share/3 {
		t.Errorf("co-signer got %d of %d", got, r.Fee)
	}
	if got := w.s.Chain().Burned.Lo - burned; got != uint64(r.Fee-2*(share/3)-share%3) {
		t.Errorf("%d of %d burned", got, r.Fee)
	}
}

// TestFeeFromProceeds: an agent without money charges for a host, and the fee comes from what the
// host gets; a stranger's or an unpaid charge is not includable.
func TestFeeFromProceeds(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(nil)
	m.block(100 * second)
	empty := func(p person) {
		fee := m.sign(p, 0, &tx.Transfer{To: other().id, Amount: wealth})
		m.must(p, &tx.Transfer{To: other().id, Amount: m.balance(p) -
			tx.Grains(10+len(fee.BodyBytes())) - 40})
	}
	empty(agent())
	if a := m.balance(agent()); a > 60 {
		t.Fatalf("the agent still has %d", a)
	}
	own, before := m.balance(agent()), m.balance(host())
	r := m.must(agent(), m.acked(id, m.now(), 50_000))
	if got := m.balance(host()) - before; got != 50_000-(r.Fee-own) || m.balance(agent()) != 0 {
		t.Errorf("host got %d, fee %d, agent had %d", got, r.Fee, own)
	}
	again := m.sign(agent(), 0, m.acked(id, m.now(), 50_000))
	if err := m.s.Check(again, m.now()); err != nil {
		t.Errorf("Check cannot know the proceeds, yet %v", err)
	}
	m.excluded(state.ErrCannotPay, again)
	for name, o := range map[string]tx.Operation{
		"lease of others":  m.acked(id, m.now(), 90_000),
		"lease of nobody":  m.acked(tx.LeaseID{7}, m.now(), 90_000),
		"settle of others": &tx.Settle{Leases: []tx.LeaseID{{7}, id}},
	} {
		free := m.sign(newcomer(), 0, o)
		if err := m.s.Check(free, m.now()); !errors.Is(err, state.ErrCannotPay) {
			t.Errorf("%s: Check lets a stranger without money in: %v", name, err)
		}
		m.excluded(state.ErrCannotPay, free)
	}
	mixed := m.sign(agent(), 0, m.acked(id, m.now(), 90_000), &tx.End{Lease: id})
	m.excluded(state.ErrCannotPay, mixed)
	if err := m.s.Check(mixed, m.now()); !errors.Is(err, state.ErrCannotPay) {
		t.Errorf("Check: %v", err)
	}
}

// TestPayeeCreatedByItsCharge: a host without an account charges with its first transaction.
func TestPayeeCreatedByItsCharge(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Payee = newcomer().id })
	m.block(100 * second)
	m.excluded(state.ErrCannotPay, m.sign(newcomer(), 0, m.acked(id, m.now(), lock+5)))
	r := m.must(newcomer(), m.acked(id, m.now(), 50_000))
	a, _ := m.s.Account(newcomer().id)
	if a.Balance != 50_000-lock-r.Fee || a.Nonce != 1 || a.Keys.IsZero() {
		t.Errorf("payee is %+v", a)
	}
}

// TestUnknownSender has nothing to pay with.
func TestUnknownSender(t *testing.T) {
	w := newWorld(t)
	signed := w.sign(newcomer(), 0, &tx.Transfer{To: other().id, Amount: 1})
	w.excluded(state.ErrCannotPay, signed)
}

// TestSegments: a root after every 1,000 transactions; the last one is the block's, also when a
// refused transaction had opened the next segment, and also when there was none.
func TestSegments(t *testing.T) {
	for count, want := range map[int]int{0: 1, 1: 1, 999: 1, 1000: 1, 1001: 2} {
		w := newWorld(t)
		w.ctx.Replay = true
		x := w.begin(second)
		bad, _ := w.s.Prepare(w.sign(owner(), 5_000, &tx.Transfer{To: other().id, Amount: 1}))
		for i := range count {
			one := w.sign(owner(), uint64(i), &tx.Transfer{To: other().id, Amount: 1})
			p, _ := w.s.Prepare(one)
			if _, err := x.Apply(p); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := x.Apply(bad); !errors.Is(err, state.ErrNonceFuture) {
			t.Fatal(err)
		}
		r := x.Finish()
		x.Commit()
		w.s.Recount()
		if len(r.Segments) != want || r.Segments[len(r.Segments)-1] != r.StateRoot {
			t.Errorf("%d transactions: segments %v, root %v", count, r.Segments, r.StateRoot)
		}
		if r.Operations != uint64(count) {
			t.Errorf("%d operations, want %d", r.Operations, count)
		}
	}
}

// TestFullBlocks: a full block takes no more, prices rise by an eighth and fall again.
func TestFullBlocks(t *testing.T) {
	g := genesis(owner(), other(), proposer())
	g.Params.OperationFee, g.Params.MaxOperations = 1000, 1000
	w := worldOf(t, g)
	ops := make([]tx.Operation, 999)
	for i := range ops {
		ops[i] = &tx.Transfer{To: other().id, Amount: 1}
	}
	x := w.begin(second)
	for i, want := range []error{nil, state.ErrFull} {
		// Fits alone, and not twice.
		body := tx.Body{Chain: "main", Account: owner().id, Nonce: uint64(i), Fee: 1 << 40,
			ValidUntil: w.now() + hour, Operations: ops}
		p, _ := w.s.Prepare(w.signBody(owner(), body))
		if _, err := x.Apply(p); !errors.Is(err, want) {
			t.Fatalf("transaction %d: %v, want %v", i, err, want)
		}
	}
	x.Finish()
	x.Commit()
	if got := w.s.Prices(); got.Operation != 1124 || got.Byte != 2 {
		t.Errorf("prices after a full block are %+v", got)
	}
	w.block(second)
	if got := w.s.Prices(); got.Operation != 1000 || got.Byte != 1 {
		t.Errorf("prices after an empty block are %+v", got)
	}
}

func TestBeginRefused(t *testing.T) {
	w := newWorld(t)
	next := w.s.Next(w.now() + second)
	for name, c := range map[string]struct {
		want   error
		change func(*state.Context)
	}{
		"height":   {state.ErrContext, func(c *state.Context) { c.Height++ }},
		"accrual":  {state.ErrContext, func(c *state.Context) { c.Accrual++ }},
		"time":     {state.ErrContext, func(c *state.Context) { c.Time = genesisTime - 1 }},
		"proposer": {state.ErrProposer, func(c *state.Context) { c.Proposer = newcomer().id }},
	} {
		ctx := state.Context{Head: next, Proposer: proposer().id}
		c.change(&ctx)
		if _, err := w.s.Begin(ctx); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	x := w.begin(second)
	if _, err := w.s.Begin(w.ctx); !errors.Is(err, state.ErrOpen) {
		t.Errorf("second: %v", err)
	}
	x.Drop()
}

// TestReadsBesideExecution is for the race detector: reads go on while blocks are made, and see
// whole blocks only.
func TestReadsBesideExecution(t *testing.T) {
	w := newWorld(t)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			c := w.s.Chain()
			if sum := uint64(c.AccountSum+c.EscrowSum+c.LockSum) + c.Burned.Lo; sum != uint64(
				c.GenesisSupply) {
				done <- errors.New("a reader saw half a block")
				return
			}
			w.s.ProveAccount(owner().id)
			w.s.Accruing()
		}
	}()
	for i := range 50 {
		w.block(second, w.sign(owner(), 0, &tx.Transfer{To: other().id, Amount: tx.Grains(i + 1)}))
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAtomic: nothing of a failed transaction stays but fee and nonce.
func TestAtomic(t *testing.T) {
	m := newMarket(t, nil)
	other1 := m.balance(other())
	r := m.do(owner(),
		&tx.Transfer{To: other().id, Amount: 5}, &tx.Transfer{To: newcomer().id, Amount: lock},
		&tx.Withdraw{Escrow: m.escrow, Amount: 7}, &tx.SetKeys{Keys: other().set}, openJob(),
		m.place(m.lease(nil)), &tx.CloseEscrow{Escrow: m.escrow})
	if r.Reason != chainv1.Reason_REASON_LEASES_LIVE || r.FailedOperation != 6 ||
		len(r.Outcomes) != 0 {
		t.Errorf("receipt is %+v", r)
	}
	_, created := m.s.Account(newcomer().id)
	e := m.escrowNow()
	if created || m.balance(other()) != other1 || e.Balance != 5_000_000 || e.Live != 0 {
		t.Errorf("escrow %+v, created %v", e, created)
	}
	if keys := m.s.Keys(owner().id); !slices.Equal(keys.Keys, owner().set.Keys) {
		t.Error("keys stayed changed")
	}
}

func TestGenesisRefused(t *testing.T) {
	g := genesis(owner(), proposer())
	g.Params.AccountLock = 0
	if _, err := state.New(g); err == nil {
		t.Error("a lock of 0 was accepted")
	}
	if _, err := state.New(genesis(owner())); err == nil {
		t.Error("a validator without an account was accepted")
	}
}

// TestFeeFromTwoProceeds: what the first payee got is not enough, the second's pays the rest.
func TestFeeFromTwoProceeds(t *testing.T) {
	m := newMarket(t, nil)
	one := m.placed(nil)
	two := m.placed(func(l *tx.Lease) { l.Slot, l.Payee = 2, other().id })
	m.block(100 * second)
	fee := m.sign(agent(), 0, &tx.Transfer{To: owner().id, Amount: wealth}).BodyBytes()
	m.must(agent(), &tx.Transfer{To: owner().id,
		Amount: m.balance(agent()) - tx.Grains(10+len(fee))})
	own, first, second := m.balance(agent()), m.balance(host()), m.balance(other())
	r := m.must(agent(), m.acked(one, m.now(), 100), m.acked(two, m.now(), 50_000))
	if m.balance(host()) != first || m.balance(other())-second != 50_100-(r.Fee-own) {
		t.Errorf("fee %d, host got %d, other %d", r.Fee, m.balance(host())-first,
			m.balance(other())-second)
	}
}

// TestWindowBoundary: a window is over at its very last millisecond of accrual, not one before.
func TestWindowBoundary(t *testing.T) {
	for early, bound := range map[tx.Millis]chainv1.Bound{
		0: chainv1.Bound_BOUND_SETTLED, 1: unbound,
	} {
		m := newMarket(t, nil)
		id := m.placed(nil)
		l := m.leaseNow(id)
		over := l.Until - l.From + day
		m.wait(over - second - early)
		m.must(agent(), m.acked(id, m.now(), 10))
		if got := m.s.Head().Accrual; got != l.AccrualFrom+over-early {
			t.Fatalf("accrual is %d", got)
		}
		got := m.leaseNow(id)
		if want := map[bool]tx.Grains{true: 10}[bound == unbound]; got.Paid != want {
			t.Errorf("%d ms early: paid %d, want %d", early, got.Paid, want)
		}
	}
}
