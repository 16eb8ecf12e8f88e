package scheduler_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// hold is how long hosts keep programs in these tests, lostAfter how long they may be silent.
const (
	hold      = 5 * time.Minute
	lostAfter = time.Minute
)

// original is a market in which the host of a program that is to be kept falls silent.
type original struct {
	*market
	id    job.ID
	first scheduler.Attempt

	mu      sync.Mutex
	silent  map[string]bool
	stopped map[scheduler.AttemptID]int
	asked   []scheduler.Ask
}

// newOriginal runs a job with one lane on host 1.
func newOriginal(t *testing.T, change func(*scheduler.Spec)) *original {
	o := &original{
		market: newMarket(t), silent: map[string]bool{}, stopped: map[scheduler.AttemptID]int{},
	}
	o.ledger.MaxTotal = 1_000_000
	o.hosts.Hook(func() {
		o.hosts.OnDeliver = func(h scheduler.Host, _ scheduler.Task) error { return o.reach(h) }
	})
	o.hosts.Hook(func() {
		o.hosts.OnStop = func(h scheduler.Host, s scheduler.Stop) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.silent[h.Name] {
				return absent(h)
			}
			o.stopped[s.Attempt]++
			return nil
		}
	})
	o.hosts.Hook(func() {
		o.hosts.OnAsk = func(h scheduler.Host, a scheduler.Ask, _ *tx.Lease) error {
			o.mu.Lock()
			o.asked = append(o.asked, a)
			o.mu.Unlock()
			return o.reach(h)
		}
	})
	o.offer(1, 1000)
	o.id = o.submitSpec(func(s *scheduler.Spec) {
		s.Keep, s.LostAfter = scheduler.KeepOriginal, lostAfter
		change(s)
	}).ID
	o.tell(o.id, 0, scheduler.Running, 0)
	o.first = o.wantLane(o.id, 0, scheduler.Running, "host-1")
	return o
}

func absent(h scheduler.Host) error {
	return fmt.Errorf("%w: %w: %s", scheduler.ErrUnreachable, scheduler.ErrAbsent, h.Name)
}

func (o *original) reach(h scheduler.Host) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.silent[h.Name] {
		return absent(h)
	}
	return nil
}

func (o *original) silence(host string, silent bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.silent[host] = silent
}

// stops tells how often the host of an attempt was told to stop it.
func (o *original) stops(id scheduler.AttemptID) int {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stopped[id]
}

// continued returns how often a host was asked to go on with an attempt.
func (o *original) continued(id scheduler.AttemptID) (n int) {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.asked {
		if a.Continues == id {
			n++
		}
	}
	return n
}

func (o *original) run() scheduler.Run { return o.read(o.id).Runs[0] }

func (o *original) attempt(id scheduler.AttemptID) scheduler.Attempt {
	o.t.Helper()
	_, a := o.read(o.id).Attempt(id)
	if a == nil {
		o.t.Fatal("the attempt is forgotten")
	}
	return *a
}

// replaced lets host 1 fall silent until host 2 runs what it ran.
func (o *original) replaced() (second scheduler.Attempt) {
	o.t.Helper()
	o.silence("host-1", true)
	o.offers(2*time.Minute, 2)
	second = o.wantLane(o.id, 0, scheduler.Leased, "host-2")
	o.tell(o.id, 0, scheduler.Running, 0)
	first := o.attempt(o.first.ID)
	if !first.Kept || first.State != scheduler.Ended || first.End != scheduler.HostLost ||
		first.Reason != "host-1 has been silent for 1m0s, kept; its replacement is on host-2" {
		o.t.Fatalf("the first is %s, %s, kept %v: %s", first.State, first.End, first.Kept, first.Reason)
	}
	if o.ledger.Open() != 1 || o.stops(first.ID) != 0 {
		o.t.Fatalf("%d leases are open, the first was stopped %d times", o.ledger.Open(),
			o.stops(first.ID))
	}
	return second
}

// holds has the host of an attempt say that it keeps its program.
func (o *original) holds(a scheduler.Attempt, until time.Time) {
	o.t.Helper()
	err := o.engine.Report(o.t.Context(), scheduler.Report{
		Job: o.id, Run: o.run().ID, Attempt: a.ID, Executor: a.Host.Executor,
		State: scheduler.Running, Reason: "superseded: kept", Time: time.Now(), HeldUntil: until,
		Ran: true, Raw: []byte("held " + until.String()),
	})
	if err != nil {
		o.t.Fatal(err)
	}
	synctest.Wait()
}

// returns brings host 1 back with the program it kept.
func (o *original) returns() {
	o.t.Helper()
	o.silence("host-1", false)
	o.offer(1, 1000)
	o.holds(o.first, time.Now().Add(hold))
}

func always(s *scheduler.Spec) { s.Always = true }

// TestOriginalGoesOn: the original's host returns and goes on with the program under a new lease,
// which ends the replacement's; that is stopped once the original is seen to run.
func TestOriginalGoesOn(t *testing.T) {
	for name, change := range map[string]func(*scheduler.Spec){
		"always": always, "once": func(*scheduler.Spec) {}, "array": array(2, 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOriginal(t, change)
				defer o.stop()
				second := o.replaced()
				o.returns()
				third := o.wantLane(o.id, 0, scheduler.Leased, "host-1")
				if third.Continues != o.first.ID || third.Lease.Lease.Epoch != 3 ||
					third.Lease.Lease.Budget < 990_000 || !third.Delivered {
					t.Errorf("the original's lease is %+v of %+v", third.Lease.Lease, third)
				}
				if o.asked[len(o.asked)-1].Terms.Supersedes != second.Lease.ID {
					t.Error("its host was not told what the lease takes the place of")
				}
				if o.stops(second.ID) != 0 {
					t.Error("the replacement is stopped before the original runs")
				}
				o.tell(o.id, 0, scheduler.Running, 0)
				o.tellOf(o.id, o.run().ID, o.first, scheduler.Ended, scheduler.Cancelled)
				o.wantLane(o.id, 0, scheduler.Running, "host-1")
				two := o.attempt(second.ID)
				if o.stops(second.ID) != 1 || two.End != scheduler.Cancelled || two.Kept ||
					two.Reason != "host-1 is back and goes on with its program" {
					t.Errorf("the replacement was stopped %d times, %s: %s", o.stops(second.ID), two.End,
						two.Reason)
				}
				if one := o.attempt(o.first.ID); one.Kept || o.stops(one.ID) != 0 || !one.Told {
					t.Errorf("the first attempt is %+v, stopped %d times", one, o.stops(one.ID))
				}
				checkPaid(t, o.ledger)
				if open := o.ledger.Open(); open != 1 {
					t.Errorf("%d leases are open", open)
				}
			})
		})
	}
}

// TestOriginalOtherwise are the ways in which the original is not gone on with, or not at once.
func TestOriginalOtherwise(t *testing.T) {
	once := func(*scheduler.Spec) {}
	type market = original
	for name, tt := range map[string]struct {
		change func(*scheduler.Spec)
		then   func(o *market, second scheduler.Attempt)
		state  scheduler.State
		end    scheduler.EndReason // of the run
		host   string
		// stopped tells which attempts were told to stop: the first, the second.
		stopped [2]bool
	}{
		"it completes": {once, func(o *market, second scheduler.Attempt) {
			o.silence("host-1", false)
			o.tellOf(o.id, o.run().ID, o.first, scheduler.Ended, scheduler.Completed)
			o.tellOf(o.id, o.run().ID, second, scheduler.Ended, scheduler.Cancelled)
			if _, end, _ := o.read(o.id).State(); end != scheduler.Completed {
				o.t.Errorf("the job ended %s", end)
			}
		}, scheduler.Ended, scheduler.Completed, "host-2", [2]bool{false, true}},
		"it fails": {once, func(o *market, _ scheduler.Attempt) {
			o.tellOf(o.id, o.run().ID, o.first, scheduler.Ended, scheduler.Failed)
			o.offers(time.Minute, 1, 2)
		}, scheduler.Running, 0, "host-2", [2]bool{}},
		"it completes, always": {always, func(o *market, _ scheduler.Attempt) {
			o.tellOf(o.id, o.run().ID, o.first, scheduler.Ended, scheduler.Completed)
			o.offers(time.Minute, 1, 2)
		}, scheduler.Running, 0, "host-2", [2]bool{}},
		"the replacement completes": {once, func(o *market, second scheduler.Attempt) {
			o.tellOf(o.id, o.run().ID, second, scheduler.Ended, scheduler.Completed)
			if o.stops(o.first.ID) != 0 {
				o.t.Error("a host that is silent was told to stop")
			}
			o.returns() // only now it can be told
		}, scheduler.Ended, scheduler.Completed, "host-2", [2]bool{true, false}},
		"there is nothing to go on with": {always, func(o *market, _ scheduler.Attempt) {
			o.hosts.End(o.first.ID)
			o.returns()
			o.offers(10*time.Minute, 1, 2)
			if n := o.continued(o.first.ID); n != 1 {
				o.t.Errorf("its host was asked %d times", n)
			}
		}, scheduler.Running, 0, "host-2", [2]bool{}},
		"it never returns": {func(s *scheduler.Spec) {
			s.RunTime = time.Hour // and a quarter of one
		}, func(o *market, _ scheduler.Attempt) {
			o.offers(70*time.Minute, 2)
			if !o.attempt(o.first.ID).Kept {
				o.t.Error("it is given up before its time")
			}
			o.offers(8*time.Minute, 2)
			if o.attempt(o.first.ID).Kept {
				o.t.Error("it is kept for ever")
			}
		}, scheduler.Running, 0, "host-2", [2]bool{}},
		"its host is to evict it": {always, func(o *market, _ scheduler.Attempt) {
			o.silence("host-1", false)
			o.offer(1, 1000)
			o.evict(o.id, o.first, time.Now().Add(time.Minute))
			o.offers(time.Minute, 1, 2)
		}, scheduler.Running, 0, "host-2", [2]bool{true, false}},
		"it is evicted": {always, func(o *market, _ scheduler.Attempt) {
			o.tellOf(o.id, o.run().ID, o.first, scheduler.Ended, scheduler.Evicted)
			o.offers(time.Minute, 1, 2)
		}, scheduler.Running, 0, "host-2", [2]bool{}},
		"cancelled while both are there": {always, func(o *market, second scheduler.Attempt) {
			o.silence("host-1", false)
			if _, err := o.engine.Cancel(o.t.Context(), o.read(o.id), "enough"); err != nil {
				o.t.Fatal(err)
			}
			synctest.Wait()
			o.tellOf(o.id, o.run().ID, second, scheduler.Ended, scheduler.Cancelled)
			o.returns()
		}, scheduler.Ended, scheduler.Cancelled, "host-2", [2]bool{true, true}},
		"its host declines until its time is over": {always, func(o *market, _ scheduler.Attempt) {
			o.hosts.Hook(func() {
				o.hosts.OnAsk = func(h scheduler.Host, a scheduler.Ask, _ *tx.Lease) error {
					o.asked = append(o.asked, a)
					return fmt.Errorf("%w: CAPACITY: full", scheduler.ErrDeclined)
				}
			})
			o.returns()
			if why := o.attempt(o.first.ID).Reason; why != "host-1 is back, kept: declined: CAPACITY: full" {
				o.t.Errorf("it says %q", why)
			}
			o.offers(10*time.Minute, 1, 2)
			if n := o.continued(o.first.ID); n < 5 || n > 12 {
				o.t.Errorf("its host was asked %d times", n)
			}
		}, scheduler.Running, 0, "host-2", [2]bool{true, false}},
		"the replacement ends first, always": {always, func(o *market, second scheduler.Attempt) {
			o.tellOf(o.id, o.run().ID, second, scheduler.Ended, scheduler.Failed)
			o.returns()
		}, scheduler.Leased, 0, "host-1", [2]bool{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOriginal(t, tt.change)
				defer o.stop()
				second := o.replaced()
				tt.then(o, second)
				r := o.run()
				if r.State != tt.state || r.End != tt.end || r.Current().Host.Name != tt.host {
					t.Errorf("it is %s, %s (%s) on %s; want %s, %s on %s", r.State, r.End, r.Reason,
						r.Current().Host.Name, tt.state, tt.end, tt.host)
				}
				stopped := [2]bool{o.stops(o.first.ID) > 0, o.stops(second.ID) > 0}
				if stopped != tt.stopped {
					t.Errorf("told to stop: %v, want %v", stopped, tt.stopped)
				}
				checkPaid(t, o.ledger)
				if open := o.ledger.Open(); open > 1 {
					t.Errorf("%d leases are open", open)
				}
			})
		})
	}
}

// TestOriginalReturnsInTime: with its replacement not on the chain it goes on as it is.
func TestOriginalReturnsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		o.silence("host-1", true)
		o.hosts.Hook(func() {
			o.hosts.OnAsk = func(h scheduler.Host, _ scheduler.Ask, _ *tx.Lease) error {
				return scheduler.ErrDeclined
			}
		})
		o.offers(2*time.Minute, 2)
		if r := o.run(); r.State != scheduler.Pending || o.ledger.Placed() != 1 {
			t.Fatalf("it is %s: %s", r.State, r.Reason)
		}
		o.silence("host-1", false)
		o.tellOf(o.id, o.run().ID, o.first, scheduler.Running, 0)
		o.hosts.Hook(func() { o.hosts.OnAsk = nil })
		o.offers(time.Minute, 1, 2)
		if a := o.wantLane(o.id, 0, scheduler.Running, "host-1"); a.ID != o.first.ID {
			t.Errorf("it runs as another attempt: %+v", a)
		}
		if n := o.ledger.Placed(); n != 1 {
			t.Errorf("%d leases were placed", n)
		}
	})
}

// TestOriginalIsAskedAfter: the host's word that it keeps the program is lost; its offers tell that
// it is back, and it is asked.
func TestOriginalIsAskedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		o.replaced()
		until := time.Time{}
		o.hosts.Hook(func() {
			o.hosts.OnTell = func(_ scheduler.Host, task scheduler.Task) *scheduler.Report {
				if task.Attempt != o.first.ID {
					return nil
				}
				return &scheduler.Report{
					Job: o.id, Run: task.Run, Attempt: task.Attempt, Executor: o.first.Host.Executor,
					State: scheduler.Running, Time: time.Now(), HeldUntil: until, Ran: true,
				}
			}
		})
		o.silence("host-1", false)
		o.offers(20*time.Second, 1, 2)
		o.wantLane(o.id, 0, scheduler.Running, "host-2") // its host does not know of the other lease
		if n := o.continued(o.first.ID); n != 0 {
			t.Errorf("it was asked %d times before it said that it keeps the program", n)
		}
		until = time.Now().Add(hold)
		o.offers(time.Minute, 1, 2)
		o.wantLane(o.id, 0, scheduler.Leased, "host-1")
		checkPaid(t, o.ledger)
	})
}

// TestMoneyForTheOriginal: what the escrow pays for decides, and the replacement runs on meanwhile.
func TestMoneyForTheOriginal(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil, mend func(*scheduler.Escrow)
		want        string
	}{
		"no room for its trust": {
			func(s *scheduler.Escrow) { s.Trust = 0 }, func(s *scheduler.Escrow) { s.Trust = 1 << 60 },
			"its trust leaves no room",
		},
		"no rate": {
			func(s *scheduler.Escrow) { s.MaxRate = 1 }, func(s *scheduler.Escrow) { s.MaxRate = 1 << 60 },
			"its max_rate leaves no room",
		},
		"expired": {
			func(s *scheduler.Escrow) { s.Expires = s.Expires.Add(-60 * time.Hour) },
			func(s *scheduler.Escrow) { s.Expires = s.Expires.Add(60 * time.Hour) },
			"too soon for a lease",
		},
		"another assigner": {
			func(s *scheduler.Escrow) { s.Assigner[0] ^= 1 },
			func(s *scheduler.Escrow) { s.Assigner[0] ^= 1 }, "its assigner is not this scheduler",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOriginal(t, func(s *scheduler.Spec) { s.Always, s.Trust = true, 1 })
				defer o.stop()
				o.replaced()
				o.ledger.Change(tx.EscrowID(o.id), tt.spoil)
				o.returns()
				o.wantLane(o.id, 0, scheduler.Running, "host-2")
				if why := o.attempt(o.first.ID).Reason; !strings.Contains(why, tt.want) {
					t.Errorf("it says %q", why)
				}
				o.ledger.Change(tx.EscrowID(o.id), tt.mend)
				o.offers(time.Minute, 1, 2)
				o.wantLane(o.id, 0, scheduler.Leased, "host-1")
				checkPaid(t, o.ledger)
			})
		})
	}
}

// TestOriginalIsNotDearer: a host that returns may ask for no more than before, or than the owner's
// cap.
func TestOriginalIsNotDearer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOriginal(t, always)
		defer o.stop()
		o.replaced()
		o.silence("host-1", false)
		o.offer(1, 1001)
		o.holds(o.first, time.Now().Add(hold))
		o.offers(time.Minute, 2)
		o.wantLane(o.id, 0, scheduler.Running, "host-2")
		why := o.attempt(o.first.ID).Reason
		if !strings.Contains(why, "its offer is dearer than before") {
			t.Errorf("it says %q", why)
		}
		o.offers(time.Minute, 1)
		o.wantLane(o.id, 0, scheduler.Leased, "host-1")
	})
}
