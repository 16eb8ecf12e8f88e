package block_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func key(n byte) sig.PrivateKey { return sig.FromSeed([32]byte{n, 7}) }

// validators returns a set of n and its private keys in the set's order.
func validators(n int) (block.ValidatorSet, []sig.PrivateKey) {
	var set block.ValidatorSet
	var keys []sig.PrivateKey
	for i := range n {
		keys = append(keys, key(byte(i)))
	}
	slices.SortFunc(keys, func(a, b sig.PrivateKey) int {
		x, y := a.Public(), b.Public()
		return bytes.Compare(x[:], y[:])
	})
	for i, k := range keys {
		set.Validators = append(set.Validators, block.Validator{
			Key: k.Public(), Account: sig.AccountID{byte(i + 1)}, Operator: sig.AccountID{1},
		})
	}
	return set, keys
}

// child returns a good successor of the parent.
func child(parent *block.Header, anchor sig.Anchor) block.Header {
	h := block.Header{
		Version: block.Version, Chain: parent.Chain, Height: parent.Height + 1,
		Prev: parent.Hash(anchor), Time: parent.Time + 90_000, Accrual: parent.Accrual + 60_000,
		StateRoot: tx.Hash{1}, RulesVersion: 1, SignersHash: parent.NextSignersHash,
		NextSignersHash: parent.NextSignersHash, Proposer: sig.AccountID{1},
	}
	if h.Height > 1 {
		h.ParentCertificateHash = tx.Hash{2}
	}
	return h
}

func TestCheckLink(t *testing.T) {
	anchor := sig.Anchor{4}
	genesis := local(t)
	start := genesis.Header(tx.Hash{9})
	parent := child(&start, anchor)
	if err := block.CheckLink(&start, &parent, anchor, 60_000); err != nil {
		t.Fatalf("block 1: %v", err)
	}
	tests := map[string]struct {
		change func(*block.Header)
		want   error
	}{
		"good":          {func(*block.Header) {}, nil},
		"version":       {func(h *block.Header) { h.Version = 2 }, block.ErrVersion},
		"chain":         {func(h *block.Header) { h.Chain = "other" }, block.ErrChain},
		"same height":   {func(h *block.Header) { h.Height-- }, block.ErrHeight},
		"height gap":    {func(h *block.Header) { h.Height++ }, block.ErrHeight},
		"prev":          {func(h *block.Header) { h.Prev[0] ^= 1 }, block.ErrPrev},
		"time back":     {func(h *block.Header) { h.Time = parent.Time - 1 }, block.ErrTime},
		"accrual fast":  {func(h *block.Header) { h.Accrual++ }, block.ErrAccrual},
		"accrual slow":  {func(h *block.Header) { h.Accrual-- }, block.ErrAccrual},
		"accrual > dt":  {func(h *block.Header) { h.Time = parent.Time + 59_999 }, block.ErrAccrual},
		"rules back":    {func(h *block.Header) { h.RulesVersion = 0 }, block.ErrRules},
		"other signers": {func(h *block.Header) { h.SignersHash[0] ^= 1 }, block.ErrSigners},
		"no parent certificate": {
			func(h *block.Header) { h.ParentCertificateHash = tx.Hash{} }, block.ErrParentCertificate,
		},
	}
	for name, test := range tests {
		h := child(&parent, anchor)
		test.change(&h)
		if err := block.CheckLink(&parent, &h, anchor, 60_000); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	parent.Prev[1] ^= 1 // another fork
	h := child(&parent, anchor)
	parent.Prev[1] ^= 1
	if err := block.CheckLink(&parent, &h, anchor, 60_000); !errors.Is(err, block.ErrPrev) {
		t.Errorf("child of a fork: got %v", err)
	}
}

func TestCertificateVerify(t *testing.T) {
	anchor := sig.Anchor{4}
	set, keys := validators(4)
	start := local(t).Header(tx.Hash{})
	h := child(&start, anchor)
	h.SignersHash = set.Hash()
	good := block.SignHeader(&h, anchor, keys[2], keys[0], keys[3])
	with := func(change func(*block.Certificate)) block.Certificate {
		c := block.Certificate{Signatures: slices.Clone(good.Signatures)}
		change(&c)
		return c
	}
	stranger := block.SignHeader(&h, anchor, keys[0], keys[1], key(99))
	tests := map[string]struct {
		certificate block.Certificate
		need        int
		want        error
	}{
		"3 of 4":  {good, block.Quorum(4), nil},
		"all 4":   {block.SignHeader(&h, anchor, keys...), block.Quorum(4), nil},
		"none":    {block.Certificate{}, 0, block.ErrCertificateFew},
		"too few": {block.SignHeader(&h, anchor, keys[:2]...), block.Quorum(4), block.ErrCertificateFew},
		"descending": {with(func(c *block.Certificate) {
			slices.Reverse(c.Signatures)
		}), 3, block.ErrCertificateOrder},
		"one twice": {with(func(c *block.Certificate) {
			c.Signatures[1] = c.Signatures[0]
		}), 3, block.ErrCertificateOrder},
		"stranger": {stranger, 3, block.ErrCertificateKey},
		"forged": {with(func(c *block.Certificate) {
			c.Signatures[2].Signature[40] ^= 1
		}), 3, block.ErrCertificateForged},
		"another network": {
			block.SignHeader(&h, sig.Anchor{5}, keys...), 3, block.ErrCertificateForged,
		},
	}
	for name, test := range tests {
		err := test.certificate.Verify(&h, anchor, set, test.need)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	three, _ := validators(3)
	if err := good.Verify(&h, anchor, three, 2); !errors.Is(err, block.ErrSigners) {
		t.Errorf("another set: got %v", err)
	}
}

func TestQuorum(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 4, 6: 5, 7: 5, 100: 67, 256: 171} {
		if got := block.Quorum(n); got != want {
			t.Errorf("quorum of %d: got %d, want %d", n, got, want)
		}
	}
}

func TestValidatorSetValidate(t *testing.T) {
	tests := map[string]func(*block.ValidatorSet){
		"empty":       func(s *block.ValidatorSet) { s.Validators = nil },
		"257":         func(s *block.ValidatorSet) { s.Validators = make([]block.Validator, 257) },
		"descending":  func(s *block.ValidatorSet) { slices.Reverse(s.Validators) },
		"twice":       func(s *block.ValidatorSet) { s.Validators[1] = s.Validators[0] },
		"bad key":     func(s *block.ValidatorSet) { s.Validators[0].Key = sig.PublicKey{} },
		"no account":  func(s *block.ValidatorSet) { s.Validators[0].Account = sig.AccountID{} },
		"no operator": func(s *block.ValidatorSet) { s.Validators[0].Operator = sig.AccountID{} },
	}
	for name, change := range tests {
		set, _ := validators(3)
		if err := set.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&set)
		if err := set.Validate(); !errors.Is(err, block.ErrValidators) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestBody(t *testing.T) {
	anchor := sig.Anchor{4}
	set, keys := validators(1)
	start := local(t).Header(tx.Hash{})
	parent := child(&start, anchor)
	body := block.Body{
		ParentCertificate: block.SignHeader(&parent, anchor, keys...),
		Transactions:      [][]byte{{1, 2, 3}, bytes.Repeat([]byte{4}, 1_000)},
	}
	raw := body.Append(nil)
	h := child(&parent, anchor)
	h.BodyHash, h.BodyLength = block.BodyHash(raw), uint64(len(raw))
	h.ParentCertificateHash = body.ParentCertificate.Hash()
	if err := h.CheckBody(&body); err != nil {
		t.Fatal(err)
	}
	back, err := block.DecodeBody(raw)
	if err != nil || !reflect.DeepEqual(back, body) {
		t.Fatalf("round trip: %v", err)
	}
	back.Transactions = back.Transactions[:1]
	if err := h.CheckBody(&back); !errors.Is(err, block.ErrBody) {
		t.Errorf("a transaction fewer: got %v", err)
	}
	h.ParentCertificateHash[0] ^= 1
	if err := h.CheckBody(&body); !errors.Is(err, block.ErrParentCertificate) {
		t.Errorf("other certificate: got %v", err)
	}
	for name, in := range map[string][]byte{
		"empty transaction":     {0x12, 0},
		"oversize transaction":  canon.AppendBytes(nil, 2, make([]byte, tx.MaxTransaction+1)),
		"truncated transaction": {0x12, 4, 1},
		"unknown field":         {0x1a, 0},
	} {
		if _, err := block.DecodeBody(in); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	whole := block.Block{Header: h, Body: body, Certificate: block.SignHeader(&h, anchor, keys...)}
	again, err := block.FromPB(whole.PB())
	if err != nil || !reflect.DeepEqual(again, &whole) {
		t.Errorf("block through its message: %v", err)
	}
	if err := again.Certificate.Verify(&again.Header, anchor, set, 1); !errors.Is(err,
		block.ErrSigners) {
		t.Errorf("header names another set: got %v", err)
	}
}

// kinds are the messages decoded by hand.
var kinds = []struct {
	message proto.Message
	decode  func([]byte) ([]byte, error) // and encode again
}{
	{&chainv1.Header{}, again(block.DecodeHeader, func(h block.Header) []byte {
		return h.Append(nil)
	})},
	{&chainv1.Certificate{}, again(block.DecodeCertificate, func(c block.Certificate) []byte {
		return c.Append(nil)
	})},
	{&chainv1.ValidatorSet{}, again(block.DecodeValidatorSet, func(s block.ValidatorSet) []byte {
		return s.Append(nil)
	})},
	{&chainv1.Body{}, again(block.DecodeBody, func(b block.Body) []byte { return b.Append(nil) })},
	{&chainv1.Block{}, again(block.Decode, func(b *block.Block) []byte { return b.Append(nil) })},
	{&chainv1.Genesis{}, again(block.DecodeGenesis, func(g *block.Genesis) []byte {
		return g.Append(nil)
	})},
	{&chainv1.ChainState{}, again(block.DecodeChainState, func(s block.ChainState) []byte {
		return s.Append(nil)
	})},
}

func again[T any](decode func([]byte) (T, error), encode func(T) []byte) func([]byte) (
	[]byte, error,
) {
	return func(raw []byte) ([]byte, error) {
		v, err := decode(raw)
		if err != nil {
			return nil, err
		}
		return encode(v), nil
	}
}

// stricter lists the errors with which this package refuses what is canonical.
var stricter = []error{
	tx.ErrMissing, tx.ErrZero, block.ErrTooMany, canon.ErrLength, canon.ErrSize,
}

// FuzzDecode checks that what is accepted is canonical and encodes to the same bytes, and that
// what is canonical is refused only by a stricter rule.
func FuzzDecode(f *testing.F) {
	for i, seed := range seeds(f) {
		f.Add(uint8(i), seed)
	}
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		kind := kinds[int(which)%len(kinds)]
		canonical := canon.Check(in, kind.message.ProtoReflect().Descriptor())
		out, err := kind.decode(in)
		if err == nil && (canonical != nil || !bytes.Equal(in, out)) {
			t.Fatalf("%T: accepted %x, wrote %x: %v", kind.message, in, out, canonical)
		}
		if err != nil && canonical == nil && !slices.ContainsFunc(stricter, func(e error) bool {
			return errors.Is(err, e)
		}) {
			t.Fatalf("%T: refused %x: %v", kind.message, in, err)
		}
	})
}

// seeds returns good bytes of every kind.
func seeds(t testing.TB) [][]byte {
	anchor, genesis := sig.Anchor{4}, local(t)
	set, keys := validators(3)
	start := genesis.Header(tx.Hash{3})
	h := child(&start, anchor)
	certificate := block.SignHeader(&h, anchor, keys...)
	body := block.Body{ParentCertificate: certificate, Transactions: [][]byte{{1}, {2, 3}}}
	whole := block.Block{Header: h, Body: body, Certificate: certificate}
	state := block.ChainState{
		Minted: block.Counter{Hi: 1}, Params: genesis.Params, Validators: set, AccountSum: 5,
	}
	return [][]byte{
		h.Append(nil), certificate.Append(nil), set.Append(nil), body.Append(nil),
		whole.Append(nil), genesis.Append(nil), state.Append(nil),
	}
}

// TestBytesAreCanonical compares with the generated code and canon, and breaks single bits.
func TestBytesAreCanonical(t *testing.T) {
	for i, raw := range seeds(t) {
		m := proto.Clone(kinds[i].message)
		if err := canon.Unmarshal(raw, m); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if want, err := canon.Marshal(m); err != nil || !bytes.Equal(raw, want) {
			t.Errorf("%T: got %x, want %x (%v)", m, raw, want, err)
		}
		for at := range raw {
			broken := bytes.Clone(raw)
			broken[at] ^= 0x41
			out, err := kinds[i].decode(broken)
			if err == nil && !bytes.Equal(out, broken) {
				t.Errorf("%T: byte %d: accepted %x, wrote %x", m, at, broken, out)
			}
			if _, err := kinds[i].decode(raw[:at]); err == nil &&
				canon.Check(raw[:at], m.ProtoReflect().Descriptor()) != nil {
				t.Errorf("%T: accepted the first %d bytes", m, at)
			}
		}
	}
}

func BenchmarkHeaderHash(b *testing.B) {
	start := local(b).Header(tx.Hash{3})
	h := child(&start, sig.Anchor{4})
	b.ReportAllocs()
	for b.Loop() {
		h.Hash(sig.Anchor{4})
	}
}

func BenchmarkRoot(b *testing.B) {
	_, leaves := entries(10_000)
	b.ReportAllocs()
	for b.Loop() {
		block.RootOfLeaves(leaves)
	}
}
