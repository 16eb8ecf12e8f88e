package cli_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/id"
)

// friend makes a wallet and returns its account.
func (u *user) friend(name string) (account string) {
	u.t.Helper()
	return walletOf(u.t, u.must("wallet", "new", name, "--no-passphrase", "--json"))
}

// TestRecovery: two of three friends sign, anybody submits, the owner sees it and cancels; what was
// signed is good for nothing then.
func TestRecovery(t *testing.T) {
	u := started(t, honest)
	account := walletOf(t, u.must("wallet", "show", "--json"))
	for _, name := range []string{"ann", "bob", "cem", "next"} {
		u.friend(name)
	}
	if out := u.must("wallet", "recovery", "show"); !strings.Contains(out, "nobody") {
		t.Errorf("before any was set: %s", out)
	}
	u.must("wallet", "recovery", "set", "--key", "ann", "--key", "bob", "--key", "cem",
		"--threshold", "2", "--delay", "48h")
	sign := func(by, key string) string {
		t.Helper()
		return strings.TrimSpace(u.must("wallet", "recovery", "sign", account, "--key", key,
			"--wallet", by))
	}
	one, two := sign("ann", "next"), sign("cem", "next")
	if _, _, code := u.run("wallet", "recovery", "sign", account, "--key", "next"); code !=
		cli.ExitFailed {
		t.Errorf("the owner is no friend: %d", code)
	}
	if _, _, code := u.run("wallet", "recovery", "submit", one, sign("cem", "bob")); code !=
		cli.ExitUsage {
		t.Errorf("two different recoveries: %d", code)
	}
	if _, _, code := u.run("wallet", "recovery", "submit", one+"x"); code != cli.ExitUsage {
		t.Errorf("no recovery at all: %d", code)
	}
	failed := func(reason string, args ...string) {
		t.Helper()
		out, complaint, code := u.run(append(args, "--json")...)
		if code != cli.ExitFailed || !strings.Contains(out+complaint, reason) {
			t.Errorf("%v: %d, want %s: %s%s", args, code, reason, out, complaint)
		}
	}
	free := func(reason string, args ...string) {
		t.Helper()
		before := u.net.Ledger.Height()
		failed(reason, args...)
		if u.net.Ledger.Height() != before {
			t.Errorf("%v was sent, and cost a fee", args)
		}
	}
	failed("needs 2", "wallet", "recovery", "submit", one)
	failed("needs 2", "wallet", "recovery", "submit", one, one)
	failed("needs 2", "wallet", "recovery", "submit", one, spoiled(t, two))
	free("recovery-none", "wallet", "recovery", "cancel")
	// one signature more than needed, one twice, and one spoiled in a friend's name
	u.must("wallet", "recovery", "submit", spoiled(t, one), two, one, sign("bob", "next"), one)
	if out := u.must("wallet", "recovery", "show", account); !strings.Contains(out, "pending") {
		t.Errorf("what is pending is not shown: %s", out)
	}
	free("recovery-not-due", "wallet", "recovery", "finish", account)
	u.must("wallet", "recovery", "cancel")
	failed("recovery-counter", "wallet", "recovery", "submit", one, two)
	failed("recovery-invalid", "wallet", "recovery", "set", "--key", "ann", "--delay", "1h")
	u.must("wallet", "recovery", "clear")
	if _, _, code := u.run("wallet", "recovery", "set"); code != cli.ExitUsage {
		t.Errorf("a set of nobody: %d", code)
	}
}

// spoiled returns a text of a recovery whose signature is bad.
func spoiled(t *testing.T, text string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1 // the signature is at the end
	return base64.StdEncoding.EncodeToString(raw)
}

// TestBudget: a budget is opened with its limits, shown and closed.
func TestBudget(t *testing.T) {
	u := started(t, honest)
	account := walletOf(t, u.must("wallet", "show", "--json"))
	job := id.Bech32(id.Job, [32]byte{7})
	if _, _, code := u.run("escrow", "budget", job, "1"); code != cli.ExitUsage {
		t.Errorf("without a rate: %d", code)
	}
	out := u.must("escrow", "budget", job, "2", "--max-rate", "0.5", "--payee", account,
		"--json")
	var sent struct{ Escrow string }
	if err := json.Unmarshal([]byte(out), &sent); err != nil || sent.Escrow == "" {
		t.Fatalf("%v: %s", err, out)
	}
	if out := u.must("escrow", "get", sent.Escrow); !strings.Contains(out, "budget") ||
		!strings.Contains(out, "or later if the chain rests") {
		t.Errorf("shown as %s", out)
	}
	total := func() (shown struct {
		Balance  string
		MaxTotal string `json:"max_total"`
	}) {
		text := u.must("escrow", "get", sent.Escrow, "--json")
		if err := json.Unmarshal([]byte(text), &shown); err != nil {
			t.Fatal(err)
		}
		return shown
	}
	u.must("escrow", "topup", sent.Escrow, "1")
	if got := total(); got.Balance != "3" || got.MaxTotal != "2" {
		t.Errorf("topped up it is %+v", got)
	}
	u.must("escrow", "topup", sent.Escrow, "1", "--raise")
	if got := total(); got.Balance != "4" || got.MaxTotal != "3" {
		t.Errorf("topped up and raised it is %+v", got)
	}
	u.must("escrow", "close", sent.Escrow)
}
