package keys

import (
	"context"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/sig"
)

// ErrRotated is wrapped when something is signed with the first keys of an account whose keys were
// changed since.
var ErrRotated = errors.New("the account's keys were changed: sign with the new ones")

// ErrLookup is wrapped when the key set in force cannot be known now: trying again may help.
var ErrLookup = errors.New("the account's keys cannot be looked up")

// Sets answers which key set is in force for an account. A ledger client implements it.
type Sets interface {
	// KeySet returns the set that the chain holds, the zero set if it holds none. An error means
	// that it cannot be known now; then nothing is accepted. Safe for concurrent use.
	KeySet(ctx context.Context, chain string, account sig.AccountID) (sig.KeySet, error)
}

// Signer signs for an account outside of chains: tokens and certificates.
type Signer struct {
	// Account that is spoken for.
	Account sig.AccountID
	// Set in force: the account's first one, or the one it was changed to.
	Set sig.KeySet
	// Keys of the set, at least its threshold.
	Keys []sig.PrivateKey
}

// SingleSigner returns the signer of the ordinary account: one key, threshold 1.
func SingleSigner(key sig.PrivateKey) Signer {
	set := sig.SingleKey(key.Public())
	return Signer{Account: sig.AccountOf(set), Set: set, Keys: []sig.PrivateKey{key}}
}

// Sign signs the body under the domain without anchor. The set goes along if it is the account's
// first one, so that a judge who holds none can verify.
func (s Signer) Sign(domain sig.Domain, body []byte) (sig.AccountSignature, error) {
	first := sig.AccountOf(s.Set) == s.Account
	return sig.SignAccount(s.Set, s.Keys, first, sig.Preimage(domain, nil, body))
}

// Signed is a claim that an account said a body under a domain without anchor.
type Signed struct {
	Chain     string // that judges the account's key set
	Account   sig.AccountID
	Domain    sig.Domain
	Body      []byte // canonical bytes
	Signature sig.AccountSignature
}

// Verify checks the claim. With sets it asks for the set in force, so keys that were changed no
// longer count; a first set that came along must then be the one in force. With nil sets the first
// set is believed: only where no chain can be asked. Errors: ErrLookup, ErrRotated, and those of
// sig.VerifyAccount.
func (c Signed) Verify(ctx context.Context, sets Sets) error {
	var held sig.KeySet
	if sets != nil {
		var err error
		if held, err = sets.KeySet(ctx, c.Chain, c.Account); err != nil {
			return fmt.Errorf("%w: %w", ErrLookup, err)
		}
	}
	signature := c.Signature
	if carried := signature.Keys; !held.IsZero() && !carried.IsZero() {
		if sig.AccountOf(carried) != c.Account {
			return sig.ErrKeySetForeign
		}
		if !carried.Equal(held) {
			return ErrRotated
		}
		signature.Keys = sig.KeySet{} // the judge holds it: the rule of chain/sig wants it absent
	}
	return sig.VerifyAccount(c.Account, held, sig.Preimage(c.Domain, nil, c.Body), signature)
}
