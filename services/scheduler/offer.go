package scheduler

import (
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
)

// MaxOffers bounds the book; a further host's offer is refused until another expires.
const MaxOffers = 100_000

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
	mu sync.RWMutex
	// offers by executor key; replaced, never changed, once stored.
	offers map[sig.PublicKey]*Offer
	// held is what was asked for since the offer that is stored was posted.
	held map[sig.PublicKey]price.Resources
}

// NewBook returns an empty book.
func NewBook() *Book {
	return &Book{offers: map[sig.PublicKey]*Offer{}, held: map[sig.PublicKey]price.Resources{}}
}

// Post takes an offer in place of the host's earlier one. It reports whether the book changed: an
// offer that is expired, older than the one held, or beyond the book's size is left out.
func (b *Book) Post(o *Offer, now time.Time) bool {
	if !o.Expires.After(now) || o.Expires.Sub(now) > MaxOfferLife+time.Minute {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	held, known := b.offers[o.Host.Executor]
	if known && held.Posted.After(o.Posted) || !known && len(b.offers) >= MaxOffers {
		return false
	}
	b.offers[o.Host.Executor] = o
	delete(b.held, o.Host.Executor)
	return true
}

// Live returns the offers that stand, each with what it has free after what is being asked of it.
// The offers themselves must not be changed.
func (b *Book) Live(now time.Time) []Candidate {
	b.mu.RLock()
	defer b.mu.RUnlock()
	live := make([]Candidate, 0, len(b.offers))
	for key, o := range b.offers {
		if o.Expires.After(now) {
			live = append(live, Candidate{Offer: o, Free: less(o.Free, b.held[key])})
		}
	}
	return live
}

// Get returns the host's offer, live or expired.
func (b *Book) Get(executor sig.PublicKey) (*Offer, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	o, ok := b.offers[executor]
	return o, ok
}

// Hold counts resources as taken until the host posts its next offer or Release.
func (b *Book) Hold(executor sig.PublicKey, r price.Resources) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[executor] = plus(b.held[executor], r)
}

// Release takes a Hold back.
func (b *Book) Release(executor sig.PublicKey, r price.Resources) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if held, ok := b.held[executor]; ok {
		b.held[executor] = less(held, r)
	}
}

// Sweep forgets hosts whose offer expired longer ago than keep.
func (b *Book) Sweep(now time.Time, keep time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, o := range b.offers {
		if now.Sub(o.Expires) > keep {
			delete(b.offers, key)
			delete(b.held, key)
		}
	}
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
