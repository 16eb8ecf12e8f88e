package scheduler

import (
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
)

// Bounds of the book. An operator beyond its own is refused until one of its offers expires.
const (
	MaxOffers           = 100_000
	MaxOffersOfOperator = 20_000
)

// MaxOfferLife is how long an offer may stand.
const MaxOfferLife = 10 * time.Minute

// Offer is what a host sells at this moment.
type Offer struct {
	Host      Host
	Payee     sig.AccountID
	Hash      [32]byte
	Posted    time.Time
	Expires   time.Time
	Prices    price.Prices
	Free      price.Resources
	Total     price.Resources
	Platforms []string
	Standard  bool
	Strict    bool
	Position  *Position
	Images    []string
	Files     []string
	Chains    []string
	Labels    []Label
	Notice    time.Duration
	Draining  bool
	// Raw is the canonical Offer, for those who list offers.
	Raw []byte
}

// Book holds the live offers. Safe for concurrent use.
type Book struct {
	mu     sync.RWMutex
	stands map[sig.PublicKey]*stand
	// of counts the hosts of each operator.
	of map[sig.AccountID]map[sig.PublicKey]*stand
	// shapes are the hosts that serve each shape, in order of their price; forgotten whenever a host
	// comes, goes or changes its terms. freed counts what may have made room.
	shapes map[Shape]*ranking
	ranked int // hosts in all rankings
	freed  uint64
}

// stand is one host's offer, replaced, never changed, and what was asked of the host since the
// offer was posted.
type stand struct {
	offer *Offer
	held  price.Resources
}

func (s *stand) free() price.Resources { return less(s.offer.Free, s.held) }

// NewBook returns an empty book.
func NewBook() *Book {
	return &Book{
		stands: map[sig.PublicKey]*stand{},
		of:     map[sig.AccountID]map[sig.PublicKey]*stand{}, shapes: map[Shape]*ranking{},
	}
}

// Post takes an offer in place of the host's earlier one. It reports whether the book changed: an
// offer that is expired, older than the one held, or beyond what the book or its operator may hold
// is left out. A full book makes room for an operator that has less in it than another.
func (b *Book) Post(o *Offer, now time.Time) bool {
	if !o.Expires.After(now) || o.Expires.Sub(now) > MaxOfferLife+time.Minute {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.stands[o.Host.Executor]
	if held != nil && held.offer.Host.Operator != o.Host.Operator {
		b.drop(held.offer) // a certificate of another operator for the same key
		held = nil
	}
	if held != nil {
		if held.offer.Posted.After(o.Posted) {
			return false
		}
		if !held.offer.sameTerms(o) {
			b.forgetShapes()
		}
		held.offer, held.held = o, price.Resources{}
		b.freed++
		return true
	}
	operator := o.Host.Operator
	if len(b.of[operator]) >= MaxOffersOfOperator ||
		len(b.stands) >= MaxOffers && !b.makeRoom(operator) {
		return false
	}
	b.enter(o)
	return true
}

func (b *Book) enter(o *Offer) {
	s := &stand{offer: o}
	b.stands[o.Host.Executor] = s
	if b.of[o.Host.Operator] == nil {
		b.of[o.Host.Operator] = map[sig.PublicKey]*stand{}
	}
	b.of[o.Host.Operator][o.Host.Executor] = s
	b.forgetShapes()
	b.freed++
}

func (b *Book) drop(o *Offer) {
	delete(b.stands, o.Host.Executor)
	delete(b.of[o.Host.Operator], o.Host.Executor)
	if len(b.of[o.Host.Operator]) == 0 {
		delete(b.of, o.Host.Operator)
	}
	b.forgetShapes()
}

// makeRoom drops an offer of the operator with the most, if that has at least two more than the
// newcomer.
func (b *Book) makeRoom(newcomer sig.AccountID) bool {
	var most sig.AccountID
	for operator, hosts := range b.of {
		if len(hosts) > len(b.of[most]) {
			most = operator
		}
	}
	if len(b.of[most]) < len(b.of[newcomer])+2 {
		return false
	}
	for _, s := range b.of[most] {
		b.drop(s.offer)
		return true
	}
	return false
}

// Live returns the offers that stand, each with what it has free after what is being asked of it.
// The offers themselves must not be changed.
func (b *Book) Live(now time.Time) []Candidate {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.live(now)
}

func (b *Book) live(now time.Time) []Candidate {
	live := make([]Candidate, 0, len(b.stands))
	for _, s := range b.stands {
		if s.offer.Expires.After(now) {
			live = append(live, Candidate{Offer: s.offer, Free: s.free()})
		}
	}
	return live
}

// Of returns the offers of an operator that stand.
func (b *Book) Of(operator sig.AccountID, now time.Time) []*Offer {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var live []*Offer
	for _, s := range b.of[operator] {
		if s.offer.Expires.After(now) {
			live = append(live, s.offer)
		}
	}
	return live
}

// Get returns the host's offer, live or expired.
func (b *Book) Get(executor sig.PublicKey) (*Offer, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.stands[executor]
	if s == nil {
		return nil, false
	}
	return s.offer, true
}

// Hold counts resources as taken until the host posts its next offer or Release.
func (b *Book) Hold(executor sig.PublicKey, r price.Resources) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.stands[executor]; s != nil {
		s.held = plus(s.held, r)
	}
}

// Release takes a Hold back.
func (b *Book) Release(executor sig.PublicKey, r price.Resources) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.stands[executor]; s != nil {
		s.held = less(s.held, r)
		b.freed++
	}
}

// Sweep forgets hosts whose offer expired longer ago than keep.
func (b *Book) Sweep(now time.Time, keep time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.stands {
		if now.Sub(s.offer.Expires) > keep {
			b.drop(s.offer)
		}
	}
}

// sameTerms tells whether two offers of a host serve the same specifications at the same price.
func (o *Offer) sameTerms(p *Offer) bool {
	return o.Prices == p.Prices && o.Total == p.Total && o.Standard == p.Standard &&
		o.Strict == p.Strict && o.Draining == p.Draining && o.Notice == p.Notice &&
		slices.Equal(o.Chains, p.Chains) &&
		slices.Equal(o.Platforms, p.Platforms) && slices.Equal(o.Labels, p.Labels)
}

func plus(r, s price.Resources) price.Resources {
	return price.Resources{
		CPUMilli: r.CPUMilli + s.CPUMilli, Memory: r.Memory + s.Memory,
		Disk: r.Disk + s.Disk, Network: r.Network + s.Network,
	}
}

// less subtracts, not below zero.
func less(r, s price.Resources) price.Resources {
	return price.Resources{
		CPUMilli: r.CPUMilli - min(r.CPUMilli, s.CPUMilli),
		Memory:   r.Memory - min(r.Memory, s.Memory),
		Disk:     r.Disk - min(r.Disk, s.Disk),
		Network:  r.Network - min(r.Network, s.Network),
	}
}

// holds tells whether have is enough for want.
func holds(have, want price.Resources) bool {
	return have.CPUMilli >= want.CPUMilli && have.Memory >= want.Memory &&
		have.Disk >= want.Disk && have.Network >= want.Network
}

func (o *Offer) has(cid string) bool { return slices.Contains(o.Images, cid) }
