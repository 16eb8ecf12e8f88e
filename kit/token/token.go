// Package token issues and verifies access tokens (ucn.identity.v1.Token): an account says, with
// its own keys, that the bearer may do these things at this operator until then. Nobody else is
// asked for permission and no session is kept.
//
// A token is a bearer secret: it goes only over encrypted or local connections, and only to the
// operator it names. It cannot be taken back before it expires except by changing the account's
// keys, so it lives at most MaxLifetime.
package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// Bounds of a token.
const (
	MaxText     = 4 << 10          // bytes of text
	MaxLifetime = 24 * time.Hour   // from not_before to not_after
	MaxScopes   = 64               // scopes in one token
	MaxScope    = 128              // bytes of one scope
	MaxChain    = 64               // bytes of a chain id
	Skew        = 30 * time.Second // clocks may differ by this much
)

// Reasons of this package beside those of kit/rpc.
const (
	ReasonNotYetValid fault.Reason = "TOKEN_NOT_YET_VALID"
	ReasonWrongChain  fault.Reason = "TOKEN_WRONG_CHAIN"
	ReasonKeysUnknown fault.Reason = "KEY_SET_UNAVAILABLE"
)

// ErrClaims is wrapped by the error of Issue when the claims make no valid token.
var ErrClaims = errors.New("claims make no token")

// Claims are what a token says.
type Claims struct {
	Account   sig.AccountID // that grants
	Chain     string        // that judges the account's key set
	Audience  sig.AccountID // operator the token is for
	Scopes    []string      // 1 to MaxScopes, see ValidScope
	NotBefore time.Time     // milliseconds count
	NotAfter  time.Time     // at most MaxLifetime later
}

// ValidScope reports whether s can be a scope: 1 to MaxScope characters out of a-z A-Z 0-9 and
// : . _ -, with nothing empty between colons.
func ValidScope(s string) bool {
	if len(s) == 0 || len(s) > MaxScope || s[0] == ':' || s[len(s)-1] == ':' ||
		strings.Contains(s, "::") {
		return false
	}
	return strings.IndexFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
			c != ':' && c != '.' && c != '_' && c != '-'
	}) < 0
}

// validate holds the claims to the bounds; the time of day plays no part.
func (c Claims) validate() error {
	switch lifetime := c.NotAfter.Sub(c.NotBefore); {
	case c.Account.IsZero() || c.Audience.IsZero():
		return errors.New("account and audience must be set")
	case len(c.Chain) == 0 || len(c.Chain) > MaxChain:
		return fmt.Errorf("chain must have 1 to %d bytes", MaxChain)
	case len(c.Scopes) == 0 || len(c.Scopes) > MaxScopes:
		return fmt.Errorf("1 to %d scopes are needed, not %d", MaxScopes, len(c.Scopes))
	case c.NotBefore.UnixMilli() <= 0:
		return errors.New("not_before must be set")
	case lifetime <= 0 || lifetime > MaxLifetime:
		return fmt.Errorf("lifetime %s is not between 0 and %s", lifetime, MaxLifetime)
	}
	for _, scope := range c.Scopes {
		if !ValidScope(scope) {
			return fmt.Errorf("%q is no scope", scope)
		}
	}
	return nil
}

// Issue signs the claims and returns the token's text. Claims.Account is set by the signer. Errors
// wrap ErrClaims, or are those of sig.SignAccount.
func Issue(signer keys.Signer, c Claims) (string, error) {
	c.Account = signer.Account
	if err := c.validate(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrClaims, err)
	}
	body := &identityv1.TokenBody{
		Account: c.Account[:], Chain: c.Chain, Audience: c.Audience[:], Scopes: c.Scopes,
		NotBefore: uint64(c.NotBefore.UnixMilli()), NotAfter: uint64(c.NotAfter.UnixMilli()),
	}
	signed, err := canon.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrClaims, err)
	}
	signature, err := signer.Sign(sig.DomainToken, signed)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	raw, err := canon.Marshal(&identityv1.Token{Body: body, Signature: signature.PB()})
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString(raw)
	if len(text) > MaxText {
		return "", fmt.Errorf("%w: %d bytes of text, at most %d: name fewer scopes", ErrClaims,
			len(text), MaxText)
	}
	return text, nil
}

// Decode reads a token without judging it: bounds and form only. Use it to show a token to its
// owner, never to decide. Errors are faults with reason TOKEN_MALFORMED.
func Decode(text string) (Claims, error) {
	claims, _, err := decode(text)
	return claims, err
}

func decode(text string) (Claims, keys.Signed, error) {
	claims, signed, err := read(text)
	if err != nil {
		return Claims{}, keys.Signed{}, fault.New(fault.Unauthenticated, rpc.ReasonTokenMalformed,
			"the token cannot be read: copy it whole, or make a new one").Because(err)
	}
	return claims, signed, nil
}

func read(text string) (Claims, keys.Signed, error) {
	if len(text) > MaxText {
		return Claims{}, keys.Signed{}, fmt.Errorf("%d bytes, at most %d", len(text), MaxText)
	}
	if strings.ContainsAny(text, "\r\n") {
		return Claims{}, keys.Signed{}, errors.New("line breaks") // base64 would skip them
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Claims{}, keys.Signed{}, err
	}
	var m identityv1.Token
	if err := canon.Unmarshal(raw, &m); err != nil {
		return Claims{}, keys.Signed{}, err
	}
	claims, err := claimsOf(m.GetBody())
	if err != nil {
		return Claims{}, keys.Signed{}, err
	}
	signature, err := sig.ParseAccountSignature(m.GetSignature())
	if err != nil {
		return Claims{}, keys.Signed{}, err
	}
	body, err := canon.Marshal(m.GetBody())
	if err != nil {
		return Claims{}, keys.Signed{}, err
	}
	return claims, keys.Signed{
		Chain: claims.Chain, Account: claims.Account, Domain: sig.DomainToken,
		Body: body, Signature: signature,
	}, nil
}

func claimsOf(m *identityv1.TokenBody) (Claims, error) {
	if len(m.GetAccount()) != len(sig.AccountID{}) || len(m.GetAudience()) != len(sig.AccountID{}) {
		return Claims{}, errors.New("account and audience have 32 bytes")
	}
	const maxTime = 1 << 48 // ms, so that nothing overflows
	if m.GetNotBefore() >= maxTime || m.GetNotAfter() >= maxTime {
		return Claims{}, errors.New("time is out of bounds")
	}
	c := Claims{
		Account: sig.AccountID(m.GetAccount()), Chain: m.GetChain(),
		Audience: sig.AccountID(m.GetAudience()), Scopes: m.GetScopes(),
		NotBefore: time.UnixMilli(int64(m.GetNotBefore())),
		NotAfter:  time.UnixMilli(int64(m.GetNotAfter())),
	}
	return c, c.validate()
}
