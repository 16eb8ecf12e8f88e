package scheduler_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// market is an engine with fakes around it, inside a synctest bubble.
type market struct {
	t      *testing.T
	store  *schedulertest.Memory
	ledger *schedulertest.Ledger
	hosts  *schedulertest.Hosts
	engine *scheduler.Engine
	stop   func()
}

func newMarket(t *testing.T) *market {
	m := &market{
		t: t, store: &schedulertest.Memory{}, ledger: schedulertest.NewLedger(time.Now),
		hosts: &schedulertest.Hosts{},
	}
	m.start()
	return m
}

// start begins a new life of the engine over the same store.
func (m *market) start() {
	m.engine = scheduler.New(scheduler.DefaultPolicy(), scheduler.Deps{
		Store: m.store, Ledger: m.ledger, Hosts: m.hosts, Assigner: schedulertest.Assigner(),
		VerifyLease: schedulertest.VerifyLease, Now: time.Now,
		Random: rand.NewChaCha8([32]byte{1}), Log: slog.New(slog.DiscardHandler),
		Trace: func(ctx context.Context, _, _ string) (context.Context, func(error)) {
			return ctx, func(error) {}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	engine := m.engine
	go func() { done <- engine.Run(ctx, func() {}) }()
	synctest.Wait()
	m.stop = func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Errorf("Run: %v", err)
		}
	}
}

func (m *market) offer(n byte, price uint64) *scheduler.Offer {
	o := schedulertest.NewOffer(n, price, time.Now())
	m.hosts.Know(o)
	m.engine.Offer(o)
	return o
}

func (m *market) submit(owner byte, n int) *scheduler.Job {
	m.t.Helper()
	j := schedulertest.NewJob(owner, n)
	j.Runs = nil
	m.ledger.Fund(j)
	got, err := m.engine.Submit(context.Background(), j)
	if err != nil {
		m.t.Fatal(err)
	}
	return got
}

// read waits until nothing moves and returns the job.
func (m *market) read(id job.ID) *scheduler.Job {
	m.t.Helper()
	synctest.Wait()
	j, err := m.store.Job(context.Background(), id)
	if err != nil {
		m.t.Fatal(err)
	}
	return j
}

func (m *market) report(id job.ID, s scheduler.State, end scheduler.EndReason, reason string) {
	m.t.Helper()
	r := m.read(id).Current()
	a := r.Current()
	err := m.engine.Report(context.Background(), scheduler.Report{
		Job: id, Run: r.ID, Attempt: a.ID, Executor: a.Host.Executor, State: s, End: end,
		Reason: reason, Time: time.Now(),
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *market) want(id job.ID, s scheduler.State, end scheduler.EndReason, reason string) {
	m.t.Helper()
	state, got, why := m.read(id).State()
	if state != s || got != end || !strings.Contains(why, reason) {
		m.t.Errorf("job is %s, %s, %q; want %s, %s, %q", state, got, why, s, end, reason)
	}
}

func TestPlaceOnTheCheapest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1200)
		m.offer(2, 1000)
		j := m.submit(1, 1)
		m.want(j.ID, scheduler.Leased, 0, "leased to host-2")
		if got := m.hosts.Asked(); !slices.Equal(got, []sig.PublicKey{{2}}) {
			t.Errorf("asked %v, want only the cheaper host 2", got)
		}
		m.report(j.ID, scheduler.Running, 0, "running")
		m.want(j.ID, scheduler.Running, 0, "running")
		m.report(j.ID, scheduler.Ended, scheduler.Completed, "exit 0")
		m.want(j.ID, scheduler.Ended, scheduler.Completed, "exit 0")
	})
}

func TestDeclinedGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1200)
		m.offer(2, 1000)
		m.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, _ *tx.Lease) error {
			if h.Executor == (sig.PublicKey{2}) {
				return scheduler.ErrDeclined
			}
			return nil
		}
		m.want(m.submit(1, 1).ID, scheduler.Leased, 0, "host-1")
	})
}

func TestWaitingSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := schedulertest.NewJob(1, 1)
		j.Runs, j.Spec.Cap = nil, &price.Prices{CoreHour: 500}
		m.ledger.Fund(j)
		if _, err := m.engine.Submit(context.Background(), j); err != nil {
			t.Fatal(err)
		}
		why := func() string {
			synctest.Wait()
			got, err := m.engine.Job(context.Background(), j.Owner, j.ID)
			if err != nil {
				t.Fatal(err)
			}
			return got.Current().Reason
		}
		if got := why(); got != "waiting: no host offers anything at the moment" {
			t.Errorf("without offers: %q", got)
		}
		for n := range byte(3) {
			m.offer(n+1, 1000)
		}
		if got := why(); got != "waiting: 3 offers, all above your cap" {
			t.Errorf("with dear offers: %q", got)
		}
		m.offer(4, 500)
		m.want(j.ID, scheduler.Leased, 0, "host-4")
	})
}

func TestSubmitRefusesEscrow(t *testing.T) {
	tests := map[string]struct {
		spoil func(*scheduler.Escrow)
		want  string
	}{
		"other purpose":  {func(s *scheduler.Escrow) { s.ForJob = false }, "purpose"},
		"other job":      {func(s *scheduler.Escrow) { s.Subject[5] ^= 1 }, "names another job"},
		"other owner":    {func(s *scheduler.Escrow) { s.Owner[0] ^= 1 }, "another account"},
		"other assigner": {func(s *scheduler.Escrow) { s.Assigner[0] ^= 1 }, "assigner"},
		"no ack key":     {func(s *scheduler.Escrow) { s.AckKeys = nil }, "ack key"},
		"empty":          {func(s *scheduler.Escrow) { s.Unreserved = 0 }, "free to promise"},
		"below floor":    {func(s *scheduler.Escrow) { s.Floor = 1 << 60 }, "free to promise"},
		"expires soon": {
			func(s *scheduler.Escrow) { s.Expires = s.Expires.Add(-60 * time.Hour) }, "expires",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				j := schedulertest.NewJob(1, 1)
				m.ledger.Fund(j)
				m.ledger.Change(j.Escrow, tt.spoil)
				_, err := m.engine.Submit(context.Background(), j)
				if !errors.Is(err, scheduler.ErrEscrow) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Submit = %v, want ErrEscrow that speaks of %q", err, tt.want)
				}
				if _, err := m.store.Job(context.Background(), j.ID); err == nil {
					t.Error("the refused job was kept")
				}
			})
		})
	}
}

func TestSubmitTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submit(1, 1)
		again := m.submit(1, 1)
		if again.Current().ID != j.Current().ID {
			t.Error("the second submission made a second run")
		}
		other := schedulertest.NewJob(1, 1)
		other.Escrow = tx.EscrowID{9}
		_, err := m.engine.Submit(context.Background(), other)
		if !errors.Is(err, scheduler.ErrConflict) {
			t.Errorf("with another escrow: %v, want ErrConflict", err)
		}
		m.want(j.ID, scheduler.Leased, 0, "")
		if got := m.ledger.Placed(); got != 1 {
			t.Errorf("%d leases were placed, want 1", got)
		}
	})
}

func TestBadLeaseIsNotPlaced(t *testing.T) {
	spoils := map[string]func(*tx.Lease){
		"another escrow":  func(l *tx.Lease) { l.Escrow[0] ^= 1 },
		"another job":     func(l *tx.Lease) { l.Subject = make([]byte, 32) },
		"another payee":   func(l *tx.Lease) { l.Payee[0] ^= 1 },
		"another agent":   func(l *tx.Lease) { l.AgentKey[0] ^= 1 },
		"another price":   func(l *tx.Lease) { l.PriceHash[0] ^= 1 },
		"another offer":   func(l *tx.Lease) { l.OfferHash[0] ^= 1 },
		"larger budget":   func(l *tx.Lease) { l.Budget++ },
		"dearer":          func(l *tx.Lease) { l.Rate = 1001 },
		"upfront":         func(l *tx.Lease) { l.Upfront = l.Budget + 1 },
		"holdback":        func(l *tx.Lease) { l.Holdback = 1 },
		"longer":          func(l *tx.Lease) { l.Until++ },
		"longer notice":   func(l *tx.Lease) { l.Notice = 1 },
		"other ack keys":  func(l *tx.Lease) { l.AckKeys = []sig.PublicKey{{7}} },
		"higher epoch":    func(l *tx.Lease) { l.Epoch++ },
		"trust past what": func(l *tx.Lease) { l.Trust = 1<<60 + 1 },
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.hosts.OnAsk = func(_ scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
					spoil(l)
					return nil
				}
				m.offer(1, 1000)
				j := m.submit(1, 1)
				m.want(j.ID, scheduler.Pending, 0, "the host's lease is not what was asked for")
				if got := m.ledger.Placed(); got != 0 {
					t.Errorf("%d leases were placed", got)
				}
			})
		})
	}
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := schedulertest.NewJob(1, 1)
		j.Runs, j.Spec.Retries, j.Spec.Backoff = nil, 2, time.Second
		m.ledger.Fund(j)
		if _, err := m.engine.Submit(context.Background(), j); err != nil {
			t.Fatal(err)
		}
		for attempt := range 3 {
			m.want(j.ID, scheduler.Leased, 0, "host-1")
			m.report(j.ID, scheduler.Ended, scheduler.Failed, "exit 3")
			if attempt < 2 {
				m.want(j.ID, scheduler.Pending, 0, "exit 3")
				m.offer(1, 1000)
				time.Sleep(time.Second<<attempt + time.Millisecond)
			}
		}
		m.want(j.ID, scheduler.Ended, scheduler.Failed, "exit 3")
		if got := len(m.read(j.ID).Current().Attempts); got != 3 {
			t.Errorf("%d attempts, want 3", got)
		}
	})
}

func TestHostsFaultGoesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		m.offer(2, 2000)
		j := m.submit(1, 1)
		m.want(j.ID, scheduler.Leased, 0, "host-1")
		m.report(j.ID, scheduler.Ended, scheduler.Refused, "image does not match")
		time.Sleep(time.Second)
		m.want(j.ID, scheduler.Leased, 0, "host-2")
	})
}

func TestCancelWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := m.submit(1, 1)
		if _, err := m.engine.Cancel(context.Background(), j, "changed my mind"); err != nil {
			t.Fatal(err)
		}
		m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "changed my mind")
		m.offer(1, 1000)
		synctest.Wait()
		if got := m.ledger.Placed(); got != 0 {
			t.Errorf("%d leases were placed for a cancelled job", got)
		}
	})
}

func TestCancelRunning(t *testing.T) {
	for name, stop := range map[string]error{
		"host answers": nil, "host is away": scheduler.ErrUnreachable,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				var stops []scheduler.Stop
				m.hosts.OnStop = func(_ scheduler.Host, s scheduler.Stop) error {
					stops = append(stops, s)
					return stop
				}
				m.offer(1, 1000)
				j := m.submit(1, 1)
				m.report(j.ID, scheduler.Running, 0, "running")
				if _, err := m.engine.Cancel(context.Background(), j, "enough"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if len(stops) != 1 || stops[0].Reason != "enough" {
					t.Fatalf("stops %v, want one", stops)
				}
				if stop == nil {
					m.report(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
				}
				m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
				if open := m.ledger.Open(); stop != nil && open != 0 {
					t.Errorf("%d leases are open although the host is away", open)
				}
			})
		})
	}
}

func TestHostThatNeverBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.hosts.OnDeliver = func(scheduler.Host, scheduler.Task) error {
			return scheduler.ErrUnreachable
		}
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.want(j.ID, scheduler.Leased, 0, "host-1")
		m.offer(2, 2000)
		time.Sleep(scheduler.DefaultPolicy().StartWithin + 10*time.Second)
		m.want(j.ID, scheduler.Leased, 0, "host-2")
		if a := m.read(j.ID).Current().Attempts[0]; a.End != scheduler.Refused {
			t.Errorf("first attempt ended %s, want refused", a.End)
		}
		if open := m.ledger.Open(); open != 1 {
			t.Errorf("%d leases are open, want 1: no interval may be paid twice", open)
		}
	})
}

func TestSilentHostIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.report(j.ID, scheduler.Running, 0, "running")
		time.Sleep(4 * time.Minute)
		m.want(j.ID, scheduler.Running, 0, "running")
		m.offer(2, 2000)
		time.Sleep(90 * time.Second)
		m.want(j.ID, scheduler.Leased, 0, "host-2")
		if a := m.read(j.ID).Current().Attempts[0]; a.End != scheduler.HostLost {
			t.Errorf("first attempt ended %s, want host-lost", a.End)
		}
	})
}

func TestFairBetweenOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		for n := range 200 {
			m.submit(1, n)
		}
		late := m.submit(2, 1)
		synctest.Wait()
		var asked atomic.Int32
		m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
			asked.Add(1)
			return nil
		}
		o := schedulertest.NewOffer(1, 1000, time.Now())
		o.Free.CPUMilli = 2000 // room for two
		m.hosts.Know(o)
		m.engine.Offer(o)
		m.want(late.ID, scheduler.Leased, 0, "host-1")
		if n := asked.Load(); n != 2 {
			t.Errorf("%d runs were placed on a host with room for two", n)
		}
	})
}

func TestRestartAtEveryStep(t *testing.T) {
	lost := errors.New("the answer was lost")
	tests := map[string]func(m *market){
		"before the lease": func(m *market) {
			m.ledger.Fail = once("PlaceLease", lost)
		},
		"after the lease": func(m *market) {
			m.ledger.FailAfter = once("PlaceLease", lost)
		},
		"save after the lease fails": func(m *market) {
			n := 0
			m.store.Fail = func(c scheduler.Change) error {
				if c.Event != nil && c.Event.Type == "attempt.leased" {
					if n++; n == 1 {
						return lost
					}
				}
				return nil
			}
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				spoil(m)
				m.offer(1, 1000)
				j := m.submit(1, 1)
				synctest.Wait()
				m.stop()
				m.start()
				defer m.stop()
				m.offer(1, 1000)
				m.want(j.ID, scheduler.Leased, 0, "host-1")
				if got := m.ledger.Placed(); got != 1 {
					t.Errorf("%d leases were placed, want 1", got)
				}
				if got := len(m.read(j.ID).Current().Attempts); got != 1 {
					t.Errorf("%d attempts, want 1", got)
				}
			})
		})
	}
}

// once fails the method the first time it is called.
func once(method string, err error) func(string) error {
	done := false
	return func(called string) error {
		if called != method || done {
			return nil
		}
		done = true
		return err
	}
}

func TestReportsThatChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.report(j.ID, scheduler.Running, 0, "running")
		r := m.read(j.ID).Current()
		good := scheduler.Report{
			Job: j.ID, Run: r.ID, Attempt: r.Current().ID, Executor: sig.PublicKey{1},
			State: scheduler.Ended, End: scheduler.Completed, Reason: "done", Time: time.Now(),
		}
		for name, spoil := range map[string]func(*scheduler.Report){
			"another host":    func(p *scheduler.Report) { p.Executor = sig.PublicKey{2} },
			"another job":     func(p *scheduler.Report) { p.Job = job.ID{9} },
			"another run":     func(p *scheduler.Report) { p.Run = scheduler.RunID{9} },
			"another attempt": func(p *scheduler.Report) { p.Attempt = scheduler.AttemptID{9} },
			"older":           func(p *scheduler.Report) { p.Time = p.Time.Add(-time.Hour) },
		} {
			p := good
			spoil(&p)
			if err := m.engine.Report(context.Background(), p); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			m.want(j.ID, scheduler.Running, 0, "running")
		}
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := m.submit(1, 1)
		changed, stop, err := m.engine.Watch(j.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		m.offer(1, 1000)
		<-changed
		m.want(j.ID, scheduler.Leased, 0, "host-1")
		for range scheduler.MaxWatchers - 1 {
			if _, _, err := m.engine.Watch(j.ID); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := m.engine.Watch(j.ID); !errors.Is(err, scheduler.ErrFull) {
			t.Errorf("one watcher too many: %v, want ErrFull", err)
		}
	})
}
