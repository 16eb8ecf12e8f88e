package scheduler_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// slowChain tells a time that does not go on as time does, from a moment on. The leases of the test
// are not judged by it.
type slowChain struct {
	mu    sync.Mutex
	from  time.Time
	n     int
	since func(n int, gone time.Duration) time.Duration
}

func (c *slowChain) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from.IsZero() {
		return time.Now()
	}
	c.n++
	return c.from.Add(c.since(c.n, time.Since(c.from)))
}

func (c *slowChain) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from = time.Now()
}

// TestNoChainStopsTheTimers: whatever time the ledger tells, a host that falls silent is found to
// be silent, and its lane is placed elsewhere: soon if the chain only stands still, within a day or
// two if it was made to look as if it went on.
func TestNoChainStopsTheTimers(t *testing.T) {
	for name, tt := range map[string]struct {
		since func(n int, gone time.Duration) time.Duration
		most  time.Duration
	}{
		"stands still": {
			func(int, time.Duration) time.Duration { return 0 }, 10 * time.Minute,
		},
		"goes at a third of the pace": {
			func(_ int, gone time.Duration) time.Duration { return gone / 3 }, 10 * time.Minute,
		},
		"a minute back, then on, again and again": {
			func(n int, gone time.Duration) time.Duration {
				return gone - 11*time.Minute - time.Duration(n/2)*time.Minute
			}, 25 * time.Hour,
		},
		"to and fro by two days": {
			func(n int, gone time.Duration) time.Duration {
				return gone - time.Duration(n%6/3)*48*time.Hour
			},
			10 * time.Minute,
		},
		"to and fro by an hour": {
			func(n int, gone time.Duration) time.Duration {
				return gone - time.Duration(n%6/3)*time.Hour
			},
			2 * time.Hour,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &slowChain{since: tt.since}
				if took := silentAfter(t, c, tt.most); took > tt.most {
					t.Errorf("a silent host is not found after %v", took)
				}
			})
		})
	}
}

// silentAfter is how long it takes until the host of a lane is replaced that falls silent half an
// hour after the chain's clock goes wrong; no longer than a bit more than most.
func silentAfter(t *testing.T, c *slowChain, most time.Duration) time.Duration {
	m := newMarket(t)
	defer func() { m.stop() }()
	m.stop()
	m.ledger = schedulertest.NewLedger(c.now)
	m.start()
	m.offer(1, 1000)
	j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
	m.tell(j.ID, 0, scheduler.Running, 0)
	c.begin()
	m.offers(30*time.Minute, 1, 2)
	m.hosts.Hook(func() {
		m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
			if h.Name == "host-1" {
				return absent(h)
			}
			return nil
		}
	})
	began := time.Now()
	for time.Since(began) <= most {
		m.offers(time.Minute, 2)
		if a := m.read(j.ID).Runs[0].Current(); a.Host.Name == "host-2" {
			break
		}
	}
	return time.Since(began)
}

// TestASlowChainIsFollowed: one that is behind by hours, but goes on, is gone by; what is signed is
// judged by it.
func TestASlowChainIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const behind = 3 * time.Hour
		c := &slowChain{since: func(_ int, gone time.Duration) time.Duration { return gone - behind }}
		m := newMarket(t)
		defer func() { m.stop() }()
		m.stop()
		m.ledger = schedulertest.NewLedger(c.now)
		m.start()
		c.begin()
		time.Sleep(20 * time.Second)
		o := schedulertest.NewOffer(1, 1000, c.now())
		m.hosts.Know(o)
		m.engine.Offer(o)
		j := m.submit(1, 1)
		m.want(j.ID, scheduler.Leased, 0, "host-1")
		placeBy := time.UnixMilli(int64(m.read(j.ID).Current().Current().Lease.Lease.PlaceBy))
		if ahead := placeBy.Sub(c.now()); ahead > 10*time.Minute {
			t.Errorf("its lease may be placed until %v after the chain's time", ahead)
		}
	})
}
