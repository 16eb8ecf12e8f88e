package event

import (
	"cmp"
	"slices"
)

// Bounds of what a consumer remembers of the places that it passed.
const (
	maxTrail  = 1024    // places of one line, the newest
	maxPassed = 1 << 15 // of all lines together, about 2 MiB
)

// passed remembers which envelope took effect at the places behind the cursors, so that another one
// for the same place is told from a repetition. It forgets the oldest of the longest lines first: a
// line that is flooded does not push out what is known of others. It begins empty with each start.
type passed struct {
	lines map[Line][]spot
	count int
}

// spot is a place that was passed.
type spot struct {
	place
	hash   [32]byte // of the envelope that took effect there
	stream uint64   // where the broker's stream holds it, 0 if it came another way
}

func newPassed() *passed { return &passed{lines: map[Line][]spot{}} }

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.seq, b.seq))
}

// add remembers that an item took effect. Places of a line come in their order.
func (p *passed) add(it item) {
	line, s := it.in.Line(), spot{placeOf(it.in.Envelope), it.in.Hash, streamSeq(it.msg)}
	trail := p.lines[line]
	if n := len(trail); n > 0 && comparePlaces(trail[n-1].place, s.place) >= 0 {
		return
	}
	p.lines[line] = append(trail, s)
	p.count++
	if len(trail) >= 2*maxTrail {
		p.cut(line, maxTrail)
	}
	if p.count > maxPassed {
		p.shrink()
	}
}

// at returns what took effect at a place, if that is remembered.
func (p *passed) at(line Line, at place) (spot, bool) {
	trail := p.lines[line]
	i, ok := slices.BinarySearchFunc(trail, at, func(s spot, at place) int {
		return comparePlaces(s.place, at)
	})
	if !ok {
		return spot{}, false
	}
	return trail[i], true
}

// cut keeps the newest of a line.
func (p *passed) cut(line Line, keep int) {
	trail := p.lines[line]
	over := len(trail) - keep
	if over <= 0 {
		return
	}
	p.count -= over
	if keep == 0 {
		delete(p.lines, line)
		return
	}
	p.lines[line] = slices.Clone(trail[over:])
}

// shrink leaves each line at most its share of half the room.
func (p *passed) shrink() {
	share := maxPassed / 2 / len(p.lines)
	for line := range p.lines {
		p.cut(line, share)
	}
}
