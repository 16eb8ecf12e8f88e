package scheduler_test

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
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
	now    func() time.Time // the scheduler's clock
	random io.Reader        // what ids are made of; nil: something seeded
	fee    uint64           // of a lease
	lives  byte
	jobs   int // submitted by askedAtOnce
}

func newMarket(t *testing.T) *market { return newMarketFor(t, 0) }

// newMarketFor is one whose scheduler takes a fee for each lease.
func newMarketFor(t *testing.T, fee uint64) *market {
	m := &market{
		t: t, store: &schedulertest.Memory{}, ledger: schedulertest.NewLedger(time.Now),
		hosts: &schedulertest.Hosts{}, now: time.Now, fee: fee,
	}
	m.start()
	return m
}

// start begins a new life of the engine over the same store.
func (m *market) start() {
	m.lives++ // no two lives draw the same ids
	random := m.random
	if random == nil {
		random = rand.NewChaCha8([32]byte{m.lives})
	}
	policy := scheduler.DefaultPolicy()
	policy.LeaseFee = m.fee
	m.engine = scheduler.New(policy, scheduler.Deps{
		Store: m.store, Ledger: m.ledger, Hosts: m.hosts, Assigner: schedulertest.Assigner(),
		VerifyLease: schedulertest.VerifyLease, Now: func() time.Time { return m.now() },
		Random: random, Log: slog.New(slog.DiscardHandler),
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

// once fails the method the first time it is called.

// offerFull has a host offer that has nothing free.
func (m *market) offerFull(n byte) {
	o := schedulertest.NewOffer(n, 1000, time.Now())
	o.Free = price.Resources{}
	m.hosts.Know(o)
	m.engine.Offer(o)
}
