package scheduler_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

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
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, _ *tx.Lease) error {
				if h.Executor == (sig.PublicKey{2}) {
					return scheduler.ErrDeclined
				}
				return nil
			}
		})
		m.want(m.submit(1, 1).ID, scheduler.Leased, 0, "host-1")
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
		"trust past what": func(l *tx.Lease) { l.Trust = 1 << 20 }, // which the escrow has
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.hosts.Hook(func() {
					m.hosts.OnAsk = func(_ scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
						spoil(l)
						return nil
					}
				})
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
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
				asked.Add(1)
				return nil
			}
		})
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
			m.ledger.Hook(func() { m.ledger.Fail = once("PlaceLease", lost) })
		},
		"after the lease": func(m *market) {
			m.ledger.Hook(func() { m.ledger.FailAfter = once("PlaceLease", lost) })
		},
		"save after the lease fails": func(m *market) {
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

func once(method string, err error) func(string) error {
	var done atomic.Bool
	return func(called string) error {
		if called != method || !done.CompareAndSwap(false, true) {
			return nil
		}
		return err
	}
}

// TestNotPlacedBlamesNobody: the scheduler cannot pay its fees. The run waits and says so, and no
// attempt is counted against the host.
func TestNotPlacedBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		var rich atomic.Bool
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method == "PlaceLease" && !rich.Load() {
					return fmt.Errorf("%w: CANNOT_PAY", scheduler.ErrNotPlaced)
				}
				return nil
			}
		})
		m.offer(1, 1000)
		j := m.submit(1, 1)
		time.Sleep(2 * time.Minute)
		m.offer(1, 1000)
		m.want(j.ID, scheduler.Pending, 0, "CANNOT_PAY")
		if got := len(m.read(j.ID).Current().Attempts); got != 0 {
			t.Errorf("%d attempts are counted", got)
		}
		rich.Store(true)
		time.Sleep(10 * time.Second)
		m.want(j.ID, scheduler.Leased, 0, "host-1")
	})
}

// TestEscrowThatTheChainFindsEmpty: what is the escrow's affair blames no host either, and is tried
// the less often, as each try costs a fee.
func TestEscrowThatTheChainFindsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		tries := 0
		m.ledger.Hook(func() {
			m.ledger.Fail = func(method string) error {
				if method != "PlaceLease" {
					return nil
				}
				tries++
				return fmt.Errorf("%w: %w: TOO_MANY_LEASES", scheduler.ErrNotPlaced, scheduler.ErrEscrow)
			}
		})
		j := m.submit(1, 1)
		m.offers(2*time.Hour, 1, 2)
		m.want(j.ID, scheduler.Pending, 0, "TOO_MANY_LEASES")
		if tries < 60 || tries > 140 {
			t.Errorf("%d leases were tried in two hours", tries)
		}
		m.ledger.Hook(func() { m.ledger.Fail = nil })
		m.offers(time.Minute+20*time.Second, 1, 2)
		m.want(j.ID, scheduler.Leased, 0, "host-1")
		if r := m.read(j.ID).Current(); r.Tries != 1 || r.HostFailures != 0 {
			t.Errorf("%d tries and %d failures of hosts are counted", r.Tries, r.HostFailures)
		}
	})
}

// TestOneHostIsAskedPerLease: once an attempt is written down nobody else is asked for the run.
func TestOneHostIsAskedPerLease(t *testing.T) {
	for name, err := range map[string]error{
		"refused": scheduler.ErrLeaseRefused, "unknown": errors.New("lost"),
		"not placed": scheduler.ErrNotPlaced,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.ledger.Hook(func() { m.ledger.Fail = once("PlaceLease", err) })
				for n := range byte(3) {
					m.offer(n+1, 1000+uint64(n))
				}
				m.submit(1, 1)
				synctest.Wait()
				if got := len(m.hosts.Asked()); got != 1 {
					t.Errorf("%d hosts were asked, want 1", got)
				}
			})
		})
	}
}

// TestDecliningHostsDoNotHideOthers: more hosts decline than are asked in one go.
func TestDecliningHostsDoNotHideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, _ *tx.Lease) error {
				if h.Executor[0] < 20 {
					return fmt.Errorf("%w: POLICY: not for you", scheduler.ErrDeclined)
				}
				return nil
			}
		})
		for n := byte(1); n < 20; n++ {
			m.offer(n, 1000+uint64(n))
		}
		j := m.submit(1, 1)
		time.Sleep(5 * time.Second)
		m.want(j.ID, scheduler.Pending, 0, "POLICY: not for you")
		got, err := m.engine.Job(t.Context(), j.Owner, j.ID)
		if err != nil || !strings.Contains(got.Current().Reason, "declining this job (host-") {
			t.Errorf("reason %q, %v, want who declined and why", got.Current().Reason, err)
		}
		if n := len(m.hosts.Asked()); n != 19 {
			t.Errorf("%d questions, want each of 19 hosts once", n)
		}
		m.offer(20, 9000)
		m.want(j.ID, scheduler.Leased, 0, "host-20")
	})
}

// TestEscrowExpires: a run that waits when its escrow runs out ends, whether a host would fit or
// not; one whose escrow was prolonged goes on waiting.
func TestEscrowExpires(t *testing.T) {
	for _, fits := range []bool{false, true} {
		for _, longer := range []bool{false, true} {
			t.Run(fmt.Sprintf("fits %v, prolonged %v", fits, longer), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMarket(t)
					defer m.stop()
					j := schedulertest.NewJob(1, 1)
					m.ledger.Fund(j)
					m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) {
						s.Expires = time.Now().Add(24*time.Hour + 10*time.Minute)
					})
					if _, err := m.engine.Submit(t.Context(), j); err != nil {
						t.Fatal(err)
					}
					time.Sleep(9 * time.Minute)
					if longer {
						m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) {
							s.Expires = s.Expires.Add(100 * time.Hour)
						})
					}
					m.want(j.ID, scheduler.Pending, 0, "")
					time.Sleep(2 * time.Minute)
					if fits {
						m.offer(1, 1000)
					}
					switch {
					case !longer:
						m.want(j.ID, scheduler.Ended, scheduler.Expired, "its escrow expires")
					case fits:
						m.want(j.ID, scheduler.Leased, 0, "")
					default:
						m.want(j.ID, scheduler.Pending, 0, "")
					}
				})
			})
		}
	}
}

func TestEscrowThatCannotPromise(t *testing.T) {
	tests := map[string]struct {
		spoil func(*scheduler.Escrow)
		want  string
	}{
		"below floor":  {func(s *scheduler.Escrow) { s.Floor = s.Unreserved + 1 }, "free to promise"},
		"spent":        {func(s *scheduler.Escrow) { s.Used = s.MaxTotal }, "free to promise"},
		"no rate":      {func(s *scheduler.Escrow) { s.Rate = s.MaxRate }, "max_rate"},
		"other payees": {func(s *scheduler.Escrow) { s.Payees = []sig.AccountID{{9}} }, "payees"},
		"no trust":     {func(s *scheduler.Escrow) { s.Risk = s.Trust + 1 }, ""},
		"less trust":   {func(s *scheduler.Escrow) { s.Risk = s.Trust - 1 }, "its trust leaves no room"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				j := m.submitSpec(func(s *scheduler.Spec) {
					if name == "less trust" {
						s.Trust = 2
					}
				})
				m.ledger.Change(j.Escrow, tt.spoil)
				m.hosts.Hook(func() {
					m.hosts.OnAsk = func(_ scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
						l.Trust = 1
						return nil
					}
				})
				m.offer(1, 1000)
				m.want(j.ID, scheduler.Pending, 0, tt.want)
				if got := m.ledger.Placed(); got != 0 {
					t.Errorf("%d leases were placed", got)
				}
			})
		})
	}
}

// TestEpochsRise: whatever happens to attempts, no two leases of a job have one epoch.
func TestEpochsRise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.ledger.Hook(func() { m.ledger.Fail = once("PlaceLease", scheduler.ErrNotPlaced) })
		m.offer(1, 1000)
		m.offer(2, 2000)
		j := m.submit(1, 1)
		time.Sleep(10 * time.Second)
		m.report(j.ID, scheduler.Ended, scheduler.Evicted, "closing down")
		time.Sleep(time.Second)
		m.want(j.ID, scheduler.Leased, 0, "")
		var last uint64
		for _, a := range m.read(j.ID).Current().Attempts {
			if a.Lease.Lease.Epoch <= last {
				t.Errorf("epoch %d after %d", a.Lease.Lease.Epoch, last)
			}
			last = a.Lease.Lease.Epoch
		}
	})
}
