package adversary

import (
	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// What the owner gives a service that pays for it.
const (
	delegateLimit  tx.Grains = 300_000
	delegatePeriod           = hour
	recoveryDelay            = 2 * day
)

// byThieves are those who hold a key that the owner gave away, and should be no more than it was.
var byThieves = []attack{
	{"thief with a delegate's key sends all away", "limit of the delegate",
		func(w *world) (tx.Grains, tx.Grains) {
			number := w.delegate(tx.OperationsOf(tx.KindTransfer))
			for amount := delegateLimit; amount > 0; amount /= 2 {
				w.steal(number, &tx.Transfer{To: w.friend.id, Amount: amount})
			}
			return w.holds(w.friend) - w.given, delegateLimit
		}},
	{"thief with a delegate's key drains an escrow through the account", "limit of the delegate",
		func(w *world) (tx.Grains, tx.Grains) {
			number := w.delegate(tx.OperationsOf(tx.KindTransfer, tx.KindWithdraw, tx.KindTopUp))
			for range 8 {
				w.steal(number, &tx.Withdraw{Escrow: w.escrow, Amount: delegateLimit / 2},
					&tx.Transfer{To: w.friend.id, Amount: delegateLimit / 2})
			}
			return w.holds(w.friend) - w.given, delegateLimit
		}},
	{"thief with a delegate's key keeps on for a day", "the delegate's limit each period, and one",
		func(w *world) (tx.Grains, tx.Grains) {
			number := w.delegate(tx.OperationsOf(tx.KindTransfer))
			for range 24 {
				w.steal(number, &tx.Transfer{To: w.friend.id, Amount: delegateLimit * 9 / 10})
				w.wait(delegatePeriod)
			}
			return w.holds(w.friend) - w.given, 25 * delegateLimit
		}},
	{"thief with a delegate's key makes it more than it was given", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			number := w.delegate(tx.OperationsOf(tx.KindOpenEscrow))
			own := newPerson(99)
			w.steal(number, &tx.SetKeys{Keys: sig.SingleKey(own.key.Public())})
			w.steal(number, &tx.SetDelegate{Number: number, Key: w.deputy().key.Public(),
				Bounds: w.bounds(tx.OperationsOf(tx.KindTransfer))})
			w.steal(number, &tx.SetRecovery{Keys: sig.SingleKey(own.key.Public()), Delay: day})
			w.steal(number, &tx.Transfer{To: w.friend.id, Amount: 1000})
			w.try(person{own.key, w.owner.id}, &tx.Transfer{To: w.friend.id, Amount: 1000})
			return w.holds(w.friend) - w.given, 0
		}},
	{"thief with the key of a delegate that was removed", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			number := w.delegate(tx.OperationsOf(tx.KindTransfer))
			signed := w.asDelegate(number, &tx.Transfer{To: w.friend.id, Amount: 1000})
			w.must(w.owner, &tx.RemoveDelegate{Number: number})
			w.delegate(tx.OperationsOf(tx.KindTransfer)) // another one, with the same key
			_, _ = w.include(signed)                     // signed when it was a delegate
			w.steal(number, &tx.Transfer{To: w.friend.id, Amount: 1000})
			return w.holds(w.friend) - w.given, 0
		}},
	{"thief with recovery keys while the owner looks", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			own := w.begunRecovery()
			w.wait(recoveryDelay / 2)
			w.must(w.owner, &tx.CancelRecovery{})
			w.wait(recoveryDelay)
			return w.robbed(own), 0
		}},
	{"thief with recovery keys is too early", nothing,
		func(w *world) (tx.Grains, tx.Grains) {
			own := w.begunRecovery()
			w.wait(recoveryDelay / 2)
			return w.robbed(own), 0
		}},
	{"thief with recovery keys, and nobody looks for the whole delay", "the account",
		func(w *world) (tx.Grains, tx.Grains) {
			own := w.begunRecovery()
			w.wait(recoveryDelay + hour)
			gained := w.robbed(own)
			if gained == 0 {
				w.t.Error("the recovery does nothing, so the attacks above show nothing")
			}
			return gained, wealth
		}},
}

// deputy holds the delegate's key.
func (w *world) deputy() person { return newPerson(80) }

func (w *world) bounds(may tx.Operations) tx.Bounds {
	return tx.Bounds{
		Operations: may, Limit: delegateLimit, Period: delegatePeriod, Until: genesisTime + 60*day,
	}
}

// delegate makes the deputy a delegate of the owner and returns its number.
func (w *world) delegate(may tx.Operations) uint32 {
	w.t.Helper()
	r := w.must(w.owner, &tx.SetDelegate{Key: w.deputy().key.Public(), Bounds: w.bounds(may)})
	return r.Outcomes[0].Delegate
}

func (w *world) asDelegate(number uint32, ops ...tx.Operation) *tx.Transaction {
	w.t.Helper()
	signed, err := tx.Sign(tx.Body{
		Chain: block.Main, Account: w.owner.id, Signer: number,
		Nonce: w.s.Nonce(w.owner.id, number), Fee: maxFee, ValidUntil: w.now() + 2*hour,
		Operations: ops,
	}, w.anchor, sig.SingleKey(w.deputy().key.Public()), false, w.deputy().key)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// steal tries operations as the owner's delegate.
func (w *world) steal(number uint32, ops ...tx.Operation) {
	w.t.Helper()
	_, _ = w.include(w.asDelegate(number, ops...)) // what counts is what arrived
}

// begunRecovery gives the owner a recovery set whose keys a thief has, who begins to recover.
func (w *world) begunRecovery() (own person) {
	w.t.Helper()
	friends, own := newPerson(90), newPerson(99)
	w.must(w.owner, &tx.SetRecovery{
		Keys: sig.SingleKey(friends.key.Public()), Delay: recoveryDelay,
	})
	signers, _ := w.s.Signers(w.owner.id)
	intent := tx.RecoveryIntent{
		Account: w.owner.id, Keys: sig.SingleKey(own.key.Public()), Counter: signers.Recovery.Counter,
	}
	w.must(w.friend, &tx.Recover{Intent: intent, Signatures: []sig.IndexedSignature{{
		Signature: friends.key.Sign(intent.Preimage(w.anchor)),
	}}})
	return own
}

// robbed is what an owner loses to a thief who takes all that a recovery gives him, but for what
// the fee may cost.
func (w *world) robbed(own person) tx.Grains {
	w.t.Helper()
	before := w.holds(w.owner)
	w.try(w.friend, &tx.FinishRecovery{Account: w.owner.id})
	all := &tx.Transfer{To: w.scheduler.id, Amount: before - maxFee}
	r, err := w.attempt(person{own.key, w.owner.id}, all)
	if err == nil && r.Status == chainv1.Status_STATUS_OK {
		return before - w.holds(w.owner)
	}
	return 0
}
