package sig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// MaxKeys is the most keys that a key set holds.
const MaxKeys = 16

// AlgorithmEd25519 tags a key in a key set; no other value is known.
const AlgorithmEd25519 = 1

// What can be wrong with a key set.
var (
	ErrKeySetSize      = errors.New("key set must hold 1 to 16 keys")
	ErrKeySetOrder     = errors.New("keys must be distinct and strictly ascending")
	ErrThreshold       = errors.New("threshold must be 1 to the number of keys")
	ErrKeyAlgorithm    = errors.New("key algorithm is not known")
	ErrKeySetMissing   = errors.New("key set is missing: the judge holds none for the account")
	ErrKeySetUnwanted  = errors.New("key set must be absent: the judge holds one for the account")
	ErrKeySetForeign   = errors.New("key set is not the first set of the account")
	ErrSignatureCount  = errors.New("exactly threshold signatures are needed")
	ErrSignatureOrder  = errors.New("signatures must be ascending by distinct key index")
	ErrSignatureIndex  = errors.New("signature names a key index outside the set")
	ErrNotEnoughSigner = errors.New("too few private keys of the set")
)

// AccountID names an account: the hash of its first key set.
type AccountID [HashSize]byte

// Compare orders ids by their bytes.
func (a AccountID) Compare(b AccountID) int { return bytes.Compare(a[:], b[:]) }

// IsZero reports whether a is all zero, which names no account.
func (a AccountID) IsZero() bool { return a == AccountID{} }

// KeySet controls an account. The zero value stands for "none". Only a set for which Validate
// returns nil may judge anything.
type KeySet struct {
	// 1 to 16 distinct ed25519 keys, strictly ascending.
	Keys []PublicKey
	// How many of them must sign, 1 to len(Keys).
	Threshold uint32
}

// SingleKey returns the set of one key and threshold 1, the ordinary case. It is not validated.
func SingleKey(key PublicKey) KeySet {
	return KeySet{Keys: []PublicKey{key}, Threshold: 1}
}

// NewKeySet sorts a copy of keys and validates the set.
func NewKeySet(threshold uint32, keys ...PublicKey) (KeySet, error) {
	sorted := slices.Clone(keys)
	slices.SortFunc(sorted, comparePublicKeys)
	set := KeySet{Keys: sorted, Threshold: threshold}
	return set, set.Validate()
}

// IsZero reports whether the set holds no keys.
func (s KeySet) IsZero() bool { return len(s.Keys) == 0 }

// Equal reports whether both sets hold the same keys and threshold.
func (s KeySet) Equal(other KeySet) bool {
	return s.Threshold == other.Threshold && slices.Equal(s.Keys, other.Keys)
}

// Validate checks size, order, threshold and every key.
func (s KeySet) Validate() error {
	if err := s.ValidateShape(); err != nil {
		return err
	}
	for i, key := range s.Keys {
		if err := key.Validate(); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
	}
	return nil
}

// ValidateShape is Validate without the curve arithmetic on the keys: size, order and threshold.
func (s KeySet) ValidateShape() error {
	if len(s.Keys) == 0 || len(s.Keys) > MaxKeys {
		return fmt.Errorf("%w, not %d", ErrKeySetSize, len(s.Keys))
	}
	for i := 1; i < len(s.Keys); i++ {
		if comparePublicKeys(s.Keys[i-1], s.Keys[i]) >= 0 {
			return fmt.Errorf("key %d: %w", i, ErrKeySetOrder)
		}
	}
	if s.Threshold == 0 || int64(s.Threshold) > int64(len(s.Keys)) {
		return fmt.Errorf("%w, not %d of %d", ErrThreshold, s.Threshold, len(s.Keys))
	}
	return nil
}

// Field tags of KeySet and Key in their canonical bytes.
const (
	tagKeySetKeys      = 1<<3 | 2
	tagKeySetThreshold = 2 << 3
	tagKeyAlgorithm    = 1 << 3
	tagKeyKey          = 2<<3 | 2
	keyBody            = 2 + 2 + PublicKeySize
)

// AppendCanonical appends the canonical bytes of the set (ucn.chain.v1.KeySet).
func (s KeySet) AppendCanonical(dst []byte) []byte {
	for i := range s.Keys {
		dst = append(dst, tagKeySetKeys, keyBody,
			tagKeyAlgorithm, AlgorithmEd25519, tagKeyKey, PublicKeySize)
		dst = append(dst, s.Keys[i][:]...)
	}
	if s.Threshold != 0 {
		dst = binary.AppendUvarint(append(dst, tagKeySetThreshold), uint64(s.Threshold))
	}
	return dst
}

// AccountOf returns the id of the account whose first key set is s.
func AccountOf(s KeySet) AccountID {
	var room [(2+keyBody)*2 + 2]byte
	return AccountID(Hash(DomainAccount, nil, s.AppendCanonical(room[:0])))
}

// AccountOfKey returns the account of the single-key set of key.
func AccountOfKey(key PublicKey) AccountID { return AccountOf(SingleKey(key)) }

// PB returns the message form; nil for the zero set.
func (s KeySet) PB() *chainv1.KeySet {
	if s.IsZero() && s.Threshold == 0 {
		return nil
	}
	out := &chainv1.KeySet{Threshold: s.Threshold, Keys: make([]*chainv1.Key, len(s.Keys))}
	for i := range s.Keys {
		out.Keys[i] = &chainv1.Key{Algorithm: AlgorithmEd25519, Key: s.Keys[i][:]}
	}
	return out
}

// ParseKeySet reads the message form and checks its shape, not the keys' curve points. A nil
// message is the zero set.
func ParseKeySet(m *chainv1.KeySet) (KeySet, error) {
	if m == nil {
		return KeySet{}, nil
	}
	if len(m.Keys) > MaxKeys {
		return KeySet{}, fmt.Errorf("%w, not %d", ErrKeySetSize, len(m.Keys))
	}
	set := KeySet{Threshold: m.Threshold, Keys: make([]PublicKey, len(m.Keys))}
	for i, key := range m.Keys {
		if key.GetAlgorithm() != AlgorithmEd25519 {
			return KeySet{}, fmt.Errorf("key %d: %w: %d", i, ErrKeyAlgorithm, key.GetAlgorithm())
		}
		if len(key.GetKey()) != PublicKeySize {
			return KeySet{}, fmt.Errorf("key %d: %w, not %d", i, ErrKeyLength, len(key.GetKey()))
		}
		set.Keys[i] = PublicKey(key.GetKey())
	}
	return set, set.ValidateShape()
}

func comparePublicKeys(a, b PublicKey) int { return bytes.Compare(a[:], b[:]) }
