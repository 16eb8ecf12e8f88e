package cli_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

type supplyShown struct {
	Height      uint64
	Burned      string `json:"burned_grains"`
	Circulating string
	Proven      bool `json:"proof_verified"`
}

// TestSupplyIsProven: what is shown of the supply comes from the proof if one is asked for, and the
// proof shows the same offline.
func TestSupplyIsProven(t *testing.T) {
	u := started(t, honest)
	u.must("transfer", u.friend("bob"), "1") // part of its fee burns
	told, proven := &supplyShown{}, &supplyShown{}
	decode(t, u.must("chain", "supply", "--json"), told)
	if told.Proven || told.Burned == "0" || told.Circulating == "" || told.Height == 0 {
		t.Errorf("told %+v", told)
	}
	u.net.Ledger.LieOfSupply = func(r *ledgerv1.GetSupplyResponse) { r.State, r.Height = nil, 999 }
	file := filepath.Join(t.TempDir(), "supply.json")
	decode(t, u.must("chain", "supply", "-o", file, "--json"), proven)
	told.Proven = true
	if *proven != *told {
		t.Errorf("proven %+v, told %+v", proven, told)
	}
	offline, saved := newUser(t, nil), &struct{ Supply supplyShown }{}
	trusted := []string{"--anchor", u.net.File().Anchor}
	verify := append([]string{"verify", file}, trusted...)
	decode(t, offline.must(append(verify, "--json")...), saved)
	if saved.Supply != *proven {
		t.Errorf("offline %+v, online %+v", saved.Supply, proven)
	}
	if out := offline.must(verify...); !strings.Contains(out, "burned since") {
		t.Errorf("offline: %s", out)
	}
	for name, change := range map[string]func(leaf map[string]any){
		"of another chain": func(l map[string]any) { l["id"] = "other" },
		"of an account":    func(l map[string]any) { l["kind"] = "account" },
		"another sum": func(l map[string]any) {
			l["proof"].(map[string]any)["proof"].(map[string]any)["value"] = "CAE="
		},
	} {
		bad := forgedLeaves(t, file, func(l []any) []any {
			change(l[0].(map[string]any))
			return l
		})
		out, _, code := offline.run(append([]string{"verify", bad}, trusted...)...)
		if code != cli.ExitFailed && code != cli.ExitUsage {
			t.Errorf("%s: %d, %s", name, code, out)
		}
	}
}

// TestSupplyAddsUp: sums that do not add up are refused, proven or not, and so is an answer without
// the proof that was asked for.
func TestSupplyAddsUp(t *testing.T) {
	u := started(t, honest)
	u.net.Ledger.LieOfSupply = func(r *ledgerv1.GetSupplyResponse) {
		r.State.EscrowSum++
		r.Proof = nil
	}
	for _, args := range [][]string{{}, {"--proof"}} {
		out, _, code := u.run(append([]string{"chain", "supply"}, args...)...)
		if code != cli.ExitFailed {
			t.Errorf("%q: %d, %s", args, code, out)
		}
	}
}
