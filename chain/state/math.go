package state

import (
	"math/bits"

	"github.com/united-containers/ucn/chain/tx"
)

// hour is the number of milliseconds that rates are counted by.
const hour = 3_600_000

// perHour returns floor(rate × ms / 3,600,000) with a 128-bit product, or the largest uint64 if
// the quotient is larger: every use caps it by an amount that exists.
func perHour(rate tx.GrainsPerHour, ms tx.Millis) tx.Grains {
	hi, lo := bits.Mul64(uint64(rate), uint64(ms))
	if hi >= hour {
		return maxUint64
	}
	q, _ := bits.Div64(hi, lo, hour)
	return tx.Grains(q)
}

const maxUint64 = 1<<64 - 1

// satAdd returns a + b, or the largest uint64.
func satAdd[T ~uint64](a, b T) T {
	sum, carry := bits.Add64(uint64(a), uint64(b), 0)
	if carry != 0 {
		return maxUint64
	}
	return T(sum)
}

// satSub returns a - b, or 0.
func satSub[T ~uint64](a, b T) T {
	if a < b {
		return 0
	}
	return a - b
}

// satMul returns a × b, or the largest uint64.
func satMul[T ~uint64](a, b T) T {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 {
		return maxUint64
	}
	return T(lo)
}
