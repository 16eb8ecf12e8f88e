package event

import (
	"cmp"
	"maps"
	"slices"
)

// Bounds of what a consumer remembers of the places that it passed.
const (
	maxTrail    = 1024    // places of one line, the newest
	maxOwnLines = 1024    // lines of one operator, those that spoke last
	maxPassed   = 1 << 15 // places of all lines together, about 2 MiB
)

// passed remembers which envelope took effect at the places behind the cursors, so that another one
// for the same place is told from a repetition. Operators have equal shares, and the lines of one
// share its own: neither a line that is flooded nor an operator with thousands of instances, which
// it certifies itself, pushes out what is known of others. It begins empty with each start.
type passed struct {
	lines map[Line]*trail
	by    map[[32]byte]map[Line]*trail // the same, by operator; none is empty
	count int                          // places
	adds  uint64                       // so far
}

// trail is what is remembered of a line.
type trail struct {
	operator [32]byte
	spots    []spot // ascending, never empty
	last     uint64 // passed.adds when it grew
}

// spot is a place that was passed.
type spot struct {
	place
	hash   [32]byte // of the envelope that took effect there
	stream uint64   // where the broker's stream holds it, 0 if it came another way
}

func newPassed() *passed {
	return &passed{lines: map[Line]*trail{}, by: map[[32]byte]map[Line]*trail{}}
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.seq, b.seq))
}

// add remembers that an item took effect. Places of a line come in their order.
func (p *passed) add(it item) {
	line, s := it.in.Line(), spot{placeOf(it.in.Envelope), it.in.Hash, streamSeq(it.msg)}
	t := p.lines[line]
	if t == nil {
		t = p.begin(line, it.in.Operator)
	}
	if n := len(t.spots); n > 0 && comparePlaces(t.spots[n-1].place, s.place) >= 0 {
		return
	}
	p.adds++
	p.count++
	t.spots, t.last = append(t.spots, s), p.adds
	if len(t.spots) > 2*maxTrail {
		p.cut(line, maxTrail)
	}
	if p.count > maxPassed {
		p.shrink()
	}
}

// begin makes room for a line of an operator. Its first place follows.
func (p *passed) begin(line Line, operator [32]byte) *trail {
	if len(p.by[operator]) >= maxOwnLines {
		p.bound(operator, maxOwnLines/2)
	}
	t := &trail{operator: operator}
	if p.by[operator] == nil {
		p.by[operator] = map[Line]*trail{}
	}
	p.lines[line], p.by[operator][line] = t, t
	return t
}

// at returns what took effect at a place, if that is remembered.
func (p *passed) at(line Line, at place) (spot, bool) {
	t := p.lines[line]
	if t == nil {
		return spot{}, false
	}
	i, ok := slices.BinarySearchFunc(t.spots, at, func(s spot, at place) int {
		return comparePlaces(s.place, at)
	})
	if !ok {
		return spot{}, false
	}
	return t.spots[i], true
}

// cut keeps the newest of a line.
func (p *passed) cut(line Line, keep int) {
	t := p.lines[line]
	over := len(t.spots) - keep
	if over <= 0 {
		return
	}
	p.count -= over
	if keep > 0 {
		t.spots = slices.Clone(t.spots[over:])
		return
	}
	delete(p.lines, line)
	own := p.by[t.operator]
	if delete(own, line); len(own) == 0 {
		delete(p.by, t.operator)
	}
}

// bound forgets the lines of an operator that were quiet for longest, but for keep.
func (p *passed) bound(operator [32]byte, keep int) {
	own := p.by[operator]
	if len(own) <= keep {
		return
	}
	quiet := slices.SortedFunc(maps.Keys(own), func(a, b Line) int {
		return cmp.Compare(own[a].last, own[b].last)
	})
	for _, line := range quiet[:len(quiet)-keep] {
		p.cut(line, 0)
	}
}

// shrink leaves each operator at most its share of half the room.
func (p *passed) shrink() {
	share := maxPassed / 2 / len(p.by)
	for operator, own := range p.by {
		p.bound(operator, share)
		for line := range own {
			p.cut(line, share/len(own))
		}
	}
}
