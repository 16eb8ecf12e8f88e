package state_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
)

// TestFreed supersedes leases in the middle of random lives, and wants the chain to take a next one
// of all money and trust that were free and that price.Freed and FreedTrust promised before,
// whatever is done in between.
func TestFreed(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			m := newMarket(t, nil)
			id := m.placed(func(l *tx.Lease) {
				l.Upfront, l.Holdback = tx.Grains(r.IntN(2)*100_000), tx.Grains(r.IntN(2)*50_000)
				l.Notice = tx.Millis(r.IntN(2)) * minute
				l.Trust = tx.Grains(60_000 + r.IntN(2)*840_000)
				l.Until = m.now() + minute + tx.Millis(r.IntN(60))*minute
			})
			m.life(r, id)
			by := m.now() + tx.Millis(4+r.IntN(60))*second
			held, before := m.leaseNow(id), m.escrowNow()
			promised, trust := price.Freed(&held, by), price.FreedTrust(&held, by)
			switch r.IntN(4) { // a charge that comes in between takes nothing of it
			case 0:
				m.do(agent(), m.acked(id, m.now(), tx.Grains(r.IntN(600_000))))
			case 1:
				m.do(agent(), m.note(id, m.now(), tx.Grains(r.IntN(600_000))))
			}
			if r.IntN(6) == 0 {
				m.do(assigner(), &tx.End{Lease: id})
			}
			m.wait(by - m.now() - second) // the block that places it comes at by
			m.must(assigner(), m.place(m.lease(func(l *tx.Lease) {
				l.Epoch, l.Budget = 2, before.Balance-before.Reserved+promised
				l.Trust = terms().Trust - before.Risk + trust
			})))
		})
	}
}

// life has a lease run, be charged, extended, rejected and ended as it comes.
func (m *market) life(r *rand.Rand, id tx.LeaseID) {
	for range r.IntN(6) {
		m.wait(tx.Millis(r.IntN(4)) * minute)
		switch r.IntN(5) {
		case 0:
			m.do(agent(), m.note(id, m.now(), tx.Grains(r.IntN(900_000))))
		case 1:
			m.do(agent(), m.acked(id, m.now(), tx.Grains(r.IntN(900_000))))
		case 2:
			l := m.leaseNow(id)
			m.do(assigner(), &tx.Extend{Lease: id, Budget: l.Budget + 100_000, Until: l.Until + minute})
		case 3:
			m.do(owner(), m.reject(id))
		case 4:
			if r.IntN(3) == 0 {
				m.do(agent(), &tx.End{Lease: id})
			}
		}
	}
}

// TestFreedIsAllButWhatAccrues pins the figure.
func TestFreedIsAllButWhatAccrues(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Upfront, l.Notice = 1_000, 2*second })
	m.wait(minute)
	held := m.leaseNow(id)
	const want tx.Grains = 1_000_000 - 1_000 - 102_000
	if got := price.Freed(&held, held.From+100*second); got != want {
		t.Errorf("it frees %d, want %d", got, want)
	}
	if got := price.FreedTrust(&held, held.From+2*second); got != 60_000-5_000 {
		t.Errorf("it frees trust of %d, want 55,000", got)
	}
	m.must(agent(), &tx.End{Lease: id})
	held = m.leaseNow(id)
	if price.Freed(&held, held.From+100*second)+price.FreedTrust(&held, held.From+2*second) != 0 {
		t.Error("what is free already is counted twice")
	}
}
