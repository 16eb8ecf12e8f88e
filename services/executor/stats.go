package executor

import (
	"context"
	"time"
)

// StatsAsk asks what an attempt uses now.
type StatsAsk struct {
	From    Peer
	Job     JobID
	Attempt AttemptID // empty: the newest attempt of the job here
}

// Stats is what an attempt has used and what is due for it.
type Stats struct {
	Run      RunID
	Attempt  AttemptID
	Lease    LeaseID
	State    AttemptState
	Time     time.Time // of the reading
	Started  time.Time // of the program; zero: not yet
	EvictAt  time.Time // as in Status
	Reserved Resources
	Usage    Metered
	Amount   uint64 // grains due by Usage
	Paid     uint64 // grains that the chain paid
	Budget   uint64 // grains, the most the lease pays
	Rate     uint64 // grains per hour, likewise
	Now      Pace   // zero unless the program runs
	Waiting  string // what the start waits for; empty: nothing
}

// Pace is what a program uses at the moment.
type Pace struct {
	CPUMilli uint64 // thousandths of a core
	Memory   uint64 // bytes
	Disk     uint64 // bytes: root's own writes, outputs and scratch
	InPerS   uint64 // bytes per second
	OutPerS  uint64
}

// minPace is the shortest time that a pace is told for: counters have a grain.
const minPace = 200 * time.Millisecond

// gauge is what was measured of a running program last. The zero value is nothing.
type gauge struct {
	tally  Tally
	last   Usage
	before Usage
}

// measured keeps a sample for Stats. Nobody is woken.
func (t *attempt) measured(tally *Tally, sample Usage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gauge = gauge{tally: *tally, last: sample, before: t.gauge.last}
}

// Stats reads what an attempt uses, for its owner only. Of one that ended it tells the last note.
func (a *Agent) Stats(ctx context.Context, ask StatsAsk) (Stats, error) {
	t, r, err := a.lookUp(ctx, ask.Job, ask.Attempt)
	if err != nil {
		return Stats{}, err
	}
	var c Container
	var g gauge
	if t != nil {
		t.mu.Lock()
		rec := t.rec
		c, g = t.container, t.gauge
		t.mu.Unlock()
		r = &rec
	}
	if !r.ownedBy(ask.From) {
		return Stats{}, ErrNotYours
	}
	s := r.stats(a.deps.Now())
	if t == nil || r.Phase != PhaseRunning {
		return s, nil
	}
	tally := &r.Tally
	if !g.tally.Started.IsZero() {
		tally = &g.tally
	}
	s.Time, s.Now = g.last.At, pace(&g.before, &g.last)
	if c != nil {
		within, cancel := context.WithTimeout(ctx, measureWait)
		defer cancel()
		if fresh, err := c.Usage(within); err == nil { // else what was measured last is told
			tally.Add(fresh, t.need)
			s.Time, s.Now = fresh.At, g.pace(&fresh)
		}
	}
	if r.Cut == nil { // else nothing more is due
		s.Usage, s.Amount = tally.Used, max(t.due(r, tally), r.Note.Note.Cumulative)
	}
	return s, nil
}

func (r *Record) ownedBy(from Peer) bool {
	return !from.Account.IsZero() && from.Account == r.Ask.Spec.Owner
}

// stats is what the record knows by itself.
func (r *Record) stats(now time.Time) Stats {
	lease := &r.Lease.Lease
	return Stats{
		Run: r.Ask.Run, Attempt: r.Ask.Attempt, Lease: r.Lease.ID, State: r.Phase.State(), Time: now,
		Started: r.Tally.Started, EvictAt: r.evictAt(), Reserved: r.Ask.Spec.Resources,
		Usage: r.Note.Usage, Amount: r.Note.Note.Cumulative, Paid: r.Paid, Budget: lease.Budget,
		Rate: lease.Rate, Waiting: r.Waiting,
	}
}

// pace compares a fresh sample with the newest one that is old enough.
func (g *gauge) pace(fresh *Usage) Pace {
	if span(&g.last, fresh) >= minPace {
		return pace(&g.last, fresh)
	}
	return pace(&g.before, fresh)
}

func pace(from, to *Usage) Pace {
	p := Pace{Memory: to.Memory, Disk: to.Disk}
	d := span(from, to)
	if d < minPace {
		return p
	}
	perSecond := func(from, to uint64) uint64 {
		return multiply(grown(from, to), 1000) / uint64(d.Milliseconds())
	}
	p.CPUMilli = perSecond(uint64(from.CPU.Microseconds()), uint64(to.CPU.Microseconds())) / 1000
	p.InPerS, p.OutPerS = perSecond(from.NetIn, to.NetIn), perSecond(from.NetOut, to.NetOut)
	return p
}

// span is the time between two samples of one life of the counters, else 0.
func span(from, to *Usage) time.Duration {
	switch {
	case from.At.IsZero() || from.Epoch != to.Epoch:
		return 0
	case from.Uptime > 0 && to.Uptime > 0:
		return to.Uptime - from.Uptime
	}
	return to.At.Sub(from.At)
}
