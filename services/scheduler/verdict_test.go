package scheduler_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// TestOneWordOfAHost: what is the owner's doing, or his money's, is not so because a host says it.
// The run goes on elsewhere, that host is avoided, and its words are kept for people.
func TestOneWordOfAHost(t *testing.T) {
	for name, tt := range map[string]struct {
		end    scheduler.EndReason
		after  time.Duration
		during func(*market, scheduler.Attempt)
		ends   bool // believed
		why    string
	}{
		"cancelled by nobody": {
			end: scheduler.Cancelled, why: "host-1 says that it was cancelled, which it was not",
		},
		"cancelled by nobody, the ledger is away": {
			end: scheduler.Cancelled, why: "which it was not",
			during: func(m *market, _ scheduler.Attempt) {
				m.ledger.Hook(func() { m.ledger.Fail = once("Lease", errors.New("away")) })
			},
		},
		"its owner ended the lease on the chain": {
			end: scheduler.Cancelled, ends: true,
			during: func(m *market, a scheduler.Attempt) {
				if err := m.ledger.EndLease(m.t.Context(), a.Lease.ID); err != nil {
					m.t.Error(err)
				}
			},
		},
		"exhausted at once": {
			end: scheduler.Exhausted, why: "its money is used up, which it cannot be yet",
		},
		"exhausted before a minute is over": {
			end: scheduler.Exhausted, after: 20 * time.Second, why: "which it cannot be yet",
		},
		"exhausted when nothing was acknowledged for a minute": {
			end: scheduler.Exhausted, after: 58 * time.Second, ends: true,
		},
		"expired at once": {
			end: scheduler.Expired, why: "its lease is over, which it is not",
		},
		"expired a minute before": {
			end: scheduler.Expired, after: 15 * time.Minute, why: "its lease is over, which it is not",
		},
		"expired": {end: scheduler.Expired, after: 16*time.Minute - 2*time.Second, ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.signDearly()
				m.ledger.MaxTotal = 10_000_000
				m.offer(1, dear)
				j := m.submitSpec(func(s *scheduler.Spec) {
					s.RunTime, s.MaxTotal = time.Minute, 10_000_000
				})
				m.tell(j.ID, 0, scheduler.Running, 0)
				a := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
				time.Sleep(tt.after)
				if tt.during != nil {
					tt.during(m, a)
				}
				m.report(j.ID, scheduler.Ended, tt.end, "I do not feel like it")
				r := m.read(j.ID).Current()
				if tt.ends {
					if r.State != scheduler.Ended || r.End != tt.end {
						t.Errorf("it is %s, %s: %s; want it to have ended so", r.State, r.End, r.Reason)
					}
					return
				}
				if got := r.Current().End; got != scheduler.Evicted ||
					!strings.Contains(r.Reason, tt.why+": I do not feel like it") {
					t.Errorf("the attempt ended %s, the run is %s: %s", got, r.State, r.Reason)
				}
				m.offer(1, dear)
				m.offer(2, dear+1)
				time.Sleep(time.Second)
				m.wantLane(j.ID, 0, scheduler.Leased, "host-2")
			})
		})
	}
}

// TestLateWordOfAHost: a host that was given up because it had not begun says that it was
// cancelled when it sees its lease ended, before that is written down here.
func TestLateWordOfAHost(t *testing.T) {
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
		r := m.read(j.ID).Current()
		told := false
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method != "EndLease" || told {
					return nil
				}
				told = true
				a := r.Current()
				if err := m.ledger.EndLease(t.Context(), a.Lease.ID); err != nil {
					return err
				}
				m.tellOf(j.ID, r.ID, *a, scheduler.Ended, scheduler.Cancelled)
				return nil
			}
		})
		m.offers(scheduler.DefaultPolicy().StartWithin+20*time.Second, 1, 2)
		if m.wantLane(j.ID, 0, scheduler.Leased, "host-2"); !told {
			t.Error("the first lease was not ended")
		}
	})
}

// TestRefusers: hosts that are a grain cheaper and refuse in the same words do not speak for
// others: the honest ones are asked, soon.
func TestRefusers(t *testing.T) {
	for name, change := range map[string]func(*scheduler.Spec){
		"once": func(*scheduler.Spec) {}, "array": array(20, 4),
		"service": func(s *scheduler.Spec) { s.Always = true },
	} {
		for _, operators := range []byte{1, 2, 3} {
			t.Run(fmt.Sprint(name, ", operators ", operators), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { refusers(t, change, operators) })
			})
		}
	}
}

func refusers(t *testing.T, change func(*scheduler.Spec), operators byte) {
	m := newMarket(t)
	defer m.stop()
	offers := func() {
		for n := byte(1); n <= 5; n++ {
			o := schedulertest.NewOffer(n, 1000, time.Now())
			if n <= 3 {
				o = schedulertest.NewOffer(n, 999, time.Now())
				o.Host.Operator = sig.AccountID{77, n % operators}
			}
			m.hosts.Know(o)
			m.engine.Offer(o)
		}
	}
	j := m.submitSpec(change)
	for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(time.Second) {
		offers()
		j = m.read(j.ID)
		if state, end, why := j.State(); state == scheduler.Ended {
			if end != scheduler.Completed || j.Array.Failed > 0 {
				t.Errorf("ended %s after %v: %s", end, time.Since(began), why)
			}
			return
		}
		for slot, r := range j.Runs {
			a := r.Current()
			switch {
			case a == nil || a.State != scheduler.Leased:
			case a.Host.Name == "host-4" || a.Host.Name == "host-5":
				if j.Spec.Always {
					return
				}
				m.tell(j.ID, slot, scheduler.Running, 0)
				m.tell(j.ID, slot, scheduler.Ended, scheduler.Completed)
			default:
				m.tell(j.ID, slot, scheduler.Ended, scheduler.Refused)
			}
		}
	}
	t.Error("no honest host was asked within ten minutes")
}

// TestRefusersOfManyOperators: nine hosts of five operators that are a grain cheaper and refuse end
// no run, and what they cost an array is what they cost a run, not as much for each task.
func TestRefusersOfManyOperators(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*scheduler.Spec)
		full   time.Duration // the honest hosts, at first
	}{
		"once":              {change: func(*scheduler.Spec) {}},
		"once, others full": {func(*scheduler.Spec) {}, 10 * time.Minute},
		"array":             {change: array(20, 4)},
		"array of one lane": {change: array(3, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { manyRefusers(t, tt.change, tt.full) })
		})
	}
}

func manyRefusers(t *testing.T, change func(*scheduler.Spec), full time.Duration) {
	m := newMarket(t)
	defer m.stop()
	began := time.Now()
	offers := func() {
		for n := byte(1); n <= 12; n++ {
			o := schedulertest.NewOffer(n, 1000, time.Now())
			if n <= 9 {
				o = schedulertest.NewOffer(n, 999, time.Now())
				o.Host.Operator = sig.AccountID{77, (n + 1) / 2}
			} else if time.Since(began) < full {
				o.Free = price.Resources{}
			}
			m.hosts.Know(o)
			m.engine.Offer(o)
		}
	}
	offers()
	j := m.submitSpec(change)
	refused := 0
	for ; time.Since(began) < 20*time.Minute; time.Sleep(time.Second) {
		offers()
		j = m.read(j.ID)
		if state, end, why := j.State(); state == scheduler.Ended {
			if end != scheduler.Completed || j.Array.Failed > 0 || refused > 9+3 {
				t.Errorf("ended %s, %d tasks failed, %d refusals: %s", end, j.Array.Failed, refused, why)
			}
			return
		}
		for slot, r := range j.Runs {
			a := r.Current()
			if a == nil || a.State != scheduler.Leased {
				continue
			}
			if a.Host.Operator[0] == 77 {
				m.tell(j.ID, slot, scheduler.Ended, scheduler.Refused)
				refused++
				continue
			}
			m.tell(j.ID, slot, scheduler.Running, 0)
			m.tell(j.ID, slot, scheduler.Ended, scheduler.Completed)
		}
	}
	t.Error("it has not ended within twenty minutes")
}

// TestImageThatIsNowhere: what everybody refuses in the same words ends soon, with those words;
// what is to run for good if that are three operators.
func TestImageThatIsNowhere(t *testing.T) {
	for name, tt := range map[string]struct {
		hosts, operators byte
		always, ends     bool
	}{
		"one host":                 {hosts: 1, operators: 1, ends: true},
		"hosts of one operator":    {hosts: 5, operators: 1, ends: true},
		"two operators":            {hosts: 4, operators: 2, ends: true},
		"many operators":           {hosts: 20, operators: 20, ends: true},
		"a service, one operator":  {hosts: 5, operators: 1, always: true},
		"a service, two operators": {hosts: 4, operators: 2, always: true},
		"a service, three":         {hosts: 6, operators: 3, always: true, ends: true},
		"a service, many":          {hosts: 20, operators: 20, always: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				j := m.submitSpec(func(s *scheduler.Spec) { s.Always = tt.always })
				for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(time.Second) {
					for n := byte(1); n <= tt.hosts; n++ {
						o := schedulertest.NewOffer(n, 1000, time.Now())
						o.Host.Operator = sig.AccountID{77, n % tt.operators}
						m.hosts.Know(o)
						m.engine.Offer(o)
					}
					if m.read(j.ID).Current().State == scheduler.Leased {
						m.report(j.ID, scheduler.Ended, scheduler.Refused, "no such image")
					}
				}
				if tt.ends {
					m.want(j.ID, scheduler.Ended, scheduler.Refused, "no such image")
				} else if state, _, why := m.read(j.ID).State(); state == scheduler.Ended {
					t.Errorf("it ended: %s", why)
				}
			})
		})
	}
}

// TestSmallLease: a host that signs for less money than it was offered would have it used up soon.
func TestSmallLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
				if h.Name == "host-1" {
					l.Budget = 1
				}
				return nil
			}
		})
		m.offer(1, 1000)
		m.offer(2, 2000)
		j := m.submit(1, 1)
		m.want(j.ID, scheduler.Leased, 0, "host-2")
	})
}
