package server

import (
	"errors"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/token"
	"github.com/united-containers/ucn/services/executor"
)

// TestStorageTokenIsOfTheOwner: a job's outputs go to the account that the token names. Nobody, a
// scheduler least of all, may make that another than the job's owner.
func TestStorageTokenIsOfTheOwner(t *testing.T) {
	now := time.UnixMilli(1_763_712_000_000)
	issue := func(n byte, scopes ...string) (string, sig.AccountID) {
		signer := keys.SingleSigner(sig.FromSeed([32]byte{n}))
		text, err := token.Issue(signer, token.Claims{
			Chain: "main", Audience: sig.AccountID{9}, Scopes: scopes,
			NotBefore: now, NotAfter: now.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		return text, signer.Account
	}
	good, owner := issue(1, "file:read:x", "file:write:y")
	all, _ := issue(1, "file")
	until, err := heardToken(good, owner[:])
	if err != nil || !until.Equal(now.Add(time.Hour)) {
		t.Errorf("the owner's: until %v, %v", until, err)
	}
	if _, err := heardToken(all, owner[:]); err != nil {
		t.Errorf("of all files: %v", err)
	}
	if until, err := heardToken("", owner[:]); err != nil || !until.IsZero() {
		t.Errorf("none: until %v, %v", until, err)
	}
	anothers, _ := issue(2, "file")
	useless, _ := issue(1, "job", "filet")
	for name, text := range map[string]string{
		"another's": anothers, "not for files": useless, "no token": "token",
	} {
		if _, err := heardToken(text, owner[:]); !errors.Is(err, executor.ReasonToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
