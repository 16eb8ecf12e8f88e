package state

import (
	"slices"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const (
	// minPeriod and maxPeriod bound the period of a delegate's limit.
	minPeriod tx.Millis = 60_000
	maxPeriod           = 366 * day
)

// delegable are the operations that delegates may be allowed: none about who may sign, so that a
// delegate's key can never become more than it was given.
const delegable = 1<<tx.KindTransfer | 1<<tx.KindOpenEscrow | 1<<tx.KindTopUp |
	1<<tx.KindWithdraw | 1<<tx.KindSetTerms | 1<<tx.KindCloseEscrow | 1<<tx.KindPlaceLease |
	1<<tx.KindExtend | 1<<tx.KindCharge | 1<<tx.KindEnd | 1<<tx.KindSettle | 1<<tx.KindAccept |
	1<<tx.KindReject | 1<<tx.KindNotice | 1<<tx.KindSpend

type signersCell = cell[sig.AccountID, tx.AccountSigners]

// signing is who signs the transaction in hand. The zero value is the account's key set.
type signing struct {
	// Of a delegate: its account's leaf, its place in it, and what is left of its limit.
	signers  *signersCell
	delegate int
	left     tx.Grains
}

// judgeDelegate finds the delegate that a transaction names and checks what needs neither nonce nor
// signature: that it may say such things at that time, and that its limit covers the fee.
func judgeDelegate(signers *tx.AccountSigners, t *tx.Transaction, fee tx.Grains, at Head) (
	place int, left tx.Grains, err error,
) {
	place, found := signers.Find(t.Signer)
	if !found {
		return 0, 0, ErrSigner
	}
	d := &signers.Delegates[place]
	if d.Until <= at.Time {
		return 0, 0, ErrSignerEnded
	}
	for _, o := range t.Operations {
		if !d.Operations.Has(o.Kind()) {
			return 0, 0, ErrNotAllowed
		}
	}
	left, _ = d.Remaining(at.Accrual)
	if left < fee {
		return 0, 0, ErrLimit
	}
	return place, left, nil
}

// fee is what the transaction costs at these prices.
func (p Prices) of(t *tx.Transaction) tx.Grains {
	return p.Fee(len(t.Operations), len(t.BodyBytes()))
}

// findSigner says who signs the transaction in hand, and returns its nonce and its keys.
func (x *Execution) findSigner(t *tx.Transaction) (nonce uint64, keys sig.KeySet, err error) {
	if t.Signer == 0 {
		return x.sender.val.Nonce, x.sender.val.Keys, nil
	}
	c := x.s.signers.get(t.Account)
	place, left, err := judgeDelegate(&c.val, t, x.s.chain.prices.of(t), x.ctx.Head)
	if err != nil {
		return 0, sig.KeySet{}, err
	}
	x.signing = signing{signers: c, delegate: place, left: left}
	d := &c.val.Delegates[place]
	return d.Nonce, sig.SingleKey(d.Key), nil
}

// payAsDelegate takes the nonce and counts the fee. The list is copied: the committed record shares
// it, and what else leaves is counted in the copy.
func (x *Execution) payAsDelegate(fee tx.Grains) {
	a := x.s.signers.edit(x.signers)
	a.Delegates = slices.Clone(a.Delegates)
	d := &a.Delegates[x.delegate]
	left, window := d.Remaining(x.ctx.Accrual)
	if window != d.Window {
		d.Window, d.Spent = window, 0
	}
	d.Nonce++
	d.Spent += fee
	x.left = left - fee
}

// leave takes an amount that leaves the sender's balance, within a delegate's limit.
func (x *Execution) leave(amount tx.Grains) chainv1.Reason {
	if x.sender.val.Balance < amount {
		return chainv1.Reason_REASON_BALANCE_TOO_LOW
	}
	if x.signers != nil {
		if x.left < amount {
			return chainv1.Reason_REASON_DELEGATE_LIMIT
		}
		x.left -= amount
		x.signers.val.Delegates[x.delegate].Spent += amount
	}
	x.s.accounts.edit(x.sender).Balance -= amount
	return outcomeOK
}

func (x *Execution) setDelegate(o *tx.SetDelegate, out *tx.Outcome) chainv1.Reason {
	if !x.delegateValid(o) {
		return chainv1.Reason_REASON_DELEGATE_INVALID
	}
	c := x.s.signers.get(x.sender.id)
	place, found := c.val.Find(o.Number)
	switch {
	case o.Number == 0:
		return x.addDelegate(c, o, out)
	case !found:
		return chainv1.Reason_REASON_DELEGATE_UNKNOWN
	case c.val.Delegates[place].Key != o.Key:
		return chainv1.Reason_REASON_DELEGATE_INVALID
	}
	a := x.s.signers.edit(c)
	a.Delegates = slices.Clone(a.Delegates)
	d := &a.Delegates[place]
	if o.Period != d.Period {
		// What was spent counts against the new limit until a whole new period has passed.
		left, _ := d.Remaining(x.ctx.Accrual)
		d.Window, d.Spent = x.ctx.Accrual, d.Limit-left
	}
	d.Bounds = o.Bounds
	out.Delegate = o.Number
	return outcomeOK
}

func (x *Execution) addDelegate(c *signersCell, o *tx.SetDelegate, out *tx.Outcome) chainv1.Reason {
	if len(c.val.Delegates) >= tx.MaxDelegates || c.val.Last == 1<<32-1 {
		return chainv1.Reason_REASON_TOO_MANY_DELEGATES
	}
	a := x.editSigners(c)
	a.Last++
	a.Delegates = append(slices.Clone(a.Delegates), tx.Delegate{
		Number: a.Last, Key: o.Key, Bounds: o.Bounds, Window: x.ctx.Accrual,
	})
	out.Delegate = a.Last
	return outcomeOK
}

// editSigners makes an account's signers writable, creating the leaf if there is none.
func (x *Execution) editSigners(c *signersCell) *tx.AccountSigners {
	if c.live {
		return x.s.signers.edit(c)
	}
	return x.s.signers.create(c)
}

func (x *Execution) delegateValid(o *tx.SetDelegate) bool {
	return o.Operations != 0 && o.Operations&^delegable == 0 && o.Limit > 0 &&
		o.Period >= minPeriod && o.Period <= maxPeriod && o.Until > x.ctx.Time &&
		o.Key.Validate() == nil
}

func (x *Execution) removeDelegate(o *tx.RemoveDelegate) chainv1.Reason {
	c := x.s.signers.get(x.sender.id)
	place, found := c.val.Find(o.Number)
	if !found {
		return chainv1.Reason_REASON_DELEGATE_UNKNOWN
	}
	a := x.s.signers.edit(c)
	a.Delegates = slices.Delete(slices.Clone(a.Delegates), place, place+1)
	return outcomeOK
}
