package sig_test

import (
	"bytes"
	stdlib "crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/curve/scalar"

	"github.com/united-containers/ucn/chain/sig"
)

// key returns a key that depends on n only.
func key(n int) sig.PrivateKey {
	return sig.FromSeed([32]byte{byte(n), byte(n >> 8), byte(n >> 16), 1})
}

// order is that of the group, L.
func order() *big.Int {
	l, _ := new(big.Int).SetString(
		"7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	return l
}

// torsion returns a point of order 8.
func torsion(t testing.TB) *curve.EdwardsPoint {
	t.Helper()
	raw, err := hex.DecodeString("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
	if err != nil {
		t.Fatal(err)
	}
	compressed, err := curve.NewCompressedEdwardsYFromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	point, err := curve.NewEdwardsPoint().SetCompressedY(compressed)
	if err != nil || !point.IsSmallOrder() || point.IsIdentity() {
		t.Fatalf("no point of small order: %v", err)
	}
	return point
}

// crafted signs like RFC 8032 but adds a point of order 8 to R, as only the key's owner can.
func crafted(t testing.TB, private sig.PrivateKey, message []byte) sig.Signature {
	t.Helper()
	nonce := wide(t, []byte("any nonce"), message)
	r := curve.NewEdwardsPoint().MulBasepoint(curve.ED25519_BASEPOINT_TABLE, nonce)
	r.Add(r, torsion(t))
	var out sig.Signature
	copy(out[:], curve.NewCompressedEdwardsY().SetEdwardsPoint(r)[:])
	public := private.Public()
	challenge := wide(t, out[:32], public[:], message)
	s := scalar.New().Add(nonce, scalar.New().Mul(challenge, secret(t, private)))
	if err := s.ToBytes(out[32:]); err != nil {
		t.Fatal(err)
	}
	return out
}

// secret returns the scalar of the key (RFC 8032 section 5.1.5).
func secret(t testing.TB, private sig.PrivateKey) *scalar.Scalar {
	t.Helper()
	seed := private.Seed()
	digest := sha512.Sum512(seed[:])
	digest[0] &= 248
	digest[31] = digest[31]&127 | 64
	s, err := scalar.NewFromBits(digest[:32])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wide hashes the parts to a scalar.
func wide(t testing.TB, parts ...[]byte) *scalar.Scalar {
	t.Helper()
	digest := sha512.Sum512(bytes.Join(parts, nil))
	s, err := scalar.NewFromBytesModOrderWide(digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTorsionVector holds the rule in place: the standard library and ZIP-215 disagree about this
// signature, and every way through this package takes ZIP-215's side.
func TestTorsionVector(t *testing.T) {
	private, message := key(1), []byte("a crafted transfer")
	signature := crafted(t, private, message)
	public := private.Public()
	if stdlib.Verify(public[:], message, signature[:]) {
		t.Fatal("the standard library accepts the vector: it does not test the rule")
	}
	if !sig.Verify(public, message, signature) {
		t.Error("Verify refuses it")
	}
	v := sig.NewVerifier(0)
	for range 3 { // unknown, expanded, cached
		if !v.Verify(public, message, signature) {
			t.Error("Verifier.Verify refuses it")
		}
	}
	for _, size := range []int{1, 8, sig.MinBatch, sig.MaxBatch + 1} {
		batch := v.NewBatch(size)
		for i := range size - 1 {
			batch.Add(key(i).Public(), message, key(i).Sign(message))
		}
		last := batch.Add(public, message, signature)
		if !batch.Verify()[last] {
			t.Errorf("batch of %d refuses it", size)
		}
		batch.Add(public, message, sig.Signature{1})
		if verdicts := batch.Verify(); !verdicts[last] || verdicts[last+1] {
			t.Errorf("batch of %d with a bad one refuses it", size+1)
		}
	}
}

// TestNonCanonicalR signs with the nonce 0 and writes R, the identity, as y = p + 1: ZIP-215
// accepts it, stricter readings of RFC 8032 do not.
func TestNonCanonicalR(t *testing.T) {
	private, message := key(1), []byte("a crafted transfer")
	public, r := private.Public(), notCanonical()
	var signature sig.Signature
	copy(signature[:], r[:])
	s := scalar.New().Mul(wide(t, r[:], public[:], message), secret(t, private))
	if err := s.ToBytes(signature[32:]); err != nil {
		t.Fatal(err)
	}
	v := sig.NewVerifier(0)
	batch := v.NewBatch(sig.MinBatch)
	for i := range sig.MinBatch {
		batch.Add(key(i).Public(), message, key(i).Sign(message))
	}
	last := batch.Add(public, message, signature)
	if !sig.Verify(public, message, signature) || !v.Verify(public, message, signature) ||
		!batch.Verify()[last] {
		t.Error("refused")
	}
}

func TestVerifyRefuses(t *testing.T) {
	private, message := key(1), []byte("message")
	good := private.Sign(message)
	tooLarge := good
	s := new(big.Int).SetBytes(reversed(good[32:]))
	copy(tooLarge[32:], reversed(s.Add(s, order()).FillBytes(make([]byte, 32))))
	smallOrder := sig.PublicKey{1} // the identity: R = S B verifies anything
	tests := map[string]struct {
		key       sig.PublicKey
		message   string
		signature sig.Signature
	}{
		"other message":       {private.Public(), "messagf", good},
		"other key":           {key(2).Public(), "message", good},
		"S + L":               {private.Public(), "message", tooLarge},
		"zero signature":      {private.Public(), "message", sig.Signature{}},
		"key of small order":  {smallOrder, "message", sig.Signature{1}},
		"key not canonical":   {notCanonical(), "message", sig.Signature{1}},
		"key off the curve":   {sig.PublicKey{2}, "message", good},
		"flipped bit of R":    {private.Public(), "message", flip(good, 3)},
		"flipped bit of S":    {private.Public(), "message", flip(good, 40)},
		"flipped sign of R":   {private.Public(), "message", flip(good, 31)},
		"all ones everything": {sig.PublicKey(bytes.Repeat([]byte{255}, 32)), "message", good},
	}
	v := sig.NewVerifier(0)
	batch := v.NewBatch(0)
	for name, test := range tests {
		if sig.Verify(test.key, []byte(test.message), test.signature) {
			t.Errorf("%s: Verify accepts it", name)
		}
		for range 3 {
			if v.Verify(test.key, []byte(test.message), test.signature) {
				t.Errorf("%s: Verifier accepts it", name)
			}
		}
		batch.Add(test.key, []byte(test.message), test.signature)
		if verdicts := batch.Verify(); verdicts[0] {
			t.Errorf("%s: batch accepts it", name)
		}
		batch.Reset()
	}
}

// notCanonical encodes the identity as y = p + 1.
func notCanonical() (out sig.PublicKey) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(18))
	copy(out[:], reversed(p.FillBytes(make([]byte, 32))))
	return out
}

func reversed(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[len(b)-1-i] = b[i]
	}
	return out
}

func flip(s sig.Signature, at int) sig.Signature {
	s[at] ^= 0x80 >> (at % 7)
	return s
}

func TestPublicKeyValidate(t *testing.T) {
	tests := map[string]struct {
		key  sig.PublicKey
		want error
	}{
		"good":          {key(1).Public(), nil},
		"identity":      {sig.PublicKey{1}, sig.ErrKeySmallOrder},
		"order 4":       {sig.PublicKey{}, sig.ErrKeySmallOrder},
		"not canonical": {notCanonical(), sig.ErrKeyNotCanonical},
		"no point":      {sig.PublicKey{2}, sig.ErrKeyInvalid},
	}
	for name, test := range tests {
		if err := test.key.Validate(); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	if _, err := sig.ParsePublicKey(make([]byte, 31)); !errors.Is(err, sig.ErrKeyLength) {
		t.Errorf("31 bytes: got %v", err)
	}
}

// TestBatchFindsTheBadOnes compares batches of all sizes with single checks.
func TestBatchFindsTheBadOnes(t *testing.T) {
	const seed = 3
	random := rand.New(rand.NewPCG(seed, 0))
	v := sig.NewVerifier(40) // fewer than keys: evicts all the time
	for _, size := range []int{0, 1, 2, 95, 96, 300, sig.MaxBatch, sig.MaxBatch + 7} {
		for _, bad := range []int{0, 1, 5} {
			batch := v.NewBatch(size)
			want := make([]bool, size)
			for i := range size {
				private := key(random.IntN(60))
				message := fmt.Appendf(nil, "message %d", i)
				signature := private.Sign(message)
				if want[i] = random.IntN(size) >= bad; !want[i] {
					signature[random.IntN(64)] ^= 1
				}
				if batch.Add(private.Public(), message, signature) != i {
					t.Fatal("index out of step")
				}
			}
			got := batch.Verify()
			if len(got) != size || batch.Len() != size {
				t.Fatalf("%d verdicts of %d", len(got), size)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("seed %d, size %d: entry %d is %v, want %v", seed, size, i,
						got[i], want[i])
				}
			}
		}
	}
}

func TestVerifierIsSafeForSeveralGoroutines(t *testing.T) {
	v := sig.NewVerifier(8)
	done := make(chan bool)
	for worker := range 4 {
		go func() {
			ok := true
			batch := v.NewBatch(64)
			for i := range 64 {
				private := key((i + worker) % 16)
				batch.Add(private.Public(), []byte("x"), private.Sign([]byte("x")))
			}
			for _, verdict := range batch.Verify() {
				ok = ok && verdict
			}
			done <- ok
		}()
	}
	for range 4 {
		if !<-done {
			t.Error("a good signature was refused")
		}
	}
}

func TestSignIsRFC8032(t *testing.T) {
	// RFC 8032 section 7.1, TEST 2.
	seed, _ := hex.DecodeString("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
	private := sig.FromSeed([32]byte(seed))
	if got, want := private.Public().String(),
		"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"; got != want {
		t.Errorf("public key %s, want %s", got, want)
	}
	if got, want := private.Sign([]byte{0x72}).String(), "92a009a9f0d4cab8720e820b5f642540"+
		"a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"+
		"387b2eaeb4302aeeb00d291612bb0c00"; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
	again, err := sig.NewPrivateKey(bytes.NewReader(seed))
	if err != nil || again != private || again.Seed() != [32]byte(seed) {
		t.Errorf("key from a reader differs: %v", err)
	}
	if _, err := sig.NewPrivateKey(bytes.NewReader(seed[:31])); err == nil {
		t.Error("31 bytes of randomness made a key")
	}
}

func TestPrivateKeyDoesNotPrintItself(t *testing.T) {
	private := key(1)
	seed := private.Seed()
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("made", "key", private)
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %s %x %d", private, private, private, private, private, private),
		fmt.Sprintf("%v", struct{ Key sig.PrivateKey }{private}), logged.String(),
	} {
		if strings.Contains(text, hex.EncodeToString(seed[:4])) || strings.Contains(text, "1 0 0") ||
			!strings.Contains(text, "private key") {
			t.Errorf("prints %q", text)
		}
	}
}

func TestPreimage(t *testing.T) {
	anchor := sig.Anchor{7}
	got := sig.Preimage(sig.DomainLease, anchor[:], []byte("body"))
	want := append([]byte("\x0cucn/lease/v1\x07"), make([]byte, 31)...)
	if want = append(want, "body"...); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := sig.Preimage(sig.DomainToken, nil, []byte("body")); string(got) !=
		"\x0cucn/token/v1body" {
		t.Errorf("without anchor: %q", got)
	}
	if sig.Hash(sig.DomainLease, nil, nil) == sig.Hash(sig.DomainNote, nil, nil) {
		t.Error("domains do not separate")
	}
}
