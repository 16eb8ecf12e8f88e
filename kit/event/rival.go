package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// How an envelope for a place that was passed is looked into.
const (
	maxCompares = 8           // times the broker hands out a rival for which evidence is sought
	doubtEvery  = time.Second // between looks at places of one line that are not remembered
)

// errRival says that an instance signed two envelopes for one place and that what took effect
// cannot be shown, so that nothing is proven.
var errRival = errors.New("another event took effect at this place")

// rivalry is the question what stands at the place of an envelope that came late.
type rivalry struct {
	item  item
	known spot // what took effect there
	sure  bool // known is remembered and another one; else the owner's word is asked for
}

// repeated deals with a verified envelope for a place that was passed. The same one again is a
// duplicate. Another one is equivocation: its evidence, the envelope that took effect, is in the
// broker's stream or with the owner. For a place that is not remembered the owner is asked what it
// keeps there, now and then: any two envelopes for one place prove it.
func (in *intake[Tx]) repeated(ctx context.Context, it item) {
	line, at := it.in.Line(), placeOf(it.in.Envelope)
	in.parked.remove(line, at)
	cursor, err := in.cursor(ctx, line)
	if err != nil {
		in.giveBack(it.msg)
		return
	}
	if e := in.orderedAt(line, at); e != nil && e.Hash != it.in.Hash {
		in.forked(ctx, it, &ForkError{Line: line, Have: e.Raw, Got: it.in.Raw})
		return
	} else if e != nil {
		in.ack(ctx, it.msg) // a failure to apply e does not lose it: e has a message of its own
		return
	}
	known, remembered := in.passed.at(line, at)
	same := remembered && known.hash == it.in.Hash ||
		at.seq == cursor.Seq && cursor.Hash == it.in.Hash
	switch {
	case it.msg == nil || same || at.epoch != max(cursor.Epoch, FirstEpoch):
		in.ack(ctx, it.msg)
	case !remembered:
		in.ack(ctx, it.msg)
		it.msg = nil
		if in.doubts(line) {
			in.compare(ctx, rivalry{item: it})
		}
	case in.fetcher.comparing[line], tries(it.msg) > maxCompares:
		in.drop(ctx, it.msg, errRival) // one proof is enough
	case !in.compare(ctx, rivalry{item: it, known: known, sure: true}):
		in.hold(ctx, it.msg, line, errRival)
	}
}

// orderedAt returns what is about to take effect at a place, nil for none.
func (in *intake[Tx]) orderedAt(line Line, at place) *Envelope {
	for _, it := range in.ordered {
		if placeOf(it.in.Envelope) == at && it.in.Line() == line {
			return it.in.Envelope
		}
	}
	return nil
}

// doubts tells whether it is time to ask about a place of the line that is not remembered: a broker
// that repeats a whole stream must not make us ask its owners for all of it.
func (in *intake[Tx]) doubts(line Line) bool {
	now := in.cfg.Verifier.cfg.Clock()
	if last, ok := in.doubted[line]; ok && now.Sub(last) < doubtEvery {
		return false
	}
	if len(in.doubted) >= maxLines {
		clear(in.doubted)
	}
	in.doubted[line] = now
	return true
}

// compare begins to look for what took effect, unless too much is under way.
func (in *intake[Tx]) compare(ctx context.Context, r rivalry) bool {
	line, operator := r.item.in.Line(), r.item.in.Operator
	f := in.fetcher
	if _, under := f.comparing[line]; under || !f.admits(operator) {
		return false
	}
	f.comparing[line] = r.sure
	f.byOwner[operator]++
	f.running.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		found, err := in.evidence(ctx, r)
		f.answers <- answer{operator: operator, rival: &r, envs: found, err: err}
	})
	return true
}

// evidence returns what is said to stand at the place; none of it is verified.
func (c *Consumer[Tx]) evidence(ctx context.Context, r rivalry) ([]Received, error) {
	if r.known.stream > 0 {
		got, err := c.fromStream(ctx, r.known)
		if err == nil {
			return []Received{got}, nil
		}
		c.cfg.Log.InfoContext(ctx, "a passed event is not in the stream any more", "error", err)
	}
	if c.cfg.OnGap == nil {
		return nil, errRival
	}
	e := r.item.in
	return c.cfg.OnGap(ctx, &GapError{
		Line: e.Line(), Epoch: e.Body.Epoch, Want: e.Body.Seq, Got: e.Body.Seq + 1,
		Service: c.cfg.Service, Certificate: r.item.certificate,
	})
}

func (c *Consumer[Tx]) fromStream(ctx context.Context, known spot) (Received, error) {
	stream, err := c.cfg.JetStream.Stream(ctx, StreamName(c.cfg.Service))
	if err != nil {
		return Received{}, fmt.Errorf("read an event again: %w", err)
	}
	m, err := stream.GetMsg(ctx, known.stream)
	if err != nil {
		return Received{}, fmt.Errorf("read an event again: %w", err)
	}
	e, err := Decode(m.Data)
	if err != nil {
		return Received{}, fmt.Errorf("read an event again: %w", err)
	}
	if e.Hash != known.hash {
		return Received{}, fmt.Errorf("read an event again: %w", errRival)
	}
	return Received{Subject: m.Subject, Data: m.Data}, nil
}

// compared takes what was found at the place of a rival.
func (in *intake[Tx]) compared(ctx context.Context, a answer) {
	it := a.rival.item
	for _, v := range in.cfg.Verifier.Verify(ctx, a.envs[:min(len(a.envs), 1)]) {
		if v.Err != nil || !contradict(v.Envelope, it.in.Envelope) ||
			!bytes.Equal(v.Envelope.Body.InstanceKey, it.in.Body.InstanceKey) {
			continue
		}
		in.forked(ctx, it, &ForkError{Line: it.in.Line(), Have: v.Envelope.Raw, Got: it.in.Raw})
		return
	}
	if !a.rival.sure {
		return // as far as anybody knows it is the same again
	}
	in.cfg.Log.ErrorContext(ctx, "an instance signed two events for one place, and the first is "+
		"not found: nothing is proven yet", "line", it.in.Line(), "seq", it.in.Body.Seq,
		"error", a.err)
	in.hold(ctx, it.msg, it.in.Line(), errRival)
}

// streamSeq tells where the stream holds a message, 0 for what came another way.
func streamSeq(m jetstream.Msg) uint64 {
	if m == nil {
		return 0
	}
	meta, err := m.Metadata()
	if err != nil {
		return 0
	}
	return meta.Sequence.Stream
}
