package cli_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/id"
)

// TestBond: what is said of a bond is so: nothing of it is free before notice is due, and what the
// chain would refuse is not sent.
func TestBond(t *testing.T) {
	u := started(t, honest)
	account := sig.AccountOfKey(ownerKey().Public())
	open := fmt.Sprintf(`[{"open_escrow": {"purpose": "PURPOSE_BOND", "subject": %q,
		"amount": "1000000000", "terms": {}, "unbond": "604800000"}}]`,
		id.Bech32(id.Account, account))
	text, complaint, code := u.feed(open, "tx", "sign", "-", "--json")
	if code != 0 {
		t.Fatalf("sign: %s", complaint)
	}
	var signed struct{ Transaction, ID string }
	if err := json.Unmarshal([]byte(text), &signed); err != nil {
		t.Fatal(err)
	}
	u.must("tx", "submit", signed.Transaction)
	opened, err := hex.DecodeString(signed.ID)
	if err != nil {
		t.Fatal(err)
	}
	escrow := id.Bech32(id.Escrow, tx.EscrowIDOf(tx.ID(opened), 0))
	for _, flags := range [][]string{nil, {"--proof"}} {
		out := u.must(append([]string{"escrow", "get", escrow}, flags...)...)
		got := strings.Join(strings.Fields(out), " ")
		for _, want := range []string{
			"purpose bond", "free 0 UCN", "secures 1 UCN", "unbond 168h0m0s",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("shown is %s, want %q in it", got, want)
			}
		}
		if strings.Contains(got, "ucnj1") {
			t.Errorf("its subject is shown as a job: %s", got)
		}
	}
	before := u.net.Ledger.Height()
	for _, args := range [][]string{
		{"withdraw", escrow, "1"}, {"withdraw", escrow}, {"close", escrow},
	} {
		_, complaint, code := u.run(append([]string{"escrow"}, args...)...)
		if code == 0 || u.net.Ledger.Height() != before {
			t.Errorf("%v: exit code %d, %s", args, code, complaint)
		}
	}
}
