package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/id"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// TestProvenActors: what is shown of an account's money, keys, delegates and recovery comes from
// the proof, never from what the ledger says beside it, and a saved proof shows it offline.
func TestProvenActors(t *testing.T) {
	u := started(t, honest)
	account := walletOf(t, u.must("wallet", "show", "--json"))
	for _, name := range []string{"ann", "robot"} {
		u.friend(name)
	}
	u.must("wallet", "delegate", "add", "robot", "--allow", "transfer", "--limit", "5")
	u.must("wallet", "recovery", "set", "--key", "ann", "--delay", "48h")
	signed := strings.TrimSpace(u.must("wallet", "recovery", "sign", account, "--key", "robot",
		"--wallet", "ann"))
	u.must("wallet", "recovery", "submit", signed)
	u.net.Ledger.LieOfAccount = func(r *ledgerv1.GetAccountResponse) {
		r.Account, r.Signers, r.Height = nil, nil, 999
	}
	file := filepath.Join(t.TempDir(), "account.json")
	type shown struct {
		Exists    bool
		Balance   string
		Keys      []string
		Height    uint64
		Proven    bool `json:"proof_verified"`
		Actors    bool `json:"signers_proof_verified"`
		Delegates []struct{ Limit string }
		Recovery  struct {
			Keys, Pending_Keys []string
			Due_Accrual_MS     uint64
		}
	}
	check := func(name string, got *shown) {
		t.Helper()
		if !got.Exists || got.Balance == "0" || len(got.Keys) != 1 || got.Height == 999 ||
			!got.Proven || !got.Actors || len(got.Delegates) != 1 || got.Delegates[0].Limit != "5" ||
			len(got.Recovery.Keys) != 1 || len(got.Recovery.Pending_Keys) != 1 ||
			got.Recovery.Due_Accrual_MS == 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	online, saved := &shown{}, &struct{ Account shown }{}
	decode(t, u.must("account", "get", "-o", file, "--json"), online)
	check("online", online)
	offline := newUser(t, nil)
	trusted := []string{"--anchor", u.net.File().Anchor}
	verify := append([]string{"verify", file, "--json"}, trusted...)
	decode(t, offline.must(verify...), saved)
	check("offline", &saved.Account)
	if out := u.must("wallet", "delegate", "ls"); !strings.Contains(out, "transfer") {
		t.Errorf("a ledger can hide a delegate: %s", out)
	}
	if out := u.must("wallet", "recovery", "show"); !strings.Contains(out, "pending") {
		t.Errorf("a ledger can hide a recovery: %s", out)
	}
	refusesForgedLeaves(t, offline, file, trusted)
}

// refusesForgedLeaves changes a saved proof of an account and its signers in ways that each make
// it prove something else.
func refusesForgedLeaves(t *testing.T, u *user, file string, trusted []string) {
	t.Helper()
	for name, change := range map[string]func(leaves []any) []any{
		"signers alone": func(l []any) []any { return l[1:] },
		"none":          func([]any) []any { return []any{} },
		"one too many":  func(l []any) []any { return append(l, l[0]) },
		"of another": func(l []any) []any {
			l[0].(map[string]any)["id"] = id.Bech32(id.Account, [32]byte{9})
			return l
		},
		"of no kind": func(l []any) []any {
			l[0].(map[string]any)["kind"] = "signer"
			return l
		},
		"another balance": func(l []any) []any {
			leaf := l[0].(map[string]any)["proof"].(map[string]any)["proof"].(map[string]any)
			leaf["value"] = "CAE="
			return l
		},
	} {
		bad := forgedLeaves(t, file, change)
		if out, _, code := u.run(append([]string{"verify", bad}, trusted...)...); code !=
			cli.ExitFailed {
			t.Errorf("%s: %d, %s", name, code, out)
		}
	}
}

// forgedLeaves writes a saved proof with other leaves beside it.
func forgedLeaves(t *testing.T, file string, change func([]any) []any) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	whole["leaves"] = change(whole["leaves"].([]any))
	forged, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, forged, 0o600); err != nil {
		t.Fatal(err)
	}
	return bad
}

// TestUnprovenActors: a ledger that proves less than it was asked for is not believed.
func TestUnprovenActors(t *testing.T) {
	u := started(t, honest)
	var old *ledgerv1.GetAccountResponse
	u.net.Ledger.LieOfAccount = func(r *ledgerv1.GetAccountResponse) { old = r }
	u.must("account", "get", "--proof")
	to := u.friend("bob")
	u.must("transfer", to, "1")
	for name, lie := range map[string]func(*ledgerv1.GetAccountResponse){
		"no proof":              func(r *ledgerv1.GetAccountResponse) { r.Proof = nil },
		"no proof of signers":   func(r *ledgerv1.GetAccountResponse) { r.SignersProof = nil },
		"the account's instead": func(r *ledgerv1.GetAccountResponse) { r.SignersProof = r.Proof },
		"signers of an earlier block": func(r *ledgerv1.GetAccountResponse) {
			r.SignersProof = old.GetSignersProof()
		},
	} {
		u.net.Ledger.LieOfAccount = lie
		if out, _, code := u.run("account", "get", "--proof"); code != cli.ExitFailed {
			t.Errorf("%s: %d, %s", name, code, out)
		}
		if out, _, code := u.run("wallet", "delegate", "ls"); code != cli.ExitFailed {
			t.Errorf("%s: delegate ls: %d, %s", name, code, out)
		}
	}
}

// TestProvenEscrow: an escrow and its absence are proven, saved and verified offline.
func TestProvenEscrow(t *testing.T) {
	u := started(t, honest)
	account := walletOf(t, u.must("wallet", "show", "--json"))
	var sent struct{ Escrow string }
	decode(t, u.must("escrow", "budget", id.Bech32(id.Job, [32]byte{7}), "2", "--max-rate", "0.5",
		"--payee", account, "--json"), &sent)
	dir := t.TempDir()
	for _, x := range []struct{ kind, id, says string }{
		{"escrow", sent.Escrow, "may be paid"},
		{"escrow", id.Bech32(id.Escrow, [32]byte{1}), "not on the chain"},
		{"lease", id.Bech32(id.Lease, [32]byte{1}), "not on the chain"},
	} {
		file := filepath.Join(dir, x.id)
		out := u.must("chain", x.kind, x.id, "-o", file)
		offline := newUser(t, nil).must("verify", file, "--anchor", u.net.File().Anchor)
		for _, text := range []string{out, offline} {
			if !strings.Contains(text, x.says) || !strings.Contains(text, "verified") ||
				!strings.Contains(text, x.id) {
				t.Errorf("%s %s: %s", x.kind, x.id, text)
			}
		}
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
