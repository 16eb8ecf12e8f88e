package state_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// The owner's recovery set is two of three friends; heir is who the account shall belong to.
func friends() []person { return []person{newPerson(90), newPerson(91), newPerson(92)} }

func friendSet() sig.KeySet {
	f := friends()
	set, err := sig.NewKeySet(2, f[0].key.Public(), f[1].key.Public(), f[2].key.Public())
	if err != nil {
		panic(err)
	}
	return set
}

func heir() person { return person{newPerson(95).key, newPerson(95).set, owner().id} }

// intent is signed by two of the friends.
func (w *world) intent(to sig.KeySet, counter uint64) *tx.Recover {
	w.t.Helper()
	o := &tx.Recover{Intent: tx.RecoveryIntent{Account: owner().id, Keys: to, Counter: counter}}
	f := friends()
	s, err := sig.SignAccount(friendSet(), []sig.PrivateKey{f[0].key, f[1].key, f[2].key}, false,
		o.Intent.Preimage(w.anchor))
	if err != nil {
		w.t.Fatal(err)
	}
	o.Signatures = s.Signatures
	return o
}

// recoverable is a world whose owner has a recovery set with a delay of 2 days.
func recoverable(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.must(owner(), &tx.SetRecovery{Keys: friendSet(), Delay: 2 * day})
	return w
}

func (w *world) counter() uint64 {
	a, _ := w.s.Signers(owner().id)
	return a.Recovery.Counter
}

// TestRecovery: keys are lost, friends replace them after the delay, anybody submits; blocks come
// meanwhile and rest when the delay is over.
func TestRecovery(t *testing.T) {
	w := recoverable(t)
	w.must(owner(), &tx.SetDelegate{Key: deputy().key.Public(), Bounds: bounds(1 << 40)})
	if w.s.Accruing() {
		t.Error("a recovery set alone makes blocks")
	}
	w.must(other(), w.intent(heir().set, w.counter()))
	if !w.s.Accruing() {
		t.Error("a recovery is pending, and its delay would never pass without blocks")
	}
	var snapshot bytes.Buffer
	if _, err := w.s.Freeze().WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	restored, err := state.Restore(&snapshot, genesis(owner(), assigner(), host(), agent(),
		proposer(), acker(), other()))
	if err != nil || restored.Root() != w.s.Root() || !restored.Accruing() {
		t.Fatalf("the restored state forgot the recovery: %v", err)
	}
	finish := &tx.FinishRecovery{Account: owner().id}
	w.refused(chainv1.Reason_REASON_RECOVERY_NOT_DUE, other(), finish)
	w.refused(chainv1.Reason_REASON_RECOVERY_PENDING, other(), w.intent(other().set, w.counter()))
	w.must(owner(), &tx.Transfer{To: other().id, Amount: 1}) // the old keys rule until it is finished
	w.wait(2 * day)
	if w.s.Accruing() {
		t.Error("the delay is over and blocks go on")
	}
	late := w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: 10})
	w.must(other(), finish)
	w.must(heir(), &tx.Transfer{To: other().id, Amount: 1})
	w.excluded(sig.ErrSignature, w.sign(owner(), 0, &tx.Transfer{To: other().id, Amount: 1}))
	w.excluded(state.ErrSigner, late)
	w.refused(chainv1.Reason_REASON_RECOVERY_NONE, other(), finish)
	// The set stays, and can act again.
	w.must(other(), w.intent(other().set, w.counter()))
}

// TestRecoveryThiefWithRecoveryKeys: who has the keys cancels, and names another set; what the
// thief holds is good for nothing any more.
func TestRecoveryThiefWithRecoveryKeys(t *testing.T) {
	w := recoverable(t)
	thief := newPerson(97)
	stolen := w.intent(thief.set, w.counter())
	w.must(other(), stolen)
	w.wait(2 * day) // even when it is due
	w.must(owner(), &tx.CancelRecovery{})
	w.refused(chainv1.Reason_REASON_RECOVERY_NONE, other(), &tx.FinishRecovery{Account: owner().id})
	w.refused(chainv1.Reason_REASON_RECOVERY_COUNTER, other(), stolen)
	w.refused(chainv1.Reason_REASON_RECOVERY_NONE, owner(), &tx.CancelRecovery{})
	// The thief tries again; a new set takes that back, too.
	w.must(other(), w.intent(thief.set, w.counter()))
	w.must(owner(), &tx.SetRecovery{Keys: other().set, Delay: 3 * day})
	if w.s.Accruing() {
		t.Error("what is taken back keeps blocks coming")
	}
	w.refused(chainv1.Reason_REASON_RECOVERY_SIGNATURE, other(),
		w.intent(thief.set, w.counter()))
	w.must(owner(), &tx.SetRecovery{})
	w.refused(chainv1.Reason_REASON_RECOVERY_NONE, other(), w.intent(thief.set, w.counter()))
	w.refused(chainv1.Reason_REASON_RECOVERY_NONE, owner(), &tx.SetRecovery{})
	// Named once more, the old intents stay dead: the counter never falls.
	w.must(owner(), &tx.SetRecovery{Keys: friendSet(), Delay: day})
	for counter := range w.counter() {
		w.refused(chainv1.Reason_REASON_RECOVERY_COUNTER, other(), w.intent(thief.set, counter))
	}
}

// TestRecoveryThiefWithOldKeys: until it is finished the old keys can cancel, which is a race that
// recovery does not win; once it is finished, nothing of theirs is left.
func TestRecoveryThiefWithOldKeys(t *testing.T) {
	w := recoverable(t)
	w.must(other(), w.intent(heir().set, w.counter()))
	w.must(owner(), &tx.CancelRecovery{})
	w.must(other(), w.intent(heir().set, w.counter()))
	w.wait(2 * day)
	receipts := w.block(second, // the thief's last block, before and after
		w.sign(owner(), 0, &tx.SetDelegate{Key: deputy().key.Public(), Bounds: bounds(1 << 40)}),
		w.sign(other(), 0, &tx.FinishRecovery{Account: owner().id}))
	for i, r := range receipts {
		if r.Status != chainv1.Status_STATUS_OK {
			t.Errorf("transaction %d: %v", i, r.Reason)
		}
	}
	for _, o := range []tx.Operation{&tx.CancelRecovery{}, &tx.SetKeys{Keys: owner().set},
		&tx.SetRecovery{}, &tx.Transfer{To: other().id, Amount: 1}} {
		w.excluded(sig.ErrSignature, w.sign(owner(), 0, o))
	}
	w.excluded(state.ErrSigner, w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: 1}))
	w.must(heir(), &tx.SetRecovery{})
}

// TestRecoveryRefused: what is not signed or formed as it must be.
func TestRecoveryRefused(t *testing.T) {
	w := recoverable(t)
	bad := chainv1.Reason_REASON_RECOVERY_SIGNATURE
	change := func(of func(o *tx.Recover)) *tx.Recover {
		o := w.intent(heir().set, w.counter())
		of(o)
		return o
	}
	foreign := w.intent(heir().set, w.counter()).Intent
	otherNet := w.anchor
	otherNet[3]++
	f := friends()
	elsewhere, err := sig.SignAccount(friendSet(), []sig.PrivateKey{f[0].key, f[1].key, f[2].key},
		false, foreign.Preimage(otherNet))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		want chainv1.Reason
		o    *tx.Recover
	}{
		"one signature": {bad, change(func(o *tx.Recover) { o.Signatures = o.Signatures[:1] })},
		"three": {bad, change(func(o *tx.Recover) {
			o.Signatures = append(o.Signatures, o.Signatures[1])
		})},
		"twice the same": {bad, change(func(o *tx.Recover) {
			o.Signatures[1] = o.Signatures[0]
		})},
		"beyond the set": {bad, change(func(o *tx.Recover) { o.Signatures[1].Index = 3 })},
		"exchanged": {bad, change(func(o *tx.Recover) {
			a, b := &o.Signatures[0].Signature, &o.Signatures[1].Signature
			*a, *b = *b, *a
		})},
		"another heir":    {bad, change(func(o *tx.Recover) { o.Intent.Keys = other().set })},
		"another network": {bad, change(func(o *tx.Recover) { o.Signatures = elsewhere.Signatures })},
		"counter ahead": {chainv1.Reason_REASON_RECOVERY_COUNTER,
			w.intent(heir().set, w.counter()+1)},
		"no heir": {chainv1.Reason_REASON_KEY_SET_INVALID, w.intent(sig.KeySet{}, w.counter())},
		"bad heir": {chainv1.Reason_REASON_KEY_SET_INVALID, w.intent(sig.KeySet{
			Keys: []sig.PublicKey{{1}}, Threshold: 1}, w.counter())},
		"another account": {chainv1.Reason_REASON_RECOVERY_NONE,
			change(func(o *tx.Recover) { o.Intent.Account = other().id })},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, s: w.s, anchor: w.anchor, ctx: w.ctx}
			w.refused(c.want, other(), c.o)
		})
	}
	invalid := chainv1.Reason_REASON_RECOVERY_INVALID
	for _, o := range []*tx.SetRecovery{
		{Keys: friendSet(), Delay: day - 1}, {Keys: friendSet(), Delay: 367 * day},
		{Keys: friendSet()}, {Delay: day}, {Keys: friendSet(), Delay: 1<<64 - 1},
	} {
		w.refused(invalid, owner(), o)
	}
	w.refused(chainv1.Reason_REASON_KEY_SET_INVALID, owner(), &tx.SetRecovery{Delay: day,
		Keys: sig.KeySet{Keys: []sig.PublicKey{{1}}, Threshold: 1}})
	w.refused(chainv1.Reason_REASON_RECOVERY_NONE, other(), &tx.CancelRecovery{})
}

// TestRecoveryClaims: a claim about a recovery set that was replaced in between counts for the very
// key and signature only.
func TestRecoveryClaims(t *testing.T) {
	w := recoverable(t)
	set := friendSet()
	// The same keys in a set where the first is missing: places shift by one.
	next := sig.KeySet{Keys: []sig.PublicKey{set.Keys[1], set.Keys[2]}, Threshold: 1}
	intent := w.intent(heir().set, w.counter()+1)
	// Signed by the old set's second key, at the place of the new set's second, with a broken
	// signature at its own.
	intent.Signatures = intent.Signatures[:1]
	intent.Signatures[0].Index = 0
	replace := w.sign(owner(), 0, &tx.SetRecovery{Keys: next, Delay: day})
	x := w.begin(second)
	defer x.Drop()
	first, _ := w.s.Prepare(replace)
	if _, err := x.Apply(first); err != nil {
		t.Fatal(err)
	}
	p, err := w.s.Prepare(w.sign(other(), 0, intent))
	if err != nil && !errors.Is(err, sig.ErrKeySetMissing) {
		t.Fatal(err)
	}
	for i := range p.Claims {
		p.Claims[i].OK = sig.Verify(p.Claims[i].Key, p.Claims[i].Preimage, p.Claims[i].Signature)
	}
	r, err := x.Apply(p)
	if err != nil || r.Reason != chainv1.Reason_REASON_RECOVERY_SIGNATURE {
		t.Errorf("%v, %v", r.Reason, err)
	}
}
