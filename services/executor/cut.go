package executor

import (
	"context"
	"slices"
	"time"
)

// A lease is paid up to its end, of which its host learns later, from a cut network much later. A
// note of then would bill time that is not the lease's: the chain caps by rate, and a program that
// uses little does not reach it. So a host remembers its notes, looks at the chain before each
// charge and before the last note, and asks for no more than the newest note before the end.

// Cut says that the lease had ended when the host had noted more. Nothing after the end is due.
type Cut struct {
	End time.Time // of the lease, by the chain
	// Seen says that a client was told of later usage than is asked for.
	Seen bool `json:",omitempty"`
	// Own: End is the lease's own time; the chain could not be asked whether it ended before.
	Own bool `json:",omitempty"`
}

const (
	// maxMarks bounds what is remembered of notes. While the chain cannot be looked at, a sixteenth of
	// that time may go unpaid.
	maxMarks = 32
	// headLag is how old the chain's head may be at a look.
	headLag = 2 * time.Minute
)

// Mark is usage that was signed.
type Mark struct {
	Upto       uint64 // ms since 1970
	Cumulative uint64 // grains
	Used       Metered
}

// noted makes the note the newest. safe is a time, ms since 1970, before which the lease has surely
// not ended.
func (r *Record) noted(note SignedNote, safe uint64) {
	marks := append(slices.Clone(r.marks()), markOf(note))
	for len(marks) > 1 && marks[1].Upto <= safe {
		marks = marks[1:]
	}
	if len(marks) > maxMarks {
		i := leastMissed(marks)
		marks = slices.Delete(marks, i, i+1)
	}
	r.Note, r.Marks = note, marks
}

// marks are those of the record. One that was written when there were none yet has its last note.
func (r *Record) marks() []Mark {
	if len(r.Marks) > 0 || r.Cut != nil || r.Note.Note.Upto == 0 {
		return r.Marks
	}
	return []Mark{markOf(r.Note)}
}

func markOf(n SignedNote) Mark { return Mark{n.Note.Upto, n.Note.Cumulative, n.Usage} }

// leastMissed returns the index of the mark, neither the first nor the last, without which the
// others are spread most evenly.
func leastMissed(marks []Mark) int {
	gap := func(i int) uint64 { return marks[i+1].Upto - marks[i-1].Upto }
	least := 1
	for i := 2; i < len(marks)-1; i++ {
		if gap(i) < gap(least) {
			least = i
		}
	}
	return least
}

// lastPaid is the newest mark that a lease with that end pays, or that was charged before the end
// was known: what was charged stays. It is never above the last note, which may claim nothing.
func (r *Record) lastPaid(end time.Time) Mark {
	at := unixMillis(end)
	last := Mark{Upto: at}
	for _, m := range r.marks() { // ascending
		if m.Cumulative > r.Note.Note.Cumulative {
			break
		}
		if m.Upto <= at || last.Cumulative < m.Cumulative && m.Cumulative <= r.Charged {
			last = m
		}
	}
	return last
}

// cut fixes what is due at a lease's end. The caller holds mu.
func (t *attempt) cut(r *Record, end time.Time) {
	m := r.lastPaid(end)
	seen := t.told > m.Upto
	if r.Ack != nil && r.Ack.Note.Cumulative > m.Cumulative {
		seen = true
		t.fallBack(r, m.Cumulative)
	}
	r.Note = t.noteOf(m)
	r.Cut, r.Marks = &Cut{End: end, Seen: seen}, nil
}

// fallBack makes the newest countersignature that is not above the amount the highest. One of
// before a restart is forgotten, unless a charge showed it to the chain. The caller holds mu.
func (t *attempt) fallBack(r *Record, most uint64) {
	r.Ack, r.AckNote = nil, SignedNote{}
	for _, ack := range slices.Backward(t.acks) {
		i := slices.IndexFunc(r.Marks, func(m Mark) bool { return m.Upto == ack.Note.Upto })
		if ack.Note.Cumulative > most || i < 0 {
			continue
		}
		if note := t.noteOf(r.Marks[i]); note.Note == ack.Note {
			r.Ack, r.AckNote = &ack, note
			return
		}
	}
}

// keepAck remembers a countersignature for as long as its note. The caller holds mu.
func (t *attempt) keepAck(r *Record, ack Ack) {
	t.acks = slices.DeleteFunc(append(t.acks, ack), func(a Ack) bool {
		return !slices.ContainsFunc(r.Marks, func(m Mark) bool { return m.Upto == a.Note.Upto })
	})
}

// noteOf makes the note of a mark again.
func (t *attempt) noteOf(m Mark) SignedNote {
	return t.agent.signer.note(t.ask.Spec.Chain, Note{
		Lease: t.lease.ID, Revision: t.ask.Revision, Upto: m.Upto, Cumulative: m.Cumulative,
	}, m.Used)
}

// retold tells whether clients may be told the newest note: not when they know of later usage.
func (r *Record) retold() bool { return r.Cut == nil || !r.Cut.Seen }

// ended returns when a lease that is over ended; zero: the chain does not say.
func (s *LeaseState) ended() time.Time {
	if !s.End.IsZero() && (s.Until.IsZero() || s.End.Before(s.Until)) {
		return s.End
	}
	return s.Until
}

// endUnpaid ends a program whose lease was ended on the chain. What it uses until it has ended is
// not paid.
func (t *attempt) endUnpaid(ctx context.Context, end time.Time) error {
	cause := t.leaseEnded()
	return t.jot(ctx, func(r *Record) {
		if r.Phase >= PhaseEnded {
			return
		}
		if r.Stop == nil {
			r.Stop = cause
		}
		if r.Cut == nil && !end.IsZero() {
			t.cut(r, end)
		}
	})
}

// cutBeforeTheEnd asks the chain, before the last note of a program that is over, whether its lease
// had ended before that: this host may not have heard of it. A chain that does not answer holds up
// no end; then it is asked before the last charge.
func (t *attempt) cutBeforeTheEnd(ctx context.Context, tally *Tally) error {
	within, cancel := context.WithTimeout(ctx, measureWait)
	defer cancel()
	end, err := t.endAfterAll(within)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r := t.view().rec
	if err != nil {
		t.agent.deps.Log.WarnContext(ctx, "cannot look at the lease", "attempt", t.id, "error", err)
		end = r.leaseUntil()
	}
	if r.Cut != nil || end.IsZero() || upto(&r, tally) <= unixMillis(end) {
		return nil
	}
	return t.jot(ctx, func(r *Record) {
		marks := r.Marks
		if t.cut(r, end); err != nil {
			r.Cut.Own, r.Marks = true, marks
		}
	})
}

// cutBeforeTheCharge makes the last note right that was told while the chain could not be asked.
func (t *attempt) cutBeforeTheCharge(ctx context.Context) error {
	end, err := t.endAfterAll(ctx)
	if r := t.view().rec; err != nil || end.IsZero() || r.Note.Note.Upto <= unixMillis(end) {
		return err
	}
	return t.jot(ctx, func(r *Record) {
		t.cut(r, end)
		r.Note.Final = true
		if r.Outcome != nil {
			o := *r.Outcome
			o.Usage, o.Amount = r.Note.Usage, r.Note.Note.Cumulative
			r.Outcome = &o
		}
	})
}

// endAfterAll asks the chain, once the program has ended, when its lease did; zero: it has not, or
// that is known already.
func (t *attempt) endAfterAll(ctx context.Context) (time.Time, error) {
	t.mu.Lock()
	known := t.looked || t.rec.Cut != nil && !t.rec.Cut.Own
	t.mu.Unlock()
	if known {
		return time.Time{}, nil
	}
	state, over, err := t.leaseOver(ctx)
	if err != nil {
		return time.Time{}, err
	}
	t.mu.Lock()
	t.looked = true
	t.mu.Unlock()
	if !over {
		return time.Time{}, nil
	}
	return state.ended(), nil
}

func unixMillis(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 0)) }
