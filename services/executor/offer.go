package executor

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/event"
)

const (
	// offerPause is the shortest time between two offers: changes in between are told together.
	offerPause = 250 * time.Millisecond
	// maxOffers that are remembered to honour; the oldest goes first.
	maxOffers = 4096
)

// offers remembers what was posted until it expires, because a scheduler may ask by any of them.
type offers struct {
	mu    sync.Mutex // guards both; order holds the keys of known by age
	known map[Hash]Offer
	order []Hash
	last  Offer
}

func (o *offers) remember(hash Hash, offer Offer, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		o.known = map[Hash]Offer{}
	}
	for len(o.order) > 0 && (len(o.order) >= maxOffers || !now.Before(o.known[o.order[0]].Expires)) {
		delete(o.known, o.order[0])
		o.order = o.order[1:]
	}
	if _, again := o.known[hash]; !again {
		o.order = append(o.order, hash)
	}
	o.known[hash], o.last = offer, offer
}

func (o *offers) find(hash Hash, now time.Time) (Offer, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	offer, ok := o.known[hash]
	return offer, ok && now.Before(offer.Expires)
}

// Offer returns what was posted last, zero before the first.
func (a *Agent) Offer() Offer {
	a.offers.mu.Lock()
	defer a.offers.mu.Unlock()
	return a.offers.last
}

func (a *Agent) offerChanged() {
	select {
	case a.nudge <- struct{}{}:
	default: // it will look anyway
	}
}

// postOffers tells what is free: at once, on every change, and before the last offer expires.
func (a *Agent) postOffers(ctx context.Context) {
	for ctx.Err() == nil {
		again := a.cfg.OfferLife / 2
		if err := a.postOffer(ctx); err != nil && ctx.Err() == nil {
			a.deps.Log.WarnContext(ctx, "cannot post the offer", "error", err)
			again = min(again, time.Second)
		}
		pause(ctx, min(offerPause, again))
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-a.nudge:
		}
		timer.Stop()
	}
}

func (a *Agent) postOffer(ctx context.Context) error {
	images, err := a.deps.Driver.ListImages(ctx)
	if err != nil && ctx.Err() == nil {
		a.deps.Log.WarnContext(ctx, "cannot list images", "error", err)
	}
	now := a.deps.Now()
	offer := a.makeOffer(images, now)
	payload, hash, err := a.deps.Encoder.Offer(offer)
	if err != nil {
		return err
	}
	a.offers.remember(hash, offer, now)
	return a.deps.Journal.Publish(ctx, event.Event{
		Topic: event.TopicMarket, Type: TypeOfferPosted, Time: now, Payload: payload,
	})
}

func (a *Agent) makeOffer(images []Image, now time.Time) Offer {
	a.mu.Lock()
	defer a.mu.Unlock()
	offer := Offer{
		Executor: a.key, Payee: a.identity.Payee, Operator: a.identity.Operator,
		Expires: now.Add(a.cfg.OfferLife), Prices: a.cfg.Prices, Free: free(a.used, a.total),
		Total: a.total, Platforms: []string{a.abilities.Platform},
		Isolation: a.abilities.Isolation, Chains: a.cfg.Chains, Labels: a.cfg.Labels,
		Host: a.cfg.Host, Notice: a.cfg.Notice, Draining: a.state.Draining || a.dial.wrong(),
	}
	for _, image := range images {
		offer.Images = append(offer.Images, image.ID)
	}
	slices.Sort(offer.Images)
	offer.Images = offer.Images[:min(len(offer.Images), MaxOfferImages)]
	return offer
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
