package state

import (
	"math/bits"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/tx"
)

// Prices are what the next block charges.
type Prices struct {
	// Of an operation.
	Operation tx.Grains
	// Of a byte of a transaction's canonical body.
	Byte tx.Grains
}

// Fee returns operations × f1 + bytes × f2, or the largest amount if it does not fit,
// which nobody can pay.
func (p Prices) Fee(operations, bodyBytes int) tx.Grains {
	forOperations := satMul(p.Operation, tx.Grains(operations))
	return satAdd(forOperations, satMul(p.Byte, tx.Grains(bodyBytes)))
}

const (
	// fullScale is a full block in the arithmetic of fullness.
	fullScale = 1 << 20
	// priceStep is the share (1/8) by which a price moves after a full or an empty block.
	priceStep = 8
)

// fullness returns how full a block was, the scarcer of operations and bytes, 0 to fullScale.
func fullness(operations, maxOperations, size, maxSize uint64) uint64 {
	return max(share(operations, maxOperations), share(size, maxSize))
}

func share(n, limit uint64) uint64 {
	if n >= limit {
		return fullScale
	}
	hi, lo := bits.Mul64(n, fullScale)
	q, _ := bits.Div64(hi, lo, limit)
	return q
}

// nextPrice moves a price towards what half-full blocks would pay: up to 1/8 up after a full
// block, 1/8 down after an empty one, at least 1 grain, within [lowest, lowest × ceiling].
func nextPrice(price, lowest, ceiling tx.Grains, full uint64) tx.Grains {
	const half = fullScale / 2
	if full > half {
		price = satAdd(price, max(1, priceMove(price, full-half)))
	}
	if full < half {
		price = satSub(price, max(1, priceMove(price, half-full)))
	}
	return min(max(price, lowest), satMul(lowest, max(1, ceiling)))
}

// priceMove returns floor(price × off / (half × 8)); off is at most half, so it fits.
func priceMove(price tx.Grains, off uint64) tx.Grains {
	hi, lo := bits.Mul64(uint64(price), off)
	q, _ := bits.Div64(hi, lo, fullScale/2*priceStep)
	return tx.Grains(q)
}

// proposerShare is what a segment's fees give to proposer and co-signers: floor(fees × 4 / 5).
func proposerShare(fees tx.Grains) tx.Grains {
	hi, lo := bits.Mul64(uint64(fees), 4)
	q, _ := bits.Div64(hi, lo, 5)
	return tx.Grains(q)
}

// Ceiling returns the highest prices that a chain's parameters allow.
func Ceiling(p block.Params) Prices {
	ceiling := max(1, tx.Grains(p.FeeCeiling))
	return Prices{satMul(p.OperationFee, ceiling), satMul(p.ByteFee, ceiling)}
}

// After returns the highest prices that can be in force after n blocks.
func After(now Prices, p block.Params, n int) Prices {
	for range n {
		now = Prices{
			nextPrice(now.Operation, p.OperationFee, tx.Grains(p.FeeCeiling), fullScale),
			nextPrice(now.Byte, p.ByteFee, tx.Grains(p.FeeCeiling), fullScale),
		}
	}
	return now
}
