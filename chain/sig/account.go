package sig

import (
	"fmt"

	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// IndexedSignature is made with the key at Index of a key set.
type IndexedSignature struct {
	Index     uint32
	Signature Signature
}

// AccountSignature proves that an account said something.
type AccountSignature struct {
	// The account's first set; zero when the judge holds a set for the account.
	Keys KeySet
	// Exactly threshold, ascending by index.
	Signatures []IndexedSignature
}

// SignAccount signs the preimage with as many of keys as the set's threshold asks for, lowest
// index first. Set first when the judge holds no key set for the account yet, so that the set goes
// along. Errors: those of KeySet.ValidateShape, ErrNotEnoughSigner.
func SignAccount(set KeySet, keys []PrivateKey, first bool, preimage []byte) (
	AccountSignature, error,
) {
	if err := set.ValidateShape(); err != nil {
		return AccountSignature{}, err
	}
	var out AccountSignature
	if first {
		out.Keys = set
	}
	for i, public := range set.Keys {
		for _, private := range keys {
			if private.Public() == public && len(out.Signatures) < int(set.Threshold) {
				out.Signatures = append(out.Signatures,
					IndexedSignature{Index: uint32(i), Signature: private.Sign(preimage)})
				break
			}
		}
	}
	if len(out.Signatures) < int(set.Threshold) {
		return AccountSignature{}, fmt.Errorf("%w: %d of %d", ErrNotEnoughSigner,
			len(out.Signatures), set.Threshold)
	}
	return out, nil
}

// VerifyAccount checks that the account said the preimage. held is the set the judge holds for
// the account, zero if none. It is a batch of one without a cache; a busy judge uses Check and a
// Batch. Errors: those of Check, ErrSignature and the key errors.
func VerifyAccount(account AccountID, held KeySet, preimage []byte, s AccountSignature) error {
	set, err := s.Check(account, held)
	if err != nil {
		return err
	}
	for i, one := range s.Signatures {
		if !Verify(set.Keys[one.Index], preimage, one.Signature) {
			return fmt.Errorf("signature %d: %w", i, ErrSignature)
		}
	}
	return nil
}

// Check does everything that VerifyAccount does but the verification of the signatures, and
// returns the set whose keys must verify them. A set that came with the signature is validated and
// hashes to the account; its only key is left to the verification, which refuses a bad one.
func (s AccountSignature) Check(account AccountID, held KeySet) (KeySet, error) {
	set, err := s.judge(account, held)
	if err != nil {
		return KeySet{}, err
	}
	if len(s.Signatures) != int(set.Threshold) {
		return KeySet{}, fmt.Errorf("%w: %d of %d", ErrSignatureCount,
			len(s.Signatures), set.Threshold)
	}
	for i, one := range s.Signatures {
		if int64(one.Index) >= int64(len(set.Keys)) {
			return KeySet{}, fmt.Errorf("signature %d: %w: %d of %d", i, ErrSignatureIndex,
				one.Index, len(set.Keys))
		}
		if i > 0 && s.Signatures[i-1].Index >= one.Index {
			return KeySet{}, fmt.Errorf("signature %d: %w", i, ErrSignatureOrder)
		}
	}
	return set, nil
}

// judge picks the set in force.
func (s AccountSignature) judge(account AccountID, held KeySet) (KeySet, error) {
	if !held.IsZero() {
		if !s.Keys.IsZero() {
			return KeySet{}, ErrKeySetUnwanted
		}
		return held, nil
	}
	if s.Keys.IsZero() {
		return KeySet{}, ErrKeySetMissing
	}
	// A single key is validated by its own verification, so only the shape is checked here.
	validate := s.Keys.Validate
	if len(s.Keys.Keys) == 1 {
		validate = s.Keys.ValidateShape
	}
	if err := validate(); err != nil {
		return KeySet{}, err
	}
	if AccountOf(s.Keys) != account {
		return KeySet{}, ErrKeySetForeign
	}
	return s.Keys, nil
}

// PB returns the message form.
func (s AccountSignature) PB() *chainv1.AccountSignature {
	out := &chainv1.AccountSignature{Keys: s.Keys.PB()}
	for _, one := range s.Signatures {
		out.Signatures = append(out.Signatures,
			&chainv1.Signature{Index: one.Index, Signature: one.Signature[:]})
	}
	return out
}

// ParseAccountSignature reads the message form; lengths and counts are checked, nothing is
// verified. A nil message has no signatures and fails with ErrSignatureCount.
func ParseAccountSignature(m *chainv1.AccountSignature) (AccountSignature, error) {
	if len(m.GetSignatures()) == 0 || len(m.GetSignatures()) > MaxKeys {
		return AccountSignature{}, fmt.Errorf("%w: %d", ErrSignatureCount, len(m.GetSignatures()))
	}
	keys, err := ParseKeySet(m.GetKeys())
	if err != nil {
		return AccountSignature{}, err
	}
	out := AccountSignature{Keys: keys}
	for i, one := range m.GetSignatures() {
		signature, err := ParseSignature(one.GetSignature())
		if err != nil {
			return AccountSignature{}, fmt.Errorf("signature %d: %w", i, err)
		}
		out.Signatures = append(out.Signatures,
			IndexedSignature{Index: one.GetIndex(), Signature: signature})
	}
	return out, nil
}
