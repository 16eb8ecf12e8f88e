// Package keys keeps private keys in files and seals bytes to public keys.
//
// A key file is one PEM block that holds a versioned header and the key, plain or encrypted with a
// passphrase (Argon2id, RFC 9106; XChaCha20-Poly1305). The same text is the export form. Files are
// created whole or not at all, with mode 0600, and never take the place of another file unless
// asked to. The public key stands in the open, so that an account can be shown without the
// passphrase; it is authenticated with the rest.
//
// Sealing is HPKE (RFC 9180) in single-shot base mode: anyone can seal to an X25519 key, only its
// holder can open, and the sealer stays anonymous. Whoever must be known signs what is sealed.
//
// It cannot protect a key in the memory of a running process.
package keys

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/united-containers/ucn/chain/sig"
)

// MaxText bounds the text of a key, in bytes.
const MaxText = 4096

// What can be wrong with a stored key. Errors of this package wrap one of these.
var (
	ErrMalformed  = errors.New("not a key of this network")
	ErrVersion    = errors.New("key was written by a newer version of this program")
	ErrKind       = errors.New("key is of another kind")
	ErrEncrypted  = errors.New("key is encrypted: a passphrase is needed")
	ErrPassphrase = errors.New("wrong passphrase, or the key text was changed")
)

// Kind says what a key is for. Values stand in files and never change.
type Kind byte

// The kinds.
const (
	KindSigning Kind = 1 // ed25519
	KindSealing Kind = 2 // X25519
)

// String returns the kind's name for people.
func (k Kind) String() string {
	switch k {
	case KindSigning:
		return "signing key"
	case KindSealing:
		return "sealing key"
	}
	return fmt.Sprintf("key of kind %d", byte(k))
}

// Layout of the bytes inside the PEM block. Everything before the secret is authenticated.
//
//	version 1 | kind 1 | protection 1 | public 32 | secret 32                        plain
//	version 1 | kind 1 | protection 1 | public 32 | time 4 | memory 4 | threads 1 |
//	salt 16 | nonce 24 | secret 32 + tag 16                                          passphrase
const (
	pemType          = "UCN KEY"
	version     byte = 1
	plain       byte = 0
	passphrased byte = 1

	secretSize = 32
	saltSize   = 16
	headSize   = 3 + 32
	paramsSize = 4 + 4 + 1 + saltSize + chacha20poly1305.NonceSizeX
	sealedSize = secretSize + chacha20poly1305.Overhead
)

// Cost of Argon2id: the second recommendation of RFC 9106 when writing, and what is tolerated when
// reading, so that a hostile file cannot take all memory.
const (
	argonTime      = 3
	argonMemory    = 64 << 10 // KiB
	argonThreads   = 4
	argonMaxTime   = 16
	argonMaxMemory = 512 << 10 // KiB
	argonMaxThread = 16
)

// EncodeSigning returns the text of a signing key, encrypted unless the passphrase is empty.
func EncodeSigning(key sig.PrivateKey, passphrase []byte) ([]byte, error) {
	return encode(KindSigning, key.Public(), key.Seed(), passphrase)
}

// EncodeSealing returns the text of a sealing key, encrypted unless the passphrase is empty.
func EncodeSealing(key SealKey, passphrase []byte) ([]byte, error) {
	return encode(KindSealing, key.Public(), key.secret, passphrase)
}

func encode(kind Kind, public, secret [32]byte, passphrase []byte) ([]byte, error) {
	head := append([]byte{version, byte(kind), plain}, public[:]...)
	if len(passphrase) == 0 {
		return armor(append(head, secret[:]...)), nil
	}
	head[2] = passphrased
	head = binary.BigEndian.AppendUint32(head, argonTime)
	head = binary.BigEndian.AppendUint32(head, argonMemory)
	head = append(head, argonThreads)
	random := make([]byte, saltSize+chacha20poly1305.NonceSizeX)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	head = append(head, random...)
	aead, nonce, err := cipherOf(head, passphrase)
	if err != nil {
		return nil, err
	}
	return armor(aead.Seal(head, nonce, secret[:], head)), nil
}

func armor(body []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: body})
}

// Stored is a key as it stands in a file. Parse makes it.
type Stored struct {
	kind   Kind
	public [32]byte
	head   []byte // all before the secret
	secret []byte // plain, or encrypted with its tag
}

// Parse reads the text of a key, without opening it. Errors wrap ErrMalformed or ErrVersion.
func Parse(text []byte) (*Stored, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxText)
	}
	trimmed := strings.TrimSpace(string(text))
	block, rest := pem.Decode([]byte(trimmed))
	switch {
	case block == nil || block.Type != pemType ||
		!strings.HasPrefix(trimmed, "-----BEGIN "+pemType+"-----"):
		return nil, fmt.Errorf("%w: it does not begin with -----BEGIN %s-----",
			ErrMalformed, pemType)
	case len(rest) > 0 || len(block.Headers) > 0:
		return nil, fmt.Errorf("%w: it holds more than one key block", ErrMalformed)
	case len(block.Bytes) < headSize:
		return nil, fmt.Errorf("%w: too short", ErrMalformed)
	case block.Bytes[0] > version:
		return nil, fmt.Errorf("%w: version %d", ErrVersion, block.Bytes[0])
	}
	return parseBody(block.Bytes)
}

func parseBody(body []byte) (*Stored, error) {
	s := &Stored{kind: Kind(body[1]), public: [32]byte(body[3:headSize])}
	size, secret := headSize, secretSize
	if body[2] == passphrased {
		size, secret = headSize+paramsSize, sealedSize
	}
	switch {
	case body[0] != version:
		return nil, fmt.Errorf("%w: version %d", ErrMalformed, body[0])
	case s.kind != KindSigning && s.kind != KindSealing:
		return nil, fmt.Errorf("%w: %s", ErrMalformed, s.kind)
	case body[2] > passphrased:
		return nil, fmt.Errorf("%w: unknown protection %d", ErrMalformed, body[2])
	case len(body) != size+secret:
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrMalformed, len(body), size+secret)
	}
	s.head, s.secret = body[:size:size], body[size:]
	if s.Encrypted() {
		if _, _, _, err := costOf(s.head); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Kind returns what the key is for.
func (s *Stored) Kind() Kind { return s.kind }

// Encrypted reports whether a passphrase is needed to open the key.
func (s *Stored) Encrypted() bool { return s.head[2] == passphrased }

// Public returns the public key. As long as an encrypted key is not opened this is a claim of the
// file, good for showing, not for deciding.
func (s *Stored) Public() [32]byte { return s.public }

// Signing opens a signing key. The passphrase is ignored for a plain one. Errors wrap ErrKind,
// ErrEncrypted, ErrPassphrase or ErrMalformed. Takes about 0.1 s if encrypted.
func (s *Stored) Signing(passphrase []byte) (sig.PrivateKey, error) {
	secret, err := s.open(KindSigning, passphrase)
	if err != nil {
		return sig.PrivateKey{}, err
	}
	key := sig.FromSeed(secret)
	if key.Public() != sig.PublicKey(s.public) {
		return sig.PrivateKey{}, fmt.Errorf("%w: private and public key differ", ErrMalformed)
	}
	return key, nil
}

// Sealing opens a sealing key, like Signing.
func (s *Stored) Sealing(passphrase []byte) (SealKey, error) {
	secret, err := s.open(KindSealing, passphrase)
	if err != nil {
		return SealKey{}, err
	}
	key, err := sealKeyOf(secret)
	if err != nil || key.public != s.public {
		return SealKey{}, fmt.Errorf("%w: private and public key differ", ErrMalformed)
	}
	return key, nil
}

func (s *Stored) open(want Kind, passphrase []byte) ([32]byte, error) {
	if s.kind != want {
		return [32]byte{}, fmt.Errorf("%w: it is a %s, not a %s", ErrKind, s.kind, want)
	}
	if !s.Encrypted() {
		return [32]byte(s.secret), nil
	}
	if len(passphrase) == 0 {
		return [32]byte{}, ErrEncrypted
	}
	aead, nonce, err := cipherOf(s.head, passphrase)
	if err != nil {
		return [32]byte{}, err
	}
	secret, err := aead.Open(nil, nonce, s.secret, s.head)
	if err != nil {
		return [32]byte{}, ErrPassphrase
	}
	return [32]byte(secret), nil
}

// cipher is the part of cipher.AEAD that is used here.
type cipher interface {
	Seal(dst, nonce, plaintext, additionalData []byte) []byte
	Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error)
}

// cipherOf derives the cipher that a header's parameters and a passphrase name.
func cipherOf(head, passphrase []byte) (cipher, []byte, error) {
	time, memory, threads, err := costOf(head)
	if err != nil {
		return nil, nil, err
	}
	salt, nonce := head[headSize+9:headSize+9+saltSize], head[headSize+9+saltSize:]
	key := argon2.IDKey(passphrase, salt, time, memory, threads, chacha20poly1305.KeySize)
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, nil, fmt.Errorf("set up cipher: %w", err)
	}
	return aead, nonce, nil
}

// costOf reads the Argon2id parameters of a header and holds them to the bounds.
func costOf(head []byte) (time, memory uint32, threads uint8, err error) {
	time = binary.BigEndian.Uint32(head[headSize:])
	memory = binary.BigEndian.Uint32(head[headSize+4:])
	threads = head[headSize+8]
	if time < 1 || time > argonMaxTime || memory < 8*uint32(threads) ||
		memory > argonMaxMemory || threads < 1 || threads > argonMaxThread {
		return 0, 0, 0, fmt.Errorf("%w: cost of %d passes over %d KiB by %d threads is out of "+
			"bounds", ErrMalformed, time, memory, threads)
	}
	return time, memory, threads, nil
}
