package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

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

// What three hosts refuse in the same words ends; what they refuse each in its own goes on.
func TestSameRefusalsEndTheRun(t *testing.T) {
	for name, test := range map[string]struct {
		reasons [3]string
		want    scheduler.State
	}{
		"same":      {[3]string{"no image", "no image", "no image"}, scheduler.Ended},
		"different": {[3]string{"no image", "disk is full", "no image"}, scheduler.Pending},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				for host := range len(test.reasons) {
					m.offer(byte(host+1), uint64(host+1)*1000)
				}
				j := m.submit(1, 1)
				for i, reason := range test.reasons {
					m.want(j.ID, scheduler.Leased, 0, fmt.Sprintf("host-%d", i+1))
					m.report(j.ID, scheduler.Ended, scheduler.Refused, reason)
					if i < len(test.reasons)-1 {
						time.Sleep(time.Second<<i + time.Millisecond)
					}
				}
				if got := m.read(j.ID).Current().State; got != test.want {
					t.Errorf("it is %s, want %s", got, test.want)
				}
			})
		})
	}
}

func TestHostThatNeverBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.hosts.Hook(func() {
			m.hosts.OnDeliver = func(scheduler.Host, scheduler.Task) error {
				return scheduler.ErrUnreachable
			}
		})
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
		var away atomic.Bool
		m.hosts.Hook(func() {
			m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
				if h.Executor == (sig.PublicKey{1}) && away.Load() {
					return scheduler.ErrUnreachable
				}
				return nil
			}
		})
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.report(j.ID, scheduler.Running, 0, "running")
		away.Store(true)
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

// TestNobodyIsHeard: when no host at all is heard, and none can be asked, it is this end that is
// cut off. What runs is paid for and goes on.
func TestNobodyIsHeard(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		lost bool
	}{
		"the way is cut":            {scheduler.ErrUnreachable, false},
		"the way works, none there": {errors.Join(scheduler.ErrUnreachable, scheduler.ErrAbsent), true},
		"the host has forgotten":    {scheduler.ErrForgotten, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				var cut atomic.Bool
				m.hosts.Hook(func() {
					m.hosts.OnDeliver = func(scheduler.Host, scheduler.Task) error {
						if cut.Load() {
							return tt.err
						}
						return nil
					}
				})
				m.offer(1, 1000)
				j := m.submit(1, 1)
				m.report(j.ID, scheduler.Running, 0, "running")
				cut.Store(true)
				time.Sleep(20 * time.Minute)
				first := m.read(j.ID).Current().Attempts[0]
				if lost := first.End == scheduler.HostLost; lost != tt.lost {
					t.Errorf("attempt ended %s, want lost: %v", first.End, tt.lost)
				}
				if open := m.ledger.Open(); (open == 0) != tt.lost {
					t.Errorf("%d leases are open", open)
				}
			})
		})
	}
}

// TestLastReportIsLost: the host goes on making offers and tells the end when it is asked.
func TestLastReportIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.report(j.ID, scheduler.Running, 0, "running")
		m.hosts.Hook(func() {
			m.hosts.OnTell = func(h scheduler.Host, k scheduler.Task) *scheduler.Report {
				return &scheduler.Report{
					Job: j.ID, Run: k.Run, Attempt: k.Attempt, Executor: h.Executor,
					State: scheduler.Ended, End: scheduler.Completed, Reason: "exit 0", Time: time.Now(),
				}
			}
		})
		for range 6 {
			time.Sleep(time.Minute)
			m.offer(1, 1000)
		}
		m.want(j.ID, scheduler.Ended, scheduler.Completed, "exit 0")
		if got := m.ledger.Placed(); got != 1 {
			t.Errorf("%d leases were placed: it ran twice", got)
		}
	})
}

// TestBusyMarketIsSwept: a market that is never quiet still notices a host that never began.
func TestBusyMarketIsSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.hosts.Hook(func() {
			m.hosts.OnDeliver = func(scheduler.Host, scheduler.Task) error {
				return scheduler.ErrUnreachable
			}
		})
		m.offer(1, 1000)
		j := m.submit(1, 1)
		for range 300 {
			time.Sleep(500 * time.Millisecond) // more often than the tick
			m.offer(9, 9000)
		}
		if a := m.read(j.ID).Current().Attempts[0]; a.End != scheduler.Refused {
			t.Errorf("first attempt ended %s, want refused", a.End)
		}
	})
}

// TestReportBeforeTheLeaseIsRecorded: the host is quicker than the answer of the ledger.
func TestReportBeforeTheLeaseIsRecorded(t *testing.T) {
	for _, end := range []scheduler.EndReason{0, scheduler.Completed, scheduler.Failed} {
		t.Run(end.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				gate := make(chan struct{})
				m.ledger.Hook(func() {
					m.ledger.FailAfter = func(method string) error {
						if method == "PlaceLease" {
							<-gate
						}
						return nil
					}
				})
				m.offer(1, 1000)
				j := m.submit(1, 1)
				m.report(j.ID, scheduler.Running, 0, "running")
				state := scheduler.Running
				if end != 0 {
					state = scheduler.Ended
					m.report(j.ID, state, end, "exit")
				}
				close(gate)
				m.want(j.ID, state, end, "")
				a := m.read(j.ID).Current().Attempts
				if len(a) != 1 || !a[0].Placed {
					t.Errorf("attempts %+v, want one, known to be placed", a)
				}
			})
		})
	}
}

// TestRestartHoldsNothingAgainstHosts: what was not heard while the scheduler was away.
func TestRestartHoldsNothingAgainstHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		m.offer(1, 1000)
		j := m.submit(1, 1)
		synctest.Wait()
		m.stop()
		time.Sleep(time.Hour) // the host began, and its report waits in the stream
		m.start()
		defer m.stop()
		time.Sleep(10 * time.Second)
		m.report(j.ID, scheduler.Running, 0, "running")
		m.want(j.ID, scheduler.Running, 0, "running")
		if open := m.ledger.Open(); open != 1 {
			t.Errorf("%d leases are open, want 1", open)
		}
	})
}

func TestExpiredBeforeItBegan(t *testing.T) {
	for _, ran := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMarket(t)
			defer m.stop()
			m.offer(1, 1000)
			m.offer(2, 2000)
			j := m.submitSpec(func(s *scheduler.Spec) { s.RunTime = time.Minute })
			if ran {
				m.report(j.ID, scheduler.Running, 0, "running")
				until := m.read(j.ID).Current().Current().Lease.Lease.Until
				time.Sleep(time.Until(time.UnixMilli(int64(until))) - time.Second)
			}
			m.report(j.ID, scheduler.Ended, scheduler.Expired, "no task arrived in time")
			time.Sleep(time.Second)
			if ran {
				m.want(j.ID, scheduler.Ended, scheduler.Expired, "")
				return
			}
			m.want(j.ID, scheduler.Leased, 0, "host-2")
		})
	}
}

// TestLateOutcomeIsKept: the host was given up, and then tells how it ended.
func TestLateOutcomeIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submit(1, 1)
		m.hosts.Hook(func() {
			m.hosts.OnStop = func(scheduler.Host, scheduler.Stop) error { return scheduler.ErrUnreachable }
		})
		m.report(j.ID, scheduler.Running, 0, "running")
		if _, err := m.engine.Cancel(t.Context(), j, "enough"); err != nil {
			t.Fatal(err)
		}
		m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
		r := m.read(j.ID).Current()
		rep := scheduler.Report{
			Job: j.ID, Run: r.ID, Attempt: r.Current().ID, Executor: r.Current().Host.Executor,
			State: scheduler.Ended, End: scheduler.Completed, Time: time.Now(), Raw: []byte("bill"),
		}
		for _, raw := range []string{"bill", "another"} {
			rep.Raw = []byte(raw)
			if err := m.engine.Report(t.Context(), rep); err != nil {
				t.Fatal(err)
			}
		}
		m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
		if got := string(m.read(j.ID).Current().Current().Status); got != "bill" {
			t.Errorf("status %q, want the first account of the end", got)
		}
	})
}
