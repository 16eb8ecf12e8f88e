package event

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/telemetry"
)

// item is a verified envelope on its way to the handler.
type item struct {
	msg jetstream.Msg // nil for one that a gap hook returned
	in  Incoming
	// certificate of the sender
	certificate cert.Certificate
}

// intake is the work on one batch: what was read, put in order, before anything takes effect.
type intake[Tx any] struct {
	*Consumer[Tx]
	ordered []item
	ahead   map[Line]Cursor // where the lines stand once ordered has taken effect
	asked   map[Line]bool   // lines whose gap was met in this batch
	forks   []found
}

// handle brings one batch to its end: every message is acknowledged, handed back or dropped.
func (c *Consumer[Tx]) handle(ctx context.Context, batch []jetstream.Msg) {
	if len(c.cursors) > maxLines {
		clear(c.cursors)
	}
	in := &intake[Tx]{Consumer: c, ahead: map[Line]Cursor{}, asked: map[Line]bool{}}
	received := make([]Received, len(batch))
	for i, m := range batch {
		received[i] = Received{Subject: m.Subject(), Data: m.Data()}
	}
	for i, verdict := range c.cfg.Verifier.Verify(ctx, received) {
		in.sort(ctx, batch[i], verdict)
	}
	in.apply(ctx)
}

// sort puts a message in its place behind those before it, or gives it back, or drops it.
func (in *intake[Tx]) sort(ctx context.Context, m jetstream.Msg, v Verdict) {
	if v.Err != nil {
		in.refuse(ctx, m, v)
		return
	}
	it := item{msg: m, in: in.incoming(v), certificate: v.Certificate}
	in.settle(ctx, it, in.place(ctx, it))
}

// settle says to the broker what became of an item that was to be placed.
func (in *intake[Tx]) settle(ctx context.Context, it item, err error) {
	var fork *ForkError
	var gap *GapError
	switch line := it.in.Line(); {
	case err == nil:
	case errors.Is(err, ErrDuplicate):
		in.repeated(ctx, it)
	case errors.As(err, &fork):
		in.forked(ctx, it, fork)
	case errors.Is(err, ErrForked), errors.Is(err, ErrEpochInvalid):
		in.drop(ctx, it.msg, err)
	case errors.As(err, &gap):
		in.wait(ctx, it, err)
	default:
		in.hold(ctx, it.msg, line, err)
	}
}

// wait keeps an item until those before it have come. The first of a line in a batch is handed
// back as well: when it comes again, the gap hook is asked again.
func (in *intake[Tx]) wait(ctx context.Context, it item, gap error) {
	line := it.in.Line()
	if in.tired(line) {
		in.parked.remove(line, placeOf(it.in.Envelope))
		in.drop(ctx, it.msg, gap)
		return
	}
	m := it.msg
	first := !in.asked[line]
	in.asked[line] = true
	if first {
		it.msg = nil // its copy that comes again is acknowledged
	}
	if !in.parked.add(it) || first {
		in.hold(ctx, m, line, gap)
	}
}

func (in *intake[Tx]) incoming(v Verdict) Incoming {
	return Incoming{Envelope: v.Envelope, Operator: v.Operator, Service: in.cfg.Service}
}

// refuse drops what can never be taken and gives back what may be taken later.
func (in *intake[Tx]) refuse(ctx context.Context, m jetstream.Msg, v Verdict) {
	if v.Envelope == nil || final(v.Err) {
		in.drop(ctx, m, v.Err)
		return
	}
	in.hold(ctx, m, v.Envelope.Line(), v.Err)
}

// final tells refusals that no waiting changes.
func final(err error) bool {
	for _, reason := range []error{
		ErrOversized, ErrNotCanonical, ErrMalformed, ErrSubject, ErrSignature, ErrInstance,
		ErrOperator, ErrOperatorRefused, ErrService, ErrCertificateExpired, ErrCertificateInvalid,
	} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// place appends the item to what takes effect, after filling a gap before it if the hook can, and
// after it whatever waited for it.
func (in *intake[Tx]) place(ctx context.Context, it item) error {
	line := it.in.Line()
	cursor, err := in.cursor(ctx, line)
	if err != nil {
		return err
	}
	err = in.follows(ctx, cursor, it.in)
	var gap *GapError
	if errors.As(err, &gap) && !in.asked[line] {
		gap.Service, gap.Certificate = in.cfg.Service, it.certificate
		in.fetcher.ask(ctx, gap, it.in.Operator)
	}
	if err != nil {
		return err
	}
	in.take(it)
	in.takeParked(ctx, line)
	return nil
}

// follows tells whether the event comes next, be it as the first of an epoch that its operator
// opened. One further on in such an epoch is behind a gap.
func (in *intake[Tx]) follows(ctx context.Context, cursor Cursor, e Incoming) error {
	err := cursor.Follows(e.Envelope)
	var other *EpochError
	if !errors.As(err, &other) {
		return err
	}
	if e.Body.Seq > 1 {
		return &GapError{Line: e.Line(), Epoch: e.Body.Epoch, Want: 1, Got: e.Body.Seq}
	}
	opened, err := in.cfg.Verifier.opens(ctx, e.Envelope, e.Operator)
	if err != nil {
		return err
	}
	in.cfg.Log.WarnContext(ctx, "an operator opened a new epoch after a restore", "line", e.Line(),
		"epoch", opened.Number, "here_seq", cursor.Seq, "mark_seq", opened.Marks[e.Topic()].Seq)
	return nil
}

func (in *intake[Tx]) take(it item) {
	in.ordered = append(in.ordered, it)
	in.ahead[it.in.Line()] = at(it.in.Envelope)
}

// takeParked takes what waited for the last one taken.
func (in *intake[Tx]) takeParked(ctx context.Context, line Line) {
	for {
		cursor, err := in.cursor(ctx, line)
		if err != nil {
			return
		}
		it, ok := in.parked.remove(line, cursor.next())
		if !ok {
			return
		}
		if err := cursor.Follows(it.in.Envelope); err != nil {
			var fork *ForkError
			if it.msg != nil || errors.As(err, &fork) {
				in.settle(ctx, it, err)
			}
			return
		}
		in.take(it)
	}
}

// placeFetched puts one fetched envelope in its place. What is wrong with it is no verdict on the
// envelope behind the gap, so the error is the gap and only tells the reason.
func (in *intake[Tx]) placeFetched(ctx context.Context, gap *GapError, v Verdict) error {
	if v.Err != nil {
		return fmt.Errorf("%w; what was fetched: %v", gap, v.Err)
	}
	if v.Envelope.Line() != gap.Line {
		return fmt.Errorf("%w; what was fetched is of another line", gap)
	}
	cursor, err := in.cursor(ctx, gap.Line)
	if err != nil {
		return err
	}
	it := item{in: in.incoming(v), certificate: v.Certificate}
	err = in.follows(ctx, cursor, it.in)
	var fork *ForkError
	if errors.As(err, &fork) {
		in.forked(ctx, it, fork)
	}
	if errors.Is(err, ErrDuplicate) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; what was fetched: %v", gap, err)
	}
	in.take(it)
	return nil
}

// cursor returns where the line stands once everything ordered so far has taken effect.
func (in *intake[Tx]) cursor(ctx context.Context, line Line) (Cursor, error) {
	if cursor, ok := in.ahead[line]; ok {
		return cursor, nil
	}
	return in.committed(ctx, line)
}

// committed returns where the line stands in the store.
func (in *intake[Tx]) committed(ctx context.Context, line Line) (Cursor, error) {
	if cursor, ok := in.cursors[line]; ok {
		return cursor, nil
	}
	var cursor Cursor
	if !in.persist(ctx, func() (err error) {
		cursor, err = in.cfg.Cursors.Cursor(ctx, line)
		return err
	}) {
		return Cursor{}, ctx.Err()
	}
	in.cursors[line] = cursor
	return cursor, nil
}

// apply handles the ordered items in one transaction, or one by one if that fails. What fails here
// is our own side, so it is tried in place until it works: nothing is lost, nothing overtakes.
func (in *intake[Tx]) apply(ctx context.Context) {
	defer in.record(ctx)
	if len(in.ordered) == 0 {
		return
	}
	if err := in.commit(ctx, in.ordered, in.call); err == nil {
		for _, it := range in.ordered {
			in.ack(ctx, it.msg)
		}
		return
	}
	for i, it := range in.ordered {
		if !in.persist(ctx, func() error { return in.applyOne(ctx, it) }) {
			for _, left := range in.ordered[i:] {
				in.giveBack(left.msg)
			}
			return
		}
		in.ack(ctx, it.msg)
	}
}

// applyOne handles one item, unless an earlier try that failed took effect all the same.
func (in *intake[Tx]) applyOne(ctx context.Context, it item) error {
	cursor, err := in.committed(ctx, it.in.Line())
	if err != nil || cursor.Epoch > it.in.Body.Epoch ||
		cursor.Epoch == it.in.Body.Epoch && cursor.Seq >= it.in.Body.Seq {
		return err
	}
	err = in.commit(ctx, []item{it}, in.call)
	if errors.Is(err, ErrRefused) {
		in.cfg.Log.WarnContext(ctx, "an event is refused", "line", it.in.Line(),
			"seq", it.in.Body.Seq, "type", it.in.Body.Type, "error", err)
		return in.commit(ctx, []item{it},
			func(context.Context, Tx, Incoming) error { return nil })
	}
	return err
}

// persist calls f until it succeeds; false means that ctx ended first.
func (in *intake[Tx]) persist(ctx context.Context, f func() error) bool {
	for wait := firstRetry; ctx.Err() == nil; wait = min(2*wait, lastRetry) {
		err := f()
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			in.cfg.Log.ErrorContext(ctx, "events cannot be handled", "service", in.cfg.Service,
				"error", err, "retry_in", wait)
			sleep(ctx, wait)
		}
	}
	return false
}

// commit runs the items' effects and moves their cursors in one transaction.
func (in *intake[Tx]) commit(ctx context.Context, items []item, effect Handler[Tx]) error {
	moved := map[Line]Cursor{}
	err := in.cfg.Cursors.Transact(ctx, func(tx Tx) error {
		for _, it := range items {
			if err := effect(ctx, tx, it.in); err != nil {
				return err
			}
			moved[it.in.Line()] = at(it.in.Envelope)
		}
		for line, cursor := range moved {
			if err := in.cfg.Cursors.SetCursor(tx, line, cursor); err != nil {
				return fmt.Errorf("set cursor: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		for _, it := range items { // it may have happened: the store knows
			delete(in.cursors, it.in.Line())
		}
		return err
	}
	for _, it := range items {
		in.passed.add(it)
	}
	for line, cursor := range moved {
		in.cursors[line] = cursor
		delete(in.stuck, line)
	}
	return nil
}

// call runs the handler in a span that continues the trace of the event.
func (in *intake[Tx]) call(ctx context.Context, tx Tx, e Incoming) error {
	ctx = telemetry.Extract(ctx, e.Body.Traceparent)
	ctx, span := in.cfg.Tracer.Start(ctx, "event "+e.Type(),
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String("event.topic", e.Body.Topic),
			attribute.Int64("event.seq", int64(e.Body.Seq))))
	defer span.End()
	err := in.cfg.Handle(ctx, tx, e)
	if err != nil {
		span.SetStatus(codes.Error, "handler failed")
	}
	return err
}

// hold gives a message back for a while. If what it waits for is the sender's to do and does not
// come, it is dropped: it would take the place of others' messages.
func (in *intake[Tx]) hold(ctx context.Context, m jetstream.Msg, line Line, why error) {
	if theirs(why) && in.tired(line) {
		in.drop(ctx, m, why)
		return
	}
	delay := min(firstHold<<min(tries(m), 16), maxHold)
	if err := m.NakWithDelay(delay); err != nil {
		in.cfg.Log.WarnContext(ctx, "an event cannot be handed back", "error", err)
	}
}

// tired tells whether a line has had its time, and starts the clock if it runs not.
func (in *intake[Tx]) tired(line Line) bool {
	now := in.cfg.Verifier.cfg.Clock()
	since, ok := in.stuck[line]
	if !ok {
		if len(in.stuck) >= maxLines {
			clear(in.stuck)
		}
		in.stuck[line] = now
		return false
	}
	return now.Sub(since) > gapPatience
}

// theirs tells whether the event waits for something that its sender must have done.
func theirs(err error) bool {
	var gap *GapError
	var epoch *EpochError
	return errors.As(err, &gap) || errors.As(err, &epoch) ||
		errors.Is(err, ErrCertificateUnknown) || errors.Is(err, ErrFuture)
}

func (in *intake[Tx]) drop(ctx context.Context, m jetstream.Msg, why error) {
	in.cfg.Log.WarnContext(ctx, "an event is dropped", "subject", m.Subject(), "error", why)
	if err := m.Term(); err != nil {
		in.cfg.Log.WarnContext(ctx, "an event cannot be dropped", "error", err)
	}
}

func (in *intake[Tx]) ack(ctx context.Context, m jetstream.Msg) {
	if m == nil {
		return
	}
	if err := m.Ack(); err != nil { // it comes again and is a duplicate then
		in.cfg.Log.WarnContext(ctx, "an event cannot be acknowledged", "error", err)
	}
}

// tries tells how often the broker has handed the message out, at least 1.
func tries(m jetstream.Msg) uint64 {
	meta, err := m.Metadata()
	if err != nil {
		return 1
	}
	return max(meta.NumDelivered, 1)
}
