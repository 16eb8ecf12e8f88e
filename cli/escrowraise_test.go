package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli"
)

// TestRaiseGrantsTodaysFee: a scheduler takes more for a lease than when the escrow was opened.
// --raise grants that, if the owner allows so much, and says so; alone a top-up changes no terms.
func TestRaiseGrantsTodaysFee(t *testing.T) {
	u, _, escrow := abandoned(t, 0)
	granted := func() (shown struct {
		LeaseFee string `json:"lease_fee"`
		Total    string `json:"lease_fee_total"`
	}) {
		text := u.must("escrow", "get", escrow, "--json")
		if err := json.Unmarshal([]byte(text), &shown); err != nil {
			t.Fatal(err)
		}
		return shown
	}
	topup := []string{"escrow", "topup", escrow, "0.1"}
	for _, c := range []struct {
		fee        tx.Grains
		args       []string
		code       int
		says       string
		fees, most string
	}{
		{50_000, nil, cli.ExitOK, "", "0", "0"},
		{50_000, []string{"--max-lease-fee", "1"}, cli.ExitUsage, "is for --raise", "0", "0"},
		{50_000, []string{"--raise"}, cli.ExitOK, "takes 0.00005 UCN for each lease now", "0.00005",
			"0.05"},
		{50_000, []string{"--raise"}, cli.ExitOK, "", "0.00005", "0.1"},
		{1_000_001, []string{"--raise"}, cli.ExitFailed, "--max-lease-fee", "0.00005", "0.1"},
		{60_000, []string{"--raise", "--max-lease-fee", "0.00005"}, cli.ExitFailed,
			"you allow 0.00005 UCN", "0.00005", "0.1"},
		{60_000, []string{"--raise"}, cli.ExitOK, "the escrow granted 0.00005 UCN", "0.00006", "0.16"},
	} {
		u.net.Market.LeaseFee = c.fee
		before := u.net.Ledger.Height()
		_, told, code := u.run(append(topup, c.args...)...)
		if sent := u.net.Ledger.Height() != before; code != c.code || sent != (code == cli.ExitOK) ||
			!strings.Contains(told, c.says) || c.says == "" && told != "" {
			t.Errorf("%d grains, %v: exit code %d, %q", c.fee, c.args, code, told)
		}
		if got := granted(); got.LeaseFee != c.fees || got.Total != c.most {
			t.Errorf("%d grains, %v: it grants %+v, want %s of %s", c.fee, c.args, got, c.fees, c.most)
		}
	}
}
