package job

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// SignNext makes the revision that follows previous of the job, signed with the one key of a
// single-key account.
func SignNext(
	key sig.PrivateKey, id ID, previous *jobv1.SignedRevision, spec *jobv1.JobSpec,
) (*jobv1.SignedRevision, error) {
	_, hash, err := Preimage(previous.GetRevision())
	if err != nil {
		return nil, err
	}
	revision := &jobv1.Revision{
		Job: id[:], Number: previous.GetRevision().GetNumber() + 1, Previous: hash[:], Spec: spec,
	}
	preimage, _, err := Preimage(revision)
	if err != nil {
		return nil, err
	}
	signed, err := sig.SignAccount(sig.SingleKey(key.Public()), []sig.PrivateKey{key}, true, preimage)
	if err != nil {
		return nil, fmt.Errorf("sign revision: %w", err)
	}
	return &jobv1.SignedRevision{Revision: revision, Signature: signed.PB()}, nil
}

// VerifyNext checks that next follows previous of the job, that its owner signed it, and that it
// changes nothing but what may change: of a job that runs always the replicas, retries and
// backoff. held is the owner's key set in force, zero where the chain holds none. A field that may
// not change is a FieldError.
func VerifyNext(id ID, previous, next *jobv1.SignedRevision, held sig.KeySet) error {
	revision, before := next.GetRevision(), previous.GetRevision()
	_, hash, err := Preimage(before)
	if err != nil {
		return err
	}
	switch {
	case revision.GetSpec() == nil:
		return &FieldError{"revision.spec", "is missing", ErrInvalid}
	case !bytes.Equal(revision.GetJob(), id[:]):
		return fmt.Errorf("%w: it names another job", ErrRevision)
	case revision.GetNumber() != before.GetNumber()+1:
		return fmt.Errorf("%w: it is number %d, the one in force %d", ErrRevision,
			revision.GetNumber(), before.GetNumber())
	case !bytes.Equal(revision.GetPrevious(), hash[:]):
		return fmt.Errorf("%w: it names another predecessor", ErrRevision)
	}
	if err := checkChange(before.GetSpec(), revision.GetSpec()); err != nil {
		return err
	}
	preimage, _, err := Preimage(revision)
	if err != nil {
		return err
	}
	signature, err := sig.ParseAccountSignature(next.GetSignature())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	owner := sig.AccountID(before.GetSpec().GetOwner())
	if err := verifyEither(owner, held, preimage, signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// VerifyNewest checks what somebody shows as the revision in force of a job, before it is built
// upon: first is the revision that id names, newest is that one or a later one by the same owner,
// and differs in nothing but what may change. held is as in VerifyNext.
func VerifyNewest(id ID, first, newest *jobv1.SignedRevision, held sig.KeySet) error {
	_, hash, err := Preimage(first.GetRevision())
	if err != nil {
		return err
	}
	if ID(hash) != id {
		return fmt.Errorf("%w: the first revision is of another job", ErrRevision)
	}
	revision, spec := newest.GetRevision(), first.GetRevision().GetSpec()
	preimage, hash, err := Preimage(revision)
	if err != nil {
		return err
	}
	if ID(hash) != id {
		if !bytes.Equal(revision.GetJob(), id[:]) {
			return fmt.Errorf("%w: the newest revision is of another job", ErrRevision)
		}
		if err := checkChange(spec, revision.GetSpec()); err != nil {
			return err
		}
	}
	signature, err := sig.ParseAccountSignature(newest.GetSignature())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if err := verifyEither(sig.AccountID(spec.GetOwner()), held, preimage, signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// checkChange names the first field that differs and may not.
func checkChange(from, to *jobv1.JobSpec) error {
	if from.GetTrigger().GetAlways() == nil {
		return &FieldError{"trigger", "only a job that runs always takes another revision", ErrNotBuilt}
	}
	if err := Check(to); err != nil {
		return err
	}
	allowed := proto.CloneOf(from)
	allowed.Replicas = to.GetReplicas()
	if to.GetLimits() != nil && allowed.GetLimits() == nil {
		allowed.Limits = &jobv1.Limits{}
	}
	if allowed.GetLimits() != nil {
		allowed.Limits.Retries = to.GetLimits().GetRetries()
		allowed.Limits.BackoffMs = to.GetLimits().GetBackoffMs()
	}
	if proto.Equal(allowed, to) {
		return nil
	}
	field := "spec"
	a, b := allowed.ProtoReflect(), to.ProtoReflect()
	for i := range a.Descriptor().Fields().Len() {
		f := a.Descriptor().Fields().Get(i)
		if a.Has(f) != b.Has(f) || !a.Get(f).Equal(b.Get(f)) {
			field = string(f.Name())
			break
		}
	}
	return &FieldError{field, "cannot change: only replicas, limits.retries and limits.backoff_ms can",
		ErrInvalid}
}
