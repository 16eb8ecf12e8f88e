package scheduler_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/kit/clock"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestTheSchedulersClockJumps: by three hours, both ways, while a job runs. Its host is not taken
// for lost, its lease is not given up, nothing is placed twice; jobs that come meanwhile are placed
// at once, on offers of hosts whose clocks did not jump.
func TestTheSchedulersClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		t.Run(fmt.Sprint(jump), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { schedulersClockJumps(t, jump) })
		})
	}
}

func schedulersClockJumps(t *testing.T, jump time.Duration) {
	m := newMarket(t)
	defer func() { m.stop() }()
	var off atomic.Int64
	began := time.Now()
	m.stop() // a life with the clock that jumps
	m.now = clock.New(clock.Deps{
		Wall:    func() time.Time { return time.Now().Add(time.Duration(off.Load())) },
		Elapsed: func() time.Duration { return time.Since(began) },
	}).Now
	m.start()
	m.offer(1, 1000)
	first := m.submit(1, 1)
	m.want(first.ID, scheduler.Leased, 0, "host-1")
	m.report(first.ID, scheduler.Running, 0, "running")
	for i := range 10 {
		if i == 2 {
			off.Store(int64(jump))
		}
		m.offer(1, 1000)
		time.Sleep(10 * time.Second)
		m.report(first.ID, scheduler.Running, 0, "running")
	}
	m.want(first.ID, scheduler.Running, 0, "")
	m.offer(2, 900)
	second := m.submit(2, 2)
	m.want(second.ID, scheduler.Leased, 0, "host-2")
	m.report(second.ID, scheduler.Ended, scheduler.Completed, "done")
	off.Store(0)
	time.Sleep(10 * time.Second)
	m.report(first.ID, scheduler.Ended, scheduler.Completed, "done")
	m.want(first.ID, scheduler.Ended, scheduler.Completed, "done")
	if got := len(m.read(first.ID).Current().Attempts); got != 1 || m.ledger.Placed() != 2 {
		t.Errorf("%d attempts of the first job, %d leases in all", got, m.ledger.Placed())
	}
}
