package scheduler_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// TestHostsThatNeverBegin: cheap hosts that sign leases and begin nothing do not keep a run for
// themselves. Of one operator two are enough to pass over the others.
func TestHostsThatNeverBegin(t *testing.T) {
	for name, c := range map[string]struct {
		idle        byte // hosts
		always, one bool
		most        int // attempts until the honest host is asked
	}{
		"once":                  {idle: 2, most: 3},
		"once, one operator":    {idle: 11, one: true, most: 3},
		"service, one operator": {idle: 11, one: true, always: true, most: 3},
		"service":               {idle: 9, always: true, most: 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				offer := func(n byte, price uint64) {
					o := schedulertest.NewOffer(n, price, time.Now())
					if c.one && n <= c.idle {
						o.Host.Operator = sig.AccountID{77}
					}
					m.hosts.Know(o)
					m.engine.Offer(o)
				}
				j := m.submitSpec(func(s *scheduler.Spec) { s.Always = c.always })
				honest := c.idle + 1
				for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(10 * time.Second) {
					for n := byte(1); n < honest; n++ {
						offer(n, 999)
					}
					offer(honest, 1000)
					r := m.read(j.ID).Runs[0]
					if a := r.Current(); a != nil && a.Placed && a.Host.Name == fmt.Sprint("host-", honest) {
						if int(r.Tries) > c.most {
							t.Errorf("the honest host was asked after %d attempts", r.Tries)
						}
						return
					}
				}
				r := m.read(j.ID).Runs[0]
				t.Errorf("the honest host was never asked: %s, %s", r.State, r.Reason)
			})
		})
	}
}

// TestServicesOutliveHosts: what runs for good is not ended by hosts that fail it, however often.
func TestServicesOutliveHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
		m.offers(10*time.Second, 1, 2, 3)
		m.tell(j.ID, 0, scheduler.Running, 0)
		failures := 0
		for range 720 {
			r := m.read(j.ID).Runs[0]
			if a := r.Current(); a.State == scheduler.Leased || a.State == scheduler.Running {
				m.report(j.ID, scheduler.Ended, scheduler.Refused, "no such image")
				failures++
			}
			m.offers(10*time.Second, 1, 2, 3)
		}
		r := m.read(j.ID).Runs[0]
		if r.State == scheduler.Ended || failures < 10 {
			t.Errorf("%s after %d refusals: %s", r.State, failures, r.Reason)
		}
	})
}

// TestFailedGoesElsewhere: where a program failed it is tried again only when no other host fits.
func TestFailedGoesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := m.submitSpec(func(s *scheduler.Spec) { s.Retries = 3 })
		m.offer(1, 1000)
		m.offer(2, 2000)
		for _, want := range []string{"host-1", "host-2", "host-1"} {
			for range 30 {
				m.offers(time.Second, 1, 2)
				if m.read(j.ID).Runs[0].State == scheduler.Leased {
					break
				}
			}
			m.want(j.ID, scheduler.Leased, 0, want)
			m.report(j.ID, scheduler.Ended, scheduler.Failed, "exit 1")
		}
	})
}
