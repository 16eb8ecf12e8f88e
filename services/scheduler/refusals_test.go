package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// slowly has every host take some time to answer.
func (m *market) slowly(d time.Duration) {
	m.hosts.Hook(func() {
		m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
			time.Sleep(d)
			return nil
		}
	})
}

func (m *market) offerMany(n byte) {
	for i := range n {
		m.offer(i+1, 1000)
	}
}

// TestTermsChangeWhileHostsAreAsked: an owner who takes back what he granted while his hosts let
// the scheduler wait costs it no refused lease, whatever he takes back; the run goes on once he
// grants it again.
func TestTermsChangeWhileHostsAreAsked(t *testing.T) {
	for name, change := range map[string]func(*scheduler.Escrow){
		"lease_fee":       func(s *scheduler.Escrow) { s.LeaseFee = 0 },
		"lease_fee_total": func(s *scheduler.Escrow) { s.LeaseFeeTotal = 5 * fee },
		"assigner":        func(s *scheduler.Escrow) { s.Assigner = sig.AccountID{1} },
		"payees":          func(s *scheduler.Escrow) { s.Payees = []sig.AccountID{{1}} },
		"ack keys":        func(s *scheduler.Escrow) { s.AckKeys = []sig.PublicKey{{2}} },
		"floor":           func(s *scheduler.Escrow) { s.Floor = 1 << 40 },
		"max_rate":        func(s *scheduler.Escrow) { s.MaxRate = 1000 },
		"max_total":       func(s *scheduler.Escrow) { s.MaxTotal = 1 },
		"trust":           func(s *scheduler.Escrow) { s.Trust = 1 },
		"expires":         func(s *scheduler.Escrow) { s.Deadline-- },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarketFor(t, fee)
				defer m.stop()
				m.ledger.Fees, m.ledger.MaxTotal = 1000*fee, 1_000_000_000
				m.slowly(4 * time.Second)
				m.offerMany(20)
				j := m.submitSpec(func(s *scheduler.Spec) {
					s.Tasks, s.Lanes, s.MaxTotal = 100, 50, 1_000_000_000
				})
				before, err := m.ledger.Escrow(t.Context(), j.Escrow)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				if len(m.hosts.Asked()) < 50 {
					t.Fatalf("%d hosts are asked, want 50", len(m.hosts.Asked()))
				}
				m.ledger.Change(j.Escrow, change)
				time.Sleep(2 * time.Second)
				if m.ledger.Placed() != 0 || m.ledger.Refused() != 0 {
					t.Errorf("%d leases were placed, %d refused", m.ledger.Placed(), m.ledger.Refused())
				}
				m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { *s = before })
				for range 6 {
					m.offerMany(20)
					time.Sleep(5 * time.Second)
				}
				if m.ledger.Placed() < 50 {
					t.Errorf("%d leases were placed once it was granted again, want 50", m.ledger.Placed())
				}
			})
		})
	}
}

// TestRefusedOneAtATime: once the chain refused a lease for its escrow's terms, those of this owner
// are placed one at a time, for an hour, then for two; those of others as before.
func TestRefusedOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarketFor(t, fee)
		defer m.stop()
		m.ledger.MaxTotal = 1_000_000_000
		bait := m.submitSpec(array(1, 1))
		m.refuse(bait)
		m.offer(1, 1000)
		time.Sleep(time.Second)
		if m.ledger.Refused() != 1 {
			t.Fatalf("%d leases were refused, want 1", m.ledger.Refused())
		}
		if most := m.askedAtOnce(2); most < 5 {
			t.Errorf("%d of another owner are asked at the same time", most)
		}
		if most := m.askedAtOnce(1); most != 1 {
			t.Errorf("%d of the owner are asked at the same time, want 1", most)
		}
		m.silence(50 * time.Minute)
		m.refuse(bait)
		m.silence(3 * time.Minute)
		if m.ledger.Refused() != 2 {
			t.Fatalf("%d leases were refused, want 2", m.ledger.Refused())
		}
		m.silence(115 * time.Minute)
		if most := m.askedAtOnce(1); most != 1 {
			t.Errorf("%d are asked at the same time two hours after the second, want 1", most)
		}
		m.silence(20 * time.Minute)
		if most := m.askedAtOnce(1); most < 5 {
			t.Errorf("%d are asked at the same time after the time is over", most)
		}
	})
}

// refuse lets the chain refuse the job's next lease, by terms that change when it is sent.
func (m *market) refuse(j *scheduler.Job) {
	m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.LeaseFee = fee })
	m.ledger.Hook(func() {
		m.ledger.Fail = func(method string) error {
			if method == "PlaceLease" {
				m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.LeaseFee = 0 })
			}
			return nil
		}
	})
}

// askedAtOnce tells of how many lanes of a new array of the owner hosts are asked at the same time
// at most, until all are placed; then it ends.
func (m *market) askedAtOnce(owner byte) (most int) {
	m.t.Helper()
	asked, placed := 0, m.ledger.Placed()
	m.hosts.Hook(func() {
		m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
			m.hosts.Hook(func() { asked++; most = max(most, asked) })
			time.Sleep(time.Second)
			m.hosts.Hook(func() { asked-- })
			return nil
		}
	})
	m.jobs++
	j := schedulertest.NewJob(owner, m.jobs+1)
	j.Runs = nil
	array(5, 5)(&j.Spec)
	m.ledger.Fund(j)
	if _, err := m.engine.Submit(m.t.Context(), j); err != nil {
		m.t.Fatal(err)
	}
	for range 10 {
		m.offerMany(5)
		time.Sleep(2 * time.Second)
	}
	synctest.Wait()
	if got := m.ledger.Placed() - placed; got != 5 {
		m.t.Errorf("%d leases were placed, want 5", got)
	}
	for slot := range 5 {
		m.tell(j.ID, slot, scheduler.Ended, scheduler.Completed)
	}
	return most
}
