package executor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/kit/fault"
)

// due returns the grains that the chain would call payable for the tally, trust aside: usage times
// prices, within what accrued by rate and within the budget.
func (t *attempt) due(r *Record, tally *Tally) uint64 {
	amount := uint64(math.MaxUint64) // more than any number; the caps below hold
	if grains, err := price.Amount(r.Prices.Rules(), tally.Used); err == nil {
		amount = uint64(grains)
	}
	lease := &r.Lease.Lease
	elapsed := time.UnixMilli(int64(min(upto(r, tally), lease.Until, math.MaxInt64))).
		Sub(r.LeaseFrom)
	return min(amount, add(lease.Upfront, accrued(lease.Rate, elapsed)), lease.Budget)
}

// upto returns the block time until which the tally counts. The host's clock may be behind the
// chain's, but the program started after the lease did, so its wall time counts from there.
func upto(r *Record, tally *Tally) uint64 {
	from := uint64(max(r.LeaseFrom.UnixMilli(), 0))
	at := uint64(max(tally.At.UnixMilli(), 0))
	return max(at, add(from, tally.Used.WallMS))
}

// sign makes the note of the tally. It never falls below the last one, but for a program that was
// refused, which owes nothing.
func (t *attempt) sign(r *Record, tally *Tally, last bool) SignedNote {
	note := t.agent.signer.note(t.ask.Spec.Chain, Note{
		Lease: t.lease.ID, Revision: t.ask.Revision, Upto: upto(r, tally),
		Cumulative: max(t.due(r, tally), r.Note.Note.Cumulative),
	}, tally.Used)
	note.Final = last
	return note
}

// Acknowledge takes a countersigned note. Old and repeated ones are harmless; one that is not this
// executor's own note, or that no ack key signed, is refused. One that comes when the lease was
// charged for the last time changes nothing.
func (a *Agent) Acknowledge(ctx context.Context, lease LeaseID, ack Ack) error {
	a.mu.Lock()
	t, over := a.byLease[lease], a.over[lease]
	a.mu.Unlock()
	switch {
	case over:
		return nil
	case t == nil:
		return ErrNoAttempt
	}
	return t.acknowledge(context.WithoutCancel(ctx), ack)
}

func (t *attempt) acknowledge(ctx context.Context, ack Ack) error {
	t.mu.Lock()
	i := slices.IndexFunc(t.recent, func(n SignedNote) bool { return n.Note == ack.Note })
	var note SignedNote
	if i >= 0 {
		note = t.recent[i]
	}
	known := t.rec.Ack != nil && t.rec.Ack.Note.Cumulative >= ack.Note.Cumulative &&
		t.rec.Ack.Note.Upto >= ack.Note.Upto
	t.mu.Unlock()
	if i < 0 {
		return fault.New(fault.InvalidArgument, ReasonForgedAck,
			"this is not one of the latest notes of the lease")
	}
	if err := t.agent.signer.verifyAck(t.ask.Spec.Chain, &t.lease.Lease, ack); err != nil {
		return ErrForgedAck.Because(err)
	}
	if known {
		return nil
	}
	return t.jot(ctx, func(r *Record) {
		// A program that was refused after its first note owes nothing, whatever is countersigned.
		higher := r.Ack == nil || r.Ack.Note.Cumulative <= ack.Note.Cumulative
		if higher && ack.Note.Cumulative <= r.Note.Note.Cumulative {
			r.Ack, r.AckNote = &ack, note
			t.keepAck(r, ack)
		}
	})
}

// charge asks the chain to pay the newest note, and first the highest countersigned one when that
// is another. Charging is cumulative: whatever is repeated after a crash pays nothing twice.
func (t *attempt) charge(ctx context.Context, last bool) error {
	r := t.view().rec
	ctx, span := t.agent.tracer.Start(ctx, "executor.charge", trace.WithAttributes(
		attribute.Int64("ucn.cumulative", int64(r.Note.Note.Cumulative)),
		attribute.Int64("ucn.countersigned", int64(r.Acked())), attribute.Bool("ucn.final", last)))
	defer span.End()
	results, err := t.agent.deps.Ledger.Charge(ctx, t.ask.Spec.Chain, charges(&r, last))
	if err != nil {
		span.RecordError(err)
		return fmt.Errorf("charge the lease: %w", err)
	}
	paid := uint64(0)
	for _, result := range results {
		paid = add(paid, result.Paid)
	}
	span.SetAttributes(attribute.Int64("ucn.cost.grains", int64(paid)))
	t.agent.counters.paid(ctx, paid)
	named := min(r.Note.Note.Cumulative, r.Covered())
	locked := last && len(results) > 0 && results[len(results)-1].Bound == BoundPayeeLock
	if locked {
		named = 0
	}
	err = t.jot(context.WithoutCancel(ctx), func(next *Record) {
		next.Charged, next.Paid = max(next.Charged, named), add(next.Paid, paid)
	})
	if err == nil && locked {
		return errPayeeLock
	}
	return err
}

func charges(r *Record, last bool) []Charge {
	newest := Charge{Note: r.Note, Final: last}
	switch {
	case r.Ack == nil:
		return []Charge{newest}
	case r.Ack.Note == r.Note.Note:
		newest.Ack = r.Ack
		return []Charge{newest}
	}
	return []Charge{{Note: r.AckNote, Ack: r.Ack}, newest}
}

// settle takes the last charge and clears away. The outcome is told already; nothing here makes
// anyone wait for it.
func (t *attempt) settle(ctx context.Context) error {
	if err := t.awaitAck(ctx); err != nil {
		return err
	}
	err := t.lastCharge(ctx)
	locked := errors.Is(err, errPayeeLock)
	if err != nil && !locked {
		return err
	}
	if err := t.awaitReaders(ctx); err != nil {
		return err
	}
	if err := t.clearAway(ctx); err != nil {
		return err
	}
	if locked {
		if err := t.awaitPayee(ctx); err != nil {
			return err
		}
	}
	return t.update(ctx, "", func(r *Record) {
		r.Phase, r.Token, r.Held = PhaseClosed, "", r.Lease.Lease.Holdback > 0
	})
}

// clearAway removes container and inputs, unless another attempt goes on with them.
func (t *attempt) clearAway(ctx context.Context) error {
	r := t.view().rec
	if r.HandedTo != "" {
		return nil
	}
	c, err := t.locate(ctx)
	if err == nil && c != nil {
		err = c.Remove(ctx)
	}
	if err != nil {
		return fmt.Errorf("remove the container: %w", err)
	}
	if err := t.agent.deps.Files.DropInputs(ctx, r.container()); err != nil {
		return fmt.Errorf("remove the inputs: %w", err)
	}
	return nil
}

// awaitAck gives the client a short time to countersign the last note.
func (t *attempt) awaitAck(ctx context.Context) error {
	return t.await(ctx, func(v *view) bool {
		same := v.rec.Ack != nil && v.rec.Ack.Note == v.rec.Note.Note
		return same || v.rec.Note.Note.Cumulative <= v.rec.Acked()
	})
}

// awaitReaders gives attached clients a short time to read the log to its end.
func (t *attempt) awaitReaders(ctx context.Context) error {
	return t.await(ctx, func(v *view) bool { return v.readers == 0 || v.container == nil })
}

// await waits until done, but no longer than AckWait after the end.
func (t *attempt) await(ctx context.Context, done func(v *view) bool) error {
	for {
		v := t.view()
		until := v.rec.Changed.Add(t.agent.cfg.AckWait)
		if done(&v) || ctx.Err() != nil || !t.agent.deps.Now().Before(until) {
			return ctx.Err()
		}
		if err := t.waitChange(ctx, &v, until); err != nil {
			return err
		}
	}
}

// lastCharge charges with final, until it is committed. Only when the claim window is surely over
// is it given up: until then a ledger that is away, or an account without money for fees, may be
// mended.
func (t *attempt) lastCharge(ctx context.Context) error {
	err := t.cutBeforeTheCharge(ctx)
	if err == nil {
		err = t.charge(ctx, true)
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, errPayeeLock) {
		return err
	}
	window := time.Duration(t.lease.Lease.ClaimWindow) * time.Millisecond
	over := t.view().rec.Changed.Add(2 * window)
	if t.agent.deps.Now().After(over) {
		t.agent.deps.Log.ErrorContext(ctx, "the last charge is given up: the claim window is over",
			"attempt", t.id, "error", err)
		return nil
	}
	return err
}
