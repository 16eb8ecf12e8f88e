package wire_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// owner of all jobs of the stories.
var owner = sig.AccountID{1}

// stories are what a scheduler lives through, each to the end of its jobs.
func stories() map[string]func(w *world) {
	return map[string]func(w *world){
		"once": func(w *world) {
			id := w.submit(1, func(*scheduler.Spec) {})
			w.ends(id, scheduler.Completed)
		},
		"cancelled": func(w *world) {
			w.hosts.runsFor = time.Hour
			id := w.submit(1, func(*scheduler.Spec) {})
			w.run(id, 1)
			w.cancel(id)
			w.ends(id, scheduler.Cancelled)
		},
		"array": array,
		"quick": func(w *world) {
			w.hosts.quick = true
			id := w.submit(1, func(s *scheduler.Spec) {
				s.Tasks, s.Lanes, s.RunTime = 3, 1, time.Minute
			})
			w.ends(id, scheduler.Completed)
			w.away(time.Hour) // leases end by their time
		},
		"replicas": replicas,
		"the original, always": func(w *world) {
			id := original(w, time.Hour, func(s *scheduler.Spec) { s.Always = true })
			w.cancel(id)
			w.ends(id, scheduler.Cancelled)
		},
	}
}

// quickly are stories whose programs end by themselves within the ten minutes of a full disk.
func quickly() map[string]func(w *world) {
	return map[string]func(w *world){
		"the original, once": func(w *world) {
			w.ends(original(w, 5*time.Minute, func(*scheduler.Spec) {}), scheduler.Completed)
			if w.hosts.ended[0] != 1 {
				w.t.Errorf("%d programs came to their end, want the original alone", w.hosts.ended[0])
			}
		},
		"the original, done while it is kept": func(w *world) {
			const runsFor = 3 * time.Minute
			id := kept(w, runsFor, func(s *scheduler.Spec) { s.Tasks, s.Lanes = 2, 1 })
			w.until("the first program is done", func(*life) bool { return w.hosts.done(runsFor) })
			w.hosts.silence("host-1", false)
			w.ends(id, scheduler.Completed)
			if w.hosts.ended[0] != 1 {
				w.t.Errorf("%d programs came to their end, want the original alone", w.hosts.ended[0])
			}
		},
	}
}

// array is four tasks in two lanes; a program of the third fails and is tried again.
func array(w *world) {
	w.hosts.end = func(task uint32, nth int) scheduler.EndReason {
		if task == 2 && nth == 1 {
			return scheduler.Failed
		}
		return scheduler.Completed
	}
	id := w.submit(1, func(s *scheduler.Spec) { s.Tasks, s.Lanes, s.Retries = 4, 2, 1 })
	w.ends(id, scheduler.Completed)
	if j := w.read(id); j.Array.Completed != 4 || j.Array.Failed != 0 {
		w.t.Errorf("array %+v, want 4 tasks completed", j.Array)
	}
	if want := map[uint32]int{0: 1, 1: 1, 2: 2, 3: 1}; !maps.Equal(w.hosts.ended, want) {
		w.t.Errorf("programs of tasks ended %v, want %v", w.hosts.ended, want)
	}
}

// replicas are two lanes, one of which loses its host; then three, then one, then none.
func replicas(w *world) {
	w.hosts.runsFor = time.Hour
	id := w.submit(1, func(s *scheduler.Spec) {
		s.Lanes, s.Always, s.LostAfter = 2, true, time.Minute
	})
	w.run(id, 2)
	w.hosts.silence("host-1", true)
	w.until("the lost replica runs elsewhere", func(*life) bool {
		return w.running(id) == 2 && slices.IndexFunc(w.read(id).Runs, func(r scheduler.Run) bool {
			return r.Current().Host.Name == "host-1"
		}) < 0
	})
	w.update(id, 3)
	w.run(id, 3)
	w.update(id, 1)
	w.run(id, 1)
	w.cancel(id)
	w.ends(id, scheduler.Cancelled)
}

// kept is a program whose host falls silent, and which runs elsewhere too.
func kept(w *world, runsFor time.Duration, change func(*scheduler.Spec)) job.ID {
	w.hosts.runsFor, w.hosts.hold = runsFor, time.Hour
	id := w.submit(1, func(s *scheduler.Spec) {
		s.Keep, s.LostAfter = scheduler.KeepOriginal, 20*time.Second
		change(s)
	})
	w.run(id, 1)
	w.hosts.silence("host-1", true)
	w.runsOn(id, "host-2")
	return id
}

// original is one whose host returns: it goes on, and what ran meanwhile is stopped.
func original(w *world, runsFor time.Duration, change func(*scheduler.Spec)) job.ID {
	id := kept(w, runsFor, change)
	w.hosts.silence("host-1", false)
	w.runsOn(id, "host-1")
	w.until("the replacement is stopped", func(*life) bool {
		w.hosts.mu.Lock()
		defer w.hosts.mu.Unlock()
		for _, a := range w.hosts.attempts {
			if a.host.Name == "host-2" && !a.began.IsZero() && a.over.IsZero() {
				return false
			}
		}
		return true
	})
	last := w.read(id).Runs[0].Current().ID
	w.hosts.mu.Lock()
	defer w.hosts.mu.Unlock()
	goesOn := w.hosts.attempts[last]
	if first := w.hosts.attempts[goesOn.continues]; first == nil ||
		!goesOn.began.Equal(first.began) {
		w.t.Errorf("what goes on with %x began at %v", goesOn.continues, goesOn.began)
	}
	return id
}

// runsOn waits until the job's one lane runs on a host.
func (w *world) runsOn(id job.ID, host string) {
	w.t.Helper()
	w.until("it runs on "+host, func(*life) bool {
		r := w.read(id).Runs[0]
		return r.State == scheduler.Running && r.Current().Host.Name == host
	})
}

func (w *world) submit(n int, change func(*scheduler.Spec)) job.ID {
	w.t.Helper()
	made := func() *scheduler.Job {
		j := schedulertest.NewJob(owner[0], n)
		j.Runs = nil
		change(&j.Spec)
		return j
	}
	first := made()
	w.ledger.Fund(first)
	w.must("submit", func(l *life) error {
		j := made()
		j.Escrow = first.Escrow
		_, err := l.engine.Submit(context.Background(), j)
		return err
	})
	w.acknowledged("a submission", func(s scheduler.Store) error {
		_, err := s.Job(context.Background(), first.ID)
		return err
	})
	return first.ID
}

func (w *world) cancel(id job.ID) {
	w.t.Helper()
	w.must("cancel", func(l *life) error {
		_, err := l.engine.Cancel(context.Background(), w.read(id), "enough")
		return err
	})
	w.acknowledged("a cancellation", func(s scheduler.Store) error {
		j, err := s.Job(context.Background(), id)
		if err == nil && j.CancelReason == "" {
			err = errors.New("it is forgotten")
		}
		return err
	})
}

func (w *world) update(id job.ID, lanes uint32) {
	w.t.Helper()
	revision := fmt.Appendf(nil, "%d lanes", lanes)
	w.must("update", func(l *life) error {
		j := w.read(id)
		to := j.Spec
		to.Lanes = lanes
		_, err := l.engine.Update(context.Background(), j, to, revision)
		return err
	})
	w.acknowledged("an update", func(s scheduler.Store) error {
		j, err := s.Job(context.Background(), id)
		if err == nil && bytes.Equal(j.Update, revision) != (j.Spec.Lanes == lanes) {
			err = fmt.Errorf("revision %q has %d lanes", j.Update, j.Spec.Lanes)
		}
		if err == nil && j.Update == nil {
			err = errors.New("it is forgotten")
		}
		return err
	})
}

// acknowledged notes what holds from now on.
func (w *world) acknowledged(what string, holds func(scheduler.Store) error) {
	w.factsMu.Lock()
	defer w.factsMu.Unlock()
	w.facts = append(w.facts, fact{what, holds})
}

func (w *world) read(id job.ID) *scheduler.Job {
	w.t.Helper()
	j, err := w.alive().store.Job(context.Background(), id)
	if err != nil {
		w.t.Fatalf("after %d kills: %v", w.kills.Load(), err)
	}
	return j
}

func (w *world) running(id job.ID) (n uint32) { return w.read(id).Counts()[scheduler.Running] }

func (w *world) run(id job.ID, n uint32) {
	w.t.Helper()
	defer func() {
		if !w.t.Failed() {
			return
		}
		j, err := w.alive().engine.Job(context.Background(), owner, id)
		if err != nil {
			return
		}
		for _, r := range j.Runs {
			w.t.Logf("lane %d is %s: %s", r.Slot, r.State, r.Reason)
		}
	}()
	w.until(fmt.Sprint(n, " run"), func(*life) bool { return w.running(id) == n })
}

func (w *world) ends(id job.ID, want scheduler.EndReason) {
	w.t.Helper()
	w.until("the end", func(*life) bool { s, _, _ := w.read(id).State(); return s == scheduler.Ended })
	if _, end, why := w.read(id).State(); end != want {
		w.t.Errorf("it ended %s: %s; want %s", end, why, want)
	}
}

// away lets time pass without a scheduler.
func (w *world) away(d time.Duration) {
	l := w.alive()
	l.stop()
	time.Sleep(d)
	if l.killed() { // while it stopped
		w.start(l.left)
		return
	}
	w.start(l.disk)
}

// tell plays a story to its end and checks what must hold then.
func (w *world) tell(story func(*world)) {
	w.start(vfs.NewCrashableMem())
	defer func() {
		if w.life.stop != nil {
			w.life.stop()
		}
	}()
	story(w)
	w.until("all leases end", func(*life) bool { return w.hosts.quick || w.ledger.Open() == 0 })
	w.checkLanes() // while the chain holds the leases
	for range 2 {  // claims: settled, and looked at once more
		w.away(26 * time.Hour)
		w.until("claims are looked after", func(l *life) bool {
			due, err := l.store.Claims(context.Background(), scheduler.Claim{}, time.Now(), 1)
			return err == nil && len(due) == 0
		})
	}
	w.check()
}

// check compares what the scheduler holds in the end with what the chain and the hosts do.
func (w *world) check() {
	l := w.alive()
	if n := w.ledger.Unsettled(); n != 0 {
		w.t.Errorf("%d leases are left unsettled", n)
	}
	later := time.Now().Add(1000 * time.Hour)
	claims, err := l.store.Claims(context.Background(), scheduler.Claim{}, later, 100)
	if err != nil || len(claims) != 0 {
		w.t.Errorf("claims %v, %v, want none", claims, err)
	}
	w.checkIndexes(l.store)
	w.checkEvents(l)
}

// checkLanes tests that no lease was placed twice and no time of a lane is paid twice.
func (w *world) checkLanes() {
	paid := w.ledger.Paid()
	slices.SortFunc(paid, func(a, b schedulertest.Paid) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Epoch, b.Epoch))
	})
	for i, a := range paid {
		if a.End.IsZero() && !w.hosts.quick {
			w.t.Errorf("lane %d, epoch %d has not ended", a.Slot, a.Epoch)
		}
		if i == 0 || paid[i-1].Slot != a.Slot {
			continue
		}
		before := paid[i-1]
		if before.Epoch == a.Epoch || before.End.IsZero() || before.End.After(a.From) {
			w.t.Errorf("lane %d is paid until %v and from %v", a.Slot, before.End, a.From)
		}
	}
	began := map[[32]byte]int{}
	for _, a := range w.hosts.attempts {
		if !a.began.IsZero() {
			began[a.lease]++
		}
	}
	for lease, n := range began {
		if n != 1 {
			w.t.Errorf("under lease %x %d programs began", lease[:4], n)
		}
	}
}

// checkIndexes compares queue, live jobs and counts with the records.
func (w *world) checkIndexes(s scheduler.Store) {
	ctx := context.Background()
	jobs, err := s.Jobs(ctx, scheduler.JobQuery{Owner: owner, Limit: 100})
	if err != nil || len(jobs) != 1 {
		w.t.Fatalf("%d jobs, %v, want 1", len(jobs), err)
	}
	page, err := s.Pending(ctx, scheduler.PendingQuery{Owner: owner, Limit: 100})
	live, liveErr := s.Live(ctx, job.ID{}, 100)
	due, dueErr := s.Due(ctx, scheduler.Cursor{}, time.Now().Add(1000*time.Hour), 100)
	count, countErr := s.Count(ctx)
	if err := errors.Join(err, liveErr, dueErr, countErr); err != nil {
		w.t.Fatal(err)
	}
	if len(page.Refs) != 0 || len(live) != 0 || len(due) != 0 || count.Runs != 0 {
		w.t.Errorf("of jobs that ended wait %v, live %v, are due %v, count %+v", page.Refs, live, due,
			count)
	}
}

// checkEvents tests that the job's events are there in their order, each end of it once.
func (w *world) checkEvents(l *life) {
	const drafts = "out/d"
	it, err := l.db.NewIter(&db.IterOptions{
		LowerBound: []byte(drafts), UpperBound: []byte("out/e"),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	count := map[string]int{}
	var last time.Time
	for ok := it.First(); ok; ok = it.Next() {
		e, err := event.DecodeEvent(bytes.Clone(it.Value()))
		if err != nil || e.Time.Before(last) {
			w.t.Fatalf("event %s of %v behind one of %v, %v", e.Type, e.Time, last, err)
		}
		last = e.Time
		count[e.Type]++
	}
	if err := it.Close(); err != nil {
		w.t.Fatal(err)
	}
	placed := w.ledger.Placed()
	leased := count["attempt.leased"] == placed || w.hosts.quick && count["attempt.leased"] < placed
	if count["job.submitted"] != 1 || !leased ||
		count["attempt.asked"] < placed {
		w.t.Errorf("events %v, want one submission and each of %d leases once", count, placed)
	}
}

// TestKilledAnywhere kills the scheduler at each of its effects: before each change of its disk,
// and before and after each of what it does to the chain and to hosts. With a power failure, which
// takes what was not synced, a second kill follows while it starts again or soon after. What was
// acknowledged is there in every later life, the story ends as if nothing had happened, no lease
// is placed twice, no time of a lane is paid twice, and none is left open.
func TestKilledAnywhere(t *testing.T) {
	all := stories()
	maps.Copy(all, quickly())
	for name, story := range all {
		for _, power := range []bool{false, true} {
			kills := int64(0)
			for at := int64(1); ; at++ {
				fired := false
				t.Run(fmt.Sprintf("%s, power lost %v, effect %d", name, power, at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						w.at, w.keep = at, 100
						if power {
							w.keep, w.again = 50*int(at%2), 1+at%13
						}
						w.tell(story)
						fired = w.kills.Load() > 0
						kills += w.kills.Load()
					})
				})
				if !fired || t.Failed() {
					break
				}
			}
			t.Logf("%s, power lost %v: %d kills", name, power, kills)
		}
	}
}

// TestFullDiskAnywhere lets the disk be full for ten minutes from each write on. What is refused is
// asked for again later; the story ends as it would have, and nothing acknowledged is lost.
func TestFullDiskAnywhere(t *testing.T) {
	full := errors.New("DISK_FULL")
	for name, story := range stories() {
		at, told := 1, false
		for refused := 1; refused > 0 && !t.Failed(); at++ {
			refused = 0
			t.Run(fmt.Sprintf("%s, write %d", name, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					told = true
					var mu sync.Mutex
					var until time.Time
					writes := 0
					w.full = func() error {
						mu.Lock()
						defer mu.Unlock()
						if writes++; writes == at {
							until = time.Now().Add(10 * time.Minute)
						}
						if time.Now().Before(until) {
							refused++
							return full
						}
						return nil
					}
					w.tell(story)
					if n := len(w.hosts.Asked()); n > 1500 {
						t.Errorf("hosts were asked %d times, want no more than once a second", n)
					}
				})
			})
		}
		if told && at < 6 && !t.Failed() {
			t.Errorf("%s writes only %d times", name, at-2)
		}
	}
}
