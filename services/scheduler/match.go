package scheduler

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/united-containers/ucn/chain/price"
)

// Candidate is a live offer with what it has free now.
type Candidate struct {
	Offer *Offer
	Free  price.Resources
	// Cost is the score: grains per hour at full use, with what moving the image and the
	// distance are worth added.
	Cost float64
}

// What nearness and bytes to move are worth, as shares of the price.
const (
	imageShare    = 0.05   // an image that must be fetched first
	fileShare     = 0.02   // each input that must be fetched, at most ten counted
	distanceShare = 0.10   // half way round the earth
	halfWayRound  = 20_038 // km
	maxFilesMoved = 10
)

// misfit says why an offer does not serve a job; the words finish "3 offers, all ...".
type misfit string

const (
	fits         misfit = ""
	wrongChain   misfit = "paid on another chain"
	wrongMachine misfit = "of another platform"
	notIsolated  misfit = "without the isolation asked for"
	notAllowed   misfit = "of operators you exclude"
	otherLabels  misfit = "without the labels asked for"
	tooSmall     misfit = "too small"
	aboveCap     misfit = "above your cap"
	aboveRate    misfit = "above your escrow's rate"
	aboveNotice  misfit = "with a longer notice than you pay for"
	draining     misfit = "draining"
	full         misfit = "full at the moment"
	declined     misfit = "declining this job"
)

// Match filters the live offers by what the job needs and sorts those that serve by cost. When
// none serves, reason says why in a sentence. skip names hosts that were asked and declined.
func Match(s *Spec, maxRate uint64, live []Candidate, skip func(*Offer) bool) (
	fit []Candidate, reason string,
) {
	misfits := map[misfit]int{}
	for _, c := range live {
		why := s.judge(c, maxRate)
		if why == fits && skip != nil && skip(c.Offer) {
			why = declined
		}
		if why != fits {
			misfits[why]++
			continue
		}
		c.Cost = s.cost(c.Offer)
		fit = append(fit, c)
	}
	if len(fit) == 0 {
		return nil, explain(len(live), misfits)
	}
	slices.SortFunc(fit, compareCandidates)
	return fit, ""
}

func compareCandidates(a, b Candidate) int {
	return cmp.Or(
		cmp.Compare(a.Cost, b.Cost),
		cmp.Compare(b.Free.CPUMilli, a.Free.CPUMilli),
		bytes.Compare(a.Offer.Host.Executor[:], b.Offer.Host.Executor[:]),
	)
}

// judge looks at what never changes first, so that the reason a person reads is the lasting one.
func (s *Spec) judge(c Candidate, maxRate uint64) misfit {
	o := c.Offer
	rate, _ := o.draws(s.Resources)
	switch {
	case !slices.Contains(o.Chains, s.Chain):
		return wrongChain
	case len(s.Platforms) > 0 && !overlap(s.Platforms, o.Platforms):
		return wrongMachine
	case s.Strict && !o.Strict || !s.Strict && !o.Standard:
		return notIsolated
	case slices.Contains(s.Deny, o.Host.Operator),
		len(s.Allow) > 0 && !slices.Contains(s.Allow, o.Host.Operator):
		return notAllowed
	case !carries(o.Labels, s.Labels):
		return otherLabels
	case !holds(o.Total, s.Resources):
		return tooSmall
	case s.Cap != nil && o.Prices.CheckCap(*s.Cap) != nil:
		return aboveCap
	case rate > s.rateCap(maxRate):
		return aboveRate
	case o.Notice > s.Notice:
		return aboveNotice
	case o.Draining:
		return draining
	case !holds(c.Free, s.Resources):
		return full
	}
	return fits
}

func (s *Spec) rateCap(escrow uint64) uint64 {
	if s.MaxRate == 0 {
		return escrow
	}
	return min(s.MaxRate, escrow)
}

// draws is the lease rate and upfront the offer would ask for; what cannot be computed costs too
// much for anybody.
func (o *Offer) draws(r price.Resources) (rate, upfront uint64) {
	perHour, once, err := price.SingleRun(o.Prices, r)
	if err != nil {
		return math.MaxUint64, math.MaxUint64
	}
	return uint64(perHour), uint64(once)
}

func (s *Spec) cost(o *Offer) float64 {
	rate, upfront := o.draws(s.Resources)
	return (float64(rate) + float64(upfront)) * (1 + s.share(o))
}

// share is what bytes to move and distance are worth, as a share of the price.
func (s *Spec) share(o *Offer) float64 {
	share := 0.0
	if !o.has(s.Image) {
		share += imageShare
	}
	missing := 0
	for _, cid := range s.Files {
		if !slices.Contains(o.Files, cid) {
			missing++
		}
	}
	share += fileShare * float64(min(missing, maxFilesMoved))
	if s.Near != nil && o.Position != nil {
		share += distanceShare * distance(*s.Near, *o.Position) / halfWayRound
	}
	return share
}

// distance on the globe in km (haversine formula, radius 6,371 km).
func distance(a, b Position) float64 {
	radians := func(micro int32) float64 { return float64(micro) / 1e6 * math.Pi / 180 }
	lat1, lat2 := radians(a.LatitudeMicro), radians(b.LatitudeMicro)
	dLat, dLong := lat2-lat1, radians(b.LongitudeMicro)-radians(a.LongitudeMicro)
	h := math.Pow(math.Sin(dLat/2), 2) +
		math.Cos(lat1)*math.Cos(lat2)*math.Pow(math.Sin(dLong/2), 2)
	return 2 * 6371 * math.Asin(math.Min(1, math.Sqrt(h)))
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func carries(have, want []Label) bool {
	return !slices.ContainsFunc(want, func(l Label) bool { return !slices.Contains(have, l) })
}

// explain makes the sentence a person reads while a run waits.
func explain(live int, misfits map[misfit]int) string {
	switch {
	case live == 0:
		return "waiting: no host offers anything at the moment"
	case len(misfits) == 1:
		for why := range misfits {
			if live == 1 {
				return fmt.Sprintf("waiting: 1 offer, %s", why)
			}
			return fmt.Sprintf("waiting: %d offers, all %s", live, why)
		}
	}
	whys := make([]misfit, 0, len(misfits))
	for why := range misfits {
		whys = append(whys, why)
	}
	slices.SortFunc(whys, func(a, b misfit) int {
		return cmp.Or(cmp.Compare(misfits[b], misfits[a]), strings.Compare(string(a), string(b)))
	})
	parts := make([]string, len(whys))
	for i, why := range whys {
		parts[i] = fmt.Sprintf("%d %s", misfits[why], why)
	}
	return fmt.Sprintf("waiting: %d offers: %s", live, strings.Join(parts, ", "))
}
