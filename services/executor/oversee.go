package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
)

const (
	leastLook = 2 * time.Second // between two looks at the chain for those who come
	// away is how long this process must have stood still, beyond a tick, to look at the chain by
	// itself: another lease may have taken the lane meanwhile.
	away        = 5 * time.Second
	measureWait = 5 * time.Second // for one sample: bounds are kept even if the engine hangs
	maxRunMS    = 1 << 43         // more than any run: what a duration holds
)

// watch is one life's look after a running program.
type watch struct {
	t         *attempt
	container Container
	exits     chan exited
	group     sync.WaitGroup
	tally     Tally

	sure     bool      // whether a lease can be told to be over
	sampleAt time.Time // by this life's clock; before its first sample that of the journal's last
	noteAt   time.Time // of the last note that was signed
	chargeAt time.Time // of the last charge that was tried
	lookAt   time.Time // of the last look at the chain without a charge
	turnAt   time.Time // of the last turn of the loop
	// open is when the chain was last seen to hold the lease open, ms since 1970.
	open atomic.Int64
	// stopping, hurrying and charging each hold a value while their goroutine runs; charging also
	// while the chain is only looked at.
	stopping chan struct{}
	hurrying chan struct{}
	charging chan struct{}
	// chain ends, by leaveChain, what charging holds.
	chain      context.Context
	leaveChain context.CancelFunc
}

// exited is how a program ended.
type exited struct {
	exit Exit
	err  error
}

// oversee meters a program, sees to it that it never runs beyond what can be paid, and ends the
// attempt when the program ends. When ctx ends first the program goes on; the next life oversees
// it from where the journal stands.
func (t *attempt) oversee(ctx context.Context) error {
	ctx, span := t.agent.tracer.Start(ctx, "executor.run")
	defer span.End()
	c, err := t.locate(ctx)
	if err != nil {
		return err
	}
	if c == nil {
		return t.finish(ctx, nil, Exit{Kind: ExitLost, Code: -1, Ended: t.view().rec.Tally.At})
	}
	now := t.agent.deps.Now()
	w := &watch{
		t: t, container: c, exits: make(chan exited, 1), tally: t.view().rec.Tally,
		sampleAt: t.view().rec.Tally.At, noteAt: now, chargeAt: now,
		stopping: make(chan struct{}, 1), hurrying: make(chan struct{}, 1),
		charging: make(chan struct{}, 1),
	}
	inner, cancel := context.WithCancel(ctx)
	defer w.group.Wait()
	defer cancel()
	w.chain, w.leaveChain = context.WithCancel(inner)
	defer w.leaveChain()
	w.group.Go(func() {
		exit, err := c.Wait(inner)
		w.exits <- exited{exit: exit, err: err}
	})
	done, err := w.loop(inner)
	if err != nil || done == nil {
		return err
	}
	if errors.Is(done.err, ErrNotFound) {
		done.exit = Exit{Kind: ExitLost, Code: -1, Ended: t.view().rec.Tally.At}
	} else if done.err != nil {
		return fmt.Errorf("wait for the program: %w", done.err)
	}
	span.SetAttributes(attribute.String("ucn.exit", string(done.exit.Kind)),
		attribute.Int("ucn.exit_code", done.exit.Code))
	cancel()
	w.group.Wait() // no charge may write after the outcome is fixed
	return t.finish(ctx, c, done.exit)
}

// loop returns how the program ended, or nil when ctx ended first or another attempt has it now.
// That one may have to wait for it, so it is offered at once and then once a tick, and looked after
// meanwhile.
func (w *watch) loop(ctx context.Context) (*exited, error) {
	ticker := time.NewTicker(w.t.agent.cfg.Tick)
	defer ticker.Stop()
	for offered := false; ; {
		v := w.t.view()
		w.look()
		switch {
		case v.rec.Stop != nil:
			w.stop(ctx, w.stopping, v.rec.Stop)
		case v.taker != nil && !offered:
			offered = true
			if w.tick(ctx) {
				return nil, nil
			}
		}
		select {
		case done := <-w.exits:
			return &done, nil
		case <-ctx.Done():
			return nil, nil
		case <-v.changed:
		case <-ticker.C:
			if w.tick(ctx) {
				return nil, nil
			}
		}
	}
}

// stop asks the container to end, in the background: metering goes on until it has. A failed try
// is repeated at the next turn of the loop.
func (w *watch) stop(ctx context.Context, slot chan struct{}, cause *StopCause) {
	w.once(slot, func() {
		if err := w.container.Stop(ctx, cause.Grace); err != nil && ctx.Err() == nil {
			w.t.agent.deps.Log.WarnContext(ctx, "cannot stop the program", "attempt", w.t.id,
				"error", err)
		}
	})
}

// once runs f in the background, and returns true, unless the last one still runs.
func (w *watch) once(slot chan struct{}, f func()) bool {
	select {
	case slot <- struct{}{}:
		w.group.Go(func() {
			defer func() { <-slot }()
			f()
		})
		return true
	default:
		return false
	}
}

// tick measures, enforces the bounds, and signs and charges what is due; or hands the program to
// the attempt that waits for it, and returns true. A failure of any of it is made good by the next
// tick; the bounds are enforced even when nothing can be measured, whoever waits.
func (w *watch) tick(ctx context.Context) (handed bool) {
	log := w.t.agent.deps.Log
	within, cancel := context.WithTimeout(ctx, measureWait)
	sample, err := w.container.Usage(within)
	cancel()
	w.sure = w.t.agent.dial.sure()
	now := w.t.agent.deps.Now()
	if err != nil {
		log.WarnContext(ctx, "cannot measure", "attempt", w.t.id, "error", err)
	} else {
		w.tally.Add(sample, w.t.need)
		w.t.measured(&w.tally, sample)
		w.sampleAt = now
	}
	v := w.t.view()
	cause := w.mustStop(&v.rec, &sample, now)
	switch {
	case cause == nil:
	case v.rec.Stop != nil && v.rec.Stop.Grace > cause.Grace:
		// It was asked for with a long grace, which is not paid for any more.
		w.stop(ctx, w.hurrying, cause)
	case v.rec.Stop == nil:
		w.end(ctx, cause)
		return false
	}
	if v.taker != nil && v.rec.Stop == nil && err == nil && len(w.exits) == 0 {
		if err := w.handOver(ctx, v.taker); err == nil {
			return true
		} else if ctx.Err() == nil {
			log.WarnContext(ctx, "cannot hand the program over yet", "attempt", w.t.id, "error", err)
		}
	}
	if err := w.note(ctx, &v.rec, now); err != nil {
		log.WarnContext(ctx, "cannot sign a note", "attempt", w.t.id, "error", err)
	}
	w.charge(now)
	return false
}

// end notes that the program is to stop, and what it has used until now: a lease that ends before
// the program does pays that. The loop stops it then.
func (w *watch) end(ctx context.Context, cause *StopCause) {
	err := w.t.jot(ctx, func(r *Record) {
		r.Tally = w.tally
		if r.Stop != nil {
			return
		}
		r.Stop = cause
		if r.Cut == nil {
			r.noted(w.t.sign(r, &w.tally, false), w.safe())
		}
	})
	if err != nil { // this life ends; the next one sees the same
		w.t.agent.deps.Log.WarnContext(ctx, "cannot end the program", "attempt", w.t.id,
			"error", err)
	}
}

// note signs usage when it is time, or when half of the trust beyond the last note is used up.
func (w *watch) note(ctx context.Context, r *Record, now time.Time) error {
	if !w.t.paid() {
		return nil
	}
	due := w.t.due(r, &w.tally)
	if r.Stop != nil && r.Stop.Reason == EndEvicted && !r.Evict.noticed() {
		return nil // nothing more is due
	}
	fresh := due - min(due, r.Note.Note.Cumulative)
	soon := fresh > r.Lease.Lease.Trust/4 && fresh > 0
	since := now.Sub(w.noteAt) // below zero: the time was put right
	if since >= 0 && since < w.t.agent.cfg.NoteEvery && !soon {
		return nil
	}
	note := w.t.sign(r, &w.tally, false)
	err := w.t.jot(ctx, func(r *Record) {
		if r.Cut == nil {
			r.Tally = w.tally
			r.noted(note, w.safe())
		}
	})
	if err == nil {
		w.noteAt = now
	}
	return err
}

// safe is a time, ms since 1970, before which the lease has surely not ended.
func (w *watch) safe() uint64 { return uint64(max(w.open.Load()-headLag.Milliseconds(), 0)) }

// charge takes what is payable from time to time, in the background.
func (w *watch) charge(now time.Time) {
	r := w.t.view().rec
	payable := min(r.Note.Note.Cumulative, r.Covered()) > r.Charged
	keeps := r.Ask.Spec.KeepOriginal
	since := now.Sub(w.chargeAt)
	early := since >= 0 && since < w.t.agent.cfg.ChargeEvery
	if early || !payable && !keeps || r.Hold != nil {
		return
	}
	if w.onChain("cannot charge", func() error { return w.chargeNow(w.chain, payable) }) {
		w.chargeAt = now
	}
}

// look looks at the lease at once when a scheduler or client comes, as they do after they or this
// host were silent, and when this process stood still for a while: another lease may have taken the
// lane meanwhile. It charges nothing, since that costs a fee, and anybody who may deliver the task
// may do so again and again.
func (w *watch) look() {
	now := w.t.agent.deps.Now()
	stood := !w.turnAt.IsZero() && now.Sub(w.turnAt) > w.t.agent.cfg.Tick+away
	w.turnAt = now
	w.t.mu.Lock()
	w.t.asked = w.t.asked || stood
	asked := w.t.asked && w.t.rec.Hold == nil
	w.t.mu.Unlock()
	if since := now.Sub(w.lookAt); !asked || since >= 0 && since < leastLook {
		return
	}
	if w.onChain("cannot look at the lease", func() error { return w.checkLease(w.chain) }) {
		w.lookAt = now
		w.t.mu.Lock()
		w.t.asked = false
		w.t.mu.Unlock()
	}
}

// onChain runs f in the background unless the last one still runs.
func (w *watch) onChain(trouble string, f func() error) bool {
	return w.once(w.charging, func() {
		if err := f(); err != nil && w.chain.Err() == nil {
			w.t.agent.deps.Log.WarnContext(w.chain, trouble, "attempt", w.t.id, "error", err)
		}
	})
}

// chargeNow looks at the lease, and charges if it stands: nothing after its end is to be charged.
// What cannot be looked at is charged later, for the same notes.
func (w *watch) chargeNow(ctx context.Context, payable bool) error {
	if err := w.checkLease(ctx); err != nil {
		return err
	}
	if !w.t.paid() || !payable {
		return nil
	}
	return w.t.charge(ctx, false)
}

// checkLease stops or holds a program whose lease was ended on the chain: what it uses from then on
// is not paid. Trouble with the chain stops nothing.
func (w *watch) checkLease(ctx context.Context) error {
	now := w.t.agent.deps.Now()
	state, over, err := w.t.leaseOver(ctx)
	switch {
	case err != nil:
		return err
	case !over:
		w.open.Store(now.UnixMilli())
		return nil
	case w.t.holds(&state):
		return w.t.hold(ctx, state.End)
	}
	return w.t.endUnpaid(ctx, state.ended())
}

// leaseOver tells whether the lease has ended on the chain, and what else that knows of it.
func (t *attempt) leaseOver(ctx context.Context) (state LeaseState, over bool, err error) {
	state, err = t.agent.deps.Ledger.Lease(ctx, t.ask.Spec.Chain, t.lease.ID)
	switch {
	case errors.Is(err, ErrNoLease):
		return state, true, nil
	case err != nil:
		return state, false, fmt.Errorf("read the lease: %w", err)
	}
	return state, t.agent.leaseIsOver(ctx, &state), nil
}

// mustStop tells why the program may not run until the next tick, or nil.
func (w *watch) mustStop(r *Record, sample *Usage, now time.Time) *StopCause {
	a, lease := w.t.agent, &r.Lease.Lease
	ahead := now.Add(a.cfg.Tick)
	unmeasured := max(ahead.Sub(w.sampleAt), 0)
	ran := time.Duration(min(add(r.Ran, w.tally.Used.WallMS), maxRunMS))*time.Millisecond + unmeasured
	// A clock that was put back does not make the lease longer.
	upto := max(uint64(max(ahead.UnixMilli(), 0)), upto(r, &w.tally))
	next := add(w.t.due(r, &w.tally), accrued(lease.Rate, unmeasured))
	grace := a.cfg.StopGrace
	stop := func(reason EndReason, format string, args ...any) *StopCause {
		return &StopCause{Reason: reason, Message: fmt.Sprintf(format, args...), Grace: grace}
	}
	run := r.Ask.Spec.RunTime
	if cause := w.heldTooLong(ahead); cause != nil {
		return cause
	}
	paid := w.t.paid()
	switch {
	case paid && upto > lease.Until && w.sure:
		return stop(EndExpired, "the lease ended")
	case run > 0 && ran > run+a.cfg.Tick:
		return stop(EndFailed, "run time limit of %v reached", run)
	case paid && next > lease.Budget:
		return stop(EndExhausted, "the budget of %d grains is used up", lease.Budget)
	case paid && next > add(r.Acked(), lease.Trust):
		return stop(EndExhausted, "usage is not acknowledged: the trust of %d grains beyond the "+
			"last countersigned note is used up", lease.Trust)
	case sample.Uncounted:
		grace = 0 // nothing bounds what it writes
		return stop(EndFailed, "the root file system has more files than can be measured; write them "+
			"to an output")
	case sample.Disk > max(r.Ask.Spec.Resources.Disk, rootQuota):
		grace = 0 // it would go on writing
		return stop(EndFailed, "disk limit of %d bytes reached", r.Ask.Spec.Resources.Disk)
	}
	return nil
}
