package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

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

// TestSubmitAgainRenewsTheToken: the one that came first may expire while the job waits.
func TestSubmitAgainRenewsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		first := m.submit(1, 1)
		again := schedulertest.NewJob(1, 1)
		again.Runs, again.Escrow, again.StorageToken = nil, first.Escrow, "newer"
		if _, err := m.engine.Submit(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		var token string
		m.hosts.Hook(func() {
			m.hosts.OnDeliver = func(_ scheduler.Host, k scheduler.Task) error {
				token = k.StorageToken
				return nil
			}
		})
		m.offer(1, 1000)
		m.want(first.ID, scheduler.Leased, 0, "")
		if token != "newer" {
			t.Errorf("delivered with token %q, want the newer one", token)
		}
	})
}

// TestLedgerThatHangsHoldsUpNothing: jobs whose ids begin alike share a lock.
func TestLedgerThatHangsHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		running := m.submit(1, 1)
		m.read(running.ID)
		gate := make(chan struct{})
		m.ledger.Hook(func() {
			m.ledger.Fail = func(string) error {
				<-gate
				return nil
			}
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.submit(1, 2)
		}()
		m.report(running.ID, scheduler.Running, 0, "running")
		m.want(running.ID, scheduler.Running, 0, "running")
		close(gate)
		<-done
	})
}

// TestReasonsAreBounded: a host's flood of words does not make a job that cannot be told of.
func TestReasonsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		flood := strings.Repeat("\u00e4", 1<<20)
		var willing atomic.Bool
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
				if willing.Load() {
					return nil
				}
				return fmt.Errorf("%w: %s", scheduler.ErrDeclined, flood)
			}
		})
		m.offer(1, 1000)
		j := m.submit(1, 1)
		for _, held := range []func() (*scheduler.Job, error){
			func() (*scheduler.Job, error) { return m.read(j.ID), nil },
			func() (*scheduler.Job, error) { return m.engine.Job(t.Context(), j.Owner, j.ID) },
		} {
			got, err := held()
			if err != nil || len(got.Current().Reason) > 500 || !utf8.ValidString(got.Current().Reason) {
				t.Errorf("a reason of %d bytes, %v", len(got.Current().Reason), err)
			}
		}
		willing.Store(true)
		time.Sleep(time.Minute)
		m.report(j.ID, scheduler.Ended, scheduler.Completed, flood)
		if got := len(m.read(j.ID).Current().Reason); got > 500 {
			t.Errorf("a reason of %d bytes", got)
		}
	})
}
