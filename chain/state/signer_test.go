package state_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// bounds of a delegate that may send and charge.
func bounds(limit tx.Grains) tx.Bounds {
	return tx.Bounds{
		Operations: tx.OperationsOf(tx.KindTransfer, tx.KindTopUp, tx.KindOpenEscrow,
			tx.KindWithdraw, tx.KindCharge, tx.KindSettle),
		Limit: limit, Period: hour, Until: genesisTime + 365*day,
	}
}

// deputy is a key that acts for the owner as delegate 1.
func deputy() person { return person{newPerson(80).key, newPerson(80).set, owner().id} }

// delegated makes deputy delegate 1 of the owner.
func delegated(t testing.TB, b tx.Bounds) *world {
	t.Helper()
	w := newWorld(t)
	r := w.must(owner(), &tx.SetDelegate{Key: deputy().key.Public(), Bounds: b})
	if r.Outcomes[0].Delegate != 1 {
		t.Fatalf("the first delegate has number %d", r.Outcomes[0].Delegate)
	}
	return w
}

// as signs for the owner as delegate n, with its committed nonce.
func (w *world) as(n uint32, by person, ops ...tx.Operation) *tx.Transaction {
	w.t.Helper()
	signed, err := tx.Sign(tx.Body{
		Chain: block.Main, Account: owner().id, Signer: n, Nonce: w.s.Nonce(owner().id, n),
		Fee: 1_000_000, ValidUntil: w.now() + 2*hour, Operations: ops,
	}, w.anchor, by.set, false, by.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

func (w *world) delegate(n uint32) tx.Delegate {
	w.t.Helper()
	a, _ := w.s.Signers(owner().id)
	place, found := a.Find(n)
	if !found {
		w.t.Fatalf("no delegate %d in %+v", n, a)
	}
	return a.Delegates[place]
}

// TestDelegate: it sends within its limit, with a nonce of its own, and the limit counts fees.
func TestDelegate(t *testing.T) {
	w := delegated(t, bounds(100_000))
	before, _ := w.s.Account(owner().id)
	r := w.block(second, w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: 50_000}))[0]
	after, _ := w.s.Account(owner().id)
	d := w.delegate(1)
	if r.Status != chainv1.Status_STATUS_OK || after.Nonce != before.Nonce || d.Nonce != 1 ||
		after.Balance != before.Balance-50_000-r.Fee || d.Spent != 50_000+r.Fee {
		t.Fatalf("%+v left %+v, delegate %+v", r, after, d)
	}
	left := 100_000 - d.Spent
	// One grain too much for what the fee leaves: it fails, and pays.
	r = w.block(second, w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: left - r.Fee + 1}))[0]
	if r.Reason != chainv1.Reason_REASON_DELEGATE_LIMIT || w.delegate(1).Spent != d.Spent+r.Fee {
		t.Fatalf("beyond its limit: %+v, delegate %+v", r, w.delegate(1))
	}
	left = 100_000 - w.delegate(1).Spent
	r = w.block(second, w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: left - r.Fee}))[0]
	if r.Status != chainv1.Status_STATUS_OK || w.delegate(1).Spent != 100_000 {
		t.Fatalf("to its limit: %+v, delegate %+v", r, w.delegate(1))
	}
	// Nothing is left for a fee: not a block's business any more.
	spent := w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: 1})
	if err := w.s.Check(spent, w.now()+second); !errors.Is(err, state.ErrLimit) {
		t.Errorf("Check: %v", err)
	}
	w.excluded(state.ErrLimit, spent)
	w.wait(hour)
	w.block(second, w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: 90_000}))
	if d := w.delegate(1); d.Spent < 90_000 || d.Spent > 100_000 || d.Nonce != 4 {
		t.Errorf("in the next period: %+v", d)
	}
}

// TestDelegateLimitCountsLocks: what an escrow takes counts, its lock and what comes back too.
func TestDelegateLimitCountsLocks(t *testing.T) {
	w := delegated(t, bounds(100_000))
	o := openJob()
	o.Amount = 90_000
	r := w.block(second, w.as(1, deputy(), o))[0]
	if r.Status != chainv1.Status_STATUS_OK {
		t.Fatal(r.Reason)
	}
	if d := w.delegate(1); d.Spent != 90_000+2*lock+r.Fee {
		t.Errorf("opening counted %d", d.Spent)
	}
	id := tx.EscrowID(r.Outcomes[0].Created)
	before := w.delegate(1).Spent
	// Taking back and sending away nets nothing, and counts all the same.
	r = w.block(second, w.as(1, deputy(), &tx.Withdraw{Escrow: id, Amount: 50_000},
		&tx.Transfer{To: other().id, Amount: 50_000}))[0]
	if r.Reason != chainv1.Reason_REASON_DELEGATE_LIMIT || r.FailedOperation != 1 {
		t.Errorf("an escrow of the owner was drained past the limit: %+v", r)
	}
	if w.delegate(1).Spent != before+r.Fee {
		t.Errorf("the failure counted %d, its fee is %d", w.delegate(1).Spent-before, r.Fee)
	}
	r = w.block(second, w.as(1, deputy(), &tx.TopUp{Escrow: id, Amount: 90_000}))[0]
	if r.Reason != chainv1.Reason_REASON_DELEGATE_LIMIT {
		t.Errorf("topped up past the limit: %+v", r)
	}
}

// TestDelegateNotIncludable: what a proposer can see is the sender's fault.
func TestDelegateNotIncludable(t *testing.T) {
	b := bounds(1_000_000)
	b.Until = genesisTime + hour
	w := delegated(t, b)
	send := &tx.Transfer{To: other().id, Amount: 1}
	excluded := func(name string, want error, bad *tx.Transaction) {
		t.Helper()
		if err := w.s.Check(bad, w.now()+second); errors.Is(want, state.ErrSigner) &&
			!errors.Is(err, want) {
			t.Errorf("%s: Check: %v, want %v", name, err, want)
		}
		w.excluded(want, bad)
	}
	excluded("unknown", state.ErrSigner, w.as(2, deputy(), send))
	excluded("another key", sig.ErrSignature, w.as(1, other(), send))
	excluded("the owner's key", sig.ErrSignature, w.as(1, owner(), send))
	excluded("as the key set", sig.ErrSignature, w.as(0, deputy(), send))
	end := &tx.End{Lease: tx.LeaseID{1}}
	excluded("not allowed", state.ErrNotAllowed, w.as(1, deputy(), send, end))
	for _, o := range []tx.Operation{
		&tx.SetKeys{Keys: deputy().set}, &tx.RemoveDelegate{Number: 1},
		&tx.SetDelegate{Number: 1, Key: deputy().key.Public(), Bounds: bounds(1 << 60)},
		&tx.SetRecovery{}, &tx.CancelRecovery{}, &tx.FinishRecovery{Account: owner().id},
		w.intent(deputy().set, 0),
	} {
		excluded(fmt.Sprintf("%T", o), state.ErrNotAllowed, w.as(1, deputy(), o))
	}
	body := tx.Body{Chain: block.Main, Account: owner().id, Signer: 1, Fee: 1_000_000,
		ValidUntil: w.now() + hour, Operations: []tx.Operation{send}}
	withKeys, err := tx.Sign(body, w.anchor, deputy().set, true, deputy().key)
	if err != nil {
		t.Fatal(err)
	}
	excluded("brings keys", sig.ErrKeySetUnwanted, withKeys)
	used := w.as(1, deputy(), send)
	w.block(second, used)
	excluded("again", state.ErrNonceOld, used)
	w.wait(hour)
	excluded("after until", state.ErrSignerEnded, w.as(1, deputy(), send))
}

// TestDelegateChanges: terms change and keys do not, numbers are never used again, and two signers
// of one account do not wait for each other.
func TestDelegateChanges(t *testing.T) {
	w := delegated(t, bounds(1_000_000))
	send := &tx.Transfer{To: other().id, Amount: 10_000}
	receipts := w.block(second, w.sign(owner(), 0, send), w.as(1, deputy(), send),
		w.sign(owner(), 1, send))
	for i, r := range receipts {
		if r.Status != chainv1.Status_STATUS_OK {
			t.Errorf("transaction %d: %v", i, r.Reason)
		}
	}
	less := bounds(w.delegate(1).Spent + 1)
	w.must(owner(), &tx.SetDelegate{Number: 1, Key: deputy().key.Public(), Bounds: less})
	w.excluded(state.ErrLimit, w.as(1, deputy(), send))
	invalid := chainv1.Reason_REASON_DELEGATE_INVALID
	for _, o := range []*tx.SetDelegate{
		{Number: 1, Key: other().key.Public(), Bounds: less},
		{Key: sig.PublicKey{1}, Bounds: less},
		{Key: other().key.Public()},
		{Key: other().key.Public(), Bounds: tx.Bounds{Operations: less.Operations,
			Period: hour, Until: 1<<64 - 1}},
		{Key: other().key.Public(), Bounds: tx.Bounds{Operations: less.Operations, Limit: 1,
			Period: minute - 1, Until: 1<<64 - 1}},
		{Key: other().key.Public(), Bounds: tx.Bounds{Operations: less.Operations, Limit: 1,
			Period: 367 * day, Until: 1<<64 - 1}},
		{Key: other().key.Public(), Bounds: tx.Bounds{Operations: less.Operations, Limit: 1,
			Period: hour, Until: w.now() + second}},
		{Key: other().key.Public(), Bounds: tx.Bounds{Operations: 1, Limit: 1, Period: hour,
			Until: 1<<64 - 1}},
		{Key: other().key.Public(), Bounds: tx.Bounds{Limit: 1, Period: hour, Until: 1<<64 - 1,
			Operations: tx.OperationsOf(tx.KindTransfer, tx.KindSetKeys)}},
		{Key: other().key.Public(), Bounds: tx.Bounds{Limit: 1, Period: hour, Until: 1<<64 - 1,
			Operations: 1 << 63}},
	} {
		w.refused(invalid, owner(), o)
	}
	unknown := chainv1.Reason_REASON_DELEGATE_UNKNOWN
	w.refused(unknown, owner(), &tx.RemoveDelegate{Number: 2})
	w.refused(unknown, owner(), &tx.RemoveDelegate{})
	w.refused(unknown, other(), &tx.RemoveDelegate{Number: 1})
	late := w.as(1, deputy(), send)
	w.must(owner(), &tx.RemoveDelegate{Number: 1})
	w.excluded(state.ErrSigner, late)
	w.refused(unknown, owner(),
		&tx.SetDelegate{Number: 1, Key: deputy().key.Public(), Bounds: less})
	r := w.must(owner(), &tx.SetDelegate{Key: deputy().key.Public(), Bounds: less})
	if r.Outcomes[0].Delegate != 2 {
		t.Errorf("the number of a removed delegate came again: %+v", r.Outcomes)
	}
	w.excluded(state.ErrSigner, late)
	for range tx.MaxDelegates - 1 {
		w.must(owner(), &tx.SetDelegate{Key: other().key.Public(), Bounds: less})
	}
	w.refused(chainv1.Reason_REASON_TOO_MANY_DELEGATES, owner(),
		&tx.SetDelegate{Key: other().key.Public(), Bounds: less})
}

// TestDelegateShorterPeriod: changing the period does not give back what was spent.
func TestDelegateShorterPeriod(t *testing.T) {
	w := delegated(t, bounds(100_000))
	w.block(second, w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: 90_000}))
	b := bounds(100_000)
	b.Period = 2 * minute
	w.wait(3 * minute)
	w.must(owner(), &tx.SetDelegate{Number: 1, Key: deputy().key.Public(), Bounds: b})
	if d := w.delegate(1); d.Spent < 90_000 {
		t.Errorf("the change gave back what was spent: %+v", d)
	}
	w.wait(2 * minute)
	r := w.block(second, w.as(1, deputy(), &tx.Transfer{To: other().id, Amount: 90_000}))[0]
	if r.Status != chainv1.Status_STATUS_OK {
		t.Error(r.Reason)
	}
}

// TestDelegateInOneBlock: a delegate set, used and removed within a block, with claims that knew
// nothing of it.
func TestDelegateInOneBlock(t *testing.T) {
	w := newWorld(t)
	send := &tx.Transfer{To: other().id, Amount: 10_000}
	w.must(owner(), send)
	set := w.sign(owner(), 0, &tx.SetDelegate{Key: deputy().key.Public(), Bounds: bounds(100_000)})
	remove := w.sign(owner(), 1, &tx.RemoveDelegate{Number: 1})
	use := w.as(1, deputy(), send)
	x := w.begin(second)
	for i, one := range []*tx.Transaction{set, use, remove} {
		p, err := w.s.Prepare(one)
		if (err != nil) != (one == use) {
			t.Errorf("transaction %d: Prepare: %v", i, err)
		}
		if _, err := x.Apply(p); err != nil {
			t.Errorf("transaction %d: %v", i, err)
		}
	}
	p, _ := w.s.Prepare(w.as(1, deputy(), send))
	if _, err := x.Apply(p); !errors.Is(err, state.ErrSigner) {
		t.Errorf("after its removal: %v", err)
	}
	x.Finish()
	x.Commit()
	w.s.Recount()
	_, proof := w.s.ProveActors(owner().id)
	if leaf, err := tx.DecodeSigners(proof.State.GetValue()); err != nil || leaf.Last != 1 ||
		len(leaf.Delegates) != 0 {
		t.Errorf("the leaf is %+v, %v", leaf, err)
	}
}
