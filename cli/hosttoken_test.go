package cli_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/token"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
)

// hostToken is what host token --json tells.
type hostToken struct{ Token, Key, Method, Path, Scope string }

// TestHostToken: a token for REST is the operator's for its own hosts, soon over, and opens one
// request.
func TestHostToken(t *testing.T) {
	u := operating(t)
	file := filepath.Join(t.TempDir(), "policy.json")
	body := `{"base":"3", "policy":{"deny_owners":["ucn1x"]}}`
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args         []string
		method, path string
		want         func(key []byte) proto.Message // nil for what is bound to none
	}{
		"read": {[]string{"read"}, "GET", "", nil},
		"drain": {[]string{"drain", "--body", ` {"reason":"x", "evict_after_ms":7}`}, "POST", ":drain",
			func(key []byte) proto.Message {
				return &executorv1.DrainRequest{Executor: key, Reason: "x", EvictAfterMs: 7}
			}},
		"drain at once": {[]string{"drain"}, "POST", ":drain", func(key []byte) proto.Message {
			return &executorv1.DrainRequest{Executor: key}
		}},
		"undrain": {[]string{"undrain", "--body", "{}"}, "POST", ":undrain",
			func(key []byte) proto.Message { return &executorv1.UndrainRequest{Executor: key} }},
		"evict": {[]string{"evict", "abcd", "--body", `{"notice_ms":"60000","attempt":"AA=="}`},
			"POST", "/attempts/abcd:evict", func(key []byte) proto.Message {
				return &executorv1.EvictRequest{Executor: key, Attempt: []byte{0xab, 0xcd},
					NoticeMs: 60000}
			}},
		"policy": {[]string{"policy", "--body", "@" + file}, "PUT", "/policy",
			func(key []byte) proto.Message {
				return &executorv1.SetPolicyRequest{Executor: key, Base: 3,
					Policy: &executorv1.HostPolicy{DenyOwners: []string{"ucn1x"}}}
			}},
	} {
		args := append([]string{"host", "token", clitest.Host}, tt.args...)
		var got hostToken
		text := u.must(append(args, "--wallet", "op", "--json")...)
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%s: %v in %s", name, err, text)
		}
		key, err := hex.DecodeString(got.Key)
		if err != nil || got.Method != tt.method || got.Path != "/v1/hosts/"+got.Key+tt.path {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
		scope := "admin:" + got.Key + ":" + tt.args[0]
		if tt.want != nil {
			if scope, err = token.Bound(scope, tt.want(key)); err != nil {
				t.Fatal(err)
			}
		}
		claims, err := token.Decode(got.Token)
		if err != nil || claims.Account != u.net.Operator() || claims.Audience != u.net.Operator() ||
			len(claims.Scopes) != 1 || claims.Scopes[0] != scope || got.Scope != scope ||
			time.Until(claims.NotAfter) > 5*time.Minute {
			t.Errorf("%s: %v, %+v", name, err, claims)
		}
	}
	out := u.must("host", "token", clitest.Host, "read", "--wallet", "op")
	if _, err := token.Decode(strings.TrimSpace(out)); err != nil {
		t.Errorf("it prints %q: %v", out, err)
	}
}

func TestHostTokenRefusals(t *testing.T) {
	u := operating(t)
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{clitest.Host}, cli.ExitUsage, "arg"},
		{[]string{clitest.Host, "reboot"}, cli.ExitUsage, "none of"},
		{[]string{clitest.Host, "read", "--body", "{}"}, cli.ExitUsage, "no --body"},
		{[]string{clitest.Host, "drain", "--body", "{"}, cli.ExitUsage, "--body"},
		{[]string{clitest.Host, "drain", "--body", `{"until":1}`}, cli.ExitUsage, "until"},
		{[]string{clitest.Host, "drain", "--body", "@/nowhere"}, cli.ExitUsage, "nowhere"},
		{[]string{clitest.Host, "drain", "--body", "@" + large}, cli.ExitUsage, "bytes"},
		{[]string{clitest.Host, "drain", "abcd"}, cli.ExitUsage, "attempt"},
		{[]string{clitest.Host, "evict"}, cli.ExitUsage, "attempt"},
		{[]string{clitest.Host, "evict", "zz"}, cli.ExitUsage, "attempt"},
		{[]string{clitest.Host, "read", "--expires", "16m"}, cli.ExitUsage, "--expires"},
		{[]string{clitest.Host, "read", "--expires", "0s"}, cli.ExitUsage, "--expires"},
		{[]string{"nobody", "read"}, cli.ExitFailed, "no offer"},
	} {
		args := append([]string{"host", "token"}, tt.args...)
		_, bad, code := u.run(append(args, "--wallet", "op")...)
		if code != tt.code || !strings.Contains(bad, tt.says) {
			t.Errorf("%q: exit %d, %q; want %d, %q", tt.args, code, bad, tt.code, tt.says)
		}
	}
	if _, bad, code := u.run("host", "token", clitest.Host, "read"); code != cli.ExitFailed {
		t.Errorf("another's host: exit %d, %q", code, bad)
	}
}
