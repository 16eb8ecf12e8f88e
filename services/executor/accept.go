package executor

import (
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
)

// envName is what a secret must be called, since it becomes an environment variable.
var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

const maxSecrets = 64

func declined(code DeclineCode, format string, args ...any) *Decline {
	return &Decline{Code: code, Message: fmt.Sprintf(format, args...)}
}

// consider decides about a question but for the capacity, and makes the lease that answers it.
func (a *Agent) consider(ask *Ask, now time.Time) (Lease, Prices, *Decline) {
	offer, ok := a.offers.find(ask.Offer, now)
	if !ok {
		return Lease{}, Prices{}, declined(DeclineOffer, "no live offer of this host has that hash")
	}
	for _, check := range []func(*Ask) *Decline{
		a.checkClock, a.checkServed, a.checkSpec, a.checkPolicy,
	} {
		if d := check(ask); d != nil {
			return Lease{}, Prices{}, d
		}
	}
	rate, upfront, err := price.SingleRun(offer.Prices.Rules(), ask.Spec.Resources.Rules())
	if err != nil {
		return Lease{}, Prices{}, declined(DeclinePrice, "the price of this job has no number: %v", err)
	}
	if d := checkPrice(&ask.Spec, offer.Prices, uint64(rate)); d != nil {
		return Lease{}, Prices{}, d
	}
	if ask.Continues != "" { // its beginning was paid
		upfront = 0
	}
	lease, d := a.makeLease(ask, uint64(rate), uint64(upfront), now)
	return lease, offer.Prices, d
}

func (a *Agent) checkServed(ask *Ask) *Decline {
	spec := &ask.Spec
	switch {
	case len(spec.Unserved) > 0:
		return declined(DeclineUnsupported, "not served by this host: %s",
			strings.Join(spec.Unserved, ", "))
	case spec.Resources.Network != 0:
		return declined(DeclineUnsupported, "resources.network: this host sells no network")
	case !slices.Contains(a.cfg.Chains, spec.Chain):
		return declined(DeclinePolicy, "chain %q is not accepted here", spec.Chain)
	case !slices.Contains(a.Abilities().Isolation, spec.Isolation):
		return declined(DeclineUnsupported, "isolation %q is not offered here", spec.Isolation)
	}
	platform := a.Abilities().Platform
	if len(spec.Platforms) > 0 && !slices.Contains(spec.Platforms, platform) {
		return declined(DeclineUnsupported, "placement.platforms: this host is %s", platform)
	}
	return nil
}

func (a *Agent) checkSpec(ask *Ask) *Decline {
	spec := &ask.Spec
	if len(spec.Secrets) > maxSecrets {
		return declined(DeclineInvalid, "secrets: %d, at most %d", len(spec.Secrets), maxSecrets)
	}
	for _, name := range spec.Secrets {
		if !envName.MatchString(name) {
			return declined(DeclineInvalid, "secrets: %.40q cannot name an environment variable", name)
		}
	}
	container, err := a.containerSpec(ask, make([]string, len(spec.Inputs)), nil)
	if err == nil {
		err = container.Validate()
	}
	if err != nil {
		return declined(DeclineInvalid, "%v", err)
	}
	return nil
}

func (a *Agent) checkPolicy(ask *Ask) *Decline {
	spec, me := &ask.Spec, a.identity.Operator
	if len(spec.Allow) > 0 && !slices.Contains(spec.Allow, me) || slices.Contains(spec.Deny, me) {
		return declined(DeclinePolicy, "placement.operators: the job does not want this operator")
	}
	a.mu.Lock()
	no := a.judge(spec)
	a.mu.Unlock()
	if no != nil {
		return no
	}
	most := a.cfg.MaxHoldbackPercent
	hi, lo := bits.Mul64(ask.Terms.Budget, most)
	if allowed, _ := bits.Div64(hi, lo, 100); ask.Terms.Holdback > allowed {
		return declined(DeclinePolicy, "holdback is above %d %% of the budget", most)
	}
	return nil
}

func checkPrice(spec *JobSpec, p Prices, rate uint64) *Decline {
	if spec.Cap != nil {
		if err := p.Rules().CheckCap(spec.Cap.Rules()); err != nil {
			return declined(DeclinePrice, "payment.cap: %v", err)
		}
	}
	if spec.MaxRate != 0 && rate > spec.MaxRate {
		return declined(DeclinePrice, "the lease's rate of %d grains per hour is above "+
			"payment.max_rate of %d", rate, spec.MaxRate)
	}
	return nil
}

// makeLease answers the terms with this host's own prices.
func (a *Agent) makeLease(ask *Ask, rate, upfront uint64, now time.Time) (Lease, *Decline) {
	t := &ask.Terms
	if d := a.checkTerms(ask, now); d != nil {
		return Lease{}, d
	}
	least := min(add(upfront, accrued(rate, a.cfg.MinTrust)), t.Budget)
	trust := min(add(upfront, accrued(rate, defaultTrust)), t.Budget)
	if t.Trust != 0 {
		trust = t.Trust // the owner's choice: a detached job trusts for its whole budget
	}
	window := t.ClaimWindow
	if window == 0 {
		window = uint64(minClaimWindow.Milliseconds())
	}
	switch {
	case t.Budget < upfront || t.Budget == 0 && rate != 0:
		return Lease{}, declined(DeclineTerms, "a budget of %d grains does not cover the %d due at once",
			t.Budget, upfront)
	case a.cfg.Notice > ask.Spec.MaxNotice:
		return Lease{}, declined(DeclinePrice, "payment.max_notice of %v is below this host's notice "+
			"of %v", ask.Spec.MaxNotice, a.cfg.Notice)
	case trust < least:
		return Lease{}, declined(DeclineTerms, "a trust of %d grains is too small, this host needs %d",
			trust, least)
	}
	return Lease{
		Escrow: t.Escrow, Subject: t.Subject, Slot: t.Slot, Epoch: t.Epoch,
		Payee: a.identity.Payee, Agent: a.key, Upfront: upfront, Rate: rate,
		Budget: t.Budget, Trust: trust, Holdback: t.Holdback,
		Notice: uint64(a.cfg.Notice.Milliseconds()), AckKeys: slices.Clone(t.AckKeys),
		ClaimWindow: window, OfferHash: ask.Offer, PlaceBy: t.PlaceBy, Until: t.Until,
	}, nil
}

func (a *Agent) checkTerms(ask *Ask, now time.Time) *Decline {
	t, at := &ask.Terms, uint64(now.UnixMilli())
	window := time.Duration(min(t.ClaimWindow, uint64(maxClaimWindow.Milliseconds())+1)) *
		time.Millisecond
	switch {
	case t.Subject != ask.Job:
		return declined(DeclineTerms, "the terms name another job")
	case t.Escrow == EscrowID{}:
		return declined(DeclineTerms, "the terms name no escrow")
	case t.PlaceBy <= at || t.PlaceBy > at+uint64(MaxPlaceBy.Milliseconds()):
		return declined(DeclineTerms, "place_by is not within the next %v", MaxPlaceBy)
	case t.Until <= t.PlaceBy:
		return declined(DeclineTerms, "until is not after place_by")
	case t.ClaimWindow != 0 && (window < minClaimWindow || window > maxClaimWindow):
		return declined(DeclineTerms, "claim_window is not between %v and %v", minClaimWindow,
			maxClaimWindow)
	case t.Holdback > t.Budget:
		return declined(DeclineTerms, "holdback is above the budget")
	case len(t.AckKeys) == 0 || len(t.AckKeys) > maxAckKeys:
		return declined(DeclineTerms, "%d ack keys, allowed 1 to %d", len(t.AckKeys), maxAckKeys)
	}
	for i, key := range t.AckKeys {
		if key == a.key || key.Validate() != nil || slices.Contains(t.AckKeys[:i], key) {
			return declined(DeclineTerms, "ack key %d is no key, mine, or there twice", i)
		}
	}
	return nil
}

// accrued returns floor(rate x d / hour), at most the largest number.
func accrued(rate uint64, d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	grains, err := price.Accrued(tx.GrainsPerHour(rate), tx.Millis(d.Milliseconds()))
	if err != nil {
		return math.MaxUint64
	}
	return uint64(grains)
}
