package event

import (
	"encoding/binary"
	"testing"

	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

// took is an envelope of an operator's instance that took effect.
func took(operator byte, instance uint32, seq uint64) item {
	key := binary.BigEndian.AppendUint32(make([]byte, 0, 32), instance)
	return item{in: Incoming{
		Operator: [32]byte{operator},
		Envelope: &Envelope{
			Hash: [32]byte{operator, byte(seq)},
			Body: &eventv1.EnvelopeBody{
				Topic: string(TopicJob), InstanceKey: append(append(key, operator), make([]byte, 27)...),
				Epoch: FirstEpoch, Seq: seq,
			},
		},
	}}
}

func remembers(p *passed, it item) bool {
	s, ok := p.at(it.in.Line(), placeOf(it.in.Envelope))
	return ok && s.hash == it.in.Hash
}

// TestInstancesPushOutNobodyElse: an operator that certifies instances without end, or floods the
// lines of as many as are remembered, leaves what is known of another.
func TestInstancesPushOutNobodyElse(t *testing.T) {
	p := newPassed()
	honest := []item{took(1, 1, 1), took(1, 1, 2), took(1, 2, 1)}
	for _, it := range honest {
		p.add(it)
	}
	const many = 2 * maxPassed
	for n := range uint32(many) {
		p.add(took(2, n, 1))
	}
	if len(p.lines) > maxOwnLines+2 {
		t.Errorf("%d lines are remembered", len(p.lines))
	}
	for seq := range uint64(64) {
		for n := range uint32(maxOwnLines) {
			p.add(took(2, many-1-n, 2+seq))
		}
	}
	for _, it := range honest {
		if !remembers(p, it) {
			t.Errorf("place %d was forgotten", it.in.Body.Seq)
		}
	}
	if p.count > maxPassed || !remembers(p, took(2, many-1, 65)) {
		t.Errorf("%d places are remembered, without the newest", p.count)
	}
}

// TestManyOperatorsAreBounded: shares get small, and what is counted is what there is.
func TestManyOperatorsAreBounded(t *testing.T) {
	p := newPassed()
	for operator := range byte(200) {
		for n := range uint32(maxOwnLines) {
			p.add(took(operator, n, 1))
		}
	}
	count, lines := 0, 0
	for _, own := range p.by {
		lines += len(own)
		for _, trail := range own {
			count += len(trail.spots)
		}
	}
	if count != p.count || lines != len(p.lines) || len(p.by) != 200 || count > maxPassed {
		t.Errorf("%d places counted as %d, of %d lines, %d by %d operators", count, p.count,
			len(p.lines), lines, len(p.by))
	}
}
