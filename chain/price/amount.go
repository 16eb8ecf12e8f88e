package price

import (
	"math/bits"

	"github.com/united-containers/ucn/chain/tx"
)

// How much usage one unit of price is.
const (
	gib          = 1 << 30
	hourMS       = 3_600_000
	hourSeconds  = 3_600
	coreHourNS   = 3_600_000_000_000
	gibHourKiBMS = (1 << 20) * hourMS
	coreMilli    = 1_000
	one          = 1
)

// term is usage and the price of unit of it.
type term struct{ usage, price, unit uint64 }

// Amount returns what the usage costs. Errors: ErrOverflow and those of Prices.Validate.
func Amount(p Prices, u Usage) (tx.Grains, error) {
	if err := p.Validate(); err != nil {
		return 0, err
	}
	return sum(false, []term{
		{u.WallMS, p.WallHour, hourMS},
		{u.CPUNS, p.CoreHour, coreHourNS},
		{u.MemoryKiBMS, p.MemoryGiBHour, gibHourKiBMS},
		{u.BytesIn, p.GiBIn, gib},
		{u.BytesOut, p.GiBOut, gib},
		{u.DiskKiBMS, p.DiskGiBHour, gibHourKiBMS},
		{u.Runs, p.Run, one},
	})
}

// Rate returns the rate of a lease that reserves the resources and lets at most runs begin per
// hour. Bandwidth is taken at the dearer direction. Errors: ErrOverflow and those of
// Prices.Validate.
func Rate(p Prices, r Resources, runs uint64) (tx.GrainsPerHour, error) {
	if err := p.Validate(); err != nil {
		return 0, err
	}
	high, bandwidth := bits.Mul64(r.Network, hourSeconds)
	if high != 0 {
		return 0, ErrOverflow
	}
	rate, err := sum(true, []term{
		{one, p.WallHour, one},
		{uint64(r.CPUMilli), p.CoreHour, coreMilli},
		{r.Memory, p.MemoryGiBHour, gib},
		{r.Disk, p.DiskGiBHour, gib},
		{bandwidth, max(p.GiBIn, p.GiBOut), gib},
		{runs, p.Run, one},
	})
	return tx.GrainsPerHour(rate), err
}

// SingleRun returns rate and upfront of a lease for one run: the price of the run is payable at
// once, since it may be over before any rate has accrued. Errors: those of Rate.
func SingleRun(p Prices, r Resources) (rate tx.GrainsPerHour, upfront tx.Grains, err error) {
	rate, err = Rate(p, r, 0)
	return rate, tx.Grains(p.Run), err
}

// Accrued returns floor(rate x ms / 3,600,000), what a lease allows for a time beside its upfront.
func Accrued(rate tx.GrainsPerHour, span tx.Millis) (tx.Grains, error) {
	return sum(false, []term{{uint64(span), uint64(rate), hourMS}})
}

// sum adds usage x price / unit, each term rounded up or down.
func sum(up bool, terms []term) (tx.Grains, error) {
	var total uint64
	for _, t := range terms {
		high, low := bits.Mul64(t.usage, t.price)
		if high >= t.unit {
			return 0, ErrOverflow
		}
		quotient, rest := bits.Div64(high, low, t.unit)
		carry := uint64(0)
		if up && rest > 0 {
			carry = 1
		}
		if total, carry = bits.Add64(total, quotient, carry); carry != 0 {
			return 0, ErrOverflow
		}
	}
	return tx.Grains(total), nil
}
