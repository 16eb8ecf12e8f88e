package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// TestNoticeForNothing: a host that tells the end and lets the scheduler end its lease is paid its
// notice. For a day it is asked only when no other fits; one that charges in time, or wants no
// notice, is not. Of an array's task it has a minute to charge.
func TestNoticeForNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		notice  time.Duration
		charges bool
		after   time.Duration
		tasks   uint32
		want    string
	}{
		"takes it":                 {30 * time.Second, false, 11 * time.Minute, 0, "host-2"},
		"takes it of a task":       {30 * time.Second, false, 90 * time.Second, 1, "host-2"},
		"charges in time":          {30 * time.Second, true, 11 * time.Minute, 0, "host-1"},
		"still has time":           {30 * time.Second, false, 9 * time.Minute, 0, "host-1"},
		"a task's still has time":  {30 * time.Second, false, 50 * time.Second, 1, "host-1"},
		"wants none":               {0, false, 11 * time.Minute, 0, "host-1"},
		"a day later, once more":   {30 * time.Second, false, 25 * time.Hour, 0, "host-1"},
		"nobody else is there yet": {30 * time.Second, false, 11 * time.Minute, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.hosts.Hook(func() {
					m.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
						if h.Name == "host-1" {
							l.Notice = tx.Millis(tt.notice.Milliseconds())
						}
						return nil
					}
				})
				offer := func() {
					o := schedulertest.NewOffer(1, 1000, time.Now())
					o.Notice = tt.notice
					m.hosts.Know(o)
					m.engine.Offer(o)
				}
				pays := func(s *scheduler.Spec) { s.Notice, s.Tasks = time.Minute, tt.tasks }
				offer()
				j := m.submitSpec(pays)
				m.tell(j.ID, 0, scheduler.Running, 0)
				a := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
				m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
				if tt.charges {
					m.ledger.Final(a.Lease.ID)
				}
				time.Sleep(tt.after)
				offer()
				want := tt.want
				if want == "" {
					want = "host-1"
				} else {
					m.offer(2, 2000)
				}
				second := m.submitSpecOf(2, pays)
				m.wantLane(second.ID, 0, scheduler.Leased, want)
			})
		})
	}
}
