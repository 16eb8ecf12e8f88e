package scheduler

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// maxRanked bounds the hosts in all rankings together, some 32 MiB.
const maxRanked = 2_000_000

// ranking is who serves a shape, the cheapest first, before distance and bytes to move count.
type ranking struct {
	hosts []ranked
	// full is the count of what freed room at which nobody had any, and reason what was said then;
	// "" = it was not so yet.
	full   uint64
	reason string
	told   time.Time
}

type ranked struct {
	stand *stand
	base  float64
}

// most that nearness and bytes to move add to a price.
const mostShare = imageShare + fileShare*maxFilesMoved + distanceShare

// Best returns the hosts that serve a specification, the cheapest first, at most limit, or why
// there is none. It judges no host twice for one shape while its terms stay, and looks at none that
// costs too much to be among them.
func (b *Book) Best(s *Spec, now time.Time, skip func(*Offer) bool, limit int) (
	fit []Candidate, reason string,
) {
	shape := s.Shape()
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.rank(s, shape)
	enough, asked := math.Inf(1), false
	for _, h := range r.hosts {
		if h.base > enough {
			break
		}
		o := h.stand.offer
		free := h.stand.free()
		if !o.Expires.After(now) || !holds(free, s.Resources) {
			continue
		}
		if skip != nil && skip(o) {
			asked = true
			continue
		}
		fit = append(fit, Candidate{Offer: o, Free: free, Cost: h.base * (1 + s.share(o))})
		if len(fit) == limit {
			enough = h.base * (1 + mostShare)
		}
	}
	if len(fit) > 0 {
		slices.SortFunc(fit, compareCandidates)
		return fit[:min(len(fit), limit)], ""
	}
	if asked {
		_, reason = Match(s, math.MaxUint64, b.live(now), skip)
		return nil, reason
	}
	return nil, b.explain(r, s, now)
}

// Serves tells whether a host that is not skipped serves a specification, be it full at the moment.
func (b *Book) Serves(s *Spec, now time.Time, skip func(*Offer) bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.rank(s, s.Shape()).hosts {
		if o := h.stand.offer; o.Expires.After(now) && !skip(o) {
			return true
		}
	}
	return false
}

// Explaining looks at every offer, so in a large book it is not done anew each time.
const (
	largeBook   = 1000
	explainLife = time.Second
)

// explain says why nobody serves a shape, and remembers that it is so.
func (b *Book) explain(r *ranking, s *Spec, now time.Time) string {
	if r.reason == "" || len(b.stands) < largeBook || now.Sub(r.told).Abs() > explainLife {
		_, r.reason = Match(s, math.MaxUint64, b.live(now), nil)
		r.told = now
	}
	r.full = b.freed
	return r.reason
}

// Hopeless says why a shape was found to fit nowhere, if nothing was freed since; "" when that is
// not known.
func (b *Book) Hopeless(shape Shape) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if r := b.shapes[shape]; r != nil && r.full == b.freed {
		return r.reason
	}
	return ""
}

// Freed counts what may have made room: it rises whenever an offer comes or a Hold is taken back.
func (b *Book) Freed() uint64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.freed
}

// Why says why a shape fitted nowhere when that was last looked at; "" when it was not.
func (b *Book) Why(shape Shape) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if r := b.shapes[shape]; r != nil {
		return r.reason
	}
	return ""
}

// rank returns who serves a shape; mu is held.
func (b *Book) rank(s *Spec, shape Shape) *ranking {
	if r := b.shapes[shape]; r != nil {
		return r
	}
	if b.ranked+len(b.stands)+1 > maxRanked {
		b.forgetShapes()
	}
	r := &ranking{}
	for _, st := range b.stands {
		o := st.offer
		if s.judge(Candidate{Offer: o, Free: o.Total}, math.MaxUint64) != fits {
			continue
		}
		rate, upfront := o.draws(s.Resources)
		r.hosts = append(r.hosts, ranked{stand: st, base: float64(rate) + float64(upfront)})
	}
	slices.SortFunc(r.hosts, func(a, b ranked) int { return cmp.Compare(a.base, b.base) })
	b.shapes[shape] = r
	b.ranked += len(b.stands) + 1
	return r
}

func (b *Book) forgetShapes() {
	clear(b.shapes)
	b.ranked = 0
}
