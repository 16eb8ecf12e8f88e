package sig_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// set returns a set of n keys and its private keys in the set's order.
func set(t *testing.T, threshold uint32, n int) (sig.KeySet, []sig.PrivateKey) {
	t.Helper()
	var private []sig.PrivateKey
	var public []sig.PublicKey
	for i := range n {
		private = append(private, key(i))
		public = append(public, key(i).Public())
	}
	slices.SortFunc(private, func(a, b sig.PrivateKey) int {
		x, y := a.Public(), b.Public()
		return bytes.Compare(x[:], y[:])
	})
	out, err := sig.NewKeySet(threshold, public...)
	if err != nil {
		t.Fatal(err)
	}
	return out, private
}

func TestKeySetValidate(t *testing.T) {
	good, _ := set(t, 2, 3)
	many, _ := set(t, 1, sig.MaxKeys)
	with := func(change func(*sig.KeySet)) sig.KeySet {
		out := sig.KeySet{Keys: slices.Clone(good.Keys), Threshold: good.Threshold}
		change(&out)
		return out
	}
	tests := map[string]struct {
		set  sig.KeySet
		want error
	}{
		"2 of 3":  {good, nil},
		"1 of 16": {many, nil},
		"empty":   {sig.KeySet{}, sig.ErrKeySetSize},
		"17": {with(func(s *sig.KeySet) {
			s.Keys = append(many.Keys, many.Keys[0])
		}), sig.ErrKeySetSize},
		"descending":     {with(func(s *sig.KeySet) { slices.Reverse(s.Keys) }), sig.ErrKeySetOrder},
		"a key twice":    {with(func(s *sig.KeySet) { s.Keys[1] = s.Keys[0] }), sig.ErrKeySetOrder},
		"threshold 0":    {with(func(s *sig.KeySet) { s.Threshold = 0 }), sig.ErrThreshold},
		"threshold 4":    {with(func(s *sig.KeySet) { s.Threshold = 4 }), sig.ErrThreshold},
		"threshold 2^32": {with(func(s *sig.KeySet) { s.Threshold = 1<<32 - 1 }), sig.ErrThreshold},
		"small order": {with(func(s *sig.KeySet) {
			s.Keys[0] = sig.PublicKey{}
		}), sig.ErrKeySmallOrder},
	}
	for name, test := range tests {
		if err := test.set.Validate(); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestKeySetBytesAreCanonical(t *testing.T) {
	for _, n := range []int{1, 2, sig.MaxKeys} {
		s, _ := set(t, uint32(n), n)
		want, err := canon.Marshal(s.PB())
		if err != nil || !bytes.Equal(s.AppendCanonical(nil), want) {
			t.Errorf("%d keys: got %x, want %x (%v)", n, s.AppendCanonical(nil), want, err)
		}
		back, err := sig.ParseKeySet(s.PB())
		if err != nil || !back.Equal(s) {
			t.Errorf("%d keys: %v", n, err)
		}
		if sig.AccountOf(s) != sig.AccountID(sig.Hash(sig.DomainAccount, nil, want)) {
			t.Errorf("%d keys: account is not the hash of the canonical bytes", n)
		}
	}
	if one, _ := set(t, 1, 1); sig.AccountOfKey(one.Keys[0]) != sig.AccountOf(one) {
		t.Error("AccountOfKey differs from AccountOf")
	}
}

func TestVerifyAccount(t *testing.T) {
	three, private := set(t, 2, 3)
	single, _ := set(t, 1, 1)
	account, preimage := sig.AccountOf(three), []byte("preimage")
	first, err := sig.SignAccount(three, private, true, preimage)
	if err != nil {
		t.Fatal(err)
	}
	later, err := sig.SignAccount(three, private[1:], false, preimage)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*sig.AccountSignature)) sig.AccountSignature {
		out := later
		out.Signatures = slices.Clone(later.Signatures)
		change(&out)
		return out
	}
	small := sig.KeySet{Keys: []sig.PublicKey{{}, three.Keys[0]}, Threshold: 1}
	onlyGood := sig.AccountSignature{Keys: small, Signatures: []sig.IndexedSignature{
		{Index: 1, Signature: private[0].Sign(preimage)},
	}}
	tests := map[string]struct {
		account sig.AccountID
		held    sig.KeySet
		in      sig.AccountSignature
		want    error
	}{
		"first":             {account, sig.KeySet{}, first, nil},
		"later":             {account, three, later, nil},
		"set missing":       {account, sig.KeySet{}, later, sig.ErrKeySetMissing},
		"set unwanted":      {account, three, first, sig.ErrKeySetUnwanted},
		"another's account": {sig.AccountOf(single), sig.KeySet{}, first, sig.ErrKeySetForeign},
		"rotated away":      {account, single, later, sig.ErrSignatureCount},
		"too few": {account, three, with(func(s *sig.AccountSignature) {
			s.Signatures = s.Signatures[:1]
		}), sig.ErrSignatureCount},
		"too many": {account, three, with(func(s *sig.AccountSignature) {
			s.Signatures = append(s.Signatures, s.Signatures[1])
		}), sig.ErrSignatureCount},
		"one twice": {account, three, with(func(s *sig.AccountSignature) {
			s.Signatures[1] = s.Signatures[0]
		}), sig.ErrSignatureOrder},
		"descending": {account, three, with(func(s *sig.AccountSignature) {
			slices.Reverse(s.Signatures)
		}), sig.ErrSignatureOrder},
		"no such key": {account, three, with(func(s *sig.AccountSignature) {
			s.Signatures[1].Index = 3
		}), sig.ErrSignatureIndex},
		"wrong key": {account, three, with(func(s *sig.AccountSignature) {
			s.Signatures[0].Index = 0
		}), sig.ErrSignature},
		"forged": {account, three, with(func(s *sig.AccountSignature) {
			s.Signatures[1].Signature[9] ^= 1
		}), sig.ErrSignature},
		"unused bad key in the first set": {
			sig.AccountOf(small), sig.KeySet{}, onlyGood, sig.ErrKeySmallOrder,
		},
	}
	for name, test := range tests {
		err := sig.VerifyAccount(test.account, test.held, preimage, test.in)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestSignAccount(t *testing.T) {
	three, private := set(t, 2, 3)
	account := sig.AccountOf(three)
	made, err := sig.SignAccount(three, private, false, []byte("preimage"))
	if err != nil || len(made.Signatures) != 2 || !made.Keys.IsZero() {
		t.Fatalf("got %+v, %v", made, err)
	}
	if err := sig.VerifyAccount(account, three, []byte("other"), made); !errors.Is(err,
		sig.ErrSignature) {
		t.Errorf("other preimage: got %v", err)
	}
	if _, err := sig.SignAccount(three, private[:1], false, []byte("preimage")); !errors.Is(err,
		sig.ErrNotEnoughSigner) {
		t.Errorf("one key of two: got %v", err)
	}
}

func TestParseAccountSignature(t *testing.T) {
	three, private := set(t, 2, 3)
	made, err := sig.SignAccount(three, private, true, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := sig.ParseAccountSignature(made.PB())
	if err != nil || !proto.Equal(back.PB(), made.PB()) {
		t.Errorf("round trip: %v", err)
	}
	tests := map[string]struct {
		change func(*chainv1.AccountSignature)
		want   error
	}{
		"no signature": {func(m *chainv1.AccountSignature) {
			m.Signatures = nil
		}, sig.ErrSignatureCount},
		"nil signature": {func(m *chainv1.AccountSignature) {
			m.Signatures[0] = nil
		}, sig.ErrSignatureLength},
		"short signature": {func(m *chainv1.AccountSignature) {
			m.Signatures[0].Signature = []byte{1}
		}, sig.ErrSignatureLength},
		"short key": {func(m *chainv1.AccountSignature) {
			m.Keys.Keys[0].Key = []byte{1}
		}, sig.ErrKeyLength},
		"nil key": {func(m *chainv1.AccountSignature) {
			m.Keys.Keys[0] = nil
		}, sig.ErrKeyAlgorithm},
		"algorithm": {func(m *chainv1.AccountSignature) {
			m.Keys.Keys[0].Algorithm = 2
		}, sig.ErrKeyAlgorithm},
		"17 signatures": {func(m *chainv1.AccountSignature) {
			m.Signatures = make([]*chainv1.Signature, 17)
		}, sig.ErrSignatureCount},
	}
	for name, test := range tests {
		m := proto.Clone(made.PB()).(*chainv1.AccountSignature)
		test.change(m)
		if _, err := sig.ParseAccountSignature(m); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	if _, err := sig.ParseAccountSignature(nil); !errors.Is(err, sig.ErrSignatureCount) {
		t.Errorf("nil: got %v", err)
	}
}
