package job

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// ID names a job for ever: SHA-256 of the signed preimage of its first revision.
type ID [32]byte

// String returns the id in hexadecimal digits, for logs; people see it as ucnj1...
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Named errors. A FieldError wraps ErrInvalid or ErrNotBuilt.
var (
	// ErrInvalid: a field holds what no network serves.
	ErrInvalid = errors.New("invalid")
	// ErrNotBuilt: a field asks for what this network does not serve yet.
	ErrNotBuilt = errors.New("not served by this network yet")
	// ErrSignature: the revision is not signed by the owner it names.
	ErrSignature = errors.New("the revision is not signed by its owner")
	// ErrRevision: the revision does not follow from the one before it.
	ErrRevision = errors.New("the revision does not follow the one before it")
)

// FieldError names the field of a specification that is wrong.
type FieldError struct {
	// Field is the path in the proto's names, such as "resources.memory".
	Field string
	// Problem is a sentence that says what is wrong and what is allowed.
	Problem string
	// Kind is ErrInvalid or ErrNotBuilt.
	Kind error
}

// Error implements error.
func (e *FieldError) Error() string {
	return fmt.Sprintf("job spec: %s: %s", e.Field, e.Problem)
}

// Unwrap lets errors.Is find the kind.
func (e *FieldError) Unwrap() error { return e.Kind }

// Preimage returns the bytes that the owner signs and the revision's hash.
func Preimage(r *jobv1.Revision) (preimage []byte, hash [32]byte, err error) {
	raw, err := canon.Marshal(r)
	if err != nil {
		return nil, hash, fmt.Errorf("encode revision: %w", err)
	}
	return sig.Preimage(sig.DomainJob, nil, raw), sig.Hash(sig.DomainJob, nil, raw), nil
}

// Sign makes the first revision of spec, signed with the one key of a single-key account. The
// spec's owner must be that key's account.
func Sign(key sig.PrivateKey, spec *jobv1.JobSpec) (*jobv1.SignedRevision, ID, error) {
	revision := &jobv1.Revision{Number: 1, Spec: spec}
	preimage, hash, err := Preimage(revision)
	if err != nil {
		return nil, ID{}, err
	}
	set := sig.SingleKey(key.Public())
	if owner := sig.AccountOf(set); string(spec.GetOwner()) != string(owner[:]) {
		return nil, ID{}, fmt.Errorf("%w: the key is not the owner's", ErrSignature)
	}
	signed, err := sig.SignAccount(set, []sig.PrivateKey{key}, true, preimage)
	if err != nil {
		return nil, ID{}, fmt.Errorf("sign revision: %w", err)
	}
	return &jobv1.SignedRevision{Revision: revision, Signature: signed.PB()}, ID(hash), nil
}

// Verify checks a first revision's form and signature and returns the job's id and the revision's
// hash (equal for the first). held is the owner's key set in force on its chain, zero where the
// chain holds none. Later revisions are refused until they are served.
func Verify(s *jobv1.SignedRevision, held sig.KeySet) (ID, error) {
	revision := s.GetRevision()
	if revision.GetSpec() == nil {
		return ID{}, &FieldError{"revision.spec", "is missing", ErrInvalid}
	}
	if revision.GetNumber() != 1 {
		return ID{}, &FieldError{"revision.number", "only the first revision (1) is served", ErrNotBuilt}
	}
	if len(revision.GetJob()) != 0 || len(revision.GetPrevious()) != 0 {
		return ID{}, fmt.Errorf("%w: a first revision names no job and no predecessor", ErrRevision)
	}
	owner := revision.GetSpec().GetOwner()
	if len(owner) != len(sig.AccountID{}) {
		return ID{}, &FieldError{"owner", "must be an account id of 32 bytes", ErrInvalid}
	}
	preimage, hash, err := Preimage(revision)
	if err != nil {
		return ID{}, err
	}
	signature, err := sig.ParseAccountSignature(s.GetSignature())
	if err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if err := verifyEither(sig.AccountID(owner), held, preimage, signature); err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return ID(hash), nil
}

// verifyEither takes a signature with or without the first key set, whether or not the chain
// holds one by now: a client signs before it knows what the chain will hold when it is read. What
// is verified is always the set in force.
func verifyEither(
	account sig.AccountID, held sig.KeySet, preimage []byte, s sig.AccountSignature,
) error {
	err := sig.VerifyAccount(account, held, preimage, s)
	if err == nil || held.IsZero() {
		return err
	}
	carried := s.Keys
	if carried.IsZero() || !carried.Equal(held) {
		return err
	}
	return sig.VerifyAccount(account, sig.KeySet{}, preimage, s)
}
