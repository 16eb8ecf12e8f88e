package token_test

import (
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/token"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
)

// TestAdminScopes: the longest is a scope, and another request gives another one.
func TestAdminScopes(t *testing.T) {
	scope := token.AdminScope(sig.PublicKey{0xff}, "undrain")
	if want := "admin:ff" + strings.Repeat("0", 62) + ":undrain"; scope != want {
		t.Errorf("scope %q, want %q", scope, want)
	}
	if all := token.AdminScope(sig.PublicKey{0xff}, ""); scope != all+":undrain" {
		t.Errorf("all of the instance is %q", all)
	}
	one, err := token.Bound(scope, &executorv1.DrainRequest{Reason: "a"})
	if err != nil || !token.ValidScope(one) || !strings.HasPrefix(one, scope+":") {
		t.Errorf("bound %q, %v", one, err)
	}
	if two, _ := token.Bound(scope, &executorv1.DrainRequest{Reason: "b"}); two == one {
		t.Error("two requests have the same scope")
	}
	if _, err := token.Bound(scope, &executorv1.DrainRequest{Reason: "\xff"}); err == nil {
		t.Error("a request without canonical form has a scope")
	}
}
