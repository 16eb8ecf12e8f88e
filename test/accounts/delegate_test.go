package accounts

import (
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/id"
)

// robot gives a machine with a new key, and no account, a delegate of the owner's account.
func (w *world) robot(limits ...string) (as []string) {
	w.t.Helper()
	w.must("wallet", "new", "robot", "--no-passphrase")
	w.must(append([]string{"wallet", "delegate", "add", "robot"}, limits...)...)
	return []string{"--wallet", "robot", "--as-delegate", w.account(owner) + ":1"}
}

// by are the arguments of a command that a delegate gives.
func by(as []string, args ...string) []string { return append(args, as...) }

// balance is what an account can spend, as the ledger's state says.
func (w *world) balance(person int) tx.Grains {
	held, _ := w.chain().State().Account(w.n.Accounts[person])
	return held.Balance
}

// TestAMachineActsWithinItsLimits: it sends within the limit of each period, fees counted, gets the
// limit back as blocks come and not while the chain rests, and nothing more once its time is over.
func TestAMachineActsWithinItsLimits(t *testing.T) {
	play(t, func(w *world) {
		as := w.robot("--allow", "transfer", "--limit", "2", "--per", "1h", "--for", "5h")
		began := w.balance(owner)
		send := by(as, "transfer", w.account(ann), "1.5")
		w.must(send...)
		w.refused("delegate-limit", send...)
		w.refused("OPERATION_NOT_ALLOWED", by(as, "escrow", "topup",
			id.Bech32(id.Escrow, [32]byte{1}), "0.1")...)
		w.refused("OPERATION_NOT_ALLOWED", by(as, "wallet", "recovery", "clear")...)
		w.pass(time.Hour + time.Minute)
		w.refused("delegate-limit", send...) // nothing happened: the accrual clock stood still
		w.friends()
		w.must("wallet", "recovery", "submit", w.signed("ann", "cem"), w.signed("bob", "cem"),
			"--wallet", "ann") // blocks come from here on
		w.pass(time.Hour)
		w.must(send...)
		if left := began - w.balance(owner); left > 2*2*1_000_000_000 {
			t.Errorf("%d grains left in two periods", left)
		}
		w.must("wallet", "delegate", "set", "1", "--limit", "4")
		w.must(send...)
		w.refused("delegate-limit", send...)
		if list := w.must("wallet", "delegate", "ls", w.account(owner)); !strings.Contains(list,
			"transfer") {
			t.Errorf("the list is %s", list)
		}
		w.pass(3 * time.Hour)
		w.refused("SIGNER_ENDED", send...)
		w.must("wallet", "delegate", "set", "1", "--for", "1h")
		w.must(send...)
		w.must("wallet", "delegate", "rm", "1")
		w.refused("SIGNER_UNKNOWN", send...)
		if s := w.shown(owner); len(s.Delegates) != 0 {
			t.Errorf("after it was removed: %+v", s)
		}
	})
}
