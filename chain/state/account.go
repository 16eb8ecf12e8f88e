package state

import (
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func (x *Execution) transfer(o *tx.Transfer, out *tx.Outcome) chainv1.Reason {
	switch {
	case o.Amount == 0:
		return chainv1.Reason_REASON_AMOUNT_ZERO
	case o.To.IsZero():
		return chainv1.Reason_REASON_RECEIVER_INVALID
	}
	if reason := x.leave(o.Amount); reason != outcomeOK {
		return reason
	}
	if !x.credit(x.s.accounts.get(o.To), o.Amount) {
		return chainv1.Reason_REASON_BELOW_LOCK
	}
	out.Amount = o.Amount
	return outcomeOK
}

// credit gives an amount to an account. One that does not exist is created and pays its lock out
// of it; false and nothing done if it is not enough for that. Balances cannot overflow: all
// grains together fit 63 bits.
func (x *Execution) credit(to *cell[sig.AccountID, tx.Account], amount tx.Grains) bool {
	if to.live {
		x.s.accounts.edit(to).Balance += amount
		return true
	}
	lock := x.s.genesis.params.AccountLock
	if amount < lock || amount == 0 {
		return false
	}
	a := x.s.accounts.create(to)
	a.Lock, a.Balance = lock, amount-lock
	return true
}

func (x *Execution) setKeys(o *tx.SetKeys) chainv1.Reason {
	if o.Keys.Validate() != nil {
		return chainv1.Reason_REASON_KEY_SET_INVALID
	}
	x.s.accounts.edit(x.sender).Keys = o.Keys
	return outcomeOK
}
