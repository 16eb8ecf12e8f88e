package block

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Certificate makes a header final. The zero value is none.
type Certificate struct {
	// Strictly ascending by key, at most MaxValidators.
	Signatures []KeySignature
}

// KeySignature is a validator's key and its signature of a header.
type KeySignature struct {
	Key       sig.PublicKey
	Signature sig.Signature
}

// SignHeader returns a certificate of the header by the keys given.
func SignHeader(h *Header, anchor sig.Anchor, keys ...sig.PrivateKey) Certificate {
	preimage := h.Preimage(anchor)
	var c Certificate
	for _, key := range keys {
		c.Signatures = append(c.Signatures,
			KeySignature{Key: key.Public(), Signature: key.Sign(preimage)})
	}
	slices.SortFunc(c.Signatures, func(a, b KeySignature) int {
		return bytes.Compare(a.Key[:], b.Key[:])
	})
	return c
}

// Quorum is how many of n validators make a header final: all of 1 or 2, 2 of 3, more than two
// thirds of more (docs/domain.md section 7).
func Quorum(n int) int {
	if n == 3 {
		return 2
	}
	return 2*n/3 + 1
}

// Verify checks that the certificate holds at least need signatures of the header, all of
// validators of the set and all good, and that the header names that set as its signers. Pass
// Quorum(len(set.Validators)), or 1 for a chain that trusts a solo proposer.
func (c Certificate) Verify(h *Header, anchor sig.Anchor, set ValidatorSet, need int) error {
	if hash := set.Hash(); h.SignersHash != hash {
		return fmt.Errorf("%w: header names %s, set is %s", ErrSigners, h.SignersHash, hash)
	}
	if len(c.Signatures) < max(need, 1) {
		return fmt.Errorf("%w: %d of %d", ErrCertificateFew, len(c.Signatures), need)
	}
	preimage := h.Preimage(anchor)
	for i, one := range c.Signatures {
		if i > 0 && bytes.Compare(c.Signatures[i-1].Key[:], one.Key[:]) >= 0 {
			return fmt.Errorf("signature %d: %w", i, ErrCertificateOrder)
		}
		if _, ok := set.Find(one.Key); !ok {
			return fmt.Errorf("signature %d: %w: %s", i, ErrCertificateKey, one.Key)
		}
		if !sig.Verify(one.Key, preimage, one.Signature) {
			return fmt.Errorf("signature %d: %w: %s", i, ErrCertificateForged, one.Key)
		}
	}
	return nil
}

// Hash is what the next header cites; zero for no certificate.
func (c Certificate) Hash() tx.Hash {
	if len(c.Signatures) == 0 {
		return tx.Hash{}
	}
	return tx.Hash(sig.Hash(sig.DomainBlockCertificate, nil, c.Append(nil)))
}

// DecodeCertificate reads the canonical bytes of a Certificate. Its order is judged by Verify.
func DecodeCertificate(raw []byte) (Certificate, error) {
	r := canon.NewReader(raw)
	var c Certificate
	c.readFrom(&r)
	if err := r.Err(); err != nil {
		return Certificate{}, malformed("certificate", err, &chainv1.Certificate{})
	}
	return c, nil
}

// Append appends the canonical bytes of the certificate.
func (c Certificate) Append(dst []byte) []byte {
	for i := range c.Signatures {
		var mark canon.Mark
		dst, mark = canon.Begin(dst, 1)
		dst = appendHash(dst, 1, c.Signatures[i].Key)
		dst = canon.AppendBytes(dst, 2, c.Signatures[i].Signature[:])
		dst = canon.EndElement(dst, mark)
	}
	return dst
}

func (c *Certificate) readFrom(r *canon.Reader) {
	for r.Next() {
		if r.Field() != 1 {
			r.Unknown()
			return
		}
		if len(c.Signatures) >= MaxValidators {
			r.Fail(ErrTooMany)
			return
		}
		frame := r.OpenElement("signatures")
		c.Signatures = append(c.Signatures, readKeySignature(r))
		r.Close(frame)
	}
}

func readKeySignature(r *canon.Reader) (out KeySignature) {
	signed := false
	for r.Next() {
		switch r.Field() {
		case 1:
			out.Key = readHash[sig.PublicKey](r)
		case 2:
			out.Signature, signed = readSignature(r), true
		default:
			r.Unknown()
		}
	}
	if out.Key == (sig.PublicKey{}) {
		r.FailField(1, tx.ErrMissing)
	}
	if !signed {
		r.FailField(2, tx.ErrMissing)
	}
	return out
}

// Validator signs headers.
type Validator struct {
	Key sig.PublicKey
	// Account that is paid the fees.
	Account sig.AccountID
	// The operator it belongs to.
	Operator sig.AccountID
}

// ValidatorSet is ascending by key, 1 to MaxValidators.
type ValidatorSet struct {
	Validators []Validator
}

// Hash is what headers name the set by.
func (s ValidatorSet) Hash() tx.Hash {
	return tx.Hash(sig.Hash(sig.DomainValidators, nil, s.Append(nil)))
}

// Find returns the validator with the key. The set must be ascending, as Validate checks.
func (s ValidatorSet) Find(key sig.PublicKey) (Validator, bool) {
	i, ok := slices.BinarySearchFunc(s.Validators, key, func(v Validator, key sig.PublicKey) int {
		return bytes.Compare(v.Key[:], key[:])
	})
	if !ok {
		return Validator{}, false
	}
	return s.Validators[i], true
}

// Operators returns the number of distinct operators.
func (s ValidatorSet) Operators() int {
	distinct := map[sig.AccountID]bool{}
	for _, v := range s.Validators {
		distinct[v.Operator] = true
	}
	return len(distinct)
}

// Validate checks number, order, keys and accounts.
func (s ValidatorSet) Validate() error {
	if len(s.Validators) == 0 || len(s.Validators) > MaxValidators {
		return fmt.Errorf("%w: %d validators, want 1 to %d", ErrValidators,
			len(s.Validators), MaxValidators)
	}
	for i, v := range s.Validators {
		if err := v.Key.Validate(); err != nil {
			return fmt.Errorf("%w: validator %d: %w", ErrValidators, i, err)
		}
		if v.Account.IsZero() || v.Operator.IsZero() {
			return fmt.Errorf("%w: validator %d: account or operator is missing",
				ErrValidators, i)
		}
		if i > 0 && cmp.Compare(string(s.Validators[i-1].Key[:]), string(v.Key[:])) >= 0 {
			return fmt.Errorf("%w: validator %d: not strictly ascending by key",
				ErrValidators, i)
		}
	}
	return nil
}

// DecodeValidatorSet reads the canonical bytes of a ValidatorSet.
func DecodeValidatorSet(raw []byte) (ValidatorSet, error) {
	r := canon.NewReader(raw)
	var s ValidatorSet
	s.readFrom(&r)
	if err := r.Err(); err != nil {
		return ValidatorSet{}, malformed("validator set", err, &chainv1.ValidatorSet{})
	}
	return s, nil
}

// Append appends the canonical bytes of the set.
func (s ValidatorSet) Append(dst []byte) []byte {
	for i := range s.Validators {
		var mark canon.Mark
		dst, mark = canon.Begin(dst, 1)
		dst = appendHash(dst, 1, s.Validators[i].Key)
		dst = appendHash(dst, 2, s.Validators[i].Account)
		dst = appendHash(dst, 3, s.Validators[i].Operator)
		dst = canon.EndElement(dst, mark)
	}
	return dst
}

func (s *ValidatorSet) readFrom(r *canon.Reader) {
	for r.Next() {
		if r.Field() != 1 {
			r.Unknown()
			return
		}
		if len(s.Validators) >= MaxValidators {
			r.Fail(ErrTooMany)
			return
		}
		frame := r.OpenElement("validators")
		s.Validators = append(s.Validators, readValidator(r))
		r.Close(frame)
	}
}

func readValidator(r *canon.Reader) (out Validator) {
	for r.Next() {
		switch r.Field() {
		case 1:
			out.Key = readHash[sig.PublicKey](r)
		case 2:
			out.Account = readHash[sig.AccountID](r)
		case 3:
			out.Operator = readHash[sig.AccountID](r)
		default:
			r.Unknown()
		}
	}
	return out
}
