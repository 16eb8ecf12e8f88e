package executor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/telemetry"
)

const (
	firstBackoff = 50 * time.Millisecond // between tries of what failed
	lastBackoff  = 5 * time.Second
	maxRecent    = 16 // notes that a late countersignature may still name
)

// attempt is one attempt while it is not closed. One goroutine (live) moves it from phase to
// phase; everyone else changes it through update, which writes it down first.
type attempt struct {
	agent *Agent
	id    AttemptID
	ask   *Ask        // never changes
	lease SignedLease // never changes
	need  Resources   // never changes
	held  Resources   // guarded by the agent's mutex: what of need counts as used
	// unopened, guarded by the agent's mutex: it only waits for the payee's account.
	unopened bool
	// placed says that the chain was seen to hold the lease.
	placed atomic.Bool

	// noRoom is how often there was no room for the image; the goroutine's own.
	noRoom int
	// patience is that of the collection under way; set before anything is stored.
	patience atomic.Pointer[patience]

	// mu guards what follows and orders saves. changed is closed, and replaced, at every change.
	mu        sync.Mutex
	rec       Record
	changed   chan struct{}
	statuses  []Status // told so far: one for each phase, and evictions
	recent    []SignedNote
	task      *Task // delivered, not yet taken
	secrets   map[string]string
	registry  []RegistryCredential // until the container is made
	container Container
	gauge     gauge    // of the running program
	learned   Hold     // what this life has seen of a lease that was superseded
	acks      []Ack    // of notes that are remembered, ascending
	looked    bool     // the chain was looked at after the program had ended
	told      uint64   // ms since 1970: up to when clients may know what is due
	asked     bool     // somebody wants to know how it stands, which the chain may know better
	taker     *attempt // continues this one, and waits for its program
	streams   int      // calls that listen, at most maxStreams
	readers   int      // clients that still read the log; the container waits for them a while

	// stopped ends when the attempt is to be stopped: it cuts fetching and starting short.
	stopped context.Context
	halt    context.CancelFunc
}

func newAttempt(a *Agent, rec Record) *attempt {
	t := &attempt{
		agent: a, id: rec.Ask.Attempt, lease: rec.Lease, need: rec.Ask.Spec.Resources,
		rec: rec, changed: make(chan struct{}),
	}
	ask := rec.Ask
	t.ask = &ask
	t.placed.Store(!rec.LeaseFrom.IsZero() || rec.Phase > PhaseAsked)
	t.stopped, t.halt = context.WithCancel(context.Background())
	if rec.Stop != nil {
		t.halt()
	}
	if rec.Phase > PhaseAsked {
		t.statuses = []Status{rec.Status(rec.waits())}
	}
	if rec.Note.Note.Lease == rec.Lease.ID {
		t.recent = []SignedNote{rec.Note}
		t.told = rec.Note.Note.Upto // an earlier life may have told it
	}
	return t
}

// view is a consistent look at an attempt.
type view struct {
	rec       Record
	statuses  []Status
	container Container
	task      *Task
	secrets   map[string]string
	registry  []RegistryCredential
	taker     *attempt
	readers   int
	changed   <-chan struct{}
}

func (t *attempt) view() view {
	t.mu.Lock()
	defer t.mu.Unlock()
	return view{t.rec, t.statuses, t.container, t.task, t.secrets, t.registry,
		t.taker, t.readers, t.changed}
}

// update changes the record: on disk first, with the event of a new phase in the same write, then
// here. change must replace what slices and pointers of the record hold, not write into it. When
// update returns an error nothing has changed here, and what depends on it must not be done.
func (t *attempt) update(ctx context.Context, why string, change func(r *Record)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.rec
	change(&next)
	var events []event.Event
	status := t.transition(&next, why)
	if status != nil {
		e, err := t.agent.tell(*status, telemetry.Inject(ctx))
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	if err := t.agent.deps.Journal.Save(ctx, next, events...); err != nil {
		return fmt.Errorf("write attempt %s down: %w", t.id, err)
	}
	t.become(next, status)
	return nil
}

// jot is update for what only this host loses when it is forgotten: notes and their acks, what was
// charged, and why it ends a program itself. It is neither a phase nor anything else that events
// tell of. When the journal cannot be written, as on a full disk, it counts here all the same: else
// the disk of the host would end a program that is paid for, and under another's name. The next
// record that is written has it; a crash before that leaves the host with what the journal has, and
// the meter, from which the next note is made.
func (t *attempt) jot(ctx context.Context, change func(r *Record)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.rec
	change(&next)
	err := t.agent.deps.Journal.Save(ctx, next)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("write attempt %s down: %w", t.id, err)
	}
	if err != nil {
		t.agent.deps.Log.ErrorContext(ctx, "cannot write down, going on in memory", "attempt", t.id,
			"error", err)
	}
	t.become(next, nil)
	return nil
}

// become makes next the record, and status, if there is one, told. The caller holds mu.
func (t *attempt) become(next Record, status *Status) {
	if next.Note.Note != t.rec.Note.Note {
		t.recent = append(t.recent, next.Note)
		t.recent = slices.Clone(t.recent[max(0, len(t.recent)-maxRecent):])
	}
	moved := next.Phase != t.rec.Phase
	t.rec = next
	if status != nil && (moved || len(t.statuses) < maxStatuses) {
		t.statuses = append(t.statuses[:len(t.statuses):len(t.statuses)], *status)
	}
	if next.Stop != nil {
		t.halt()
	}
	t.broadcast()
}

// transition stamps a new phase and makes the status of one that others are told of, as of an
// eviction: closing is nobody else's business, and what was never leased never ended for others.
func (t *attempt) transition(next *Record, why string) *Status {
	now := t.agent.deps.Now()
	switch {
	case next.Phase != t.rec.Phase:
		next.Changed, next.Waiting = now, ""
	case next.Waiting != t.rec.Waiting:
		why = first(next.Waiting, fetching)
	case next.Evict == t.rec.Evict && next.Hold == t.rec.Hold || next.Phase == PhaseAsked:
		// The next phase tells of it.
		return nil
	}
	if next.Phase == PhaseClosed {
		return nil
	}
	s := next.Status(why)
	s.Time = now
	return &s
}

// fetching is what a start is told to do that waits for nothing.
const fetching = "fetching image and inputs"

func first(one, other string) string {
	if one != "" {
		return one
	}
	return other
}

// broadcast wakes everyone who waits for a change; the caller holds mu.
func (t *attempt) broadcast() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *attempt) set(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
	t.broadcast()
}

// live moves the attempt on until it is closed or ctx ends. What fails is tried again: all steps
// may be repeated.
func (t *attempt) live(ctx context.Context) {
	ctx = telemetry.Extract(ctx, t.trace())
	for wait := firstBackoff; ; {
		phase := t.view().rec.Phase
		if phase == PhaseClosed {
			t.agent.leave(t)
			return
		}
		err := t.step(ctx, phase)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			wait = firstBackoff
		default:
			t.agent.deps.Log.WarnContext(ctx, "attempt is held up", "attempt", t.id,
				"state", phase.State(), "error", err)
			pause(ctx, wait)
			wait = min(2*wait, lastBackoff)
		}
	}
}

// trace returns the traceparent that the attempt's spans belong to.
func (t *attempt) trace() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rec.TaskTrace != "" {
		return t.rec.TaskTrace
	}
	return t.rec.Trace
}

func (t *attempt) step(ctx context.Context, phase Phase) error {
	switch phase {
	case PhaseAsked:
		return t.awaitTask(ctx)
	case PhaseTaken:
		if t.ask.Continues != "" {
			return t.takeOver(telemetry.Extract(ctx, t.trace()))
		}
		return t.begin(telemetry.Extract(ctx, t.trace()))
	case PhaseRunning:
		return t.oversee(telemetry.Extract(ctx, t.trace()))
	default:
		return t.settle(telemetry.Extract(ctx, t.trace()))
	}
}

// endIt is requestStop for what the host decides itself.
func (t *attempt) endIt(ctx context.Context, cause StopCause) error {
	if v := t.view(); v.rec.Stop != nil || v.rec.Phase >= PhaseEnded {
		return nil
	}
	return t.jot(ctx, func(r *Record) {
		if r.Stop == nil && r.Phase < PhaseEnded {
			r.Stop = &cause
		}
	})
}

// requestStop writes down that the attempt is to end, and why. The first cause stays.
func (t *attempt) requestStop(ctx context.Context, cause StopCause) error {
	if v := t.view(); v.rec.Stop != nil || v.rec.Phase >= PhaseEnded {
		return nil
	}
	return t.update(ctx, "", func(r *Record) {
		if r.Stop == nil && r.Phase < PhaseEnded {
			r.Stop = &cause
		}
	})
}

// endUnstarted ends an attempt whose program never ran: nothing is charged, and the lease is given
// back when the chain holds it.
func (t *attempt) endUnstarted(ctx context.Context, reason EndReason, message string) error {
	v := t.view()
	message = strings.ToValidUTF8(message, "_")
	outcome := &Outcome{Reason: reason, Code: -1, Message: message}
	if v.rec.LeaseFrom.IsZero() {
		return t.update(ctx, "", func(r *Record) {
			r.Outcome, r.Phase, r.Token = outcome, PhaseClosed, ""
		})
	}
	note := t.zeroNote(&v.rec)
	err := t.update(ctx, message, func(r *Record) {
		// Its countersignature may come, and that of a first note before: nothing is due.
		r.Outcome, r.Note, r.Phase = outcome, note, PhaseEnded
		r.Ack, r.AckNote = nil, SignedNote{}
	})
	if err == nil {
		t.agent.counters.ended(ctx, outcome)
		t.agent.disinherit(t)
		t.agent.release(t)
	}
	return err
}

// zeroNote says that nothing is due.
func (t *attempt) zeroNote(r *Record) SignedNote {
	upto := max(t.agent.deps.Now().UnixMilli(), r.LeaseFrom.UnixMilli())
	note := t.agent.signer.note(t.ask.Spec.Chain, Note{
		Lease: t.lease.ID, Revision: t.ask.Revision, Upto: uint64(upto),
	}, Metered{})
	note.Final = true
	return note
}
