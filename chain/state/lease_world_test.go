package state_test

import (
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// market is a world with an escrow of the owner, which the assigner may assign and the acker
// acknowledges for.
type market struct {
	*world
	escrow tx.EscrowID
}

var jobID = tx.Hash{0xAB, 31: 1}

// terms leave room for ten of the leases below.
func terms() tx.Terms {
	return tx.Terms{
		MaxRate: 36_000_000, MaxTotal: 10_000_000, Trust: 1_000_000,
		AckKeys: []sig.PublicKey{acker().key.Public()}, Assigner: assigner().id,
		Expires: genesisTime + 60*day,
	}
}

func openJob() *tx.OpenEscrow {
	return &tx.OpenEscrow{Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: jobID[:],
		Amount: 5_000_000, Terms: terms()}
}

func newMarket(t testing.TB, change func(*tx.OpenEscrow)) *market {
	t.Helper()
	w := newWorld(t)
	open := openJob()
	if change != nil {
		change(open)
	}
	r := w.must(owner(), open)
	return &market{w, tx.EscrowID(r.Outcomes[0].Created)}
}

// lease is 1,000 grains per second for an hour at most, 60 s of trust.
func (m *market) lease(change func(*tx.Lease)) tx.Lease {
	l := tx.Lease{
		Escrow: m.escrow, Subject: jobID[:], Slot: 1, Epoch: 1, Payee: host().id,
		AgentKey: agent().key.Public(), Rate: 3_600_000, Budget: 1_000_000, Trust: 60_000,
		AckKeys: terms().AckKeys, ClaimWindow: day, PriceHash: tx.Hash{1}, OfferHash: tx.Hash{2},
		PlaceBy: m.now() + minute, Until: m.now() + hour,
	}
	if change != nil {
		change(&l)
	}
	return l
}

func (m *market) place(l tx.Lease) *tx.PlaceLease {
	return m.placeSigned(l, agent())
}

func (m *market) placeSigned(l tx.Lease, by person) *tx.PlaceLease {
	return &tx.PlaceLease{Lease: l, Signature: by.key.Sign(l.Preimage(m.anchor))}
}

// placed places a lease and returns its id.
func (m *market) placed(change func(*tx.Lease)) tx.LeaseID {
	m.t.Helper()
	l := m.lease(change)
	r := m.must(assigner(), m.place(l))
	if got := tx.LeaseID(r.Outcomes[0].Created); got != l.ID(m.anchor) {
		m.t.Fatalf("created %v, want %v", got, l.ID(m.anchor))
	}
	return l.ID(m.anchor)
}

// note makes a charge by a note of the agent.
func (m *market) note(id tx.LeaseID, upto tx.Millis, cumulative tx.Grains) *tx.Charge {
	n := tx.Note{Lease: id, Revision: tx.Hash{3}, Upto: upto, Cumulative: cumulative,
		UsageHash: tx.Hash{4}}
	return &tx.Charge{Note: n, Signature: agent().key.Sign(n.Preimage(m.anchor))}
}

// acked makes a charge by a countersigned note.
func (m *market) acked(id tx.LeaseID, upto tx.Millis, cumulative tx.Grains) *tx.Charge {
	c := m.note(id, upto, cumulative)
	c.Countersignature.Signature = acker().key.Sign(c.Note.AckPreimage(m.anchor))
	return c
}

func final(c *tx.Charge) *tx.Charge {
	c.Final = true
	return c
}

func (m *market) escrowNow() tx.Escrow {
	m.t.Helper()
	e, ok := m.s.Escrow(m.escrow)
	if !ok {
		m.t.Fatal("the escrow is gone")
	}
	return e
}

func (m *market) leaseNow(id tx.LeaseID) tx.LeaseState {
	m.t.Helper()
	l, ok := m.s.Lease(id)
	if !ok {
		m.t.Fatal("the lease is gone")
	}
	return l
}

// charged commits a charge by the agent and wants an amount paid to the host and a bound.
func (m *market) charged(c *tx.Charge, want tx.Grains, bound chainv1.Bound) tx.Outcome {
	m.t.Helper()
	before := m.balance(host())
	out := m.must(agent(), c).Outcomes[0]
	if out.Amount != want || out.Bound != bound {
		m.t.Errorf("charge paid %d, %v; want %d, %v", out.Amount, out.Bound, want, bound)
	}
	if got := m.balance(host()) - before; got != want {
		m.t.Errorf("host got %d, want %d", got, want)
	}
	return out
}

func (m *market) settled(ids ...tx.LeaseID) tx.Outcome {
	m.t.Helper()
	return m.must(other(), &tx.Settle{Leases: ids}).Outcomes[0]
}

// lane is the lane that lease stands in.
func (m *market) lane() state.LaneID { return state.LaneID{Escrow: m.escrow, Slot: 1} }

const unbound = chainv1.Bound_BOUND_UNSPECIFIED
