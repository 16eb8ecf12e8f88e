package scheduler_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// submitSpec submits a job whose specification was changed.
func (m *market) submitSpec(change func(*scheduler.Spec)) *scheduler.Job {
	m.t.Helper()
	return m.submitSpecOf(1, change)
}

func (m *market) submitSpecOf(owner byte, change func(*scheduler.Spec)) *scheduler.Job {
	m.t.Helper()
	j := schedulertest.NewJob(owner, 1)
	j.Runs = nil
	change(&j.Spec)
	m.ledger.Fund(j)
	got, err := m.engine.Submit(context.Background(), j)
	if err != nil {
		m.t.Fatal(err)
	}
	return got
}

// tell reports of a lane's newest attempt.
func (m *market) tell(id job.ID, slot int, s scheduler.State, end scheduler.EndReason) {
	m.t.Helper()
	r := m.read(id).Runs[slot]
	if r.Current() == nil {
		m.t.Fatalf("lane %d has no attempt: %s", slot, r.Reason)
	}
	m.tellOf(id, r.ID, *r.Current(), s, end)
}

func (m *market) tellOf(
	id job.ID, run scheduler.RunID, a scheduler.Attempt, s scheduler.State, end scheduler.EndReason,
) {
	m.t.Helper()
	err := m.engine.Report(context.Background(), scheduler.Report{
		Job: id, Run: run, Attempt: a.ID, Executor: a.Host.Executor, State: s, End: end,
		Reason: s.String(), Time: time.Now(), Ran: s == scheduler.Running,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if s == scheduler.Ended {
		m.hosts.End(a.ID)
	}
}

func (m *market) wantLane(id job.ID, slot int, s scheduler.State, host string) scheduler.Attempt {
	m.t.Helper()
	r := m.read(id).Runs[slot]
	a := r.Current()
	if r.State != s || a == nil || a.Host.Name != host {
		m.t.Fatalf("lane %d is %s (%s), attempt %+v; want %s on %s", slot, r.State, r.Reason, a, s, host)
	}
	return *a
}

func replicas(n uint32) func(*scheduler.Spec) {
	return func(s *scheduler.Spec) { s.Lanes, s.Always = n, true }
}

func TestReplicasAreSpread(t *testing.T) {
	for name, together := range map[string]bool{"at one moment": true, "as it comes": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { spreadReplicas(t, together) })
		})
	}
}

// spreadReplicas places three replicas on two hosts. They share the money evenly, and all of it,
// however they are placed one between another.
func spreadReplicas(t *testing.T, together bool) {
	m := newMarket(t)
	defer m.stop()
	m.offer(1, 1000)
	m.offer(2, 2000)
	m.ledger.MaxTotal = 1_000_000 // what the job may cost
	if together {
		var asked sync.WaitGroup
		asked.Add(3)
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
				asked.Done()
				asked.Wait()
				return nil
			}
		})
	}
	j := m.submitSpec(replicas(3))
	synctest.Wait()
	hosts := map[string]int{}
	var budget, least uint64 = 0, math.MaxUint64
	for slot, r := range m.read(j.ID).Runs {
		a := r.Current()
		if a == nil || int(a.Lease.Lease.Slot) != slot || a.Lease.Lease.Epoch != 1 {
			t.Fatalf("lane %d: %+v, want a lease of its slot with epoch 1", slot, a)
		}
		hosts[a.Host.Name]++
		budget += uint64(a.Lease.Lease.Budget)
		least = min(least, uint64(a.Lease.Lease.Budget))
	}
	if hosts["host-1"] != 2 || hosts["host-2"] != 1 {
		t.Errorf("replicas run on %v, want the dearer host to have one", hosts)
	}
	if most := uint64(1_000_000); budget > most || budget < most-3 || least < most/3 {
		t.Errorf("leases promise %d in all, the least %d, want what the job may cost: %d, in equal parts",
			budget, least, most)
	}
}

func TestRestartPolicy(t *testing.T) {
	for name, tt := range map[string]struct {
		restart scheduler.Restart
		end     scheduler.EndReason
		again   bool
	}{
		"always, completed":     {scheduler.RestartAlways, scheduler.Completed, true},
		"always, failed":        {scheduler.RestartAlways, scheduler.Failed, true},
		"always, lease over":    {scheduler.RestartAlways, scheduler.Expired, true},
		"always, evicted":       {scheduler.RestartAlways, scheduler.Evicted, true},
		"always, exhausted":     {scheduler.RestartAlways, scheduler.Exhausted, true},
		"on failure, completed": {scheduler.RestartOnFailure, scheduler.Completed, false},
		"on failure, failed":    {scheduler.RestartOnFailure, scheduler.Failed, true},
		"never, completed":      {scheduler.RestartNever, scheduler.Completed, false},
		"never, failed":         {scheduler.RestartNever, scheduler.Failed, false},
		"never, evicted":        {scheduler.RestartNever, scheduler.Evicted, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.offer(1, 1000)
				j := m.submitSpec(func(s *scheduler.Spec) { s.Always, s.Restart = true, tt.restart })
				m.tell(j.ID, 0, scheduler.Running, 0)
				m.tell(j.ID, 0, scheduler.Ended, tt.end)
				if got := m.read(j.ID).Runs[0].State != scheduler.Ended; got != tt.again {
					t.Errorf("tried again: %v, want %v", got, tt.again)
				}
			})
		})
	}
}

// An always job outlives any number of restarts, and its record does not grow.
func TestRestartsAreNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
		const times = 2*scheduler.KeptAttempts + 5
		for range times {
			m.offer(1, 1000)
			synctest.Wait()
			m.tell(j.ID, 0, scheduler.Running, 0)
			time.Sleep(11 * time.Minute) // long enough for the shortest backoff
			m.tell(j.ID, 0, scheduler.Ended, scheduler.Failed)
			time.Sleep(time.Second)
		}
		r := m.read(j.ID).Runs[0]
		if r.Tries < times || len(r.Attempts) > scheduler.KeptAttempts || r.State == scheduler.Ended {
			t.Errorf("%d tries, %d remembered, %s", r.Tries, len(r.Attempts), r.State)
		}
	})
}

// silence is a market in which host 1 falls silent while others go on offering.
func (m *market) silence(d time.Duration) {
	for range d / time.Minute {
		m.offer(2, 2000)
		time.Sleep(time.Minute)
	}
	synctest.Wait()
}

func TestDisconnectPolicies(t *testing.T) {
	const lostAfter = 3 * time.Minute
	for name, tt := range map[string]struct {
		keep scheduler.Keep
		// others tells that another host is there; state is how the lane stands after the silence,
		// host is where, then and once the first host has returned.
		others bool
		state  scheduler.State
		host   string
	}{
		"replacement":        {scheduler.KeepReplacement, true, scheduler.Leased, "host-2"},
		"original":           {scheduler.KeepOriginal, true, scheduler.Leased, "host-2"},
		"best, replaced":     {scheduler.KeepBest, true, scheduler.Leased, "host-2"},
		"best, back in time": {scheduler.KeepBest, false, scheduler.Pending, "host-1"},
		"original, alone":    {scheduler.KeepOriginal, false, scheduler.Pending, "host-1"},
		"replacement, alone": {scheduler.KeepReplacement, false, scheduler.Pending, "host-1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.offer(1, 1000)
				m.ledger.MaxTotal = 1_000_000 // the first lease promises all of it
				j := m.submitSpec(func(s *scheduler.Spec) {
					s.Always, s.Keep, s.LostAfter = true, tt.keep, lostAfter
					if !tt.others {
						s.Allow = []sig.AccountID{{0xb0, 1}}
					}
				})
				m.tell(j.ID, 0, scheduler.Running, 0)
				first := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
				m.hosts.Hook(func() {
					m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
						if h.Name == "host-1" {
							return fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
						}
						return nil
					}
				})
				m.silence(10 * time.Minute)
				m.wantLane(j.ID, 0, tt.state, tt.host)
				m.tellOf(j.ID, m.read(j.ID).Runs[0].ID, first, scheduler.Running, 0)
				r := m.read(j.ID).Runs[0]
				if r.Current().Host.Name != tt.host {
					t.Errorf("goes on at %s, want %s", r.Current().Host.Name, tt.host)
				}
				wantBack := tt.keep != scheduler.KeepReplacement && !tt.others
				if wantBack && r.State != scheduler.Running {
					t.Errorf("it is %s (%s), want running again", r.State, r.Reason)
				}
				checkPaid(t, m.ledger)
			})
		})
	}
}

// checkPaid tests that no two leases of a lane are paid at the same time, and that epochs rise.
func checkPaid(t *testing.T, l *schedulertest.Ledger) {
	t.Helper()
	if n := l.Refused(); n > 0 {
		t.Errorf("%d leases had no room in their escrow", n)
	}
	paid := l.Paid()
	slices.SortFunc(paid, func(a, b schedulertest.Paid) int {
		return cmp.Or(bytes.Compare(a.Escrow[:], b.Escrow[:]), cmp.Compare(a.Slot, b.Slot),
			cmp.Compare(a.Epoch, b.Epoch))
	})
	for i := 1; i < len(paid); i++ {
		a, b := paid[i-1], paid[i]
		if a.Escrow != b.Escrow || a.Slot != b.Slot {
			continue
		}
		if a.Epoch == b.Epoch || a.End.IsZero() || a.End.After(b.From) {
			t.Errorf("lane %d: epoch %d is paid until %v, epoch %d from %v", a.Slot, a.Epoch, a.End,
				b.Epoch, b.From)
		}
	}
}

func array(count, parallel uint32) func(*scheduler.Spec) {
	return func(s *scheduler.Spec) { s.Tasks, s.Lanes = count, parallel }
}

func TestArray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer func() { m.stop() }()
		const count, parallel = 20, 3
		var asked []uint32
		m.offer(1, 1000)
		j := m.submitSpec(array(count, parallel))
		for range count {
			m.offer(1, 1000)
			held := m.read(j.ID)
			if len(held.Runs) != parallel {
				t.Fatalf("%d lanes, want %d", len(held.Runs), parallel)
			}
			slot := slices.IndexFunc(held.Runs, func(r scheduler.Run) bool { return r.Live() })
			if slot < 0 {
				t.Fatalf("nothing runs: %+v", held.Array)
			}
			task := held.Runs[slot].Task
			asked = append(asked, task)
			end := scheduler.Completed
			if task%7 == 3 {
				end = scheduler.Failed
			}
			if task == 11 { // a restart in the middle forgets nothing
				m.stop()
				m.start()
				m.offer(1, 1000)
			}
			m.tell(j.ID, slot, scheduler.Ended, end)
		}
		m.want(j.ID, scheduler.Ended, scheduler.Failed, "3 of 20 tasks failed")
		slices.Sort(asked)
		if asked = slices.Compact(asked); len(asked) != count {
			t.Errorf("tasks %v ran, want each of %d once", asked, count)
		}
		held := m.read(j.ID)
		if held.Array.Completed != 17 || held.Array.Failed != 3 {
			t.Errorf("array %+v", held.Array)
		}
		failed, next, err := m.engine.FailedTasks(context.Background(), held, 0, 2)
		if err != nil || len(failed) != 2 || failed[1].Index != 10 || next != 11 {
			t.Fatalf("first page %v, next %d, %v", failed, next, err)
		}
		failed, next, err = m.engine.FailedTasks(context.Background(), held, next, 2)
		if err != nil || len(failed) != 1 || failed[0].Index != 17 || next != count {
			t.Errorf("second page %v, next %d, %v", failed, next, err)
		}
	})
}

func TestArrayRetriesItsTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Tasks, s.Lanes, s.Retries = 2, 1, 1 })
		m.tell(j.ID, 0, scheduler.Ended, scheduler.Failed)
		time.Sleep(time.Second)
		m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
		if r := m.read(j.ID).Runs[0]; r.Task != 1 || r.Epoch != 3 {
			t.Errorf("task %d with epoch %d comes next, want task 1 with epoch 3", r.Task, r.Epoch)
		}
		m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
		m.want(j.ID, scheduler.Ended, scheduler.Completed, "2 tasks completed")
	})
}

func TestCancelEndsEveryLane(t *testing.T) {
	for name, change := range map[string]func(*scheduler.Spec){
		"replicas": replicas(3), "array": array(1_000_000, 3),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				o := m.offer(1, 1000)
				o.Free.CPUMilli = 2000 // two of the three lanes
				j := m.submitSpec(change)
				synctest.Wait()
				if _, err := m.engine.Cancel(context.Background(), m.read(j.ID), "enough"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
				m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
				if open := m.ledger.Open(); open != 0 {
					t.Errorf("%d leases are open", open)
				}
			})
		})
	}
}

// An array whose escrow is closed ends at once, not task by task.
func TestArrayWithoutMoney(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := m.submitSpec(array(1_000_000, 2))
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "Escrow" {
					return scheduler.ErrNotFound
				}
				return nil
			}
		})
		m.offer(1, 1000)
		m.want(j.ID, scheduler.Ended, scheduler.Exhausted, "closed")
	})
}

// TestHostsCloseNoArrays: what hosts say of their tasks ends no others; money that is used up lets
// the next ones wait for more.
func TestHostsCloseNoArrays(t *testing.T) {
	for _, end := range []scheduler.EndReason{scheduler.Exhausted, scheduler.Expired} {
		t.Run(end.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.ledger.MaxTotal = 1_000_000
				m.signDearly()
				offers := func(d time.Duration) {
					for began := time.Now(); time.Since(began) < d; time.Sleep(20 * time.Second) {
						m.offer(1, dear)
					}
				}
				j := m.submitSpec(array(4, 1))
				for m.read(j.ID).Array.Failed == 0 { // it is tried again, as that cannot be so yet
					offers(time.Minute)
					m.tell(j.ID, 0, scheduler.Ended, end)
				}
				offers(20 * time.Second)
				m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
				m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
				offers(20 * time.Second)
				m.tell(j.ID, 0, scheduler.Running, 0)
				offers(10 * time.Minute)
				m.spend(j, 0, 0)
				offers(time.Hour)
				m.want(j.ID, scheduler.Pending, 0, "nothing in it is free to promise")
				m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) {
					s.Unreserved, s.MaxTotal = s.Unreserved+500_000, s.MaxTotal+500_000
				})
				offers(80 * time.Second)
				m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
				m.want(j.ID, scheduler.Ended, scheduler.Failed, "2 of 4 tasks failed")
			})
		})
	}
}

// TestPaidIntervalsAreDisjoint drives jobs of several lanes through random silences, returns,
// evictions, restarts of the scheduler and lost answers of the ledger.
func TestPaidIntervalsAreDisjoint(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { disconnects(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func disconnects(t *testing.T, r *rand.Rand) {
	m := newMarket(t)
	defer func() { m.stop() }()
	silent := map[string]bool{}
	m.hosts.Hook(func() {
		m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
			if silent[h.Name] {
				return fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
			}
			return nil
		}
	})
	j := m.submitSpec(func(s *scheduler.Spec) {
		s.Lanes, s.Always, s.Keep = 3, true, scheduler.Keep(r.IntN(3))
		s.LostAfter = time.Minute
	})
	var seen []scheduler.Attempt
	for range 60 {
		for n := byte(1); n <= 4; n++ {
			name := fmt.Sprintf("host-%d", n)
			synctest.Wait()
			if silent[name] = r.IntN(3) == 0; !silent[name] {
				m.offer(n, uint64(n)*1000)
			}
		}
		held := m.read(j.ID)
		for i := range held.Runs {
			if a := held.Runs[i].Current(); a != nil {
				seen = append(seen, *a)
			}
		}
		if len(seen) > 0 { // any attempt that ever was may be heard again
			a := seen[r.IntN(len(seen))]
			end := []scheduler.EndReason{scheduler.Failed, scheduler.Evicted, scheduler.Completed}
			state, why := scheduler.Running, scheduler.EndReason(0)
			if r.IntN(4) == 0 {
				state, why = scheduler.Ended, end[r.IntN(len(end))]
			}
			if run, _ := held.Attempt(a.ID); run != nil && !silent[a.Host.Name] {
				m.tellOf(j.ID, run.ID, a, state, why)
			}
		}
		time.Sleep(time.Duration(r.IntN(90)) * time.Second)
	}
	synctest.Wait()
	checkPaid(t, m.ledger)
	if m.ledger.Placed() < 4 {
		t.Errorf("only %d leases were placed: the schedule tries nothing", m.ledger.Placed())
	}
}
