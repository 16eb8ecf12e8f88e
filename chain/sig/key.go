package sig

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// Sizes in bytes.
const (
	PublicKeySize = ed25519.PublicKeySize
	SeedSize      = ed25519.SeedSize
	SignatureSize = ed25519.SignatureSize
)

// What can be wrong with a public key or a signature. Functions of this package wrap them.
var (
	ErrKeyLength       = errors.New("public key must be 32 bytes")
	ErrKeyInvalid      = errors.New("public key is no point of the curve")
	ErrKeyNotCanonical = errors.New("public key is not canonically encoded")
	ErrKeySmallOrder   = errors.New("public key is of small order")
	ErrSignatureLength = errors.New("signature must be 64 bytes")
	ErrSignature       = errors.New("signature does not verify")
)

// PublicKey is a raw ed25519 key. A value need not be a valid key: Validate tells.
type PublicKey [PublicKeySize]byte

// Signature is a raw ed25519 signature: R || S.
type Signature [SignatureSize]byte

// ParsePublicKey copies b and validates it. Errors: ErrKeyLength and those of Validate.
func ParsePublicKey(b []byte) (PublicKey, error) {
	if len(b) != PublicKeySize {
		return PublicKey{}, fmt.Errorf("%w, not %d", ErrKeyLength, len(b))
	}
	key := PublicKey(b)
	return key, key.Validate()
}

// ParseSignature copies b. It fails with ErrSignatureLength only: a signature is judged by Verify.
func ParseSignature(b []byte) (Signature, error) {
	if len(b) != SignatureSize {
		return Signature{}, fmt.Errorf("%w, not %d", ErrSignatureLength, len(b))
	}
	return Signature(b), nil
}

// Validate checks that the key is a canonically encoded point of large order. It costs about as
// much as a tenth of a verification. Errors: ErrKeyInvalid, ErrKeyNotCanonical, ErrKeySmallOrder.
func (k PublicKey) Validate() error {
	compressed := curve.CompressedEdwardsY(k)
	if !compressed.IsCanonicalVartime() {
		return ErrKeyNotCanonical
	}
	var point curve.EdwardsPoint
	if _, err := point.SetCompressedY(&compressed); err != nil {
		return ErrKeyInvalid
	}
	if point.IsSmallOrder() {
		return ErrKeySmallOrder
	}
	return nil
}

// String returns the key in hexadecimal.
func (k PublicKey) String() string { return hex.EncodeToString(k[:]) }

// String returns the signature in hexadecimal.
func (s Signature) String() string { return hex.EncodeToString(s[:]) }

// PrivateKey signs. It never prints itself. The zero value is no key: using it panics.
type PrivateKey struct {
	pair [ed25519.PrivateKeySize]byte
}

// NewPrivateKey makes a key from 32 bytes of random, which must be a cryptographic source. It
// fails only if random does.
func NewPrivateKey(random io.Reader) (PrivateKey, error) {
	var seed [SeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return PrivateKey{}, fmt.Errorf("read the seed of a key: %w", err)
	}
	return FromSeed(seed), nil
}

// FromSeed makes the key of an RFC 8032 seed.
func FromSeed(seed [SeedSize]byte) PrivateKey {
	var key PrivateKey
	copy(key.pair[:], ed25519.NewKeyFromSeed(seed[:]))
	return key
}

// IsZero reports whether k is the zero value, which is no key.
func (k PrivateKey) IsZero() bool { return k == PrivateKey{} }

// Seed returns the 32 secret bytes that FromSeed takes.
func (k PrivateKey) Seed() [SeedSize]byte { return [SeedSize]byte(k.pair[:SeedSize]) }

// Public returns the public key.
func (k PrivateKey) Public() PublicKey { return PublicKey(k.pair[SeedSize:]) }

// Sign signs the preimage by RFC 8032: the same key and bytes give the same signature.
func (k PrivateKey) Sign(preimage []byte) Signature {
	if k.IsZero() {
		panic("sig: Sign with the zero PrivateKey")
	}
	return Signature(ed25519.Sign(k.pair[:], preimage))
}

// Format implements fmt.Formatter so that no verb prints the secret.
func (k PrivateKey) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "private key")
}

// LogValue implements slog.LogValuer so that no log holds the secret.
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue("private key") }
