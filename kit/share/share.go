// Package share divides places, such as those of open streams, and bytes among clients: whoever has
// few finds room while somebody has many.
//
// When all places are taken, the newest one of the client with most gives way to one of a client
// that has at least two fewer, so nobody gains by coming again. Who has no more than a floor gives
// way to nobody. Who a client is, such as an address, is the user's to say; so is its network,
// whose clients count as one against the clients of others.
package share

import (
	"errors"
	"sync"
)

// Errors of Take.
var (
	// ErrEach: the client has as many places as one may have.
	ErrEach = errors.New("one client may have no more places")
	// ErrFull: all places are taken, and nobody has so many more that one gives way.
	ErrFull = errors.New("all places are taken")
)

// Bounds say how many places there are.
type Bounds struct {
	// Most of all clients together, Each of one. Both at least 1.
	Most, Each int
	// Keep is how many nobody has to give up, no client and no network.
	Keep int
}

// lingering is the part of all places (1 in so many) that may belong to those who were told to give
// way and have not left yet, beyond the bound.
const lingering = 8

// Places are places that clients take and give back. Safe for concurrent use.
type Places struct {
	bounds Bounds

	mu      sync.Mutex // guards the rest, and the fields of places
	taken   int        // not counting those who were told to leave
	leaving int
	of      map[string]*holder
	nets    map[string]*network
}

// holder is a client that has places.
type holder struct {
	who     string
	net     *network
	places  []*Place // oldest first
	leaving int
}

// network are clients that count as one against others.
type network struct {
	name   string
	places int // of all its clients, not counting those who were told to leave
	of     map[*holder]struct{}
}

// Place is one client's place.
type Place struct {
	all   *Places
	of    *holder
	leave func()
	gone  bool // given back
}

// New returns places of which none is taken.
func New(b Bounds) *Places {
	return &Places{bounds: b, of: map[string]*holder{}, nets: map[string]*network{}}
}

// Take is TakeIn for a client whose network is its own.
func (p *Places) Take(who string, leave func()) (*Place, error) {
	return p.TakeIn(who, who, leave)
}

// TakeIn takes a place for a client of a network, which is always the same, perhaps a place that
// somebody else is told to leave: then that one's leave is called, at most once, which must not
// wait, and its place given back soon. TakeIn does not wait for that. Errors: ErrEach, ErrFull.
func (p *Places) TakeIn(net, who string, leave func()) (*Place, error) {
	place, last, err := p.take(net, who, leave)
	if last != nil {
		last.leave()
	}
	return place, err
}

// take is TakeIn, but for telling who must leave.
func (p *Places) take(net, who string, leave func()) (place, last *Place, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.of[who]
	if h == nil {
		h = &holder{who: who, net: p.nets[net]}
	}
	if h.net == nil {
		h.net = &network{name: net, of: map[*holder]struct{}{}}
	}
	if len(h.places)+h.leaving >= p.bounds.Each {
		return nil, nil, ErrEach
	}
	if p.taken >= p.bounds.Most {
		if last = p.makeRoom(h); last == nil {
			return nil, nil, ErrFull
		}
	}
	place = &Place{all: p, of: h, leave: leave}
	h.places = append(h.places, place)
	h.net.of[h] = struct{}{}
	h.net.places++
	p.of[who], p.nets[h.net.name] = h, h.net
	p.taken++
	return place, last, nil
}

// makeRoom returns the newest place of the client with most in the network with most, which must
// leave, if that network has enough more than that of who comes, or the client if it is the same
// one; else nil. mu is held.
func (p *Places) makeRoom(comes *holder) *Place {
	if p.leaving > p.bounds.Most/lingering {
		return nil
	}
	net := comes.net
	for _, n := range p.nets {
		if n.places > net.places {
			net = n
		}
	}
	if net.places <= p.bounds.Keep || net != comes.net && net.places <= comes.net.places+1 {
		return nil
	}
	var most *holder
	for h := range net.of {
		if most == nil || len(h.places) > len(most.places) {
			most = h
		}
	}
	if net == comes.net && len(most.places) <= max(p.bounds.Keep, len(comes.places)+1) {
		return nil
	}
	i := len(most.places) - 1
	last := most.places[i]
	most.places = most.places[:i]
	most.leaving++
	net.places--
	p.leaving++
	p.taken--
	return last
}

// Give gives the place back. It may be called again.
func (p *Place) Give() {
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	if p.gone {
		return
	}
	p.gone = true
	h := p.of
	if !h.drop(p) {
		h.leaving--
		p.all.leaving--
	} else {
		h.net.places--
		p.all.taken--
	}
	if len(h.places)+h.leaving > 0 {
		return
	}
	delete(p.all.of, h.who)
	if delete(h.net.of, h); len(h.net.of) == 0 {
		delete(p.all.nets, h.net.name)
	}
}

// drop removes a place; false when it was told to leave, and is none any more.
func (h *holder) drop(p *Place) bool {
	for i, one := range h.places {
		if one == p {
			h.places = append(h.places[:i], h.places[i+1:]...)
			return true
		}
	}
	return false
}

// Taken returns how many places are not free, those included that were told to leave.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken + p.leaving
}
