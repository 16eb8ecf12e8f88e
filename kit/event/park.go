package event

// park keeps verified envelopes that came before those they follow, until the missing ones come.
// They stay unacknowledged, so the broker hands them out again if this process dies; one that
// comes twice takes its own place.
type park struct {
	lines map[Line]map[place]item
	count int
	bytes int
}

// place is where an envelope stands in its line. A new epoch counts from 1 again, so the number
// alone would let one epoch's envelope take the place of another's.
type place struct{ epoch, seq uint64 }

func placeOf(e *Envelope) place { return place{e.Body.Epoch, e.Body.Seq} }

// next is the place behind the cursor.
func (c Cursor) next() place { return place{max(c.Epoch, FirstEpoch), c.Seq + 1} }

func newPark() *park { return &park{lines: map[Line]map[place]item{}} }

// add keeps an item, and returns false if there is no room for it.
func (p *park) add(it item) bool {
	line, size, at := it.in.Line(), len(it.in.Raw), placeOf(it.in.Envelope)
	p.remove(line, at)
	if len(p.lines[line]) >= maxHeld || p.count >= maxAckPending || p.bytes+size > maxParked {
		return false
	}
	if p.lines[line] == nil {
		p.lines[line] = map[place]item{}
	}
	p.lines[line][at] = it
	p.count++
	p.bytes += size
	return true
}

// remove forgets the item of a place and returns it.
func (p *park) remove(line Line, at place) (item, bool) {
	it, ok := p.lines[line][at]
	if !ok {
		return item{}, false
	}
	delete(p.lines[line], at)
	if len(p.lines[line]) == 0 {
		delete(p.lines, line)
	}
	p.count--
	p.bytes -= len(it.in.Raw)
	return it, true
}

// all returns every item and forgets it.
func (p *park) all() []item {
	var out []item
	for _, line := range p.lines {
		for _, it := range line {
			out = append(out, it)
		}
	}
	*p = *newPark()
	return out
}
