package scheduler_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

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
				m.hosts.Hook(func() {
					m.hosts.OnStop = func(_ scheduler.Host, s scheduler.Stop) error {
						stops = append(stops, s)
						return stop
					}
				})
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

// TestCancelWhileTheLeaseIsPlaced: nothing is delivered, and the lease is given back.
func TestCancelWhileTheLeaseIsPlaced(t *testing.T) {
	lost := errors.New("the answer was lost")
	for name, answer := range map[string]error{"placed": nil, "unknown": lost} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				gate := make(chan struct{})
				m.ledger.Hook(func() {
					m.ledger.FailAfter = func(method string) error {
						if method != "PlaceLease" {
							return nil
						}
						<-gate
						return answer
					}
				})
				m.hosts.Hook(func() {
					m.hosts.OnDeliver = func(scheduler.Host, scheduler.Task) error {
						t.Error("a cancelled task was delivered")
						return nil
					}
				})
				m.offer(1, 1000)
				j := m.submit(1, 1)
				synctest.Wait()
				if _, err := m.engine.Cancel(t.Context(), j, "enough"); err != nil {
					t.Fatal(err)
				}
				close(gate)
				time.Sleep(2 * time.Minute)
				m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
				if open := m.ledger.Open(); open != 0 {
					t.Errorf("%d leases are open", open)
				}
			})
		})
	}
}

// TestCancelledLeaseIsNotPlaced: it was lost on its way, and is not sent again for a cancelled job.
func TestCancelledLeaseIsNotPlaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.Hook(func() {
			m.ledger.Fail = once("PlaceLease", errors.New("lost on the way"))
		})
		m.offer(1, 1000)
		j := m.submit(1, 1)
		synctest.Wait()
		if _, err := m.engine.Cancel(t.Context(), j, "enough"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
		if got := m.ledger.Placed(); got != 0 {
			t.Errorf("%d leases were placed for a cancelled job", got)
		}
	})
}

// TestCancelledIsNotTriedAgain: the program fails while its host stops it.
func TestCancelledIsNotTriedAgain(t *testing.T) {
	for _, end := range []scheduler.EndReason{scheduler.Failed, scheduler.Evicted} {
		synctest.Test(t, func(t *testing.T) {
			m := newMarket(t)
			defer m.stop()
			m.offer(1, 1000)
			j := schedulertest.NewJob(1, 1)
			j.Runs, j.Spec.Retries = nil, 5
			m.ledger.Fund(j)
			if _, err := m.engine.Submit(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			m.report(j.ID, scheduler.Running, 0, "running")
			if _, err := m.engine.Cancel(t.Context(), j, "enough"); err != nil {
				t.Fatal(err)
			}
			m.report(j.ID, scheduler.Ended, end, "exit 143")
			m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
			asked := len(m.hosts.Asked())
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := len(m.hosts.Asked()); got != asked {
				t.Errorf("hosts were asked %d more times for a cancelled job", got-asked)
			}
		})
	}
}

// TestHostThatOnlySaysYes to the cancellation and never ends: the chain ends its pay.
func TestHostThatOnlySaysYes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.report(j.ID, scheduler.Running, 0, "running")
		if _, err := m.engine.Cancel(t.Context(), j, "enough"); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			time.Sleep(10 * time.Second)
			m.offer(1, 1000)
		}
		m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
		if open := m.ledger.Open(); open != 0 {
			t.Errorf("%d leases are open", open)
		}
	})
}

func TestRestartWithCancelPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.report(j.ID, scheduler.Running, 0, "running")
		m.hosts.Hook(func() {
			m.hosts.OnStop = func(scheduler.Host, scheduler.Stop) error { return scheduler.ErrUnreachable }
		})
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "EndLease" {
					return errors.New("the ledger is away")
				}
				return nil
			}
		})
		if _, err := m.engine.Cancel(t.Context(), j, "enough"); err != nil {
			t.Fatal(err)
		}
		m.want(j.ID, scheduler.Running, 0, "being cancelled")
		m.stop()
		m.ledger.Hook(func() { m.ledger.Fail = nil })
		m.start()
		defer m.stop()
		m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
	})
}

// TestPeersThatHang hold one goroutine each, however long: the bubble would not end otherwise, and
// the calls are counted.
func TestPeersThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.report(j.ID, scheduler.Running, 0, "running")
		gate := make(chan struct{})
		var ends atomic.Int32
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "EndLease" {
					ends.Add(1)
					<-gate
				}
				return nil
			}
		})
		m.hosts.Hook(func() {
			m.hosts.OnStop = func(scheduler.Host, scheduler.Stop) error { return scheduler.ErrUnreachable }
		})
		if _, err := m.engine.Cancel(t.Context(), j, "enough"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if n := ends.Load(); n > 2 {
			t.Errorf("%d ends of one lease are under way at once", n)
		}
		close(gate)
		m.stop()
	})
}
