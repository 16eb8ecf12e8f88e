package scheduler

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

// Bounds of how long a host that failed or declined a run is not asked for it again, though no
// other fits: avoidFor, or twice as long as it let the run wait without beginning it; and twice as
// long each further time, at most maxAvoid, or maxEvictions times if it told the run to go ahead.
const (
	avoidFor     = 30 * time.Second
	maxAvoid     = 5 * time.Minute
	maxEvictions = 9
)

// doubtFor is how long hosts that failed a run cast doubt on others of their operator.
const doubtFor = time.Hour

// hostsFault tells whether the attempt ended for a reason that is the host's or the network's.
func (a *Attempt) hostsFault() bool {
	switch a.End {
	case Completed, Failed, Cancelled:
		return false
	}
	return a.State == Ended && !a.served()
}

// served tells whether the attempt's host served for all that its lease paid for.
func (a *Attempt) served() bool {
	return a.State == Ended && (a.End == Exhausted || a.End == Expired && a.Began)
}

// since is how long ago the attempt ended; a clock may have been set back.
func (a *Attempt) since(now time.Time) time.Duration { return now.Sub(a.Ended).Abs() }

// avoided is how long the attempt's host is avoided for it, and for as many before.
func (a *Attempt) avoided(before int) time.Duration {
	switch {
	case a.Moving:
		return avoidFor << min(before, maxEvictions)
	case a.Began:
		return min(avoidFor<<min(before, maxEvictions), maxAvoid)
	}
	return min(max(avoidFor, 2*a.Ended.Sub(a.Created))<<min(before, maxEvictions), maxAvoid)
}

// skips names hosts that failed or declined this run lately, and those that have it.
func (e *Engine) skips(r *Run, now time.Time) func(*Offer) bool {
	avoid := e.notes.avoids(r.ID, now)
	until, faults := map[sig.PublicKey]time.Duration{}, map[sig.PublicKey]int{}
	for i := range r.Attempts {
		a, host := &r.Attempts[i], r.Attempts[i].Host.Executor
		if (a.Silent || a.Moving) && a.State != Ended || a.Kept {
			avoid = with(avoid, host)
		}
		if !a.hostsFault() {
			continue
		}
		until[host] = max(until[host], a.avoided(faults[host])-a.since(now))
		faults[host]++
	}
	return func(o *Offer) bool {
		return avoid[o.Host.Executor] || until[o.Host.Executor] > 0
	}
}

func with(set map[sig.PublicKey]bool, key sig.PublicKey) map[sig.PublicKey]bool {
	if set == nil {
		set = map[sig.PublicKey]bool{}
	}
	set[key] = true
	return set
}

// noticeFor is how long who takes a notice for what it has ended itself is asked only when no
// other fits, maxTakers how many of them are remembered.
const (
	noticeFor = 24 * time.Hour
	maxTakers = 4096
)

// takers are hosts that told the end of an attempt, did not charge for the last time, and so had
// the lease ended for them: that pays the notice, which is for what its owner ends. Once may be
// that the host was cut off from its ledger, and with it all leases that it had. It sees no new one
// then, so who does so again with a lease of a minute after that, whose program ran, is a taker. It
// is known by its own key, never by its payee, which a host names as it likes. All are forgotten at
// a restart.
type takers struct {
	mu sync.Mutex
	of map[sig.PublicKey]*taker
	// operators are when one of two takers of theirs was noted last; last is the newest of any.
	operators map[sig.AccountID]time.Time
	last      time.Time
}

// taker is a host that was ended for: told is when it told the end first, at when it was noted.
type taker struct {
	operator sig.AccountID
	told, at time.Time
	again    bool
}

func recent(at, now time.Time) bool { return now.Sub(at).Abs() < noticeFor }

func (t *takers) note(by Teller, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := t.of[by.Executor]
	if held == nil || !recent(held.at, now) {
		t.sweep(now)
		t.of[by.Executor] = &taker{operator: by.Operator, told: by.Told, at: now}
		return
	}
	if !held.again && !by.Leased.After(held.told.Add(noticeSlack)) {
		return
	}
	held.again, held.at, held.operator, t.last = true, now, by.Operator, now
	for _, other := range t.of {
		if other != held && other.again && other.operator == by.Operator && recent(other.at, now) {
			t.operators[by.Operator] = now
		}
	}
}

// sweep makes room for one more; mu is held.
func (t *takers) sweep(now time.Time) {
	if t.of == nil {
		t.of, t.operators = map[sig.PublicKey]*taker{}, map[sig.AccountID]time.Time{}
	}
	for key, held := range t.of {
		if !recent(held.at, now) || len(t.of) >= maxTakers {
			delete(t.of, key)
		}
	}
	for operator, at := range t.operators { // fewer than takers
		if !recent(at, now) {
			delete(t.operators, operator)
		}
	}
}

func (t *takers) take(o *Offer, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := t.of[o.Host.Executor]
	return o.Notice > 0 && (held != nil && held.again && recent(held.at, now) ||
		recent(t.operators[o.Host.Operator], now))
}

func (t *takers) any(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return recent(t.last, now)
}

// doubts names hosts that are asked only when no other fits, nil if there are none: those that take
// a notice for nothing, those that failed the run, or other tasks of its array, and all of an
// operator of whom two did either.
// Hosts are cheap to certify, so what several of one operator do is what the operator does. Without
// this a few that ask little and begin nothing would keep a run for themselves.
func (e *Engine) doubts(j *Job, r *Run, now time.Time) func(*Offer) bool {
	hosts, operators := map[sig.PublicKey]bool{}, map[sig.AccountID]int{}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		programs := a.State == Ended && a.End == Failed && a.since(now) < avoidFor
		hosts[a.Host.Executor] = hosts[a.Host.Executor] || programs
		if a.hostsFault() && a.since(now) < doubtFor && !hosts[a.Host.Executor] {
			hosts[a.Host.Executor] = true
			operators[a.Host.Operator]++
		}
	}
	e.faults.each(j.ID, now, func(host sig.PublicKey, operator sig.AccountID) {
		if !hosts[host] {
			hosts[host] = true
			operators[operator]++
		}
	})
	if !slices.Contains(slices.Collect(maps.Values(hosts)), true) && !e.takers.any(now) {
		return nil
	}
	return func(o *Offer) bool {
		return hosts[o.Host.Executor] || operators[o.Host.Operator] > 1 || e.takers.take(o, now)
	}
}
