package scheduler_test

import (
	"math"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// candidates are live offers of hosts 1 to n, each spoiled.
func candidates(n byte, spoil func(*scheduler.Candidate)) []scheduler.Candidate {
	var list []scheduler.Candidate
	for i := range n {
		o := schedulertest.NewOffer(i+1, 1000, schedulertest.Start())
		c := scheduler.Candidate{Offer: o, Free: o.Free}
		spoil(&c)
		list = append(list, c)
	}
	return list
}

func TestMatchSaysWhyNot(t *testing.T) {
	label := scheduler.Label{Name: "zone", Value: "a"}
	tests := map[string]struct {
		spec  func(*scheduler.Spec)
		offer func(*scheduler.Candidate)
	}{
		"paid on another chain": {offer: func(c *scheduler.Candidate) { c.Offer.Chains = nil }},
		"of another platform": {
			spec: func(s *scheduler.Spec) { s.Platforms = []string{"linux/arm64"} },
		},
		"without the isolation asked for": {
			spec:  func(s *scheduler.Spec) { s.Strict = true },
			offer: func(c *scheduler.Candidate) { c.Offer.Strict = false },
		},
		"of operators you exclude": {
			spec:  func(s *scheduler.Spec) { s.Deny = []sig.AccountID{{7}} },
			offer: func(c *scheduler.Candidate) { c.Offer.Host.Operator = sig.AccountID{7} },
		},
		"without the labels asked for": {
			spec: func(s *scheduler.Spec) { s.Labels = []scheduler.Label{label} },
			offer: func(c *scheduler.Candidate) {
				c.Offer.Labels = []scheduler.Label{{Name: "zone", Value: "b"}}
			},
		},
		"too small": {spec: func(s *scheduler.Spec) { s.Resources.CPUMilli = 4001 }},
		"above your cap": {
			spec: func(s *scheduler.Spec) { s.Cap = &price.Prices{CoreHour: 999} },
		},
		"above your escrow's rate": {spec: func(s *scheduler.Spec) { s.MaxRate = 999 }},
		"with a longer notice than you pay for": {
			spec:  func(s *scheduler.Spec) { s.Notice = time.Second },
			offer: func(c *scheduler.Candidate) { c.Offer.Notice = time.Second + 1 },
		},
		"draining":           {offer: func(c *scheduler.Candidate) { c.Offer.Draining = true }},
		"full at the moment": {offer: func(c *scheduler.Candidate) { c.Free.Memory = 1 }},
		"declining this job": {},
	}
	for why, tt := range tests {
		t.Run(why, func(t *testing.T) {
			s := schedulertest.NewJob(1, 1).Spec
			if tt.spec != nil {
				tt.spec(&s)
			}
			spoil := tt.offer
			if spoil == nil {
				spoil = func(*scheduler.Candidate) {}
			}
			skip := func(*scheduler.Offer) bool { return why == "declining this job" }
			for n, want := range map[byte]string{
				1: "waiting: 1 offer, " + why, 3: "waiting: 3 offers, all " + why,
			} {
				fit, reason := scheduler.Match(&s, math.MaxUint64, candidates(n, spoil), skip)
				if len(fit) != 0 || reason != want {
					t.Errorf("%d offers: %d fit, %q, want %q", n, len(fit), reason, want)
				}
			}
		})
	}
}

func TestMatchCountsReasons(t *testing.T) {
	s := schedulertest.NewJob(1, 1).Spec
	live := candidates(5, func(c *scheduler.Candidate) {
		switch c.Offer.Host.Executor[0] {
		case 1:
			c.Offer.Draining = true
		default:
			c.Free.CPUMilli = 0
		}
	})
	_, reason := scheduler.Match(&s, math.MaxUint64, live, nil)
	if want := "waiting: 5 offers: 4 full at the moment, 1 draining"; reason != want {
		t.Errorf("reason %q, want %q", reason, want)
	}
}

func TestMatchSorts(t *testing.T) {
	tests := map[string]struct {
		spec   func(*scheduler.Spec)
		offers func(n byte, o *scheduler.Offer)
		first  byte
	}{
		"by price": {offers: func(n byte, o *scheduler.Offer) {
			o.Prices.CoreHour = 2000 - 100*uint64(n)
		}, first: 3},
		"image at hand": {offers: func(n byte, o *scheduler.Offer) {
			if n == 2 {
				o.Images = []string{"image"}
			}
		}, first: 2},
		"inputs at hand": {
			spec: func(s *scheduler.Spec) { s.Files = []string{"a", "b"} },
			offers: func(n byte, o *scheduler.Offer) {
				o.Files = []string{"b", "a"}[:n/2]
			}, first: 2,
		},
		"nearness": {
			spec: func(s *scheduler.Spec) { s.Near = &scheduler.Position{LatitudeMicro: 50_000_000} },
			offers: func(n byte, o *scheduler.Offer) {
				o.Position = &scheduler.Position{LatitudeMicro: 50_000_000, LongitudeMicro: 90_000_000}
				if n == 3 {
					o.Position.LongitudeMicro = 1_000_000
				}
			}, first: 3,
		},
		"a run's price counts": {offers: func(n byte, o *scheduler.Offer) {
			if n != 2 {
				o.Prices.Run = 5000
			}
		}, first: 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := schedulertest.NewJob(1, 1).Spec
			if tt.spec != nil {
				tt.spec(&s)
			}
			live := candidates(3, func(c *scheduler.Candidate) {
				tt.offers(c.Offer.Host.Executor[0], c.Offer)
			})
			fit, _ := scheduler.Match(&s, math.MaxUint64, live, nil)
			if len(fit) != 3 || fit[0].Offer.Host.Executor[0] != tt.first {
				t.Errorf("%d fit, first %v, want host %d first of 3", len(fit), fit[0].Offer.Host, tt.first)
			}
		})
	}
}

// TestMatchPriceThatOverflows: prices that no number can hold fit nobody with a cap on the rate.
func TestMatchPriceThatOverflows(t *testing.T) {
	s := schedulertest.NewJob(1, 1).Spec
	s.MaxRate, s.Resources.CPUMilli = math.MaxUint64-1, 4000
	live := candidates(1, func(c *scheduler.Candidate) { c.Offer.Prices.CoreHour = math.MaxUint64 })
	if fit, reason := scheduler.Match(&s, math.MaxUint64, live, nil); len(fit) != 0 {
		t.Errorf("%d fit, %q", len(fit), reason)
	}
}

func TestBook(t *testing.T) {
	now := schedulertest.Start()
	half := price.Resources{CPUMilli: 2000, Memory: 1 << 30}
	free := func(b *scheduler.Book) []uint32 {
		var list []uint32
		for _, c := range b.Live(now) {
			list = append(list, c.Free.CPUMilli)
		}
		return list
	}
	b := scheduler.NewBook()
	check := func(what string, want ...uint32) {
		t.Helper()
		if got := free(b); len(got) != len(want) || len(want) == 1 && got[0] != want[0] {
			t.Errorf("%s: free %v, want %v", what, got, want)
		}
	}
	o := schedulertest.NewOffer(1, 1000, now)
	if !b.Post(o, now) {
		t.Fatal("a good offer is refused")
	}
	check("posted", 4000)
	b.Hold(o.Host.Executor, half)
	check("held", 2000)
	b.Release(o.Host.Executor, half)
	check("released", 4000)
	for range 3 {
		b.Hold(o.Host.Executor, half)
	}
	check("held more than there is", 0)
	newer := *o
	newer.Posted = now.Add(time.Second)
	b.Post(&newer, now)
	check("a newer offer counts what is held", 4000)
	if b.Post(o, now) {
		t.Error("an older offer takes the place of a newer one")
	}
	late := newer
	late.Expires = now
	if b.Post(&late, now) {
		t.Error("an expired offer is taken")
	}
	late.Expires = now.Add(time.Hour)
	if b.Post(&late, now) {
		t.Error("an offer that stands for an hour is taken")
	}
	now = now.Add(6 * time.Minute)
	check("expired")
	b.Sweep(now, time.Hour)
	if _, known := b.Get(o.Host.Executor); !known {
		t.Error("a host is forgotten too early")
	}
	b.Sweep(now, 30*time.Second)
	if _, known := b.Get(o.Host.Executor); known {
		t.Error("a host that is gone is remembered")
	}
}

// TestBookIsBounded: neither one operator nor several together keep others out of the book.
func TestBookIsBounded(t *testing.T) {
	now := schedulertest.Start()
	b := scheduler.NewBook()
	hosts := 0
	post := func(operator byte) bool {
		o := &scheduler.Offer{Posted: now, Expires: now.Add(time.Minute)}
		o.Host.Operator = sig.AccountID{operator}
		o.Host.Executor = sig.PublicKey{byte(hosts), byte(hosts >> 8), byte(hosts >> 16)}
		hosts++
		return b.Post(o, now)
	}
	for operator := range byte(scheduler.MaxOffers / scheduler.MaxOffersOfOperator) {
		for n := range scheduler.MaxOffersOfOperator {
			if !post(operator) {
				t.Fatalf("offer %d of operator %d is refused", n, operator)
			}
		}
		if post(operator) {
			t.Errorf("operator %d has more than its bound", operator)
		}
	}
	for n := range 10 {
		if !post(200) {
			t.Errorf("a full book refuses the newcomer's offer %d", n)
		}
	}
	if n := len(b.Live(now)); n != scheduler.MaxOffers {
		t.Errorf("%d offers, want %d", n, scheduler.MaxOffers)
	}
}
