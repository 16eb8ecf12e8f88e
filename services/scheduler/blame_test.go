package scheduler_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestLedgerThatCannotCommit blames nobody: the ledger answers, but its disk is full or its blocks
// are slow, for ten minutes. The run waits, no attempt is counted, and then it is placed.
func TestLedgerThatCannotCommit(t *testing.T) {
	for name, err := range map[string]error{
		"unknown": errors.New("the ledger did not say: DISK_FULL"),
		"late":    fmt.Errorf("%w: REASON_LEASE_LATE", scheduler.ErrNotPlaced),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				var mended atomic.Bool
				m.ledger.Hook(func() {
					m.ledger.Fail = func(method string) error {
						if method != "PlaceLease" || mended.Load() {
							return nil
						}
						time.Sleep(12 * time.Second)
						return err
					}
				})
				offer := func() {
					for i := range byte(5) {
						m.offer(1+i, 1000)
					}
				}
				offer()
				j := m.submitSpec(func(*scheduler.Spec) {})
				for range 120 {
					time.Sleep(5 * time.Second)
					synctest.Wait()
					offer()
				}
				r := m.read(j.ID).Current()
				if r.State == scheduler.Ended || r.Tries > 1 || len(r.Attempts) > 1 {
					t.Fatalf("the run is %s %q after %d tries", r.State, r.Reason, r.Tries)
				}
				mended.Store(true)
				time.Sleep(2 * time.Minute)
				offer()
				synctest.Wait()
				if r = m.read(j.ID).Current(); r.State != scheduler.Leased {
					t.Errorf("the run is %s %q once the ledger is well", r.State, r.Reason)
				}
				checkPaid(t, m.ledger)
			})
		})
	}
}

// TestEndThatIsRefused is not tried again: each try costs a fee. The owner took the scheduler out
// of the escrow's terms, cancelled, and his host is deaf.
func TestEndThatIsRefused(t *testing.T) {
	for name, cancels := range map[string]bool{"cancelled": true, "host lost": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				var ends atomic.Int32
				m.ledger.Hook(func() {
					m.ledger.Fail = func(method string) error {
						if method != "EndLease" {
							return nil
						}
						ends.Add(1)
						return fmt.Errorf("%w: REASON_NOT_PARTY", scheduler.ErrEndRefused)
					}
				})
				gone := fmt.Errorf("%w: gone", scheduler.ErrAbsent)
				m.hosts.Hook(func() {
					m.hosts.OnStop = func(scheduler.Host, scheduler.Stop) error { return gone }
				})
				var away atomic.Bool
				m.hosts.Hook(func() {
					m.hosts.OnDeliver = func(scheduler.Host, scheduler.Task) error {
						if away.Load() {
							return gone
						}
						return nil
					}
				})
				m.offer(1, 1000)
				j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
				m.tell(j.ID, 0, scheduler.Running, 0)
				away.Store(true)
				if cancels {
					if _, err := m.engine.Cancel(t.Context(), m.read(j.ID), "enough"); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := ends.Load(); n != 1 {
					t.Errorf("%d times was the lease to be ended, want once", n)
				}
			})
		})
	}
}

// TestHostsEndNoJobs: an always job ends by its owner's word, not by what a host says.
func TestHostsEndNoJobs(t *testing.T) {
	for _, end := range []scheduler.EndReason{scheduler.Cancelled, scheduler.Fraud} {
		t.Run(end.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.offer(1, 1000)
				j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
				for range 20 {
					m.tell(j.ID, 0, scheduler.Running, 0)
					m.tell(j.ID, 0, scheduler.Ended, end)
					for range 400 {
						time.Sleep(time.Second)
						m.offer(1, 1000)
						synctest.Wait()
						if m.read(j.ID).Runs[0].State == scheduler.Leased {
							break
						}
					}
					m.wantStates(j.ID, "leased")
				}
			})
		})
	}
}

// TestOneHostsRefusals: what three hosts say in the same words ends even an always job; what one
// says three times does not.
func TestOneHostsRefusals(t *testing.T) {
	for hosts := range 4 {
		synctest.Test(t, func(t *testing.T) {
			m := newMarket(t)
			defer m.stop()
			j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
			for n := range 3 {
				for range 60 { // whoever refused last is not asked again at once
					m.offer(byte(1+n%max(hosts, 1)), 1000)
					synctest.Wait()
					if m.read(j.ID).Runs[0].State == scheduler.Leased {
						break
					}
					time.Sleep(time.Second)
				}
				m.report(j.ID, scheduler.Ended, scheduler.Refused, "no such image")
			}
			if over := m.read(j.ID).Runs[0].State == scheduler.Ended; over != (hosts == 3) {
				t.Errorf("%d hosts refused three times: ended %v", hosts, over)
			}
		})
	}
}

// TestLeasesOfLiars: what the host signs is compared with what it was asked.
func TestLeasesOfLiars(t *testing.T) {
	for name, lie := range map[string]func(l *tx.Lease){
		"a session key, which could spend the job's budgets": func(l *tx.Lease) {
			l.SessionKey = sig.FromSeed([32]byte{9}).Public()
		},
		"a place_by that makes every placing late": func(l *tx.Lease) { l.PlaceBy -= 7000 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.hosts.Hook(func() {
					m.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
						if h.Name == "host-1" {
							lie(l)
						}
						return nil
					}
				})
				m.offer(1, 1000)
				m.offer(2, 2000)
				j := m.submit(1, 1)
				m.want(j.ID, scheduler.Leased, 0, "host-2")
			})
		})
	}
}

// TestScalingRunsNothingTwice: a lane whose program was done stays done when lanes go and come.
func TestScalingRunsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) {
			s.Always, s.Lanes, s.Restart = true, 3, scheduler.RestartNever
		})
		for i := range 3 {
			m.tell(j.ID, i, scheduler.Running, 0)
		}
		m.tell(j.ID, 2, scheduler.Ended, scheduler.Completed)
		for i, lanes := range []uint32{2, 3} {
			err := m.update(j.ID, fmt.Sprint(i), func(s *scheduler.Spec) { s.Lanes = lanes })
			if err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		m.wantStates(j.ID, "running", "running", "completed")
	})
}
