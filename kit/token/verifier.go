package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
)

// Bounds of a verifier's memory of tokens it has found good.
const (
	MaxCached = 8192        // tokens; about 250 bytes each
	CacheTime = time.Minute // after which the key set is asked for again
)

// Verifier proves tokens for one operator. Fields are set before first use. Safe for concurrent
// use.
type Verifier struct {
	// Audience is the operator whose services use this verifier.
	Audience sig.AccountID
	// Chains whose accounts may call; tokens of others are refused.
	Chains []string
	// Sets answers for key sets that were changed. nil believes every account's first set, which
	// is right only where no chain can be asked: changed keys then go on working.
	Sets keys.Sets
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu     sync.Mutex // guards cached
	cached map[[sha256.Size]byte]verdict
}

var (
	_ rpc.Authenticator = (*Verifier)(nil)
	_ rpc.Rememberer    = (*Verifier)(nil)
)

// verdict is a token that was good at some time.
type verdict struct {
	claims Claims
	until  time.Time // when the key set must be asked for again
}

// Authenticate implements rpc.Authenticator. Faults: Unauthenticated with TOKEN_MALFORMED,
// TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, TOKEN_WRONG_AUDIENCE, TOKEN_WRONG_CHAIN,
// TOKEN_BAD_SIGNATURE; Unavailable with KEY_SET_UNAVAILABLE. Only bad tokens and new ones cost a
// signature check.
func (v *Verifier) Authenticate(ctx context.Context, bearer string) (rpc.Caller, error) {
	claims, err := v.Verify(ctx, bearer)
	if err != nil {
		return rpc.Caller{}, err
	}
	return callerOf(claims), nil
}

// Remembered implements rpc.Rememberer.
func (v *Verifier) Remembered(bearer string) (rpc.Caller, bool) {
	now := v.now()
	if len(bearer) > MaxText {
		return rpc.Caller{}, false
	}
	claims, known := v.recall(sha256.Sum256([]byte(bearer)), now)
	if !known || v.judge(claims, now) != nil {
		return rpc.Caller{}, false
	}
	return callerOf(claims), true
}

func callerOf(c Claims) rpc.Caller {
	return rpc.Caller{Account: c.Account, Scopes: c.Scopes, NotAfter: c.NotAfter.Add(Skew)}
}

// Verify is Authenticate with all that the token says.
func (v *Verifier) Verify(ctx context.Context, text string) (Claims, error) {
	now := v.now()
	if len(text) > MaxText {
		return Claims{}, errTooLong()
	}
	key := sha256.Sum256([]byte(text))
	if claims, known := v.recall(key, now); known {
		return claims, v.judge(claims, now)
	}
	claims, signed, err := decode(text)
	if err != nil {
		return Claims{}, err
	}
	if err := v.judge(claims, now); err != nil {
		return Claims{}, err
	}
	if err := signed.Verify(ctx, v.Sets); err != nil {
		return Claims{}, v.explain(err)
	}
	v.remember(key, verdict{claims, now.Add(CacheTime)})
	return claims, nil
}

func (v *Verifier) now() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}

// judge checks what needs no signature: it is cheap, so it comes first.
func (v *Verifier) judge(c Claims, now time.Time) error {
	switch {
	case c.Audience != v.Audience:
		return fault.New(fault.Unauthenticated, rpc.ReasonWrongAudience,
			"the token is for operator %s, this is %s: make one for this operator",
			id.Bech32(id.Account, c.Audience), id.Bech32(id.Account, v.Audience)).
			With("audience", id.Bech32(id.Account, v.Audience))
	case !slices.Contains(v.Chains, c.Chain):
		return fault.New(fault.Unauthenticated, ReasonWrongChain,
			"accounts of chain %q are not served here", c.Chain)
	case now.After(c.NotAfter.Add(Skew)):
		return fault.New(fault.Unauthenticated, rpc.ReasonTokenExpired,
			"the token expired at %s: make a new one", c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore.Add(-Skew)):
		return fault.New(fault.Unauthenticated, ReasonNotYetValid,
			"the token is valid from %s and it is %s here: check both clocks",
			c.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// explain words the errors of keys.Signed.Verify.
func (v *Verifier) explain(err error) error {
	if errors.Is(err, keys.ErrLookup) {
		return fault.New(fault.Unavailable, ReasonKeysUnknown,
			"the account's keys cannot be looked up now: try again").Because(err)
	}
	return fault.New(fault.Unauthenticated, rpc.ReasonBadSignature,
		"the token is not signed by its account's keys: make a new one").Because(err)
}

func errTooLong() error {
	return fault.New(fault.Unauthenticated, rpc.ReasonTokenMalformed,
		"the token is longer than %d bytes", MaxText)
}

func (v *Verifier) recall(key [sha256.Size]byte, now time.Time) (Claims, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	found, known := v.cached[key]
	if !known || now.After(found.until) {
		return Claims{}, false
	}
	return found.claims, true
}

// remember keeps a verdict. A full cache first drops what is out of date, then anything: what is
// dropped is only checked again.
func (v *Verifier) remember(key [sha256.Size]byte, good verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cached == nil {
		v.cached = map[[sha256.Size]byte]verdict{}
	}
	if len(v.cached) >= MaxCached {
		now := good.until.Add(-CacheTime)
		for k, old := range v.cached {
			if now.After(old.until) {
				delete(v.cached, k)
			}
		}
	}
	for k := range v.cached {
		if len(v.cached) < MaxCached {
			break
		}
		delete(v.cached, k)
	}
	v.cached[key] = good
}
