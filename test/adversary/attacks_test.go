package adversary

import (
	"math"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const (
	trustOfLease  = "trust of the lease"
	trustOfEscrow = "trust of the escrow"
	nothing       = "nothing"
)

var byHosts = []attack{
	{"host bills a fortune without the owner's word", trustOfLease,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			w.wait(100 * second)
			w.must(w.agent, w.note(id, math.MaxUint64))
			return w.paid(), leaseTrust
		}},
	{"host runs nothing and charges till the end", trustOfLease,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			for range 61 {
				w.wait(minute)
				w.must(w.agent, w.note(id, leaseBudget))
			}
			final := w.note(id, leaseBudget)
			final.Final = true
			w.must(w.agent, final)
			return w.paid(), leaseTrust
		}},
	{"host takes the run price upfront and leaves", trustOfLease,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(func(l *tx.Lease) { l.Upfront = 500 * perSecond })
			w.must(w.agent, w.note(id, leaseBudget), &tx.End{Lease: id})
			return w.paid(), leaseTrust
		}},
	{"host has more countersigned than time allows", "rate times time",
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			w.wait(10 * second)
			charge := w.acked(id, leaseBudget)
			w.must(w.agent, charge)
			return w.paid(), 12 * perSecond // two blocks of a second stand around the wait
		}},
	{"host outbids the escrow's cap on rates", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id, taken := w.place(func(l *tx.Lease) { l.Rate = w.terms().MaxRate + 1 })
			if taken {
				w.t.Error("the lease was placed")
			}
			w.try(w.agent, w.note(id, 1))
			return w.paid(), 0
		}},
	{"host signs the countersignature itself", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			w.wait(100 * second)
			c := w.note(id, 50*perSecond)
			c.Countersignature.Signature = w.agent.key.Sign(c.Note.AckPreimage(w.anchor))
			w.try(w.agent, c)
			return w.paid(), 0
		}},
	{"host charges its holdback before it is accepted", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(func(l *tx.Lease) { l.Holdback = leaseBudget })
			w.wait(100 * second)
			w.must(w.agent, w.acked(id, 100*perSecond))
			w.must(w.friend, &tx.Settle{Leases: []tx.LeaseID{id}})
			return w.paid(), 0
		}},
	{"host bills an outage that the clock jumped over", trustOfLease,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			w.step(30*minute, nil) // one block, half an hour later
			w.must(w.agent, w.note(id, leaseBudget))
			return w.paid(), leaseTrust
		}},
}

var bySchedulers = []attack{
	{"scheduler mills leases for their fees", "lease_fee_total of the escrow",
		func(w *world) (tx.Grains, tx.Grains) {
			return w.millLeases(), millTotal
		}},
	{"scheduler leases every lane to a friend who runs nothing", trustOfEscrow,
		func(w *world) (tx.Grains, tx.Grains) {
			w.leaseToFriends(1)
			return w.holds(w.friend) - w.given, escrowTrust
		}},
	{"scheduler does it again after all is settled", trustOfEscrow,
		func(w *world) (tx.Grains, tx.Grains) {
			for epoch := range uint64(3) {
				w.leaseToFriends(epoch + 1)
				w.wait(25 * hour)
			}
			return w.holds(w.friend) - w.given, escrowTrust
		}},
	{"scheduler ends a friend's lease for the notice", trustOfLease,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(func(l *tx.Lease) { l.Payee, l.Notice = w.friend.id, 50*minute })
			w.must(w.scheduler, &tx.End{Lease: id})
			w.must(w.agent, w.note(id, 0))
			return w.holds(w.friend) - w.given, leaseTrust
		}},
	{"scheduler takes the escrow's money itself", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			before := w.holds(w.scheduler)
			w.try(w.scheduler, &tx.Withdraw{Escrow: w.escrow, Amount: 1000})
			w.try(w.scheduler, &tx.CloseEscrow{Escrow: w.escrow})
			w.try(w.scheduler, &tx.SetTerms{Escrow: w.escrow, Terms: w.greedyTerms()})
			return gain(before, w.holds(w.scheduler)), 0
		}},
}

// greedyTerms would let the scheduler's friend countersign for the owner.
func (w *world) greedyTerms() tx.Terms {
	terms := w.terms()
	terms.AckKeys, terms.Trust = []sig.PublicKey{w.friend.key.Public()}, escrowMoney
	return terms
}

// leaseToFriends places as many leases as the chain takes, lets them charge, and ends them.
func (w *world) leaseToFriends(epoch uint64) {
	w.t.Helper()
	var ids []tx.LeaseID
	for slot := range uint32(10) {
		id, taken := w.place(func(l *tx.Lease) {
			l.Slot, l.Epoch, l.Payee, l.Budget = slot, epoch, w.friend.id, 4*leaseTrust
		})
		if taken {
			ids = append(ids, id)
		}
	}
	w.wait(2 * minute)
	for _, id := range ids {
		w.must(w.agent, w.note(id, 4*leaseTrust))
		w.must(w.scheduler, &tx.End{Lease: id})
	}
}

func gain(before, after tx.Grains) tx.Grains { return after - min(before, after) }

var byOwners = []attack{
	{"owner ends the lease and withdraws what was earned", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			w.wait(200 * second)
			charge := w.acked(id, 150*perSecond)
			w.must(w.owner, &tx.End{Lease: id})
			w.withdrawAll()
			w.must(w.agent, charge)
			return gain(w.paid(), 150*perSecond), 0
		}},
	{"owner stops signing while a careful host works on", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			w.wait(100 * second)
			w.must(w.agent, w.acked(id, 40*perSecond))
			w.withdrawAll()
			w.must(w.agent, w.note(id, 100*perSecond)) // stopped when its trust was used up
			return gain(w.paid(), 100*perSecond), 0
		}},
	{"owner stops signing and the host works on regardless", "what ran beyond the lease's trust",
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			w.wait(150 * second)
			w.must(w.agent, w.acked(id, 40*perSecond))
			w.must(w.agent, w.note(id, 150*perSecond))
			return gain(w.paid(), 150*perSecond), (150-40)*perSecond - leaseTrust
		}},
	{"owner replaces the ack keys under a lease", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			w.wait(50 * second)
			charge := w.acked(id, 50*perSecond)
			w.must(w.owner, &tx.SetTerms{Escrow: w.escrow, Terms: w.greedyTerms()})
			w.must(w.agent, charge)
			return gain(w.paid(), 50*perSecond), 0
		}},
	{"owner closes the escrow under a lease", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			w.placed(nil)
			before := w.holds(w.owner)
			r, err := w.attempt(w.owner, &tx.CloseEscrow{Escrow: w.escrow})
			if err == nil && r.Status == chainv1.Status_STATUS_OK {
				w.t.Error("the escrow was closed")
			}
			return gain(before, w.holds(w.owner)), 0
		}},
	{"owner rejects good work to get its holdback back", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(func(l *tx.Lease) { l.Holdback = 50 * perSecond })
			w.wait(100 * second)
			w.must(w.agent, w.acked(id, 100*perSecond))
			w.must(w.owner, &tx.End{Lease: id})
			before := w.escrowHolds()
			w.must(w.owner, &tx.Reject{Lease: id, Evidence: tx.Hash{9}})
			w.must(w.friend, &tx.Settle{Leases: []tx.LeaseID{id}})
			// Had it accepted, the holdback would have been paid: that much it must not keep.
			return 50*perSecond - (before - w.escrowHolds()), 0
		}},
}

func (w *world) escrowHolds() tx.Grains {
	e, _ := w.s.Escrow(w.escrow)
	return e.Balance
}

// withdrawAll takes back all that the chain lets the owner have, and asks for more in vain.
func (w *world) withdrawAll() {
	w.t.Helper()
	e, _ := w.s.Escrow(w.escrow)
	r, err := w.attempt(w.owner, &tx.Withdraw{Escrow: w.escrow, Amount: e.Balance - e.Reserved + 1})
	if err == nil && r.Status == chainv1.Status_STATUS_OK {
		w.t.Error("a reserved grain was withdrawn")
	}
	w.must(w.owner, &tx.Withdraw{Escrow: w.escrow, Amount: e.Balance - e.Reserved})
}

var byReplay = []attack{
	{"a note is charged again and again", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(func(l *tx.Lease) { l.Trust = 0 })
			w.wait(100 * second)
			charge := w.acked(id, 50*perSecond)
			w.must(w.agent, charge, charge, charge)
			w.must(w.agent, charge)
			w.must(w.host, charge)
			return w.paid() - 50*perSecond, 0
		}},
	{"a note is charged on another lease", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(nil)
			other := w.placed(func(l *tx.Lease) { l.Slot = 2 })
			w.wait(100 * second)
			charge := *w.acked(id, 50*perSecond)
			charge.Note.Lease = other
			w.try(w.agent, &charge)
			return w.paid(), 0
		}},
	{"an old note is charged after a newer one", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			id := w.placed(func(l *tx.Lease) { l.Trust = 0 })
			w.wait(50 * second)
			old := w.acked(id, 30*perSecond)
			w.wait(50 * second)
			w.must(w.agent, w.acked(id, 80*perSecond), old, old)
			return w.paid() - 80*perSecond, 0
		}},
	{"a transaction is sent again", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			signed := w.signed(w.owner, &tx.Transfer{To: w.friend.id, Amount: 1000})
			for range 3 {
				_, _ = w.include(signed) // what counts is what arrived
			}
			return w.holds(w.friend) - w.given - 1000, 0
		}},
	{"a lease is placed again after it was charged and ended", trustOfLease,
		func(w *world) (tx.Grains, tx.Grains) {
			l := w.lease(nil)
			place := &tx.PlaceLease{Lease: l, Signature: w.agent.key.Sign(l.Preimage(w.anchor))}
			w.must(w.scheduler, place)
			id := l.ID(w.anchor)
			w.wait(40 * second)
			final := w.note(id, leaseBudget)
			final.Final = true
			w.must(w.agent, final)
			for range 3 {
				w.try(w.scheduler, place)
				w.try(w.agent, w.note(id, leaseBudget))
				w.wait(minute)
			}
			return w.paid(), leaseTrust
		}},
}
