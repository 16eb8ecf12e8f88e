package adversary

import (
	"bytes"
	"slices"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const (
	second tx.Millis = 1000
	minute           = 60 * second
	hour             = 60 * minute
	day              = 24 * hour

	genesisTime tx.Millis = 1_800_000_000_000
	wealth      tx.Grains = 1_000_000_000
	maxFee      tx.Grains = 1_000_000
)

// The lease that is attacked: 1,000 grains per second, 60 s of trust.
const (
	perSecond   tx.Grains = 1_000
	leaseTrust            = 60 * perSecond
	leaseBudget           = 1_000 * perSecond
	escrowMoney tx.Grains = 5_000_000
	escrowTrust tx.Grains = 200_000
)

// person is a key with its account.
type person struct {
	key sig.PrivateKey
	id  sig.AccountID
}

func newPerson(seed byte) person {
	key := sig.FromSeed([32]byte{0xad, seed})
	return person{key, sig.AccountOfKey(key.Public())}
}

// world is a chain with an owner and its escrow, a scheduler, a host and its agent.
type world struct {
	t                                     *testing.T
	s                                     *state.State
	anchor                                sig.Anchor
	owner, scheduler, host, agent, friend person
	proposer, acker                       person
	escrow                                tx.EscrowID
	given                                 tx.Grains // what each person begins with
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, owner: newPerson(1), scheduler: newPerson(2), host: newPerson(3), agent: newPerson(4),
		friend: newPerson(5), proposer: newPerson(6), acker: newPerson(7),
	}
	g := &block.Genesis{
		Chain: block.Main, Nonce: [32]byte{1}, Time: genesisTime, Params: block.LocalParams(),
		RulesVersion: block.RulesVersion, Orderer: block.OrdererSolo,
		Validators: block.ValidatorSet{Validators: []block.Validator{{
			Key: w.proposer.key.Public(), Account: w.proposer.id, Operator: w.proposer.id,
		}}},
	}
	for _, p := range []person{w.owner, w.scheduler, w.host, w.agent, w.friend, w.proposer, w.acker} {
		g.Allocations = append(g.Allocations, block.Allocation{Account: p.id, Amount: wealth})
	}
	slices.SortFunc(g.Allocations, func(a, b block.Allocation) int {
		return bytes.Compare(a.Account[:], b.Account[:])
	})
	var err error
	if w.s, err = state.New(g); err != nil {
		t.Fatal(err)
	}
	w.anchor, w.given = g.Anchor(), w.holds(w.friend)
	r := w.must(w.owner, &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: subject[:], Amount: escrowMoney,
		Terms: w.terms(),
	})
	w.escrow = tx.EscrowID(r.Outcomes[0].Created)
	return w
}

var subject = [32]byte{0xab, 31: 1}

func (w *world) terms() tx.Terms {
	return tx.Terms{
		MaxRate: 100 * tx.GrainsPerHour(perSecond) * 3600, MaxTotal: escrowMoney, Trust: escrowTrust,
		AckKeys: []sig.PublicKey{w.acker.key.Public()}, Assigner: w.scheduler.id,
		Expires: genesisTime + 60*day,
	}
}

func (w *world) now() tx.Millis { return w.s.Head().Time }

// attempt commits a block of one transaction and returns its receipt; a transaction that no block
// may hold gives an error and an empty block.
func (w *world) attempt(from person, ops ...tx.Operation) (tx.Receipt, error) {
	w.t.Helper()
	return w.include(w.signed(from, ops...))
}

func (w *world) signed(from person, ops ...tx.Operation) *tx.Transaction {
	w.t.Helper()
	a, _ := w.s.Account(from.id)
	signed, err := tx.Sign(tx.Body{
		Chain: block.Main, Account: from.id, Nonce: a.Nonce, Fee: maxFee,
		ValidUntil: w.now() + 2*hour, Operations: ops,
	}, w.anchor, sig.SingleKey(from.key.Public()), a.Nonce == 0, from.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

func (w *world) include(signed *tx.Transaction) (tx.Receipt, error) {
	w.t.Helper()
	var receipt tx.Receipt
	var err error
	w.step(second, func(x *state.Execution) {
		prepared, _ := w.s.Prepare(signed)
		receipt, err = x.Apply(prepared)
	})
	return receipt, err
}

// step commits a block that comes so long after the last.
func (w *world) step(after tx.Millis, fill func(*state.Execution)) {
	w.t.Helper()
	x, err := w.s.Begin(state.Context{Proposer: w.proposer.id, Head: w.s.Next(w.now() + after)})
	if err != nil {
		w.t.Fatal(err)
	}
	if fill != nil {
		fill(x)
	}
	x.Finish()
	x.Commit()
	w.s.Recount() // panics when a sum does not follow from the records
}

// wait lets time pass in blocks of a minute at most.
func (w *world) wait(d tx.Millis) {
	w.t.Helper()
	for ; d > 0; d -= min(d, minute) {
		w.step(min(d, minute), nil)
	}
}

// must is attempt for what is to succeed.
func (w *world) must(from person, ops ...tx.Operation) tx.Receipt {
	w.t.Helper()
	r, err := w.attempt(from, ops...)
	if err != nil || r.Status != chainv1.Status_STATUS_OK {
		w.t.Fatalf("%T: %v, %v, %v", ops[0], r.Status, r.Reason, err)
	}
	return r
}

// try is attempt for what the chain may refuse: what counts is what was paid.
func (w *world) try(from person, ops ...tx.Operation) {
	w.t.Helper()
	_, _ = w.attempt(from, ops...)
}

// lease is one that the host would sign, after change had its way with it.
func (w *world) lease(change func(*tx.Lease)) tx.Lease {
	l := tx.Lease{
		Escrow: w.escrow, Subject: subject[:], Slot: 1, Epoch: 1, Payee: w.host.id,
		AgentKey: w.agent.key.Public(), Rate: tx.GrainsPerHour(perSecond) * 3600,
		Budget: leaseBudget, Trust: leaseTrust, AckKeys: w.terms().AckKeys, ClaimWindow: day,
		PriceHash: prices().Hash(), OfferHash: tx.Hash{2}, PlaceBy: w.now() + minute,
		Until: w.now() + hour,
	}
	if change != nil {
		change(&l)
	}
	return l
}

func prices() price.Prices {
	return price.Prices{Model: price.Linear, CoreHour: uint64(perSecond) * 3600}
}

// place has the scheduler place a lease, signed by the agent, and tells whether the chain took it.
func (w *world) place(change func(*tx.Lease)) (tx.LeaseID, bool) {
	w.t.Helper()
	l := w.lease(change)
	r, err := w.attempt(w.scheduler, &tx.PlaceLease{
		Lease: l, Signature: w.agent.key.Sign(l.Preimage(w.anchor)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return l.ID(w.anchor), r.Status == chainv1.Status_STATUS_OK
}

// placed is place for what is to succeed.
func (w *world) placed(change func(*tx.Lease)) tx.LeaseID {
	w.t.Helper()
	id, ok := w.place(change)
	if !ok {
		w.t.Fatal("the lease was not placed")
	}
	return id
}

// note is a charge by a note that the agent signed alone.
func (w *world) note(id tx.LeaseID, cumulative tx.Grains) *tx.Charge {
	n := tx.Note{
		Lease: id, Revision: tx.Hash{3}, Upto: w.now(), Cumulative: cumulative, UsageHash: tx.Hash{4},
	}
	return &tx.Charge{Note: n, Signature: w.agent.key.Sign(n.Preimage(w.anchor))}
}

// acked is a charge by a note that the owner countersigned too.
func (w *world) acked(id tx.LeaseID, cumulative tx.Grains) *tx.Charge {
	c := w.note(id, cumulative)
	c.Countersignature.Signature = w.acker.key.Sign(c.Note.AckPreimage(w.anchor))
	return c
}

// holds is what an account has.
func (w *world) holds(p person) tx.Grains {
	a, _ := w.s.Account(p.id)
	return a.Balance
}

// paid is what the lease's escrow has paid so far, to whomever.
func (w *world) paid() tx.Grains {
	w.t.Helper()
	e, ok := w.s.Escrow(w.escrow)
	if !ok {
		w.t.Fatal("the escrow is gone")
	}
	return e.Paid
}
