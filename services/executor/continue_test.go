package executor_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// continuing is the question that wants an attempt to go on after the lease that replaced it.
func (w *world) continuing(old executor.Ask, after executor.SignedLease) executor.Ask {
	w.t.Helper()
	now := time.Now()
	ask := old
	ask.Attempt = executor.AttemptID(fmt.Sprintf("c%x", after.Lease.Epoch))
	ask.Offer, ask.Continues = w.offer(), old.Attempt
	ask.Terms.Epoch, ask.Terms.Supersedes = after.Lease.Epoch+1, after.ID
	ask.Terms.PlaceBy = uint64(now.Add(time.Minute).UnixMilli())
	ask.Terms.Until = uint64(now.Add(24 * time.Hour).UnixMilli())
	return ask
}

// follow delivers the task of an attempt and stays with it.
func (w *world) follow(
	ask executor.Ask, lease executor.SignedLease,
) (*client, <-chan *executor.Outcome) {
	c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
	go func() { ended <- c.run(w.task(ask, lease.ID)) }()
	return c, ended
}

// count makes the world's programs count their starts.
func (w *world) count() *atomic.Int64 {
	starts := &atomic.Int64{}
	w.host = fake.NewHost(fake.Options{
		AnyImage: true, Hook: w.driverHook,
		Programs: map[string]fake.Program{"/guest": func(p *fake.Process) int {
			starts.Add(1)
			return fake.Guest(p)
		}},
	})
	return starts
}

// told lists what events told of an attempt: its states, and which attempt it continues.
func (w *world) told(id executor.AttemptID) (list []string) {
	for _, e := range w.journal.Events() {
		var m jobv1.AttemptStatus
		if e.Type == executor.TypeAttemptChanged && canon.Unmarshal(e.Payload, &m) == nil &&
			fmt.Sprintf("%x", m.Attempt) == string(id) {
			state := strings.TrimPrefix(m.State.String(), "STATE_")
			if len(m.Continues) > 0 {
				state += fmt.Sprintf(" for %x", m.Continues)
			}
			list = append(list, state)
		}
	}
	return list
}

// TestContinues: the program of a superseded attempt goes on in its container under a new lease;
// each lease is paid for its own time, and nobody pays for the time between.
func TestContinues(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		starts := w.count()
		agent := w.start()
		old, lease, c, ended := w.keep(agent, 1, 90*time.Second, "use", "1000", "out", "one", "sleep",
			"3m", "out", "two", "sleep", "3m", "write", "/out/a", "abc")
		before := agent.Offer().Free
		b := w.replace(lease)
		pass(20 * time.Second) // the host does not know yet
		ask := w.continuing(old, b)
		next := w.lease(agent, ask)
		if got := w.holds(); len(got) != 1 || agent.Offer().Free != before {
			t.Errorf("holds %v told, free %+v; want one, and %+v", got, agent.Offer().Free, before)
		}
		pass(10 * time.Second)
		c2, goesOn := w.follow(ask, next)
		first := <-ended
		if first.Reason != executor.EndCancelled ||
			!strings.Contains(first.Message, string(ask.Attempt)) {
			t.Errorf("the original's outcome is %+v", first)
		}
		w.closed(old.Attempt)
		w.checkPaidUntil(first, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
		o := <-goesOn
		w.closed(ask.Attempt)
		if o.Reason != executor.EndCompleted || len(o.Outputs) != 1 || starts.Load() != 1 {
			t.Errorf("outcome %+v after %d starts", o, starts.Load())
		}
		// 6 min of program, of which 2 min were the original's or nobody's.
		if o.Usage.WallMS > 240_000 || o.Usage.WallMS < 239_000 || o.Usage.Runs != 0 ||
			o.Usage.CPUNS > uint64(240*time.Second) || o.Usage.CPUNS < uint64(239*time.Second) {
			t.Errorf("usage %+v, want that of 4 min", o.Usage)
		}
		paid := w.ledger.Read(next.ID)
		if paid.Paid != o.Amount || !paid.Settled || next.Lease.Upfront != 0 {
			t.Errorf("paid %+v, want %d", paid, o.Amount)
		}
		if want := []string{"one", "two", "write ok"}; !slices.Equal(c2.lines, want) ||
			!slices.Equal(c.lines, want[:1]) {
			t.Errorf("logs %q and %q, want all of %q in the second", c.lines, c2.lines, want)
		}
		for id, want := range map[executor.AttemptID][]string{
			old.Attempt: {"STARTING", "RUNNING", "RUNNING", "ENDED"},
			ask.Attempt: {"STARTING for a1", "RUNNING for a1", "ENDED for a1"},
		} {
			if got := w.told(id); !slices.Equal(got, want) {
				t.Errorf("attempt %s was told as %q, want %q", id, got, want)
			}
		}
		w.checkAllGone(old.Attempt, agent)
	})
}

// checkAllGone wants nothing left of the container, and all that it held given back.
func (w *world) checkAllGone(id executor.AttemptID, agent *executor.Agent) {
	w.t.Helper()
	pass(5 * time.Second) // until the offer says so
	list, err := w.host.Driver("e").List(w.t.Context())
	o := agent.Offer()
	if err != nil || len(list) != 0 || !w.files.Dropped(id) || o.Free != o.Total {
		w.t.Errorf("%d containers left, %v; inputs dropped: %v; free %+v of %+v", len(list), err,
			w.files.Dropped(id), o.Free, o.Total)
	}
}

// TestContinuesKilledAnywhere kills the executor at every write of its journal and at every call
// that has an effect elsewhere, before and after the effect, from the question to the end. The
// program is started once and not removed before its end, each lease is paid once, for its time.
func TestContinuesKilledAnywhere(t *testing.T) {
	kills := 0
	for _, after := range []bool{false, true} {
		for at := int64(1); at < 80; at++ {
			fired := false
			t.Run(fmt.Sprintf("call %d, after %v", at, after), func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) { fired = continuedDespiteKill(t, w, at, after) })
			})
			if !fired || t.Failed() {
				break
			}
			kills++
		}
	}
	if kills < 2*12 {
		t.Errorf("only %d places to be killed at", kills)
	}
}

func continuedDespiteKill(t *testing.T, w *world, at int64, after bool) bool {
	starts := w.count()
	w.cfg.OfferLife = 10 * time.Minute // offers would be counted too
	agent := w.start()
	old, lease, _, ended := w.keep(agent, 1, 59*time.Second, "use", "1000", "out", "hi", "sleep",
		"150s", "write", "/out/a", "abc")
	b := w.replace(lease)
	ask := w.continuing(old, b)
	k := &killer{w: w, at: at, after: after, done: make(chan struct{})}
	w.journal.SetHook(k.hook)
	w.ledger.SetHook(func(op string) (error, error) {
		if op != "Charge" {
			return w.killed(), nil
		}
		return k.hook(op)
	})
	w.files.SetHook(k.hook)
	w.setDriver(k.driverHook)
	closed, killed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(killed)
		select {
		case <-k.done:
			w.kill()
			w.start()
		case <-closed:
		}
	}()
	next := w.leaseAnyhow(ask)
	_, goesOn := w.follow(ask, next)
	first, o := <-ended, <-goesOn
	w.waitClosed(old.Attempt)
	w.waitClosed(ask.Attempt)
	close(closed)
	<-killed
	w.checkPaidUntil(first, lease.ID, 2*w.cfg.NoteEvery)
	got, original := w.ledger.Read(next.ID), w.ledger.Read(lease.ID)
	if o.Reason != executor.EndCompleted || len(o.Outputs) != 1 || o.LogCID == "" ||
		starts.Load() != 1 || got.Paid != o.Amount || !got.Settled {
		t.Errorf("outcome %+v after %d starts, paid %+v", o, starts.Load(), got)
	}
	if all := first.Usage.WallMS + o.Usage.WallMS; all > 150_000 || got.From.Before(original.End) {
		t.Errorf("%d ms of 150 s are asked for, of leases until %v and from %v", all, original.End,
			got.From)
	}
	for _, id := range []executor.AttemptID{old.Attempt, ask.Attempt} {
		if n := strings.Count(fmt.Sprint(w.told(id)), "ENDED"); n != 1 {
			t.Errorf("attempt %s ended %d times for others", id, n)
		}
	}
	list, err := w.host.Driver("e").List(t.Context())
	if err != nil || len(list) != 0 || !w.files.Dropped(old.Attempt) {
		t.Errorf("%d containers left, %v", len(list), err)
	}
	return k.fired.Load()
}

// leaseAnyhow asks until the answer comes, over as many lives as that takes, and places the lease.
func (w *world) leaseAnyhow(ask executor.Ask) executor.SignedLease {
	w.t.Helper()
	for range 1000 {
		w.mu.Lock()
		l := w.life
		w.mu.Unlock()
		if l != nil {
			answer, err := l.agent.Ask(w.t.Context(), ask)
			switch {
			case err == nil && answer.Lease != nil:
				if err := w.ledger.Place(*answer.Lease); err != nil {
					w.t.Fatal(err)
				}
				return *answer.Lease
			case err == nil && answer.Declined.Code == executor.DeclineOffer:
				ask.Offer = w.offer() // that of an earlier life is gone
			case err == nil:
				w.t.Fatalf("declined: %+v", answer.Declined)
			}
		}
		pass(20 * time.Millisecond)
	}
	w.t.Fatal("never answered")
	return executor.SignedLease{}
}

// TestContinuesAgain: an attempt that continues one can be continued itself, over restarts.
func TestContinuesAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		starts := w.count()
		agent := w.start()
		old, lease, _, ended := w.keep(agent, 1, time.Minute, "use", "1000", "sleep", "20m")
		first := old.Attempt
		paid := uint64(0)
		for range 3 {
			ask := w.continuing(old, w.replace(lease))
			next := w.lease(agent, ask)
			_, goesOn := w.follow(ask, next)
			paid += (<-ended).Usage.WallMS
			w.kill()
			pass(time.Second)
			agent = w.start()
			pass(time.Minute)
			old, lease, ended = ask, next, goesOn
		}
		if list, err := agent.Attempts(t.Context(), time.Time{}, 10); err != nil || len(list) != 4 {
			t.Errorf("%d attempts, %v", len(list), err)
		}
		o := <-ended
		w.closed(old.Attempt)
		paid += o.Usage.WallMS
		lost := uint64(3 * (w.cfg.NoteEvery + w.cfg.Tick).Milliseconds())
		all := uint64((20 * time.Minute).Milliseconds())
		if o.Reason != executor.EndCompleted || starts.Load() != 1 || paid > all || paid < all-lost {
			t.Errorf("outcome %+v after %d starts; %d ms of %d are asked for", o, starts.Load(), paid, all)
		}
		w.checkAllGone(first, agent)
	})
}

// TestContinuedLimits: the run time counts from the program's own start, whoever paid for it, and
// an end that the operator told stays told.
func TestContinuedLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		limit time.Duration
		evict time.Duration
		want  executor.EndReason
	}{
		"run time": {5 * time.Minute, 0, executor.EndFailed},
		"eviction": {0, 3 * time.Minute, executor.EndEvicted},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				old := w.ask(1, "use", "1000", "forever")
				old.Spec.KeepOriginal, old.Spec.RunTime = true, tt.limit
				began := time.Now()
				lease := w.lease(agent, old)
				_, ended := w.follow(old, lease)
				pass(2 * time.Minute)
				ask := w.continuing(old, w.replace(lease))
				next := w.lease(agent, ask)
				if tt.evict > 0 {
					if _, err := agent.Evict(t.Context(), old.Attempt, tt.evict, ""); err != nil {
						t.Fatal(err)
					}
				}
				_, goesOn := w.follow(ask, next)
				<-ended
				o := <-goesOn
				if late := time.Since(began) - 5*time.Minute; o.Reason != tt.want ||
					late < -2*time.Second || late > 20*time.Second {
					t.Errorf("outcome %+v, %v after 5 min", o, late)
				}
			})
		})
	}
}

// TestContinuedWithWhatItHas: secrets are in the container already, and the owner's own token for
// storage stays when a scheduler brings another one.
func TestContinuedWithWhatItHas(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		old := w.ask(1, "out", "hi", "sleep", "4m", "write", "/out/a", "abc")
		old.Spec.KeepOriginal, old.Spec.Secrets = true, []string{"PASSWORD"}
		lease := w.lease(agent, old)
		task := w.task(old, lease.ID)
		task.StorageToken, task.Secrets = "owner's", map[string]string{"PASSWORD": "x"}
		c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(task) }()
		pass(time.Minute)
		ask := w.continuing(old, w.replace(lease))
		next := w.lease(agent, ask)
		w.files.Deny("scheduler's")
		detached := w.task(ask, next.ID)
		detached.From, detached.StorageToken = w.asker, "scheduler's"
		c2, goesOn := &client{w: w}, make(chan *executor.Outcome, 1)
		go func() { goesOn <- c2.run(detached) }()
		<-ended
		o := <-goesOn
		if o.Reason != executor.EndCompleted || len(o.Outputs) != 1 || o.LogCID == "" {
			t.Errorf("outcome %+v", o)
		}
	})
}

// TestLogsOfContinued: the log of a program that goes on is that of the attempt it goes on as.
func TestLogsOfContinued(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.AckWait = time.Minute // the original's last charge waits
		agent := w.start()
		old, lease, _, ended := w.keep(agent, 1, 30*time.Second, "out", "hi", "sleep", "45m")
		ask := w.continuing(old, w.replace(lease))
		next := w.lease(agent, ask)
		read := func(id executor.AttemptID) (lines []string, err error) {
			err = agent.Logs(t.Context(), executor.LogsAsk{From: w.owner, Job: ask.Job, Attempt: id},
				func(c executor.LogChunk) error {
					for _, l := range c.Lines {
						lines = append(lines, string(l.Text))
					}
					return nil
				})
			return lines, err
		}
		if lines, err := read(""); err != nil || !slices.Equal(lines, []string{"hi"}) {
			t.Errorf("before it is handed over: %q, %v", lines, err)
		}
		_, goesOn := w.follow(ask, next)
		<-ended
		for range 2 { // the original has its last charge to make, then it is closed
			if lines, err := read(old.Attempt); !errors.Is(err, executor.ErrLogGone) ||
				!strings.Contains(err.Error(), string(ask.Attempt)) {
				t.Errorf("of the original: %q, %v", lines, err)
			}
			pass(2 * time.Minute)
		}
		for _, id := range []executor.AttemptID{"", ask.Attempt} {
			if lines, err := read(id); err != nil || !slices.Equal(lines, []string{"hi"}) {
				t.Errorf("of %q: %q, %v", id, lines, err)
			}
		}
		w.stopNow(agent, w.owner, ask)
		<-goesOn
	})
}

// TestAnotherSchedulerContinues: the escrow's owner may have named another one meanwhile.
func TestAnotherSchedulerContinues(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		old, lease, _, ended := w.keep(agent, 1, 30*time.Second, "use", "1000", "sleep", "45m")
		ask := w.continuing(old, w.replace(lease))
		ask.From = executor.Peer{Instance: key(9).Public(), Operator: sig.AccountID{9}}
		answer, err := agent.Ask(t.Context(), ask)
		if err != nil || answer.Declined == nil || answer.Declined.Code != executor.DeclineTerms {
			t.Errorf("a stranger: %+v, %v", answer, err)
		}
		w.openEscrow(&ask, func(e *executor.Escrow) {
			e.Assigner = sig.AccountOfKey(ask.From.Instance)
		})
		next := w.lease(agent, ask)
		_, goesOn := w.follow(ask, next)
		<-ended
		pass(time.Minute)
		if over(goesOn) || !w.running(old.Attempt) {
			t.Error("it does not go on")
		}
		w.stopNow(agent, w.owner, ask)
		<-goesOn
	})
}
