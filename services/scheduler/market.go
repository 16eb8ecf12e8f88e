package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
)

// Bounds of a summary of the market.
const (
	maxPlatforms  = 64 // told
	maxCounted    = 1024
	maxPlatform   = 64 // bytes of a platform's name
	summaryLife   = 2 * time.Second
	maxEndings    = 4096
	endingsWithin = time.Hour
)

// Capacity is what hosts have together; sums that do not fit are cut.
type Capacity struct{ CPUMilli, Memory, Disk, Network uint64 }

func (c *Capacity) add(r price.Resources) {
	c.CPUMilli = addUpTo(c.CPUMilli, uint64(r.CPUMilli))
	c.Memory = addUpTo(c.Memory, r.Memory)
	c.Disk = addUpTo(c.Disk, r.Disk)
	c.Network = addUpTo(c.Network, r.Network)
}

func addUpTo(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return ^uint64(0)
	}
	return sum
}

// Summary is the market at a moment.
type Summary struct {
	Time      time.Time
	Hosts     int
	Operators int
	Free      Capacity
	Total     Capacity
	// Platforms, most hosts first, at most 64. A host of several counts in each.
	Platforms []PlatformSummary
	Pending   Count
	Settled   Settled
}

// PlatformSummary is the market of one platform.
type PlatformSummary struct {
	Platform    string
	Hosts       int
	Operators   int
	Free, Total Capacity
	// Best and Median are of each price on its own, of hosts that take new work.
	Best, Median price.Prices
	Settled      Settled
}

// Settled sums up attempts that ended lately, by what their hosts reported.
type Settled struct {
	Attempts uint64
	Amount   uint64 // grains
	CoreMS   uint64 // core time used
	WallMS   uint64
	// ReservedMS is wall time times reserved cores.
	ReservedMS uint64
}

// PerCoreHour is what a reserved core cost in an hour, grains; 0 when nothing ran.
func (s Settled) PerCoreHour() uint64 {
	const hourMS = 3_600_000
	high, low := bits.Mul64(s.Amount, hourMS)
	if high >= s.ReservedMS {
		return 0
	}
	quotient, _ := bits.Div64(high, low, s.ReservedMS)
	return quotient
}

// PerAttempt is what an attempt cost, grains.
func (s Settled) PerAttempt() uint64 {
	if s.Attempts == 0 {
		return 0
	}
	return s.Amount / s.Attempts
}

func (s *Settled) add(e *ending) {
	s.Attempts++
	s.Amount = addUpTo(s.Amount, e.amount)
	s.CoreMS = addUpTo(s.CoreMS, e.coreMS)
	s.WallMS = addUpTo(s.WallMS, e.wallMS)
	s.ReservedMS = addUpTo(s.ReservedMS, e.reservedMS)
}

// ending is an attempt that ended.
type ending struct {
	at                                 time.Time
	platforms                          []string
	amount, coreMS, wallMS, reservedMS uint64
}

// endings are the newest attempts that ended, in a ring. Safe for concurrent use.
type endings struct {
	mu   sync.Mutex
	ring []ending
	next int
}

func (e *endings) note(end ending) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ring) < maxEndings {
		e.ring = append(e.ring, end)
		return
	}
	e.ring[e.next] = end
	e.next = (e.next + 1) % maxEndings
}

// sum adds up what ended since, in all and by platform.
func (e *endings) sum(since time.Time) (all Settled, of map[string]*Settled) {
	e.mu.Lock()
	defer e.mu.Unlock()
	of = map[string]*Settled{}
	for i := range e.ring {
		end := &e.ring[i]
		if end.at.Before(since) {
			continue
		}
		all.add(end)
		for _, name := range end.platforms {
			if of[name] == nil && len(of) < maxCounted {
				of[name] = &Settled{}
			}
			if s := of[name]; s != nil {
				s.add(end)
			}
		}
	}
	return all, of
}

// settle notes what an attempt cost whose host reported the end. What it says is cut to what its
// lease allows and to the time that went by here, so that one host's words move averages little.
func (e *Engine) settle(j *Job, a *Attempt, rep Report) {
	now := e.deps.Now()
	most := uint64(max(0, now.Sub(a.Created).Milliseconds()))
	cores := uint64(j.Spec.Resources.CPUMilli)
	end := ending{
		at: now, amount: min(rep.Amount, uint64(a.Lease.Lease.Budget)),
		wallMS: min(rep.WallMS, most),
		coreMS: min(rep.CPUNS/1e6, most*cores/1000),
	}
	end.reservedMS = end.wallMS * cores / 1000
	if o, ok := e.book.Get(a.Host.Executor); ok {
		end.platforms = platformsOf(o)
	}
	e.settled.note(end)
}

// platformsOf are the offer's platforms that are fit to be told, at most 8.
func platformsOf(o *Offer) (names []string) {
	const most = 8
	for _, name := range o.Platforms {
		plain := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789/._-") == ""
		if plain && name != "" && len(name) <= maxPlatform && len(names) < most &&
			!slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// summaries keeps the newest summary: many ask, few need to count.
type summaries struct {
	mu   sync.Mutex
	last *Summary
}

// Market sums up the market; what it returns is at most two seconds old and must not be changed.
func (e *Engine) Market(ctx context.Context) (*Summary, error) {
	e.summaries.mu.Lock()
	defer e.summaries.mu.Unlock()
	now := e.deps.Now()
	if last := e.summaries.last; last != nil && !now.Before(last.Time) &&
		now.Sub(last.Time) < summaryLife {
		return last, nil
	}
	pending, err := e.deps.Store.Count(ctx)
	if err != nil {
		return nil, fmt.Errorf("count what waits: %w", err)
	}
	s := summarise(e.book.Live(now))
	s.Time, s.Pending = now, pending
	all, of := e.settled.sum(now.Add(-endingsWithin))
	s.Settled = all
	for i := range s.Platforms {
		if settled := of[s.Platforms[i].Platform]; settled != nil {
			s.Platforms[i].Settled = *settled
		}
	}
	e.summaries.last = s
	return s, nil
}

// tally counts the offers of one platform.
type tally struct {
	PlatformSummary
	operators map[sig.AccountID]bool
	prices    []price.Prices
}

func summarise(live []Candidate) *Summary {
	s := &Summary{Hosts: len(live)}
	operators := map[sig.AccountID]bool{}
	of := map[string]*tally{}
	for _, c := range live {
		operators[c.Offer.Host.Operator] = true
		s.Free.add(c.Free)
		s.Total.add(c.Offer.Total)
		for _, name := range platformsOf(c.Offer) {
			if of[name] == nil && len(of) < maxCounted {
				of[name] = &tally{operators: map[sig.AccountID]bool{}}
				of[name].Platform = name
			}
			if t := of[name]; t != nil {
				t.add(c)
			}
		}
	}
	s.Operators = len(operators)
	tallies := slices.SortedFunc(maps.Values(of), func(a, b *tally) int {
		return cmp.Or(cmp.Compare(b.Hosts, a.Hosts), strings.Compare(a.Platform, b.Platform))
	})
	for _, t := range tallies[:min(len(tallies), maxPlatforms)] {
		s.Platforms = append(s.Platforms, t.sum())
	}
	return s
}

func (t *tally) add(c Candidate) {
	t.Hosts++
	t.operators[c.Offer.Host.Operator] = true
	t.Free.add(c.Free)
	t.Total.add(c.Offer.Total)
	if !c.Offer.Draining && c.Offer.Prices.Model == price.Linear {
		t.prices = append(t.prices, c.Offer.Prices)
	}
}

func (t *tally) sum() PlatformSummary {
	t.Operators = len(t.operators)
	if len(t.prices) == 0 {
		return t.PlatformSummary
	}
	t.Best.Model, t.Median.Model = price.Linear, price.Linear
	values := make([]uint64, len(t.prices))
	for _, field := range []func(*price.Prices) *uint64{
		func(p *price.Prices) *uint64 { return &p.WallHour },
		func(p *price.Prices) *uint64 { return &p.CoreHour },
		func(p *price.Prices) *uint64 { return &p.MemoryGiBHour },
		func(p *price.Prices) *uint64 { return &p.GiBIn },
		func(p *price.Prices) *uint64 { return &p.GiBOut },
		func(p *price.Prices) *uint64 { return &p.DiskGiBHour },
		func(p *price.Prices) *uint64 { return &p.Run },
	} {
		for i := range t.prices {
			values[i] = *field(&t.prices[i])
		}
		slices.Sort(values)
		*field(&t.Best), *field(&t.Median) = values[0], values[(len(values)-1)/2]
	}
	return t.PlatformSummary
}
