package block

import (
	"fmt"
	"math/bits"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Params are a chain's parameters.
type Params struct {
	// Lowest prices of an operation and of a body byte.
	OperationFee tx.Grains
	ByteFee      tx.Grains
	// Most that fullness can multiply both by.
	FeeCeiling uint32
	// State deposits.
	AccountLock tx.Grains
	EscrowLock  tx.Grains
	// Most operations and body bytes of a block.
	MaxOperations uint32
	MaxBytes      uint32
	// Cap of one step of the accrual clock.
	MaxStep tx.Millis
	// Largest sum of all grains that may ever exist.
	SupplyCap tx.Grains
}

// Bounds of the parameters.
const (
	maxFee        = 1_000_000_000_000 // 1,000 UCN
	maxLock       = 1_000_000_000_000
	maxFeeCeiling = 10_000
	minOperations = tx.MaxOperations
	maxOperations = MaxTransactions
	minBytes      = 256 << 10 // one transaction and a certificate of 256 signatures
	minStep       = 1_000
	maxStep       = 3_600_000
	maxSupply     = 1 << 63
)

// Validate checks every parameter against its bounds.
func (p *Params) Validate() error {
	for _, bound := range []struct {
		name        string
		value       uint64
		least, most uint64
	}{
		{"operation_fee", uint64(p.OperationFee), 0, maxFee},
		{"byte_fee", uint64(p.ByteFee), 0, maxFee},
		{"fee_ceiling", uint64(p.FeeCeiling), 1, maxFeeCeiling},
		{"account_lock", uint64(p.AccountLock), 1, maxLock},
		{"escrow_lock", uint64(p.EscrowLock), 0, maxLock},
		{"max_operations", uint64(p.MaxOperations), minOperations, maxOperations},
		{"max_bytes", uint64(p.MaxBytes), minBytes, MaxBody},
		{"max_step", uint64(p.MaxStep), minStep, maxStep},
		{"supply_cap", uint64(p.SupplyCap), 1, maxSupply},
	} {
		if bound.value < bound.least || bound.value > bound.most {
			return fmt.Errorf("%s is %d, want %d to %d", bound.name, bound.value,
				bound.least, bound.most)
		}
	}
	return nil
}

// Append appends the canonical bytes of the parameters.
func (p *Params) Append(dst []byte) []byte {
	dst = canon.AppendUint(dst, 1, uint64(p.OperationFee))
	dst = canon.AppendUint(dst, 2, uint64(p.ByteFee))
	dst = canon.AppendUint(dst, 3, uint64(p.FeeCeiling))
	dst = canon.AppendUint(dst, 4, uint64(p.AccountLock))
	dst = canon.AppendUint(dst, 5, uint64(p.EscrowLock))
	dst = canon.AppendUint(dst, 6, uint64(p.MaxOperations))
	dst = canon.AppendUint(dst, 7, uint64(p.MaxBytes))
	dst = canon.AppendUint(dst, 8, uint64(p.MaxStep))
	return canon.AppendUint(dst, 9, uint64(p.SupplyCap))
}

func (p *Params) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			p.OperationFee = tx.Grains(r.Uint64())
		case 2:
			p.ByteFee = tx.Grains(r.Uint64())
		case 3:
			p.FeeCeiling = r.Uint32()
		case 4:
			p.AccountLock = tx.Grains(r.Uint64())
		case 5:
			p.EscrowLock = tx.Grains(r.Uint64())
		case 6:
			p.MaxOperations = r.Uint32()
		case 7:
			p.MaxBytes = r.Uint32()
		case 8:
			p.MaxStep = tx.Millis(r.Uint64())
		case 9:
			p.SupplyCap = tx.Grains(r.Uint64())
		default:
			r.Unknown()
		}
	}
}

// PB returns the message form.
func (p *Params) PB() *chainv1.Params { return message(p, &chainv1.Params{}) }

// Counter is a 128-bit sum that never falls.
type Counter struct{ Hi, Lo uint64 }

// Add returns the counter raised by the amount; false if it would overflow.
func (c Counter) Add(amount tx.Grains) (Counter, bool) {
	lo, carry := bits.Add64(c.Lo, uint64(amount), 0)
	hi, over := bits.Add64(c.Hi, 0, carry)
	return Counter{Hi: hi, Lo: lo}, over == 0
}
