package tx_test

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// stricter lists the errors with which this package refuses what is canonical.
var stricter = []error{
	tx.ErrMissing, tx.ErrZero, tx.ErrTooLarge, tx.ErrBodySize, tx.ErrOperations, tx.ErrSettle,
	tx.ErrSignatures, tx.ErrAlgorithm, tx.ErrDelegates,
	canon.ErrLength, canon.ErrSize, canon.ErrOverflow,
}

// appender writes canonical bytes.
type appender interface{ Append(dst []byte) []byte }

// agree compares a decoder by hand with canon and the generated code: the same inputs but for the
// stricter limits, the same values, and the same bytes again.
func agree(t *testing.T, in []byte, m proto.Message, decode func([]byte) (appender, error)) {
	t.Helper()
	want := canon.Unmarshal(in, m)
	got, err := decode(in)
	if want != nil && err == nil {
		t.Fatalf("%T: accepted %x: %v", m, in, want)
	}
	if want == nil && err != nil {
		for _, allowed := range stricter {
			if errors.Is(err, allowed) {
				return
			}
		}
		t.Fatalf("%T: refused %x: %v", m, in, err)
	}
	if err != nil {
		return
	}
	if out := got.Append(nil); !bytes.Equal(out, in) {
		t.Fatalf("%T: accepted %x, wrote %x", m, in, out)
	}
	if !proto.Equal(messageOf(t, got), m) {
		t.Fatalf("%T: %x: got %v, want %v", m, in, messageOf(t, got), m)
	}
}

func messageOf(t *testing.T, v appender) proto.Message {
	t.Helper()
	switch v := v.(type) {
	case *tx.Transaction:
		return v.PB()
	case *tx.Lease:
		return v.PB()
	case *tx.Note:
		return v.PB()
	case *tx.Account:
		return v.PB()
	case *tx.AccountSigners:
		return v.PB()
	case *tx.RecoveryIntent:
		return v.PB()
	case *tx.SpendOrder:
		return v.PB()
	case *tx.Escrow:
		return v.PB()
	case *tx.LeaseState:
		return v.PB()
	case *tx.Receipt:
		return v.PB()
	case *tx.LaneState:
		return v.PB()
	}
	t.Fatalf("no message for %T", v)
	return nil
}

// pointer makes a decoder of values one of pointers.
func pointer[T any, P interface {
	*T
	appender
}](decode func([]byte) (T, error)) func([]byte) (appender, error) {
	return func(raw []byte) (appender, error) {
		v, err := decode(raw)
		return P(&v), err
	}
}

// kinds are the messages decoded by hand.
var kinds = []struct {
	message proto.Message
	decode  func([]byte) (appender, error)
	sample  func(sampler) appender
}{
	{
		&chainv1.Transaction{}, func(b []byte) (appender, error) { return tx.Decode(b) },
		func(s sampler) appender {
			body, signature := s.transaction(1 + s.IntN(5))
			t, err := tx.Attach(body, signature)
			if err != nil {
				panic(err)
			}
			return t
		},
	},
	{
		&chainv1.Lease{}, pointer[tx.Lease](tx.DecodeLease),
		func(s sampler) appender { v := s.lease(); return &v },
	},
	{
		&chainv1.Note{}, pointer[tx.Note](tx.DecodeNote),
		func(s sampler) appender { v := s.note(); return &v },
	},
	{
		&chainv1.Account{}, pointer[tx.Account](tx.DecodeAccount),
		func(s sampler) appender { v := s.account(); return &v },
	},
	{
		&chainv1.AccountSigners{}, pointer[tx.AccountSigners](tx.DecodeSigners),
		func(s sampler) appender { v := s.signers(); return &v },
	},
	{
		&chainv1.RecoveryIntent{}, pointer[tx.RecoveryIntent](tx.DecodeIntent),
		func(s sampler) appender { v := s.intent(); return &v },
	},
	{
		&chainv1.SpendOrder{}, pointer[tx.SpendOrder](tx.DecodeOrder),
		func(s sampler) appender { v := s.order(); return &v },
	},
	{
		&chainv1.Escrow{}, pointer[tx.Escrow](tx.DecodeEscrow),
		func(s sampler) appender { v := s.escrow(); return &v },
	},
	{
		&chainv1.LeaseState{}, pointer[tx.LeaseState](tx.DecodeLeaseState),
		func(s sampler) appender { v := s.leaseState(); return &v },
	},
	{
		&chainv1.Receipt{}, pointer[tx.Receipt](tx.DecodeReceipt),
		func(s sampler) appender { v := s.receipt(); return &v },
	},
	{
		&chainv1.LaneState{}, pointer[tx.LaneState](tx.DecodeLaneState),
		func(s sampler) appender { return &tx.LaneState{Lease: s.bytes32(), Epoch: s.number()} },
	},
}

// TestAgreesWithCanon draws values, and breaks their bytes in every way that one byte can.
func TestAgreesWithCanon(t *testing.T) {
	for i, kind := range kinds {
		for seed := range uint64(200) {
			s := newSampler(seed<<8 | uint64(i))
			raw := kind.sample(s).Append(nil)
			if _, err := kind.decode(raw); err != nil {
				t.Fatalf("seed %d: %T: own bytes refused: %v", seed, kind.message, err)
			}
			agree(t, raw, proto.Clone(kind.message), kind.decode)
			for range 40 {
				broken := bytes.Clone(raw)
				at := s.IntN(len(broken))
				switch s.IntN(3) {
				case 0:
					broken[at] ^= 1 << s.IntN(8)
				case 1:
					broken = append(broken[:at], broken[at+1:]...)
				case 2:
					broken = broken[:at]
				}
				agree(t, broken, proto.Clone(kind.message), kind.decode)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for i, kind := range kinds {
		for seed := range uint64(8) {
			f.Add(uint8(i), kind.sample(newSampler(seed)).Append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		kind := kinds[int(which)%len(kinds)]
		agree(t, in, proto.Clone(kind.message), kind.decode)
	})
}
