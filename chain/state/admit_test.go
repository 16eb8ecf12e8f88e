package state_test

import (
	"errors"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// TestNotIncludable: what cannot stand in a block is refused and leaves no trace; Check says the
// same before.
func TestNotIncludable(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   error
		change func(*tx.Body)
	}{
		{"another chain", state.ErrChain,
			func(b *tx.Body) { b.Chain = "0e0ea3a2-7e6c-8000-8000-000000000000" }},
		{"delegate", state.ErrSigner, func(b *tx.Body) { b.Signer = 1 }},
		{"old nonce", state.ErrNonceOld, func(b *tx.Body) { b.Nonce-- }},
		{"future nonce", state.ErrNonceFuture, func(b *tx.Body) { b.Nonce++ }},
		{"expired", state.ErrExpired, func(b *tx.Body) { b.ValidUntil = genesisTime + 1999 }},
		{"too early", state.ErrTooEarly,
			func(b *tx.Body) { b.ValidUntil = genesisTime + 2000 + day + 1 }},
		{"valid_until overflows", state.ErrTooEarly,
			func(b *tx.Body) { b.ValidUntil = 1<<64 - 1 }},
		{"fee cap", state.ErrFeeCap, func(b *tx.Body) { b.Fee = 1 }},
		{"no fee cap", state.ErrFeeCap, func(b *tx.Body) { b.Fee = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(owner(), &tx.Transfer{To: other().id, Amount: 1})
			body := tx.Body{Chain: block.Main, Account: owner().id, Nonce: 1, Fee: 1_000_000,
				ValidUntil: w.now() + hour,
				Operations: []tx.Operation{&tx.Transfer{To: other().id, Amount: 5}}}
			good := w.signBody(owner(), body)
			c.change(&body)
			bad := w.signBody(owner(), body)
			if err := w.s.Check(bad, w.now()+second); !errors.Is(err, c.want) {
				t.Errorf("Check: %v, want %v", err, c.want)
			}
			if err := w.s.Check(good, w.now()+second); err != nil {
				t.Errorf("Check of the good one: %v", err)
			}
			w.excluded(c.want, bad)
		})
	}
}

// excluded wants a transaction to be refused by a block that goes on as if it had not come.
func (w *world) excluded(want error, bad *tx.Transaction) {
	w.t.Helper()
	root := func(txs ...*tx.Transaction) any {
		x := w.begin(second)
		defer x.Drop()
		for _, t := range txs {
			p, _ := w.s.Prepare(t)
			if _, err := x.Apply(p); !errors.Is(err, want) {
				w.t.Errorf("Apply: %v, want %v", err, want)
			}
		}
		return x.Finish().StateRoot
	}
	if root() != root(bad, bad) {
		w.t.Error("a refused transaction left a trace")
	}
}

func TestSignatureRefused(t *testing.T) {
	w := newWorld(t)
	w.must(owner(), &tx.Transfer{To: other().id, Amount: 1})
	op := &tx.Transfer{To: other().id, Amount: 5}
	body := tx.Body{Chain: block.Main, Account: owner().id, Nonce: 1, Fee: 1_000_000,
		ValidUntil: w.now() + hour, Operations: []tx.Operation{op}}
	attach := func(s sig.AccountSignature) *tx.Transaction {
		t.Helper()
		signed, err := tx.Attach(body, s)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	by := func(p person, anchor sig.Anchor) sig.AccountSignature {
		signed, err := tx.Sign(body, anchor, p.set, false, p.key)
		if err != nil {
			t.Fatal(err)
		}
		return signed.Signature
	}
	otherNet := w.anchor
	otherNet[5]++
	withKeys := by(owner(), w.anchor)
	withKeys.Keys = owner().set
	twice := by(owner(), w.anchor)
	twice.Signatures = append(twice.Signatures, twice.Signatures[0])
	beyond := by(owner(), w.anchor)
	beyond.Signatures[0].Index = 1
	for name, c := range map[string]struct {
		want error
		s    sig.AccountSignature
	}{
		"wrong signature":           {sig.ErrSignature, by(other(), w.anchor)},
		"another network of a name": {sig.ErrSignature, by(owner(), otherNet)},
		"key set sent again":        {sig.ErrKeySetUnwanted, withKeys},
		"two signatures":            {sig.ErrSignatureCount, twice},
		"index beyond the set":      {sig.ErrSignatureIndex, beyond},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, s: w.s, anchor: w.anchor, ctx: w.ctx}
			w.excluded(c.want, attach(c.s))
		})
	}
	body.Account, body.Nonce = acker().id, 0
	w.excluded(sig.ErrKeySetMissing, attach(by(acker(), w.anchor)))
	foreign := by(acker(), w.anchor)
	foreign.Keys = other().set
	w.excluded(sig.ErrKeySetForeign, attach(foreign))
}

// TestClaimsAreNotTrustedBlindly: a verified claim counts for its own key only, and what no claim
// covers is verified.
func TestClaimsAreNotTrustedBlindly(t *testing.T) {
	w := newWorld(t)
	next := newPerson(100)
	rotate := w.sign(owner(), 0, &tx.SetKeys{Keys: next.set})
	forged := w.signBody(owner(), tx.Body{
		Chain: block.Main, Account: owner().id, Nonce: 1, Fee: 1_000_000,
		ValidUntil: w.now() + hour, Operations: []tx.Operation{
			&tx.Transfer{To: other().id, Amount: 5}}})
	x := w.begin(second)
	defer x.Drop()
	first, err := w.s.Prepare(rotate)
	if err != nil {
		t.Fatal(err)
	}
	first.Claims[0].OK = true
	if _, err := x.Apply(first); err != nil {
		t.Fatal(err)
	}
	// Signed by the old key and verified against it, but the set has changed in between.
	p := state.Prepared{Tx: forged, ID: forged.ID(w.anchor)}
	p.Claims = append(p.Claims, first.Claims[0])
	if _, err := x.Apply(p); !errors.Is(err, sig.ErrSignature) {
		t.Errorf("a claim about the old key was enough: %v", err)
	}
}

func TestSetKeys(t *testing.T) {
	w := newWorld(t)
	next := newPerson(100)
	w.must(owner(), &tx.SetKeys{Keys: next.set})
	old := w.sign(owner(), 0, &tx.Transfer{To: other().id, Amount: 1})
	w.excluded(sig.ErrSignature, old)
	renamed := person{next.key, next.set, owner().id}
	w.must(renamed, &tx.Transfer{To: other().id, Amount: 1})
	w.refused(chainv1.Reason_REASON_KEY_SET_INVALID, renamed, &tx.SetKeys{})
	w.refused(chainv1.Reason_REASON_KEY_SET_INVALID, renamed, &tx.SetKeys{Keys: sig.KeySet{
		Keys: []sig.PublicKey{{1}}, Threshold: 1}})
}

// TestMultisig: two of three keys, then within one block the set they rotate to.
func TestMultisig(t *testing.T) {
	a, b, c := newPerson(50), newPerson(51), newPerson(52)
	set, err := sig.NewKeySet(2, a.key.Public(), b.key.Public(), c.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.must(owner(), &tx.Transfer{To: sig.AccountOf(set), Amount: 1_000_000})
	account := sig.AccountOf(set)
	sign := func(nonce uint64, set sig.KeySet, op tx.Operation,
		keys ...sig.PrivateKey) *tx.Transaction {
		signed, err := tx.Sign(tx.Body{Chain: block.Main, Account: account, Nonce: nonce,
			Fee: 1_000_000, ValidUntil: w.now() + hour, Operations: []tx.Operation{op}},
			w.anchor, set, nonce == 0, keys...)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	receipts := w.block(second,
		sign(0, set, &tx.SetKeys{Keys: a.set}, a.key, c.key),
		sign(1, a.set, &tx.Transfer{To: other().id, Amount: 1}, a.key))
	for _, r := range receipts {
		if r.Status != chainv1.Status_STATUS_OK {
			t.Errorf("receipt %+v", r)
		}
	}
}
