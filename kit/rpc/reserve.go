package rpc

import (
	"context"
)

// maxAhead is how many bytes of a stream's answers may wait to be written when the next is
// reserved. It is less than what gRPC buffers of a stream (64 KiB): so a message that is reserved
// never waits in Send, together with what it was made of.
const maxAhead = 32 << 10

// reserve is what a call has reserved for its next answer, and what of it is under way.
type reserve struct {
	all    *answers
	stream bool
	ahead  int           // bytes of answers that wait to be written
	moved  chan struct{} // has an element when ahead has become less
	next   *held         // nil when nothing is reserved
}

type reserveKey struct{}

// withReserve lets a handler reserve, until it is given back.
func (a *answers) withReserve(ctx context.Context, stream bool) (context.Context, func()) {
	r := &reserve{all: a, stream: stream, moved: make(chan struct{}, 1)}
	return context.WithValue(ctx, reserveKey{}, r), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if r.next != nil {
			r.next.giveHeld()
		}
	}
}

// left notes that answers have left. mu is held.
func (r *reserve) left(n int) {
	r.ahead -= n
	select {
	case r.moved <- struct{}{}:
	default:
	}
}

// Reserve counts the n bytes that a call's next answer will have, before memory is taken for what
// it is made of. Where there is no room for them a unary call is refused. A stream waits, with
// nothing in memory: until its client has taken what was sent before, and for room, as long as ctx
// and AnswerTime allow. Calls of this process, and ctx that is not of a handler, reserve nothing.
// What is not sent after all is given back with the next Reserve, or the end of the call. Fault:
// ReasonAnswers.
func Reserve(ctx context.Context, n int) error {
	r, ok := ctx.Value(reserveKey{}).(*reserve)
	who := CallOrigin(ctx)
	if !ok || who == "" {
		return nil
	}
	a := r.all
	if err := r.awaitTaken(ctx); err != nil {
		return err
	}
	h := a.newHeld(ctx, who, min(max(n, leastPooled), a.under.Most()))
	h.of = r
	if !a.take(h) {
		if !r.stream {
			return notTaken()
		}
		if err := a.awaitRoom(ctx, h); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r.ahead += h.n
	r.next = h
	return nil
}

// awaitTaken waits until little of what was sent before waits to be written.
func (r *reserve) awaitTaken(ctx context.Context) error {
	for {
		r.all.mu.Lock()
		if r.next != nil {
			r.next.giveHeld()
			r.next = nil
		}
		ready := r.ahead <= maxAhead
		r.all.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-r.moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reserved returns what the call has reserved for this answer, of n bytes; nil for nothing.
func (a *answers) reserved(ctx context.Context, n int) *held {
	r, ok := ctx.Value(reserveKey{}).(*reserve)
	if !ok {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	h := r.next
	if r.next = nil; h == nil || h.gone {
		return nil
	}
	n = max(n, leastPooled)
	a.under.Add(h.who, n-h.n)
	r.ahead += n - h.n
	h.changed(n - h.n)
	h.n = n
	return h
}
