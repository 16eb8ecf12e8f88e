package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// TestNoticeForNothing: a host that tells the end and lets the scheduler end its lease is paid
// its notice. Who does so twice is asked only when no other fits, for a day; one that charges in
// time, or wants no notice, is not, nor one that did so once: it may have been cut off. Of an
// array's task it has a minute to charge.
func TestNoticeForNothing(t *testing.T) {
	const notice = 30 * time.Second
	for name, tt := range map[string]struct {
		notice  time.Duration
		times   int
		charges bool
		after   time.Duration
		tasks   uint32
		want    string
	}{
		"takes it":                 {notice, 2, false, 11 * time.Minute, 0, "host-2"},
		"takes it of a task":       {notice, 2, false, 90 * time.Second, 1, "host-2"},
		"once":                     {notice, 1, false, 11 * time.Minute, 0, "host-1"},
		"charges in time":          {notice, 2, true, 11 * time.Minute, 0, "host-1"},
		"still has time":           {notice, 2, false, 9 * time.Minute, 0, "host-1"},
		"a task's still has time":  {notice, 2, false, 50 * time.Second, 1, "host-1"},
		"wants none":               {0, 2, false, 11 * time.Minute, 0, "host-1"},
		"a day later, once more":   {notice, 2, false, 25 * time.Hour, 0, "host-1"},
		"nobody else is there yet": {notice, 2, false, 11 * time.Minute, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.wantNotices()
				pays := func(s *scheduler.Spec) { s.Notice, s.Tasks = time.Minute, tt.tasks }
				for i := range tt.times {
					if i > 0 {
						time.Sleep(2 * time.Minute)
					}
					m.offerOf(1, 1, 0, tt.notice)
					j := m.submitSpecOf(byte(1+i), pays)
					m.tell(j.ID, 0, scheduler.Running, 0)
					a := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
					m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
					if tt.charges {
						m.ledger.Final(a.Lease.ID)
					}
				}
				time.Sleep(tt.after)
				m.offerOf(1, 1, 0, tt.notice)
				want := tt.want
				if want == "" {
					want = "host-1"
				} else {
					m.offer(2, 2000)
				}
				last := m.submitSpecOf(9, pays)
				m.wantLane(last.ID, 0, scheduler.Leased, want)
			})
		})
	}
}

// TestNoticesOfOthers: a host is passed over for what it did itself, or two of its operator's, not
// for what one does that names its account as payee, nor for what lost it its ledger for a while.
func TestNoticesOfOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		hosts    []byte // that take a notice; of the operator 77
		operator byte   // of host 1
		gap      time.Duration
		told     bool
		want     string
	}{
		"another with its payee":   {[]byte{7, 7, 7}, 1, 2 * time.Minute, true, "host-1"},
		"another of its operator":  {[]byte{7, 7, 7}, 77, 2 * time.Minute, true, "host-1"},
		"two of its operator":      {[]byte{7, 8, 7, 8}, 77, 2 * time.Minute, true, "host-2"},
		"itself, cut off once":     {[]byte{1, 1, 1}, 77, 0, true, "host-1"},
		"itself, time after time":  {[]byte{1, 1, 1}, 77, 2 * time.Minute, true, "host-2"},
		"itself, lost, not a word": {[]byte{1, 1, 1}, 77, 2 * time.Minute, false, "host-1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				defer m.stop()
				m.wantNotices()
				pays := func(s *scheduler.Spec) { s.Notice, s.Tasks = time.Minute, 1 }
				for i, n := range tt.hosts {
					o := m.offerOf(n, 1, 77, 30*time.Second)
					j := m.submitSpecOf(byte(10+i), pays)
					m.tell(j.ID, 0, scheduler.Running, 0)
					m.wantLane(j.ID, 0, scheduler.Running, o.Host.Name)
					if tt.told {
						m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
					} else if _, err := m.engine.Cancel(t.Context(), j, "enough"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(tt.gap)
					m.offerFull(n)
				}
				time.Sleep(11 * time.Minute)
				m.offerOf(1, 1000, tt.operator, 30*time.Second)
				m.offer(2, 2000)
				last := m.submitSpecOf(9, func(s *scheduler.Spec) { s.Notice = time.Minute })
				m.wantLane(last.ID, 0, scheduler.Leased, tt.want)
			})
		})
	}
}

// wantNotices has all hosts but host 2 sign for the notice of their offers.
func (m *market) wantNotices() {
	m.hosts.Hook(func() {
		m.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
			if o, ok := m.engine.Book().Get(h.Executor); ok {
				l.Notice = tx.Millis(o.Notice.Milliseconds())
			}
			return nil
		}
	})
}

// offerOf posts an offer whose payee is that of host 1; operator 0 is the host's own.
func (m *market) offerOf(
	n byte, price uint64, operator byte, notice time.Duration,
) *scheduler.Offer {
	o := schedulertest.NewOffer(n, price, time.Now())
	o.Notice, o.Payee = notice, schedulertest.NewOffer(1, 1, time.Now()).Payee
	if operator != 0 {
		o.Host.Operator = sig.AccountID{operator}
	}
	m.hosts.Know(o)
	m.engine.Offer(o)
	return o
}
