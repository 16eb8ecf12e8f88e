package keys

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// SealOverhead is how many bytes longer a sealed text is: the encapsulated key and the tag.
const SealOverhead = 32 + 16

// ErrSealed is wrapped by the error of Open: the text was not sealed to this key with this info,
// or was changed.
var ErrSealed = errors.New("sealed text does not open with this key")

// ErrSealPublic is wrapped when a public key cannot be sealed to.
var ErrSealPublic = errors.New("not a usable X25519 public key")

// SealPublic is an X25519 public key that anyone can seal to.
type SealPublic [32]byte

// SealKey opens what was sealed to its public key. It never prints itself. The zero value is no
// key: it opens nothing.
type SealKey struct {
	secret, public [32]byte
}

// NewSealKey makes a key from crypto/rand.
func NewSealKey() (SealKey, error) {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return SealKey{}, fmt.Errorf("read randomness: %w", err)
	}
	return sealKeyOf(secret)
}

func sealKeyOf(secret [32]byte) (SealKey, error) {
	private, err := ecdh.X25519().NewPrivateKey(secret[:])
	if err != nil {
		return SealKey{}, fmt.Errorf("make X25519 key: %w", err)
	}
	return SealKey{secret: secret, public: [32]byte(private.PublicKey().Bytes())}, nil
}

// Public returns the key to seal to.
func (k SealKey) Public() SealPublic { return k.public }

// Format implements fmt.Formatter so that no verb prints the secret.
func (k SealKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sealing key") }

// LogValue implements slog.LogValuer so that no log holds the secret.
func (k SealKey) LogValue() slog.Value { return slog.StringValue("sealing key") }

// Seal encrypts plaintext to the holder of recipient: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
// ChaCha20-Poly1305. info says what it is for; Open needs the same. The result is SealOverhead
// bytes longer. Errors wrap ErrSealPublic.
func Seal(recipient SealPublic, info string, plaintext []byte) ([]byte, error) {
	public, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(recipient[:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealPublic, err)
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(),
		[]byte(info), plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal: %w: %w", ErrSealPublic, err)
	}
	return sealed, nil
}

// Open decrypts what Seal made for key with the same info. Errors wrap ErrSealed.
func Open(key SealKey, info string, sealed []byte) ([]byte, error) {
	if key == (SealKey{}) {
		return nil, fmt.Errorf("%w: there is no key", ErrSealed)
	}
	if len(sealed) < SealOverhead {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrSealed, len(sealed))
	}
	private, err := ecdh.X25519().NewPrivateKey(key.secret[:])
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	opener, err := hpke.NewDHKEMPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	plaintext, err := hpke.Open(opener, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(),
		[]byte(info), sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return plaintext, nil
}
