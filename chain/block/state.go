package block

import (
	"encoding/binary"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// ChainState is the state leaf of the chain itself.
type ChainState struct {
	Minted, Burned Counter
	// Prices in force for the next block.
	OperationFee tx.Grains
	ByteFee      tx.Grains
	Params       Params
	Validators   ValidatorSet
	// Sum of all genesis allocations.
	GenesisSupply tx.Grains
	// Sums kept for the conservation check.
	AccountSum tx.Grains
	EscrowSum  tx.Grains
	LockSum    tx.Grains
	LockboxSum tx.Grains
}

// DecodeChainState reads the canonical bytes of a ChainState leaf.
func DecodeChainState(raw []byte) (ChainState, error) {
	r := canon.NewReader(raw)
	var s ChainState
	counted := 0
	for r.Next() {
		switch r.Field() {
		case 1:
			s.Minted = readCounter(&r)
			counted++
		case 2:
			s.Burned = readCounter(&r)
			counted++
		case 3:
			s.OperationFee = tx.Grains(r.Uint64())
		case 4:
			s.ByteFee = tx.Grains(r.Uint64())
		case 5:
			frame := r.Open("params")
			s.Params.readFrom(&r)
			r.Close(frame)
		case 6:
			frame := r.Open("validators")
			s.Validators.readFrom(&r)
			r.Close(frame)
		default:
			s.readSum(&r)
		}
	}
	if counted != 2 {
		r.FailField(1, tx.ErrMissing)
	}
	if err := r.Err(); err != nil {
		return ChainState{}, malformed("chain state", err, &chainv1.ChainState{})
	}
	return s, nil
}

func (s *ChainState) readSum(r *canon.Reader) {
	switch r.Field() {
	case 7:
		s.GenesisSupply = tx.Grains(r.Uint64())
	case 8:
		s.AccountSum = tx.Grains(r.Uint64())
	case 9:
		s.EscrowSum = tx.Grains(r.Uint64())
	case 10:
		s.LockSum = tx.Grains(r.Uint64())
	case 11:
		s.LockboxSum = tx.Grains(r.Uint64())
	default:
		r.Unknown()
	}
}

// Append appends the canonical bytes of the leaf. The counters are always written, 16 bytes each.
func (s *ChainState) Append(dst []byte) []byte {
	dst = appendCounter(dst, 1, s.Minted)
	dst = appendCounter(dst, 2, s.Burned)
	dst = canon.AppendUint(dst, 3, uint64(s.OperationFee))
	dst = canon.AppendUint(dst, 4, uint64(s.ByteFee))
	dst, mark := canon.Begin(dst, 5)
	dst = canon.End(s.Params.Append(dst), mark)
	dst, mark = canon.Begin(dst, 6)
	dst = canon.End(s.Validators.Append(dst), mark)
	dst = canon.AppendUint(dst, 7, uint64(s.GenesisSupply))
	dst = canon.AppendUint(dst, 8, uint64(s.AccountSum))
	dst = canon.AppendUint(dst, 9, uint64(s.EscrowSum))
	dst = canon.AppendUint(dst, 10, uint64(s.LockSum))
	return canon.AppendUint(dst, 11, uint64(s.LockboxSum))
}

// PB returns the message form.
func (s *ChainState) PB() *chainv1.ChainState { return message(s, &chainv1.ChainState{}) }

func readCounter(r *canon.Reader) Counter {
	var b [16]byte
	r.Fixed(b[:])
	return Counter{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

func appendCounter(dst []byte, field int, c Counter) []byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], c.Hi)
	binary.BigEndian.PutUint64(b[8:], c.Lo)
	return canon.AppendBytes(dst, field, b[:])
}
