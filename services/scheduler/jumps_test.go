package scheduler_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// jumps is a market whose scheduler begins lives while its clock is wrong; chain and hosts go by
// the right one.
type jumps struct {
	*market
	off   atomic.Int64
	blind atomic.Bool // the chain does not tell the time
}

func newJumps(t *testing.T) *jumps {
	m := &jumps{market: newMarket(t)}
	m.stop()
	m.now = func() time.Time { return time.Now().Add(time.Duration(m.off.Load())) }
	m.ledger.FailNow = func() error {
		if m.blind.Load() {
			return errors.New("away")
		}
		return nil
	}
	m.ledger.MaxTotal = 1_000_000
	defer m.start()
	m.hosts.Hook(func() {
		m.hosts.OnTell = func(h scheduler.Host, t scheduler.Task) *scheduler.Report {
			return &scheduler.Report{ // programs begin with their delivery
				Job: m.jobOf(t.Attempt), Run: t.Run, Attempt: t.Attempt, Executor: h.Executor,
				State: scheduler.Running, Reason: "running on " + h.Name, Time: time.Now(), Ran: true,
			}
		}
	})
	return m
}

// jobOf finds an attempt's job.
func (m *jumps) jobOf(id scheduler.AttemptID) job.ID {
	for n := range byte(4) {
		j, err := m.store.Job(m.t.Context(), schedulertest.NewJob(n, int(max(n, 1))).ID)
		if err != nil {
			continue
		}
		if _, a := j.Attempt(id); a != nil {
			return j.ID
		}
	}
	return job.ID{}
}

// life begins another life by a clock that is off.
func (m *jumps) life(off time.Duration, blind bool) {
	m.stop()
	m.off.Store(int64(off))
	m.blind.Store(blind)
	m.start()
}

// soon is within what every wait is over whose time has come: the longest backoff and a sweep.
const soon = 5*time.Minute + 10*time.Second

// TestJumpsWhileRunsWait: the scheduler begins a life while its clock is wrong by hours, and
// another once it is right again; in the wrong one the chain tells it the time, or is away.
// Whatever runs wait for, none is lost, doubled, ended early, or waits for hours after that.
func TestJumpsWhileRunsWait(t *testing.T) {
	for name, story := range map[string]func(m *jumps, wrong func()){
		"in the queue": inQueue, "backing off": backingOff, "for money": forMoney,
		"a new host for always": restarting, "the next task of an array": nextTask,
		"before an eviction": beforeEviction, "for a kept host": forKeptHost,
		"for the best of two": forBest, "a claim's window": claimWindow, "within a lease": withinLease,
		"an escrow's end": escrowsEnd, "for the end that was asked for": cancelling,
		"for a lease in doubt": inDoubt,
	} {
		for _, off := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
			for _, blind := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %v, chain away %v", name, off, blind), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := newJumps(t)
						defer func() { m.stop() }()
						story(m, func() { m.life(off, blind) })
						checkPaid(t, m.ledger)
					})
				})
			}
		}
	}
}

// right begins a life by the right clock, and shows it offers for a while.
func (m *jumps) right(d time.Duration, hosts ...byte) {
	m.life(0, false)
	m.offers(d, hosts...)
}

func inQueue(m *jumps, wrong func()) {
	before := m.submit(1, 1)
	wrong()
	later := m.submit(2, 2)
	m.offers(time.Minute, 1)
	if m.blind.Load() {
		m.right(20*time.Second, 1)
	}
	m.want(before.ID, scheduler.Running, 0, "host-1")
	m.want(later.ID, scheduler.Running, 0, "host-1")
	m.places(2)
}

func (m *jumps) places(n int) {
	m.t.Helper()
	if got := m.ledger.Placed(); got != n {
		m.t.Errorf("%d leases were placed, want %d", got, n)
	}
}

func backingOff(m *jumps, wrong func()) {
	m.offer(1, 1000)
	j := m.submitSpec(func(s *scheduler.Spec) { s.Retries, s.Backoff = 3, time.Minute })
	wrong()
	m.tell(j.ID, 0, scheduler.Ended, scheduler.Failed)
	m.right(20*time.Second, 1)
	m.right(soon, 1)
	m.want(j.ID, scheduler.Running, 0, "host-1")
	m.places(2)
}

func forMoney(m *jumps, wrong func()) {
	m.offer(1, 1000)
	j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
	wrong()
	m.spend(j, 0, 0)
	m.right(soon, 1)
	m.want(j.ID, scheduler.Pending, 0, "exhausted")
	m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) {
		s.Unreserved, s.MaxTotal = s.Unreserved+500_000, s.MaxTotal+500_000
	})
	m.offers(80*time.Second, 1)
	m.want(j.ID, scheduler.Running, 0, "host-1")
	m.places(2)
}

func restarting(m *jumps, wrong func()) {
	m.offer(1, 1000)
	j := m.submitSpec(replicas(2))
	wrong()
	m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
	m.tell(j.ID, 1, scheduler.Ended, scheduler.Evicted)
	m.right(soon, 1, 2)
	for slot, r := range m.read(j.ID).Runs {
		if r.State != scheduler.Running || r.Tries != 2 {
			m.t.Errorf("lane %d is %s after %d tries: %s", slot, r.State, r.Tries, r.Reason)
		}
	}
	m.places(4)
}

func nextTask(m *jumps, wrong func()) {
	m.offer(1, 1000)
	j := m.submitSpec(array(4, 2))
	wrong()
	m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
	m.tell(j.ID, 1, scheduler.Ended, scheduler.Completed)
	m.right(20*time.Second, 1)
	m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
	m.tell(j.ID, 1, scheduler.Ended, scheduler.Completed)
	m.want(j.ID, scheduler.Ended, scheduler.Completed, "4 tasks completed")
	m.places(4)
}

func beforeEviction(m *jumps, wrong func()) {
	m.offer(1, 1000)
	j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
	first := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
	m.offers(20*time.Minute, 1)
	wrong()
	const notice = 10 * time.Minute
	m.evict(j.ID, first, time.Now().Add(notice))
	m.right(20*time.Second, 1)
	m.wantLane(j.ID, 0, scheduler.Running, "host-1") // with nobody else there
	m.offers(soon, 1, 2)
	m.wantLane(j.ID, 0, scheduler.Running, "host-2")
	m.places(2)
}

// keeping is a job whose host fell silent, and whether it answers.
func (m *jumps) keeping(keep scheduler.Keep) (j *scheduler.Job, silent *atomic.Bool) {
	silent = new(atomic.Bool)
	m.hosts.Hook(func() {
		m.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error {
			if silent.Load() && h.Name == "host-1" {
				return fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
			}
			return nil
		}
	})
	m.offer(1, 1000)
	j = m.submitSpec(func(s *scheduler.Spec) {
		s.Always, s.Keep, s.LostAfter = true, keep, 3*time.Minute
	})
	m.wantLane(j.ID, 0, scheduler.Running, "host-1")
	silent.Store(true)
	return j, silent
}

// forKeptHost: the original's host says that it keeps the program, and offers while the clock is
// wrong.
func forKeptHost(m *jumps, wrong func()) {
	j, silent := m.keeping(scheduler.KeepOriginal)
	first := m.wantLane(j.ID, 0, scheduler.Running, "host-1")
	m.offers(soon, 2)
	m.wantLane(j.ID, 0, scheduler.Running, "host-2")
	silent.Store(false)
	err := m.engine.Report(m.t.Context(), scheduler.Report{
		Job: j.ID, Run: m.read(j.ID).Runs[0].ID, Attempt: first.ID, Executor: first.Host.Executor,
		State: scheduler.Running, Time: time.Now(), HeldUntil: time.Now().Add(30 * time.Minute),
		Raw: []byte("held"),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	wrong()
	m.offers(10*time.Minute, 1, 2)
	m.right(2*time.Minute, 1, 2)
	if a := m.wantLane(j.ID, 0, scheduler.Running, "host-1"); a.Continues != first.ID {
		m.t.Errorf("it runs anew: %+v", a)
	}
	m.places(3)
}

func forBest(m *jumps, wrong func()) {
	j, _ := m.keeping(scheduler.KeepBest)
	wrong()
	m.offers(10 * time.Minute)
	m.right(soon, 2)
	m.wantLane(j.ID, 0, scheduler.Running, "host-2")
	m.places(2)
}

// claimWindow: nobody settles before its end; after it all that the jump costs is a few hours.
func claimWindow(m *jumps, wrong func()) {
	m.offer(1, 1000)
	j := m.submitSpec(func(s *scheduler.Spec) { s.RunTime = time.Hour })
	m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
	time.Sleep(22 * time.Hour)
	wrong()
	time.Sleep(time.Hour)
	if n := m.ledger.Unsettled(); n != 1 {
		m.t.Errorf("%d leases are unsettled within their window, want 1", n)
	}
	m.life(0, false)
	time.Sleep(8 * time.Hour)
	if n := m.ledger.Unsettled(); n != 0 {
		m.t.Errorf("%d leases are left unsettled", n)
	}
}

// withinLease: a lease that is over by the wrong clock only is not ended, nor by silence in it.
func withinLease(m *jumps, wrong func()) {
	m.offer(1, 1000)
	j := m.submitSpec(func(s *scheduler.Spec) { s.RunTime = time.Hour })
	wrong()
	m.offers(20*time.Minute, 1)
	m.life(0, false)
	m.offers(20*time.Minute, 1)
	m.want(j.ID, scheduler.Running, 0, "")
	if m.ledger.Open() != 1 {
		m.t.Error("its lease was ended early")
	}
	m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
	m.want(j.ID, scheduler.Ended, scheduler.Completed, "")
	m.places(1)
}

// escrowsEnd: what waits does so until its escrow pays for no lease, by the chain's time.
func escrowsEnd(m *jumps, wrong func()) {
	var ids []job.ID
	for owner := range byte(2) {
		j := schedulertest.NewJob(owner+1, 1)
		j.Runs = nil
		if owner == 1 {
			array(2, 1)(&j.Spec)
		}
		m.ledger.Fund(j)
		m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) {
			s.Expires = time.Now().Add(26 * time.Hour)
		})
		if _, err := m.engine.Submit(m.t.Context(), j); err != nil {
			m.t.Fatal(err)
		}
		ids = append(ids, j.ID)
	}
	wait := func(d time.Duration) {
		for ; d > 0; d -= 4 * time.Minute {
			m.offerFull(1)
			time.Sleep(4 * time.Minute)
		}
	}
	wrong()
	wait(32 * time.Minute)
	m.life(0, false)
	wait(80 * time.Minute)
	for _, id := range ids {
		m.want(id, scheduler.Pending, 0, "")
	}
	wait(12 * time.Minute)
	for _, id := range ids {
		m.want(id, scheduler.Ended, scheduler.Expired, "escrow expires")
	}
	m.places(0)
}

// cancelling: a host that does not answer has its time to end what was cancelled, and no more.
func cancelling(m *jumps, wrong func()) {
	m.offer(1, 1000)
	j := m.submit(1, 1)
	wrong()
	if _, err := m.engine.Cancel(m.t.Context(), m.read(j.ID), "enough"); err != nil {
		m.t.Fatal(err)
	}
	m.right(2*time.Minute, 1)
	m.want(j.ID, scheduler.Ended, scheduler.Cancelled, "enough")
	if n := m.ledger.Open(); n != 0 {
		m.t.Errorf("%d leases are open", n)
	}
	m.places(1)
}

// inDoubt: it is not known whether a lease came on the chain; it did.
func inDoubt(m *jumps, wrong func()) {
	var lost atomic.Bool
	lost.Store(true)
	m.ledger.Hook(func() {
		m.ledger.FailAfter = func(method string) error {
			if method == "PlaceLease" && lost.Load() {
				return errors.New("the answer is lost")
			}
			return nil
		}
	})
	m.offer(1, 1000)
	j := m.submit(1, 1)
	m.want(j.ID, scheduler.Pending, 0, "")
	wrong()
	m.offers(20*time.Second, 1)
	m.right(soon, 1)
	m.want(j.ID, scheduler.Running, 0, "host-1")
	m.places(1)
}

// TestTheChainIsBackInAWrongLife: by a wrong clock nothing can be placed; once the chain tells the
// time everything goes on, in the same life.
func TestTheChainIsBackInAWrongLife(t *testing.T) {
	for _, off := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newJumps(t)
				defer func() { m.stop() }()
				m.offer(1, 1000)
				runs := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
				waits := m.submit(2, 2)
				m.life(off, true)
				m.tell(runs.ID, 0, scheduler.Ended, scheduler.Failed)
				m.offers(time.Minute, 1)
				m.places(2)
				m.blind.Store(false)
				m.offers(soon, 1)
				m.want(runs.ID, scheduler.Running, 0, "host-1")
				m.want(waits.ID, scheduler.Running, 0, "host-1")
				m.off.Store(0) // and by the right clock it goes on
				m.tell(waits.ID, 0, scheduler.Ended, scheduler.Completed)
				third := m.submit(3, 3)
				m.offers(time.Minute, 1)
				m.want(third.ID, scheduler.Running, 0, "host-1")
				checkPaid(t, m.ledger)
			})
		})
	}
}

// TestAHostsClockIsAhead: what it says by a clock that is three hours ahead counts from when it
// says it, so that its right clock, after a restart, is not taken for an old word.
func TestAHostsClockIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newJumps(t)
		defer func() { m.stop() }()
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Always = true })
		r := m.read(j.ID).Runs[0]
		a := *r.Current()
		ahead := time.Now().Add(3 * time.Hour)
		for i := range 2 { // it is told again with the next change
			if err := m.engine.Report(t.Context(), scheduler.Report{
				Job: j.ID, Run: r.ID, Attempt: a.ID, Executor: a.Host.Executor,
				State: scheduler.Running, Reason: "new disks", Ran: true,
				Time: ahead.Add(time.Duration(i) * time.Second), Raw: []byte{byte(i)},
				EvictAt: ahead.Add(10 * time.Minute),
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if at := m.read(j.ID).Runs[0].Current().EvictAt; at.After(time.Now().Add(10 * time.Minute)) {
			t.Errorf("it goes at %v, want ten minutes after it said so", at)
		}
		m.offers(time.Minute, 1, 2)
		m.wantLane(j.ID, 0, scheduler.Running, "host-2")
		m.tellOf(j.ID, r.ID, a, scheduler.Ended, scheduler.Evicted) // by its right clock
		if old := m.read(j.ID).Runs[0].Attempt(a.ID); !old.Told {
			t.Error("its right clock is not believed")
		}
		m.wantLane(j.ID, 0, scheduler.Running, "host-2")
		if !strings.Contains(strings.Join(m.store.Events(), " "), "attempt.told") {
			t.Error("its account of the end is not told")
		}
		checkPaid(t, m.ledger)
	})
}

// TestSilenceIsNotCountedAcrossAJump: when the time moves by hours, as the chain is heard again or
// the machine wakes up, a host has been silent only since; and silence after that counts as ever.
func TestSilenceIsNotCountedAcrossAJump(t *testing.T) {
	for name, tt := range map[string]struct {
		off  time.Duration
		jump func(*jumps)
	}{
		"ahead, the chain is back":  {3 * time.Hour, func(m *jumps) { m.blind.Store(false) }},
		"behind, the chain is back": {-3 * time.Hour, func(m *jumps) { m.blind.Store(false) }},
		"the machine slept":         {0, func(m *jumps) { m.off.Store(int64(3 * time.Hour)) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newJumps(t)
				defer func() { m.stop() }()
				j, silent := m.keeping(scheduler.KeepReplacement)
				silent.Store(false)
				m.life(tt.off, true)
				time.Sleep(time.Minute)
				m.tell(j.ID, 0, scheduler.Asleep, 0)
				silent.Store(true)
				tt.jump(m)
				m.silence(2 * time.Minute)
				m.wantLane(j.ID, 0, scheduler.Asleep, "host-1")
				m.blind.Store(false)
				m.silence(5 * time.Minute)
				m.wantLane(j.ID, 0, scheduler.Running, "host-2")
				checkPaid(t, m.ledger)
			})
		})
	}
}
