package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/services/scheduler"
)

// update puts a further revision of the job in force.
func (m *market) update(id job.ID, revision string, change func(*scheduler.Spec)) error {
	m.t.Helper()
	j := m.read(id)
	to := j.Spec
	change(&to)
	_, err := m.engine.Update(context.Background(), j, to, []byte(revision))
	synctest.Wait()
	return err
}

// states are those of the job's lanes, by slot.
func (m *market) states(id job.ID) (out []string) {
	for _, r := range m.read(id).Runs {
		text := r.State.String()
		if r.State == scheduler.Ended {
			text = r.End.String()
		}
		out = append(out, text)
	}
	return out
}

func (m *market) wantStates(id job.ID, want ...string) {
	m.t.Helper()
	if got := m.states(id); !slices.Equal(got, want) {
		m.t.Errorf("lanes are %v, want %v", got, want)
	}
}

// TestUpdateReplicas: an update starts what is more and stops what is fewer; what runs goes on
// under the lease it has; a lane that comes back is leased under higher epochs.
func TestUpdateReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer func() { m.stop() }()
		var stopped atomic.Int32
		m.hosts.Hook(func() {
			m.hosts.OnStop = func(scheduler.Host, scheduler.Stop) error {
				stopped.Add(1)
				return nil
			}
		})
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
		m.tell(j.ID, 0, scheduler.Running, 0)
		first := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
		three := func(s *scheduler.Spec) { s.Lanes, s.Retries, s.Backoff = 3, 7, time.Minute }
		for range 2 { // repeating it is harmless
			if err := m.update(j.ID, "two", three); err != nil {
				t.Fatal(err)
			}
		}
		for slot := 1; slot < 3; slot++ {
			m.tell(j.ID, slot, scheduler.Running, 0)
		}
		m.wantStates(j.ID, "running", "running", "running")
		if again := m.wantLane(j.ID, 0, scheduler.Running, "host-1"); again.ID != first.ID {
			t.Error("what ran was placed again")
		}
		if r := m.read(j.ID).Runs[0]; r.Retries != 7 || r.Backoff != time.Minute {
			t.Errorf("the running lane has %d retries, backoff %s", r.Retries, r.Backoff)
		}
		m.stop()
		m.start() // the update outlives the scheduler
		m.offer(1, 1000)
		if err := m.update(j.ID, "three", func(s *scheduler.Spec) { s.Lanes = 1 }); err != nil {
			t.Fatal(err)
		}
		if n := stopped.Load(); n != 2 {
			t.Fatalf("%d attempts were told to stop, want 2", n)
		}
		for slot := 1; slot < 3; slot++ {
			m.tell(j.ID, slot, scheduler.Ended, scheduler.Cancelled)
		}
		m.wantStates(j.ID, "running", "cancelled", "cancelled")
		if _, _, why := m.read(j.ID).State(); why != "1 of 1 replicas run" {
			t.Errorf("the job stands %q", why)
		}
		if err := m.update(j.ID, "four", func(s *scheduler.Spec) { s.Lanes = 2 }); err != nil {
			t.Fatal(err)
		}
		m.tell(j.ID, 1, scheduler.Running, 0)
		m.wantStates(j.ID, "running", "running", "cancelled")
		if r := m.read(j.ID).Runs[1]; r.Epoch < 2 {
			t.Errorf("the lane that came back has epoch %d, not above what it had", r.Epoch)
		}
		checkPaid(t, m.ledger)
	})
}

// TestUpdateStopsWhoIsDeaf: the lease of a host that does not stop a lane is ended on the chain,
// and a lane that is wanted again before that is placed anew.
func TestUpdateStopsWhoIsDeaf(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		t.Run(fmt.Sprint("wanted again ", wanted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.offer(1, 1000)
				j := m.submitSpec(func(s *scheduler.Spec) { s.Always, s.Lanes = true, 2 })
				m.tell(j.ID, 0, scheduler.Running, 0)
				m.tell(j.ID, 1, scheduler.Running, 0)
				if err := m.update(j.ID, "two", func(s *scheduler.Spec) { s.Lanes = 1 }); err != nil {
					t.Fatal(err)
				}
				if wanted {
					if err := m.update(j.ID, "three", func(s *scheduler.Spec) { s.Lanes = 2 }); err != nil {
						t.Fatal(err)
					}
					m.tell(j.ID, 1, scheduler.Ended, scheduler.Cancelled)
					time.Sleep(time.Second)
					synctest.Wait()
					m.tell(j.ID, 1, scheduler.Running, 0)
					m.wantStates(j.ID, "running", "running")
				} else {
					time.Sleep(2 * time.Minute)
					synctest.Wait()
					m.wantStates(j.ID, "running", "cancelled")
					if n := m.ledger.Open(); n != 1 {
						t.Errorf("%d leases are open, want one", n)
					}
				}
				checkPaid(t, m.ledger)
			})
		})
	}
}

func TestUpdateRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always, s.Lanes = true, 2 })
		stale := m.read(j.ID)
		if err := m.update(j.ID, "two", func(s *scheduler.Spec) { s.Lanes = 1 }); err != nil {
			t.Fatal(err)
		}
		m.wantStates(j.ID, "pending", "cancelled") // nothing ran: nothing is asked to stop
		_, err := m.engine.Update(t.Context(), stale, stale.Spec, []byte("other two"))
		if !errors.Is(err, scheduler.ErrOvertaken) {
			t.Errorf("a revision that was overtaken: %v", err)
		}
		if _, err := m.engine.Cancel(t.Context(), m.read(j.ID), "enough"); err != nil {
			t.Fatal(err)
		}
		err = m.update(j.ID, "three", func(s *scheduler.Spec) { s.Lanes = 3 })
		if !errors.Is(err, scheduler.ErrOver) {
			t.Errorf("a cancelled job: %v", err)
		}
		m.wantStates(j.ID, "cancelled", "cancelled")
	})
}
