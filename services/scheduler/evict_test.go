package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// eviction is a market in which the one lane of an always job runs on host 1 with all the money
// that there is.
func eviction(t *testing.T) (*market, job.ID, scheduler.Attempt) {
	m := newMarket(t)
	m.ledger.MaxTotal = 1_000_000
	m.offer(1, 1000)
	j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
	m.tell(j.ID, 0, scheduler.Running, 0)
	return m, j.ID, m.wantLane(j.ID, 0, scheduler.Running, "host-1")
}

// evict has the host of an attempt say that it will end it.
func (m *market) evict(id job.ID, a scheduler.Attempt, at time.Time) {
	m.t.Helper()
	run, _ := m.read(id).Attempt(a.ID)
	err := m.engine.Report(context.Background(), scheduler.Report{
		Job: id, Run: run.ID, Attempt: a.ID, Executor: a.Host.Executor, State: scheduler.Running,
		Reason: "to be evicted: a new fan", Time: time.Now(), EvictAt: at, Ran: true,
		Raw: []byte(at.String()),
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// offers keeps hosts offering for a time.
func (m *market) offers(d time.Duration, hosts ...byte) {
	for ; d > 0; d -= 20 * time.Second {
		for _, n := range hosts {
			m.offer(n, uint64(n)*1000)
		}
		time.Sleep(20 * time.Second)
	}
	synctest.Wait()
}

// TestEvictedWithNotice: the replacement has the lane's lease before the end that was told, the
// first host goes as evicted at that very moment, and is told once the replacement runs.
func TestEvictedWithNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, id, first := eviction(t)
		defer m.stop()
		var dismissed []scheduler.Stop
		m.hosts.Hook(func() {
			m.hosts.OnStop = func(h scheduler.Host, s scheduler.Stop) error {
				dismissed = append(dismissed, s)
				return nil
			}
		})
		time.Sleep(20 * time.Minute)
		m.evict(id, first, time.Now().Add(10*time.Minute))
		m.offers(20*time.Second, 1)
		r := m.read(id).Runs[0]
		if r.State != scheduler.Running || r.Current().ID != first.ID {
			t.Fatalf("with nobody else there it is %s on %s", r.State, r.Current().Host.Name)
		}
		got, err := m.engine.Job(t.Context(), m.read(id).Owner, id)
		if err != nil {
			t.Fatal(err)
		}
		if why := got.Runs[0].Reason; !strings.Contains(why, "a new fan; its replacement is waiting: 1") {
			t.Errorf("it says %q", why)
		}
		m.offers(20*time.Second, 1, 2)
		second := m.wantLane(id, 0, scheduler.Leased, "host-2")
		r = m.read(id).Runs[0]
		old := r.Attempt(first.ID)
		if old.State != scheduler.Ended || old.End != scheduler.Evicted ||
			!strings.Contains(old.Reason, "replaced by host-2: to be evicted: a new fan") {
			t.Errorf("the first one is %s, %s: %q", old.State, old.End, old.Reason)
		}
		if second.Lease.Lease.Budget < 990_000 || second.Lease.Lease.Epoch != 2 {
			t.Errorf("its replacement has the lease %+v", second.Lease.Lease)
		}
		if len(dismissed) != 0 {
			t.Error("the first host was stopped before its replacement runs")
		}
		m.tellOf(id, r.ID, second, scheduler.Running, 0)
		if synctest.Wait(); len(dismissed) != 1 || dismissed[0].Attempt != first.ID {
			t.Errorf("stopped %+v", dismissed)
		}
		m.tellOf(id, r.ID, first, scheduler.Ended, scheduler.Evicted)
		m.wantLane(id, 0, scheduler.Running, "host-2")
		checkPaid(t, m.ledger)
	})
}

// TestEvictionsOtherwise are the ways in which nobody is placed before the end.
func TestEvictionsOtherwise(t *testing.T) {
	const soon = 5 * time.Minute
	for name, tt := range map[string]struct {
		notice time.Duration
		then   func(*market, job.ID, scheduler.Attempt)
		state  scheduler.State
		host   string
	}{
		"long ahead": {5 * time.Hour, func(m *market, _ job.ID, _ scheduler.Attempt) {
			m.offers(3*time.Hour+50*time.Minute, 1, 2)
		}, scheduler.Running, "host-1"},
		"an hour ahead": {5 * time.Hour, func(m *market, _ job.ID, _ scheduler.Attempt) {
			m.offers(4*time.Hour+10*time.Second, 1, 2)
		}, scheduler.Leased, "host-2"},
		"nearer than was told": {5 * time.Hour, func(m *market, id job.ID, a scheduler.Attempt) {
			m.evict(id, a, time.Now().Add(soon))
			m.offers(20*time.Second, 1, 2)
		}, scheduler.Leased, "host-2"},
		"put off": {soon, func(m *market, id job.ID, a scheduler.Attempt) {
			m.evict(id, a, time.Now().Add(5*time.Hour))
			m.offers(20*time.Second, 1, 2)
		}, scheduler.Leased, "host-2"},
		"nobody until after the end": {soon, func(m *market, id job.ID, a scheduler.Attempt) {
			m.offers(soon, 1)
			m.tell(id, 0, scheduler.Ended, scheduler.Evicted)
			if r := m.read(id).Runs[0]; r.State != scheduler.Pending || !r.Waits() {
				m.t.Errorf("after its end it is %s: %s", r.State, r.Reason)
			}
			m.offers(20*time.Second, 2)
		}, scheduler.Leased, "host-2"},
		"the host falls silent first": {40 * time.Minute, func(
			m *market, id job.ID, _ scheduler.Attempt,
		) {
			m.hosts.Hook(func() {
				m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
					return fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
				}
			})
			m.hosts.Hook(func() {
				m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
					return scheduler.ErrDeclined
				}
			})
			m.offers(20*time.Minute, 2)
			if r := m.read(id).Runs[0]; r.State != scheduler.Pending || m.ledger.Open() != 0 {
				m.t.Errorf("with its host lost it is %s: %s", r.State, r.Reason)
			}
			m.hosts.Hook(func() { m.hosts.OnAsk = nil })
			m.offers(time.Minute, 2)
		}, scheduler.Leased, "host-2"},
		"cancelled meanwhile": {soon, func(m *market, id job.ID, a scheduler.Attempt) {
			if _, err := m.engine.Cancel(m.t.Context(), m.read(id), "enough"); err != nil {
				m.t.Fatal(err)
			}
			m.offers(20*time.Second, 2)
			m.tell(id, 0, scheduler.Ended, scheduler.Cancelled)
			m.offers(20*time.Second, 2)
		}, scheduler.Ended, "host-1"},
		"the chain refuses its replacement": {soon, func(m *market, id job.ID, a scheduler.Attempt) {
			m.ledger.Hook(func() {
				m.ledger.Fail = once("PlaceLease", scheduler.ErrLeaseRefused)
			})
			m.offer(2, 2000)
			if r := m.read(id).Runs[0]; r.Current().ID != a.ID || r.State != scheduler.Running ||
				!strings.Contains(r.Reason, "its replacement is waiting: lease refused") {
				m.t.Errorf("it is %s on %s: %s", r.State, r.Current().Host.Name, r.Reason)
			}
			m.offers(40*time.Second, 3)
		}, scheduler.Leased, "host-3"},
		"the replacement cannot be sent": {soon, func(m *market, id job.ID, a scheduler.Attempt) {
			m.ledger.Hook(func() { m.ledger.Fail = once("PlaceLease", scheduler.ErrNotPlaced) })
			m.offer(2, 2000)
			if r := m.read(id).Runs[0]; r.Current().ID != a.ID || r.State != scheduler.Running {
				m.t.Errorf("it is %s on %s: %s", r.State, r.Current().Host.Name, r.Reason)
			}
			m.offers(20*time.Second, 2)
		}, scheduler.Leased, "host-2"},
		"the escrow expires first": {soon, func(m *market, id job.ID, a scheduler.Attempt) {
			m.ledger.Change(tx.EscrowID(id), func(s *scheduler.Escrow) { s.Expires = time.Now() })
			m.offers(time.Minute, 2)
		}, scheduler.Running, "host-1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, id, first := eviction(t)
				defer m.stop()
				m.evict(id, first, time.Now().Add(tt.notice))
				tt.then(m, id, first)
				m.wantLane(id, 0, tt.state, tt.host)
				checkPaid(t, m.ledger)
			})
		})
	}
}

// TestWhatRunsComesFirst: there is room for one, and others of the owner have waited for longer.
func TestWhatRunsComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		room := func(n byte) {
			o := schedulertest.NewOffer(n, 1000, time.Now())
			o.Free.CPUMilli = 1000
			m.hosts.Know(o)
			m.engine.Offer(o)
		}
		room(1)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
		m.tell(j.ID, 0, scheduler.Running, 0)
		first := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
		for n := range 3 {
			m.submit(1, 10+n)
		}
		time.Sleep(time.Minute)
		m.evict(j.ID, first, time.Now().Add(10*time.Minute))
		room(2)
		m.wantLane(j.ID, 0, scheduler.Leased, "host-2")
		if n := m.ledger.Placed(); n != 2 {
			t.Errorf("%d leases were placed", n)
		}
	})
}

// TestEvictedWhileAsked: the first host ends before the lease of its replacement is on the chain.
func TestEvictedWhileAsked(t *testing.T) {
	for name, err := range map[string]error{
		"and it is": nil, "and it is refused": scheduler.ErrLeaseRefused,
	} {
		host := "host-2"
		if err != nil {
			host = "host-3"
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, id, first := eviction(t)
				defer m.stop()
				run := m.read(id).Runs[0].ID
				m.ledger.Hook(func() {
					m.ledger.Fail = func(method string) error {
						if method == "PlaceLease" {
							time.Sleep(3 * time.Second)
							return err
						}
						return nil
					}
				})
				m.offer(2, 2000)
				m.evict(id, first, time.Now().Add(time.Minute))
				time.Sleep(time.Second)
				m.tellOf(id, run, first, scheduler.Ended, scheduler.Evicted)
				if r := m.read(id).Runs[0]; r.State != scheduler.Pending {
					t.Errorf("with nothing running it is %s: %s", r.State, r.Reason)
				}
				time.Sleep(5 * time.Second)
				m.ledger.Hook(func() { m.ledger.Fail = nil })
				if err != nil {
					m.offers(20*time.Second, 3) // the first two are left in peace for a while
				}
				m.wantLane(id, 0, scheduler.Leased, host)
				checkPaid(t, m.ledger)
			})
		})
	}
}

// TestRestartDuringAnEviction ends the scheduler at every step.
func TestRestartDuringAnEviction(t *testing.T) {
	lost := errors.New("the answer was lost")
	for name, spoil := range map[string]func(*market){
		"told":             func(*market) {},
		"before the lease": func(m *market) { m.ledger.Fail = once("PlaceLease", lost) },
		"after the lease":  func(m *market) { m.ledger.FailAfter = once("PlaceLease", lost) },
		"lease not written": func(m *market) {
			n := 0
			m.store.Hook(func() {
				m.store.Fail = func(c scheduler.Change) error {
					if c.Event != nil && c.Event.Type == "attempt.leased" {
						if n++; n == 1 {
							return lost
						}
					}
					return nil
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, id, first := eviction(t)
				defer func() { m.stop() }()
				spoil(m)
				if name != "told" {
					m.offer(2, 2000)
				}
				m.evict(id, first, time.Now().Add(10*time.Minute))
				synctest.Wait()
				m.stop()
				m.start()
				m.offers(time.Minute, 1, 2)
				m.wantLane(id, 0, scheduler.Leased, "host-2")
				r := m.read(id).Runs[0]
				if len(r.Attempts) != 2 || r.Attempt(first.ID).End != scheduler.Evicted ||
					m.ledger.Placed() != 2 {
					t.Errorf("%d attempts, %d leases, the first ended %s", len(r.Attempts),
						m.ledger.Placed(), r.Attempt(first.ID).End)
				}
				checkPaid(t, m.ledger)
			})
		})
	}
}

// TestBatchIsLeftAlone: what is to come to an end may do so in the time that is left.
func TestBatchIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submitSpec(func(*scheduler.Spec) {})
		m.tell(j.ID, 0, scheduler.Running, 0)
		first := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
		m.evict(j.ID, first, time.Now().Add(5*time.Minute))
		m.offers(4*time.Minute, 2)
		m.wantLane(j.ID, 0, scheduler.Running, "host-1")
		m.tell(j.ID, 0, scheduler.Ended, scheduler.Evicted)
		m.offers(20*time.Second, 2)
		m.wantLane(j.ID, 0, scheduler.Leased, "host-2")
	})
}

// TestCryingWolf: all hosts announce an eviction whenever they have the lease, and none ever means
// it. They move the job about, not faster than programs that fail are tried again, and one lease
// after the other.
func TestCryingWolf(t *testing.T) {
	for name, ends := range map[string][]time.Duration{
		"once":            {time.Minute},
		"nearer":          {time.Minute, time.Minute - time.Millisecond},
		"far, and nearer": {5 * time.Hour, time.Minute, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { cryWolf(t, ends) })
		})
	}
}

func cryWolf(t *testing.T, ends []time.Duration) {
	m, id, first := eviction(t)
	defer m.stop()
	cry := func(a scheduler.Attempt) {
		for _, end := range ends {
			m.evict(id, a, time.Now().Add(end))
		}
	}
	cry(first)
	for range 2 * 60 {
		for _, n := range []byte{1, 2, 3} {
			m.offer(n, uint64(n)*1000)
		}
		time.Sleep(time.Minute)
		r := m.read(id).Runs[0]
		if a := *r.Current(); a.State == scheduler.Leased {
			m.tellOf(id, r.ID, a, scheduler.Running, 0)
			cry(a)
		}
		if r = m.read(id).Runs[0]; r.State == scheduler.Ended {
			t.Fatalf("it ended %s: %s", r.End, r.Reason)
		}
	}
	if n := m.ledger.Placed(); n < 10 || n > 2*60/5+12 {
		t.Errorf("%d leases were placed in two hours", n)
	}
	if open := m.ledger.Open(); open != 1 {
		t.Errorf("%d leases are open", open)
	}
	checkPaid(t, m.ledger)
}
