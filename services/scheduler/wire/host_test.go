package wire_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// hosts sign what they are asked, run a task once they have it and its lease, and tell of it until
// they are heard. They outlive the scheduler.
type hosts struct {
	schedulertest.Hosts
	w *world
	// number of hosts, their names are host-1 and so on.
	number byte
	// runsFor is how long programs run, end how the nth of a task's programs ends.
	runsFor time.Duration
	end     func(task uint32, nth int) scheduler.EndReason
	// quick: the client delivers, and programs end before the scheduler has written down that their
	// leases are on the chain. Such hosts make no final charge.
	quick bool
	// hold is how long programs are kept whose lease is over by another of their lane.
	hold time.Duration

	mu       sync.Mutex
	silent   map[string]bool
	attempts map[scheduler.AttemptID]*attempt
	order    []scheduler.AttemptID
	ended    map[uint32]int // programs of a task that ended
}

// attempt is one that a host was asked for.
type attempt struct {
	host      scheduler.Host
	job       job.ID
	run       scheduler.RunID
	id        scheduler.AttemptID
	task      uint32
	lease     tx.LeaseID
	delivered bool
	stop      bool
	began     time.Time
	told      scheduler.State
	end       scheduler.EndReason
	over      time.Time
	// continues is the attempt whose program this one takes over when it is delivered.
	continues scheduler.AttemptID
	// held is until when the program is kept, heldTold that this was heard.
	held     time.Time
	heldTold bool
}

func newHosts(w *world) *hosts {
	h := &hosts{
		w: w, number: 2, runsFor: 5 * time.Second, silent: map[string]bool{},
		attempts: map[scheduler.AttemptID]*attempt{}, ended: map[uint32]int{},
		end: func(uint32, int) scheduler.EndReason { return scheduler.Completed },
	}
	h.OnAsk = func(host scheduler.Host, a scheduler.Ask, l *tx.Lease) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.silent[host.Name] {
			return absent(host)
		}
		if h.attempts[a.Attempt] == nil {
			h.order = append(h.order, a.Attempt)
		}
		h.attempts[a.Attempt] = &attempt{
			host: host, job: a.Terms.Subject, run: a.Run, id: a.Attempt, task: a.Task,
			lease: l.ID(sig.Anchor{}), continues: a.Continues,
		}
		return nil
	}
	h.OnDeliver = func(host scheduler.Host, task scheduler.Task) error {
		return h.hear(host, task.Attempt, h.deliver)
	}
	h.OnTell = func(_ scheduler.Host, task scheduler.Task) *scheduler.Report {
		if report, ok := h.next(task.Attempt); ok {
			return &report // it is told again as a report of its own
		}
		return nil
	}
	h.OnStop = func(host scheduler.Host, s scheduler.Stop) error {
		return h.hear(host, s.Attempt, func(a *attempt) { a.stop = true })
	}
	return h
}

// deliver gives an attempt its task, and the program that it goes on with. mu is held.
func (h *hosts) deliver(a *attempt) {
	a.delivered = true
	old := h.attempts[a.continues]
	if old == nil || !a.began.IsZero() {
		return
	}
	if old.over.IsZero() {
		a.began, old.end, old.over = old.began, scheduler.Cancelled, time.Now()
		return
	}
	a.end, a.over = scheduler.Refused, time.Now() // it ended meanwhile
}

func absent(host scheduler.Host) error {
	return fmt.Errorf("%w: %w: %s", scheduler.ErrUnreachable, scheduler.ErrAbsent, host.Name)
}

func (h *hosts) hear(host scheduler.Host, id scheduler.AttemptID, fn func(*attempt)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.attempts[id]
	switch {
	case h.silent[host.Name]:
		return absent(host)
	case a == nil:
		return scheduler.ErrForgotten
	}
	fn(a)
	return nil
}

func (h *hosts) silence(host string, silent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent[host] = silent
}

// work is what hosts do once a second: offer, go on with what they run, and tell of it.
func (h *hosts) work(l *life) {
	for n := byte(1); n <= h.number; n++ {
		o := schedulertest.NewOffer(n, 1000*uint64(n), time.Now())
		h.mu.Lock()
		silent := h.silent[o.Host.Name]
		h.mu.Unlock()
		if !silent {
			h.Know(o)
			l.engine.Offer(o)
		}
	}
	h.mu.Lock()
	order := slices.Clone(h.order)
	h.mu.Unlock()
	for _, id := range order {
		if report, ok := h.next(id); ok {
			if err := l.engine.Report(context.Background(), report); err == nil && !l.killed() {
				h.heard(id, report)
			}
		}
	}
}

// next goes on with an attempt and returns what is to be told of it.
func (h *hosts) next(id scheduler.AttemptID) (report scheduler.Report, ok bool) {
	state, err := h.w.ledger.Lease(context.Background(), h.leaseOf(id))
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.attempts[id]
	if err != nil || !a.delivered || h.silent[a.host.Name] || a.told == scheduler.Ended {
		return report, false
	}
	now := time.Now()
	open := state.Ended.IsZero()
	switch {
	case !a.over.IsZero():
	case h.hold > 0 && !a.stop && !a.began.IsZero() && now.Sub(a.began) >= h.runsFor:
		h.ended[a.task]++ // kept or not
		a.end, a.over = h.end(a.task, h.ended[a.task]), now
	case !a.stop && !open && h.hold > 0 && a.held.IsZero() && h.superseded(state.Leaf.Lease):
		a.held = now.Add(h.hold)
	case a.stop, !open && !now.Before(a.held):
		a.end, a.over = scheduler.Cancelled, now
	case a.began.IsZero():
		a.began = now
	case now.Sub(a.began) >= h.runsFor:
		h.ended[a.task]++
		a.end, a.over = h.end(a.task, h.ended[a.task]), now
	}
	report = scheduler.Report{
		Job: a.job, Run: a.run, Attempt: a.id, Executor: a.host.Executor, State: scheduler.Running,
		Reason: "running", Time: a.began, Ran: true, HeldUntil: a.held,
	}
	if !a.held.IsZero() {
		report.Time = a.held.Add(-h.hold)
	}
	if !a.over.IsZero() {
		report.State, report.End, report.Time = scheduler.Ended, a.end, a.over
		report.Reason = a.end.String()
	}
	return report, report.State != a.told || !a.held.IsZero() && !a.heldTold
}

// done tells whether a program has run for so long on the first host, heard or not.
func (h *hosts) done(runsFor time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.order, func(id scheduler.AttemptID) bool {
		a := h.attempts[id]
		return a.host.Name == "host-1" && !a.began.IsZero() && time.Since(a.began) >= runsFor
	})
}

// superseded tells whether another lease of the lane came after.
func (h *hosts) superseded(lease tx.Lease) bool {
	return slices.ContainsFunc(h.w.ledger.Paid(), func(p schedulertest.Paid) bool {
		return p.Escrow == lease.Escrow && p.Slot == lease.Slot && p.Epoch > lease.Epoch
	})
}

// leased is called when a lease has just come on the chain.
func (h *hosts) leased(l *life, lease tx.LeaseID) {
	if !h.quick {
		return
	}
	var id scheduler.AttemptID
	h.mu.Lock()
	for _, a := range h.attempts {
		if a.lease == lease {
			id, a.delivered, a.began = a.id, true, time.Now().Add(-h.runsFor)
		}
	}
	h.mu.Unlock()
	if report, ok := h.next(id); ok {
		if err := l.engine.Report(context.Background(), report); err == nil && !l.killed() {
			h.heard(id, report)
		}
	}
}

func (h *hosts) leaseOf(id scheduler.AttemptID) tx.LeaseID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.attempts[id].lease
}

// heard notes that the scheduler acknowledged a report; after the last one the host makes its final
// charge.
func (h *hosts) heard(id scheduler.AttemptID, r scheduler.Report) {
	h.mu.Lock()
	a := h.attempts[id]
	a.told, a.heldTold = r.State, a.heldTold || !r.HeldUntil.IsZero()
	h.mu.Unlock()
	if r.State != scheduler.Ended {
		return
	}
	if !h.quick {
		h.w.ledger.Final(a.lease)
	}
	h.w.acknowledged("the end of an attempt", func(s scheduler.Store) error {
		j, err := s.Job(context.Background(), a.job)
		if err != nil {
			return err
		}
		if _, held := j.Attempt(id); held != nil && held.State != scheduler.Ended {
			return fmt.Errorf("it is %s", held.State)
		}
		return nil
	})
}
