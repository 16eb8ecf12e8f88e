package state

import (
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const (
	// minRecovery and maxRecovery bound the delay of a recovery: time for who has the keys to
	// see an intent and cancel it.
	minRecovery = day
	maxRecovery = 366 * day
)

// setRecovery names, replaces or ends the recovery set. The counter rises, so that nothing that the
// old set signed is good any more.
func (x *Execution) setRecovery(o *tx.SetRecovery) chainv1.Reason {
	c := x.s.signers.get(x.sender.id)
	none := o.Keys.IsZero()
	switch {
	case !none && o.Keys.Validate() != nil || none && o.Keys.Threshold != 0:
		return chainv1.Reason_REASON_KEY_SET_INVALID
	case none && o.Delay != 0, !none && (o.Delay < minRecovery || o.Delay > maxRecovery):
		return chainv1.Reason_REASON_RECOVERY_INVALID
	case none && c.val.Recovery.Keys.IsZero():
		return chainv1.Reason_REASON_RECOVERY_NONE
	}
	a := x.editSigners(c)
	a.Recovery = tx.Recovery{Keys: o.Keys, Delay: o.Delay, Counter: a.Recovery.Counter + 1}
	return outcomeOK
}

func (x *Execution) recover(o *tx.Recover) chainv1.Reason {
	c := x.s.signers.get(o.Intent.Account)
	r := &c.val.Recovery
	switch {
	case r.Keys.IsZero():
		return chainv1.Reason_REASON_RECOVERY_NONE
	case o.Intent.Counter != r.Counter:
		return chainv1.Reason_REASON_RECOVERY_COUNTER
	case !r.Pending.IsZero():
		return chainv1.Reason_REASON_RECOVERY_PENDING
	case o.Intent.Keys.Validate() != nil:
		return chainv1.Reason_REASON_KEY_SET_INVALID
	case !x.intended(o, r.Keys):
		return chainv1.Reason_REASON_RECOVERY_SIGNATURE
	}
	a := x.s.signers.edit(c)
	a.Recovery.Pending = o.Intent.Keys
	a.Recovery.Due = satAdd(x.ctx.Accrual, a.Recovery.Delay)
	return outcomeOK
}

// intended verifies an intent's signatures by the recovery set.
func (x *Execution) intended(o *tx.Recover, by sig.KeySet) bool {
	s := sig.AccountSignature{Signatures: o.Signatures}
	if _, err := s.Check(o.Intent.Account, by); err != nil {
		return false
	}
	preimage := func() []byte { return o.Intent.Preimage(x.s.genesis.anchor) }
	for _, one := range o.Signatures {
		if !x.verify(roleRecovery, by.Keys[one.Index], one.Signature, preimage) {
			return false
		}
	}
	return true
}

// finishRecovery puts the pending set in force. Delegates end: who had the old keys may have named
// them.
func (x *Execution) finishRecovery(o *tx.FinishRecovery) chainv1.Reason {
	c := x.s.signers.get(o.Account)
	r := &c.val.Recovery
	switch {
	case r.Pending.IsZero():
		return chainv1.Reason_REASON_RECOVERY_NONE
	case x.ctx.Accrual < r.Due:
		return chainv1.Reason_REASON_RECOVERY_NOT_DUE
	}
	x.s.accounts.edit(x.s.accounts.get(o.Account)).Keys = r.Pending
	a := x.s.signers.edit(c)
	a.Delegates = nil
	a.Recovery.Pending, a.Recovery.Due = sig.KeySet{}, 0
	a.Recovery.Counter++
	return outcomeOK
}

func (x *Execution) cancelRecovery() chainv1.Reason {
	c := x.s.signers.get(x.sender.id)
	if c.val.Recovery.Pending.IsZero() {
		return chainv1.Reason_REASON_RECOVERY_NONE
	}
	a := x.s.signers.edit(c)
	a.Recovery.Pending, a.Recovery.Due = sig.KeySet{}, 0
	a.Recovery.Counter++
	return outcomeOK
}
