package scheduler_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestMovesGoWell drives lanes through random evictions, told ahead or not, silences, returns with
// programs that were kept, declines, refusals, lost answers, failing writes and restarts of the
// scheduler. At no time are two leases of a lane open; and once the trouble is over each lane has
// one again, the newest on the chain.
func TestMovesGoWell(t *testing.T) {
	continued := 0
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				continued += moves(t, rand.New(rand.NewPCG(seed, 3)), scheduler.Keep(seed%3))
			})
		})
	}
	if !t.Failed() && continued < 10 {
		t.Errorf("%d programs were gone on with: the schedule tries nothing", continued)
	}
}

const movedLanes = 3

// moves returns how many leases went on with the program of an earlier one.
func moves(t *testing.T, r *rand.Rand, keep scheduler.Keep) (continued int) {
	m := newMarket(t)
	defer func() { m.stop() }()
	m.ledger.MaxTotal = 1_000_000
	j := m.submitSpec(func(s *scheduler.Spec) {
		s.Lanes, s.Always, s.LostAfter, s.Keep = movedLanes, true, 2*time.Minute, keep
		if keep == scheduler.KeepOriginal {
			s.LostAfter = 30 * time.Second
		}
	})
	seen, silent := map[scheduler.AttemptID]bool{}, map[string]bool{}
	for range 60 {
		if keep == scheduler.KeepOriginal && r.IntN(2) == 0 { // silent, or there again
			name := fmt.Sprintf("host-%d", 1+r.IntN(5))
			silent[name] = !silent[name]
		}
		m.trouble(r, silent)
		for n := byte(1); n <= 5; n++ {
			if r.IntN(3) > 0 && !silent[fmt.Sprintf("host-%d", n)] {
				m.offer(n, uint64(n)*1000)
			}
		}
		m.somebodyTells(r, j.ID, silent)
		m.somebodyReturns(r, j.ID, silent)
		for _, a := range m.attempts(j.ID) {
			if a.Continues != (scheduler.AttemptID{}) && a.Placed && !seen[a.ID] {
				seen[a.ID] = true
				continued++
			}
		}
		if r.IntN(10) == 0 {
			m.stop()
			m.start()
		}
		if open := m.ledger.Open(); open > movedLanes {
			t.Fatalf("%d leases are open", open)
		}
		time.Sleep(time.Duration(r.IntN(40)) * time.Second)
		synctest.Wait()
	}
	m.calm()
	for range 12 {
		m.offers(time.Minute, 1, 2, 3, 4, 5)
		for slot, run := range m.read(j.ID).Runs {
			if run.State == scheduler.Leased {
				m.tell(j.ID, slot, scheduler.Running, 0)
			}
		}
	}
	checkPaid(t, m.ledger)
	m.checkMoved(j.ID)
	return continued
}

func (m *market) attempts(id job.ID) (all []scheduler.Attempt) {
	for _, run := range m.read(id).Runs {
		all = append(all, run.Attempts...)
	}
	return all
}

// somebodyReturns has hosts come back with what they kept, or with its end.
func (m *market) somebodyReturns(r *rand.Rand, id job.ID, silent map[string]bool) {
	for _, run := range m.read(id).Runs {
		for _, a := range run.Attempts {
			if !a.Kept || silent[a.Host.Name] || r.IntN(3) > 0 {
				continue
			}
			rep := scheduler.Report{
				Job: id, Run: run.ID, Attempt: a.ID, Executor: a.Host.Executor, State: scheduler.Running,
				Reason: "kept", Time: time.Now(), HeldUntil: time.Now().Add(5 * time.Minute), Ran: true,
				Raw: []byte(time.Now().String()),
			}
			switch r.IntN(8) {
			case 0:
				rep.State, rep.End = scheduler.Ended, scheduler.Evicted
				m.hosts.End(a.ID)
			case 1: // its word is another
				m.hosts.End(a.ID)
			}
			if err := m.engine.Report(m.t.Context(), rep); err != nil && m.store.Fail == nil {
				m.t.Fatal(err)
			}
			synctest.Wait()
		}
	}
}

// trouble is what goes wrong from now on, most of it once.
func (m *market) trouble(r *rand.Rand, away map[string]bool) {
	lost := errors.New("lost")
	away = maps.Clone(away)
	away[fmt.Sprintf("host-%d", 1+r.IntN(9))] = true
	m.calm()
	m.hosts.Hook(func() {
		m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
			if away[h.Name] {
				return fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
			}
			return nil
		}
	})
	fail := func(method string, err error) {
		m.ledger.Hook(func() { m.ledger.Fail = once(method, err) })
	}
	switch r.IntN(12) {
	case 0:
		fail("PlaceLease", lost)
	case 1:
		m.ledger.Hook(func() { m.ledger.FailAfter = once("PlaceLease", lost) })
	case 2:
		fail("PlaceLease", scheduler.ErrLeaseRefused)
	case 3:
		fail("PlaceLease", scheduler.ErrNotPlaced)
	case 4:
		fail("EndLease", lost)
	case 5:
		failing := once("Save", lost)
		m.store.Hook(func() {
			m.store.Fail = func(scheduler.Change) error { return failing("Save") }
		})
	case 6:
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
				return scheduler.ErrDeclined
			}
		})
	}
}

// calm ends all trouble.
func (m *market) calm() {
	m.ledger.Hook(func() { m.ledger.Fail, m.ledger.FailAfter = nil, nil })
	m.store.Hook(func() { m.store.Fail = nil })
	m.hosts.Hook(func() { m.hosts.OnAsk, m.hosts.OnDeliver = nil, nil })
}

// somebodyTells has the host of a lane say something of its newest attempt.
func (m *market) somebodyTells(r *rand.Rand, id job.ID, silent map[string]bool) {
	run := m.read(id).Runs[r.IntN(movedLanes)]
	a := run.Current()
	if a == nil || silent[a.Host.Name] || a.State == scheduler.Ended || !a.Placed {
		return
	}
	rep := scheduler.Report{
		Job: id, Run: run.ID, Attempt: a.ID, Executor: a.Host.Executor, State: scheduler.Running,
		Reason: "running", Time: time.Now(), Ran: true, Raw: []byte(time.Now().String()),
	}
	switch r.IntN(4) {
	case 0:
		rep.EvictAt = time.Now().Add(time.Duration(r.IntN(600)) * time.Second)
	case 1:
		if !a.EvictAt.IsZero() || r.IntN(3) == 0 {
			rep.State, rep.End = scheduler.Ended, scheduler.Evicted
		}
	}
	if err := m.engine.Report(m.t.Context(), rep); err != nil && m.store.Fail == nil {
		m.t.Fatal(err)
	}
	synctest.Wait()
}

// checkMoved tests that every lane has exactly one lease that runs, of its newest attempt.
func (m *market) checkMoved(id job.ID) {
	m.t.Helper()
	for slot, run := range m.read(id).Runs {
		a := run.Current()
		if a == nil || a.State == scheduler.Ended || !a.Placed || a.Lease.ID != run.Lease {
			m.t.Errorf("lane %d is %s after the trouble: %s; %+v", slot, run.State, run.Reason, a)
			continue
		}
		state, err := m.ledger.Lease(m.t.Context(), a.Lease.ID)
		if err != nil || !state.Ended.IsZero() {
			m.t.Errorf("lane %d: its lease ended %v, %v", slot, state.Ended, err)
		}
		for _, other := range run.Attempts {
			if other.ID != a.ID && other.State != scheduler.Ended {
				m.t.Errorf("lane %d has another attempt that is %s", slot, other.State)
			}
			if other.Kept && origin(&other) >= origin(a) {
				m.t.Errorf("lane %d keeps a program that is younger than its own", slot)
			}
		}
	}
	if open := m.ledger.Open(); open != movedLanes {
		m.t.Errorf("%d leases are open, want %d", open, movedLanes)
	}
}

// origin is the lane's epoch at which the attempt's program began.
func origin(a *scheduler.Attempt) uint64 { return cmp.Or(a.Origin, a.Lease.Lease.Epoch) }
