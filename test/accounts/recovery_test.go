package accounts

import (
	"strings"
	"testing"
	"time"
)

// friends names two of three friends as who may replace the owner's keys after a day.
func (w *world) friends() {
	w.t.Helper()
	w.must("wallet", "recovery", "set", "--key", "ann", "--key", "bob", "--key", "cem",
		"--threshold", "2", "--delay", "24h")
}

// signed is what a friend signs: that the owner's account gets a wallet's key.
func (w *world) signed(by, next string) string {
	w.t.Helper()
	return strings.TrimSpace(w.must("wallet", "recovery", "sign", w.account(owner), "--key", next,
		"--wallet", by))
}

// shown is what the command line shows of an account.
type shown struct {
	Keys         []string
	Proof        bool `json:"proof_verified"`
	SignersProof bool `json:"signers_proof_verified"`
	Delegates    []struct{ Number uint32 }
	Recovery     *struct {
		Pending []string `json:"pending_keys"`
	}
}

func (w *world) shown(person int) shown {
	w.t.Helper()
	s := parsed[shown](w, "account", "get", w.account(person), "--proof")
	if !s.Proof || !s.SignersProof {
		w.t.Errorf("not proven: %+v", s)
	}
	return s
}

func (w *world) height() uint64 { return w.chain().Tip().Header.Height }

// TestLostKeysAreReplaced: friends begin, rivals of theirs are refused, nobody finishes before the
// delay is over though nobody sends anything meanwhile, and then the new key has the account and
// the old one, with the delegate that it named, has not.
func TestLostKeysAreReplaced(t *testing.T) {
	play(t, func(w *world) {
		who := w.account(owner)
		w.must("wallet", "new", "next", "--no-passphrase")
		w.must("wallet", "new", "thief", "--no-passphrase")
		w.must("wallet", "delegate", "add", "host", "--allow", "transfer", "--limit", "1")
		w.friends()
		one, two := w.signed("ann", "next"), w.signed("cem", "next")
		w.refused("recovery-signature", "wallet", "recovery", "submit", one, "--wallet", "bob")
		w.must("wallet", "recovery", "submit", two, one, "--wallet", "bob")
		rival := []string{w.signed("bob", "thief"), w.signed("cem", "thief")}
		w.refused("recovery-pending", "wallet", "recovery", "submit", rival[0], rival[1],
			"--wallet", "bob")
		before := w.shown(owner)
		if before.Recovery == nil || len(before.Recovery.Pending) != 1 || len(before.Delegates) != 1 {
			t.Errorf("while it is pending: %+v", before)
		}
		w.must("transfer", w.account(ann), "0.001") // the owner's keys are good until then

		began := w.height()
		w.pass(23 * time.Hour)
		w.refused("recovery-not-due", "wallet", "recovery", "finish", who, "--wallet", "ann")
		if w.height()-began < 23*60 {
			t.Errorf("%d blocks in 23 hours: the delay would not pass", w.height()-began)
		}
		w.pass(time.Hour + 2*time.Minute)
		w.must("wallet", "recovery", "finish", who, "--wallet", "ann")

		after := w.shown(owner)
		if len(after.Keys) != 1 || after.Keys[0] == before.Keys[0] || len(after.Delegates) != 0 ||
			after.Recovery == nil || len(after.Recovery.Pending) != 0 {
			t.Errorf("after it: %+v, before: %+v", after, before)
		}
		w.refused("BAD_SIGNATURE", "transfer", w.account(bob), "0.001")
		w.refused("SIGNER_UNKNOWN", "transfer", w.account(bob), "0.001", "--wallet", "host",
			"--as-delegate", who+":1")
		w.refused("BAD_SIGNATURE", "transfer", w.account(bob), "0.001", "--wallet", "thief",
			"--as-delegate", who+":0")
		w.must("transfer", w.account(bob), "0.5", "--wallet", "next", "--as-delegate", who+":0")
		w.refused("recovery-counter", "wallet", "recovery", "submit", one, two, "--wallet", "bob")
		w.refused("recovery-counter", "wallet", "recovery", "submit", rival[0], rival[1],
			"--wallet", "bob")
		w.refused("recovery-none", "wallet", "recovery", "finish", who, "--wallet", "ann")
		history := w.must("account", "history", who)
		for _, said := range []string{"recover", "finish"} {
			if !strings.Contains(history, said) {
				t.Errorf("the history does not tell of %q: %s", said, history)
			}
		}
	})
}

// TestOwnersContestRecoveries: an owner who has the keys cancels, or names other friends, and what
// was signed before is good for nothing. The chain rests once nothing is pending.
func TestOwnersContestRecoveries(t *testing.T) {
	play(t, func(w *world) {
		who := w.account(owner)
		w.must("wallet", "new", "thief", "--no-passphrase")
		w.friends()
		begin := func() []string {
			t.Helper()
			texts := []string{w.signed("ann", "thief"), w.signed("bob", "thief")}
			w.must("wallet", "recovery", "submit", texts[0], texts[1], "--wallet", "ann")
			return texts
		}
		first := begin()
		w.pass(23*time.Hour + 50*time.Minute)
		w.must("wallet", "recovery", "cancel")
		w.refused("recovery-none", "wallet", "recovery", "cancel")
		rest := w.height()
		w.pass(time.Hour)
		if w.height() > rest+1 {
			t.Errorf("%d blocks while nothing is pending", w.height()-rest)
		}
		w.refused("recovery-none", "wallet", "recovery", "finish", who, "--wallet", "ann")
		w.refused("recovery-counter", "wallet", "recovery", "submit", first[0], first[1],
			"--wallet", "ann")

		second := begin()
		w.must("wallet", "recovery", "set", "--key", "cem", "--delay", "24h")
		w.refused("recovery-none", "wallet", "recovery", "finish", who, "--wallet", "ann")
		w.refused("recovery-counter", "wallet", "recovery", "submit", second[0], second[1],
			"--wallet", "ann")
		w.must("wallet", "recovery", "clear")
		if s := w.shown(owner); s.Recovery != nil {
			t.Errorf("after clear: %+v", s.Recovery)
		}
		w.must("transfer", w.account(bob), "0.5")
	})
}
