package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
)

// TestDelegate: a wallet's delegate pays within its limit with its own wallet, and the list shows
// what it spent.
func TestDelegate(t *testing.T) {
	u := started(t, honest)
	account := walletOf(t, u.must("wallet", "show", "--json"))
	robot := walletOf(t, u.must("wallet", "new", "robot", "--no-passphrase", "--json"))
	out := u.must("wallet", "delegate", "add", "robot", "--allow", "transfer,top-up",
		"--limit", "5", "--per", "1h", "--json")
	if !strings.Contains(out, `"delegate": 1`) {
		t.Fatalf("no number of the delegate: %s", out)
	}
	as := []string{"--wallet", "robot", "--as-delegate", account + ":1"}
	u.must(append([]string{"transfer", robot, "1"}, as...)...)
	signed := u.must(append([]string{"tx", "sign", "--transfer", robot + "=1"}, as...)...)
	if out, _, code := u.feed(signed, "tx", "submit", "--json"); code != cli.ExitOK ||
		!strings.Contains(out, `"status": "ok"`) {
		t.Errorf("signed as a delegate: %d, %s", code, out)
	}
	out, complaint, code := u.run(append([]string{"transfer", robot, "4", "--json"}, as...)...)
	if code != cli.ExitFailed || !strings.Contains(out+complaint, "delegate-limit") {
		t.Errorf("past its limit: %d, %s%s", code, out, complaint)
	}
	var list []struct {
		Number     uint32
		Operations []string
		Limit      string
		Spent      string
		Nonce      uint64
	}
	read := func() {
		t.Helper()
		list = nil
		text := u.must("wallet", "delegate", "ls", "--json")
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(err)
		}
	}
	if read(); len(list) != 1 || list[0].Number != 1 || list[0].Nonce != 3 ||
		strings.Join(list[0].Operations, " ") != "transfer top-up" ||
		!strings.HasPrefix(list[0].Spent, "2.") {
		t.Errorf("the list is %+v", list)
	}
	u.must("wallet", "delegate", "set", "1", "--limit", "9")
	if read(); list[0].Limit != "9" || len(list[0].Operations) != 2 {
		t.Errorf("changed to %+v", list)
	}
	if out := u.must("account", "get"); !strings.Contains(out, "delegates  1") {
		t.Errorf("the account hides its delegates: %s", out)
	}
	u.must("wallet", "delegate", "rm", "1")
	if _, complaint, code := u.run(append([]string{"transfer", robot, "1"}, as...)...); code !=
		cli.ExitFailed {
		t.Errorf("after its removal: %d, %s", code, complaint)
	}
}

// TestDelegateRefused: wrong calls, and what the chain refuses.
func TestDelegateRefused(t *testing.T) {
	u := started(t, honest)
	u.must("wallet", "new", "robot", "--no-passphrase")
	for _, c := range []struct {
		want int
		args string
	}{
		{cli.ExitUsage, "wallet delegate add robot --limit 5"},
		{cli.ExitUsage, "wallet delegate add robot --allow transfer"},
		{cli.ExitUsage, "wallet delegate add robot --allow fly --limit 5"},
		{cli.ExitUsage, "wallet delegate add robot --allow set-keys --limit 5"},
		{cli.ExitFailed, "wallet delegate add robot --allow transfer --limit 5 --per 1s"},
		{cli.ExitFailed, "wallet delegate add robot --allow transfer --limit 5 --for -1h"},
		{cli.ExitFailed, "wallet delegate add nobody --allow transfer --limit 5"},
		{cli.ExitUsage, "wallet delegate rm x"},
		{cli.ExitFailed, "wallet delegate rm 7"},
		{cli.ExitFailed, "wallet delegate set 7 --limit 1"},
		{cli.ExitUsage, "transfer ucn1x 1 --as-delegate 7"},
		{cli.ExitUsage, "job ls --as-delegate 7"},
	} {
		if out, complaint, code := u.run(strings.Fields(c.args)...); code != c.want {
			t.Errorf("%s: exit code %d, want %d: %s%s", c.args, code, c.want, out, complaint)
		}
	}
}
