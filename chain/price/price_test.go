package price_test

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
)

func TestAmount(t *testing.T) {
	hour := price.Usage{
		WallMS: 3_600_000, CPUNS: 3_600_000_000_000, MemoryKiBMS: (1 << 20) * 3_600_000,
		BytesIn: 1 << 30, BytesOut: 1 << 30, DiskKiBMS: (1 << 20) * 3_600_000, Runs: 1,
	}
	all := price.Prices{
		Model: price.Linear, WallHour: 1, CoreHour: 10, MemoryGiBHour: 100, GiBIn: 1_000,
		GiBOut: 10_000, DiskGiBHour: 100_000, Run: 1_000_000,
	}
	tests := map[string]struct {
		prices price.Prices
		usage  price.Usage
		want   tx.Grains
		err    error
	}{
		"an hour of everything": {all, hour, 1_111_111, nil},
		"nothing":               {all, price.Usage{}, 0, nil},
		"floor of each term": {
			price.Prices{Model: price.Linear, WallHour: 1, GiBIn: 1},
			price.Usage{WallMS: 3_599_999, BytesIn: 1<<30 - 1}, 0, nil,
		},
		"flat": {price.Prices{Model: price.Flat, Run: 7}, price.Usage{Runs: 3, CPUNS: 99}, 21, nil},
		"128-bit product": {
			price.Prices{Model: price.Linear, CoreHour: math.MaxUint64},
			price.Usage{CPUNS: 3_600_000_000_000}, math.MaxUint64, nil,
		},
		"term overflows": {
			price.Prices{Model: price.Linear, Run: 1 << 32}, price.Usage{Runs: 1 << 32},
			0, price.ErrOverflow,
		},
		"sum overflows": {
			price.Prices{Model: price.Linear, Run: math.MaxUint64, WallHour: 1}, hour,
			0, price.ErrOverflow,
		},
		"flat with another price": {
			price.Prices{Model: price.Flat, CoreHour: 1}, hour, 0, price.ErrUnused,
		},
		"cfps":     {price.Prices{Model: price.CFPS}, hour, 0, price.ErrCFPS},
		"no model": {price.Prices{}, hour, 0, price.ErrModel},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := price.Amount(test.prices, test.usage)
			if got != test.want || !errors.Is(err, test.err) {
				t.Errorf("got %d, %v, want %d, %v", got, err, test.want, test.err)
			}
		})
	}
}

func TestRate(t *testing.T) {
	p := price.Prices{
		Model: price.Linear, WallHour: 1, CoreHour: 1_000_000_000, MemoryGiBHour: 100_000_000,
		GiBIn: 10_000_000, GiBOut: 20_000_000, DiskGiBHour: 3, Run: 5,
	}
	r := price.Resources{CPUMilli: 1_500, Memory: 64 << 20, Disk: 1, Network: 1 << 20}
	got, err := price.Rate(p, r, 2)
	// 1 + 1.5 core-hours + 1/16 GiB-hour + 1 (ceil) + 3,600 MiB at the dearer price + 2 runs.
	if want := tx.GrainsPerHour(1 + 1_500_000_000 + 6_250_000 + 1 + 70_312_500 + 10); got != want ||
		err != nil {
		t.Errorf("got %d, %v, want %d", got, err, want)
	}
	rate, upfront, err := price.SingleRun(p, r)
	if rate != got-10 || upfront != 5 || err != nil {
		t.Errorf("single run: got %d, %d, %v", rate, upfront, err)
	}
	for name, over := range map[string]price.Resources{
		"bandwidth": {Network: math.MaxUint64}, "memory": {Memory: math.MaxUint64},
	} {
		p := price.Prices{Model: price.Linear, MemoryGiBHour: 1 << 40}
		if _, err := price.Rate(p, over, 0); !errors.Is(err, price.ErrOverflow) {
			t.Errorf("%s: got %v, want ErrOverflow", name, err)
		}
	}
}

func TestCheckCap(t *testing.T) {
	p := price.Prices{Model: price.Linear, CoreHour: 5, Run: 1}
	tests := map[string]struct {
		most price.Prices
		ok   bool
	}{
		"equal":         {p, true},
		"any model":     {price.Prices{CoreHour: 9, Run: 9}, true},
		"other model":   {price.Prices{Model: price.Flat, CoreHour: 9, Run: 9}, false},
		"one too dear":  {price.Prices{CoreHour: 4, Run: 9}, false},
		"zero is a cap": {price.Prices{CoreHour: 9}, false},
	}
	for name, test := range tests {
		if err := p.CheckCap(test.most); (err == nil) != test.ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestCanonicalBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, u := drawPrices(t), drawUsage(t, price.Resources{}, math.MaxUint64)
		u.Unmeasured = rapid.SliceOfN(rapid.StringN(0, 9, 20), 0, 3).Draw(t, "unmeasured")
		wantPrices, err := canon.Hash(p.PB())
		if err != nil || p.Hash() != wantPrices || price.PricesFromPB(p.PB()) != p {
			t.Fatalf("prices %+v: %v", p, err)
		}
		wantUsage, err := canon.Hash(u.PB())
		if err != nil || u.Hash() != wantUsage {
			t.Fatalf("usage %+v: %v", u, err)
		}
	})
}

// TestRateCoversUsage: whatever is used within the reserved resources in a time costs no more than
// the rate accrues in that time.
func TestRateCoversUsage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPrices(t)
		r := price.Resources{
			CPUMilli: rapid.Uint32Range(0, 1_024_000).Draw(t, "cpu"),
			Memory:   rapid.Uint64Range(0, 1<<44).Draw(t, "memory"),
			Disk:     rapid.Uint64Range(0, 1<<46).Draw(t, "disk"),
			Network:  rapid.Uint64Range(0, 1<<35).Draw(t, "network"),
		}
		span := rapid.Uint64Range(0, 30*24*3_600_000).Draw(t, "span")
		u := drawUsage(t, r, span)
		u.Runs = 0
		rate, upfront, err := price.SingleRun(p, r)
		if err != nil {
			t.Fatal(err)
		}
		allowed, err := price.Accrued(rate, tx.Millis(span))
		if fits := fitsAccrued(rate, span); (err == nil) != fits {
			t.Fatalf("%d an hour for %d ms fits 64 bits: %v, got %v", rate, span, fits, err)
		} else if !fits || allowed > math.MaxUint64-upfront {
			return // more than there are grains: no lease is granted so much
		}
		if amount, err := price.Amount(p, u); err != nil || amount > allowed {
			t.Fatalf("%d for %+v, rate allows %d (%v)", amount, u, allowed, err)
		}
		u.Runs = 1
		if amount, err := price.Amount(p, u); err != nil || amount > allowed+upfront {
			t.Fatalf("%d with the run, rate and upfront allow %d (%v)", amount, allowed+upfront, err)
		}
	})
}

// fitsAccrued is whether what accrues in span ms is a number of grains of 64 bits.
func fitsAccrued(rate tx.GrainsPerHour, span uint64) bool {
	product := new(big.Int).SetUint64(uint64(rate))
	product.Mul(product, new(big.Int).SetUint64(span))
	return product.Div(product, big.NewInt(3_600_000)).IsUint64()
}

func TestAmountIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, u := drawPrices(t), drawUsage(t, price.Resources{CPUMilli: 9_999, Memory: 1 << 33}, 1<<30)
		more := u
		more.CPUNS += rapid.Uint64Range(0, 1<<40).Draw(t, "cpu")
		more.BytesOut += rapid.Uint64Range(0, 1<<40).Draw(t, "out")
		more.Runs += rapid.Uint64Range(0, 9).Draw(t, "runs")
		less, err1 := price.Amount(p, u)
		got, err2 := price.Amount(p, more)
		if err1 != nil || err2 != nil || got < less {
			t.Fatalf("%d (%v), then %d (%v)", less, err1, got, err2)
		}
	})
}

// drawPrices draws linear prices of up to 1,000 UCN per unit.
func drawPrices(t *rapid.T) price.Prices {
	one := rapid.Uint64Range(0, 1_000_000_000_000)
	return price.Prices{
		Model: price.Linear, WallHour: one.Draw(t, "wall"), CoreHour: one.Draw(t, "core"),
		MemoryGiBHour: one.Draw(t, "memory"), GiBIn: one.Draw(t, "in"),
		GiBOut: one.Draw(t, "out"), DiskGiBHour: one.Draw(t, "disk"), Run: one.Draw(t, "run"),
	}
}

// drawUsage draws usage within what r allows in span ms.
func drawUsage(t *rapid.T, r price.Resources, span uint64) price.Usage {
	within := func(most uint64, name string) uint64 {
		return rapid.Uint64Range(0, most).Draw(t, name)
	}
	u := price.Usage{WallMS: within(span, "wall used"), Runs: within(9, "runs used")}
	if r == (price.Resources{}) {
		return u
	}
	u.CPUNS = within(uint64(r.CPUMilli)*span*1_000, "cpu used")
	u.MemoryKiBMS = within(r.Memory>>10*span, "memory used")
	u.DiskKiBMS = within(r.Disk>>10*span, "disk used")
	u.BytesIn = within(r.Network*span/1_000, "in used")
	u.BytesOut = within(r.Network*span/1_000-u.BytesIn, "out used")
	return u
}
