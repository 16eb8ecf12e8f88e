package executor

import (
	"context"
	"time"
)

// Hold says that a program goes on though its lease is over: its owner wants the original kept
// (DISCONNECT_POLICY_KEEP_ORIGINAL), another host's lease took the lane while this one was silent,
// and a lease that continues the program may come. Nobody pays for it meanwhile.
type Hold struct {
	Since time.Time // when this host learned that the lease was superseded
	Until time.Time // when the program is ended, unless a lease continues it
	End   time.Time // of the lease, by the chain
}

// MinHold and MaxHold bound how long a program is held. A scheduler gives the host that returned at
// least 30 s to go on with its own, and needs 20 s more to turn back to this one.
const (
	MinHold = time.Minute
	MaxHold = time.Hour
)

const (
	// heldShare: a program may run unpaid, hold after hold, for one part in so many of the time that
	// its leases paid for, beyond its first hold. An owner can take a lane away himself, again and
	// again.
	heldShare = 10
	// heldPlace is how far beyond the hold the lease may be placed that continues its program.
	heldPlace = 30 * time.Second
)

// holds tells whether the program goes on for a while though its lease is over.
func (t *attempt) holds(s *LeaseState) bool {
	r := t.view().rec
	return r.Ask.Spec.KeepOriginal && t.agent.cfg.HoldSuperseded > 0 && r.Evict == nil &&
		s.SupersededBy != LeaseID{} && !s.End.IsZero() && !s.Settled &&
		t.agent.deps.Now().Before(r.leaseUntil()) && t.mayHold(s.End)
}

// mayHold tells whether the program may go on unpaid for as long as is of use to a scheduler, or
// does already.
func (t *attempt) mayHold(end time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.learned.Since.IsZero() || t.holdLeft(t.agent.deps.Now(), end) >= MinHold
}

// holdLeft is how long the program may still go on unpaid when its host learns now that its lease
// has ended. The caller holds mu.
func (t *attempt) holdLeft(now, end time.Time) time.Duration {
	r, c := &t.rec, &t.agent.cfg
	paid := time.Duration(min(add(r.PaidFor, r.lastPaid(end).Used.WallMS), maxRunMS)) *
		time.Millisecond
	used := time.Duration(min(r.Unpaid, maxRunMS))*time.Millisecond + unpaid(now, now, end, c)
	return c.HoldSuperseded + unheard(c) + paid/heldShare - used
}

// unpaid is how long a program has gone on for nothing since its lease's end, of which its host
// learned at the time given. It learns of it within charge_every; what it was itself cut off for
// beyond that is no doing of the owner's, and does not count.
func unpaid(now, since, end time.Time, c *Config) time.Duration {
	if from := since.Add(-unheard(c)); end.Before(from) {
		end = from
	}
	return max(now.Sub(end), 0)
}

// unheard is how long a host that is not cut off goes on at most before it learns that its lease
// is over.
func unheard(c *Config) time.Duration { return 2 * c.ChargeEvery }

func (r *Record) leaseUntil() time.Time {
	return time.UnixMilli(int64(min(r.Lease.Lease.Until, 1<<53)))
}

// hold writes down and tells that the program goes on without being paid since the end given. When
// that fails it may be repeated; the time of the hold runs from the first try.
func (t *attempt) hold(ctx context.Context, end time.Time) error {
	h := t.learn(end)
	return t.update(ctx, h.words(), func(r *Record) {
		if r.Phase == PhaseRunning && r.Stop == nil && r.Hold == nil {
			t.holdRecord(r, h)
		}
	})
}

// learn notes that the lease is superseded, at the first time.
func (t *attempt) learn(end time.Time) Hold {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.learned.Since.IsZero() {
		now := t.agent.deps.Now()
		most := min(t.agent.cfg.HoldSuperseded, t.holdLeft(now, end))
		t.learned = Hold{Since: now, Until: now.Add(most), End: end}
		if last := t.rec.leaseUntil(); last.Before(t.learned.Until) {
			t.learned.Until = last
		}
	}
	return t.learned
}

// unwritten makes good for a hold that could not be written down: it counts all the same.
func (t *attempt) unwritten(ctx context.Context) error {
	h := t.superseded()
	if h.Since.IsZero() || t.view().rec.Hold != nil {
		return nil
	}
	return t.jot(ctx, func(r *Record) { t.holdRecord(r, h) })
}

// holdRecord fixes what is due: nothing after the end. The caller holds mu.
func (t *attempt) holdRecord(r *Record, h Hold) {
	t.cut(r, h.End)
	r.Hold = &h
}

func (h *Hold) words() string {
	return "its lease was superseded: it is kept running, unpaid, until " +
		h.Until.UTC().Format(time.RFC3339)
}

// heldUntil is what others are told.
func (r *Record) heldUntil() time.Time {
	if r.Hold == nil || r.Phase != PhaseRunning {
		return time.Time{}
	}
	return r.Hold.Until
}

// waits says why an attempt is not what it seems, for those who come later.
func (r *Record) waits() string {
	if r.heldUntil().IsZero() {
		return r.Waiting
	}
	return r.Hold.words()
}

// superseded returns what is known of the lease's end, zero if it is not known to be superseded.
func (t *attempt) superseded() Hold {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rec.Hold != nil {
		return *t.rec.Hold
	}
	return t.learned
}

// paid tells whether what the program uses is paid, as far as this host knows.
func (t *attempt) paid() bool {
	return t.superseded().Since.IsZero() && t.view().rec.Cut == nil
}

// heldTooLong tells why a program that nobody pays may not go on, or nil.
func (w *watch) heldTooLong(ahead time.Time) *StopCause {
	h := w.t.superseded()
	if h.Since.IsZero() || ahead.Before(h.Until) || w.t.agent.heir(w.t.id) != nil {
		return nil // what is promised to go on waits for its lease, which lapses soon
	}
	return w.t.leaseEnded()
}

// leaseEnded is why a program goes whose lease was ended on the chain.
func (t *attempt) leaseEnded() *StopCause {
	cause := &StopCause{
		Reason: EndCancelled, Message: "the lease was ended on the chain",
		Grace: t.agent.cfg.StopGrace,
	}
	if e := t.view().rec.Evict; e != nil { // its replacement runs elsewhere
		cause.Reason, cause.Message = EndEvicted, e.words()
	}
	return cause
}

// toldNote remembers what clients know.
func (t *attempt) toldNote(n Note) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told = max(t.told, n.Upto)
}
