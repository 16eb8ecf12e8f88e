package event

// park keeps verified envelopes that came before those they follow, until the missing ones come.
// They stay unacknowledged, so the broker hands them out again if this process dies; one that
// comes twice takes its own place.
type park struct {
	lines map[Line]map[uint64]item
	count int
	bytes int
}

func newPark() *park { return &park{lines: map[Line]map[uint64]item{}} }

// add keeps an item, and returns false if there is no room for it.
func (p *park) add(it item) bool {
	line, size := it.in.Line(), len(it.in.Raw)
	p.remove(line, it.in.Body.Seq)
	if len(p.lines[line]) >= maxHeld || p.count >= maxAckPending || p.bytes+size > maxParked {
		return false
	}
	if p.lines[line] == nil {
		p.lines[line] = map[uint64]item{}
	}
	p.lines[line][it.in.Body.Seq] = it
	p.count++
	p.bytes += size
	return true
}

// remove forgets the item of a place and returns it.
func (p *park) remove(line Line, seq uint64) (item, bool) {
	it, ok := p.lines[line][seq]
	if !ok {
		return item{}, false
	}
	delete(p.lines[line], seq)
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
