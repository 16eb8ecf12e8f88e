package token

import (
	"encoding/base64"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
)

// ScopeAdmin allows an operator's account all that is for operators, at all of its instances.
const ScopeAdmin = "admin"

// AdminScope returns the scope that allows one action at one instance, and nothing elsewhere; of an
// empty action all of them.
func AdminScope(instance sig.PublicKey, action string) string {
	scope := ScopeAdmin + ":" + hex.EncodeToString(instance[:])
	if action != "" {
		scope += ":" + action
	}
	return scope
}

// Bound narrows a scope to one request: whoever else sees a token of that scope can repeat the very
// request while the token lasts, and do nothing else. It fails where m has no canonical form.
func Bound(scope string, m proto.Message) (string, error) {
	hash, err := canon.Hash(m)
	if err != nil {
		return "", err
	}
	return scope + ":" + base64.RawURLEncoding.EncodeToString(hash[:]), nil
}
