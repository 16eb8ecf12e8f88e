package state_test

import (
	"math/big"
	"slices"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// mSigners are an account's delegates and recovery. Lists are replaced, never written into.
type mSigners struct {
	last      uint32
	delegates []mDelegate
	recovery  struct {
		keys, pending sig.KeySet
		delay         tx.Millis
		counter       uint64
		due           *big.Int
	}
}

type mDelegate struct {
	number uint32
	key    sig.PublicKey
	tx.Bounds
	nonce         uint64
	window, spent *big.Int
}

// now lets whole periods pass.
func (d mDelegate) now(accrual *big.Int) mDelegate {
	periods := new(big.Int).Div(sub(accrual, d.window), num(d.Period))
	if periods.Sign() > 0 {
		d.window = add(d.window, new(big.Int).Mul(periods, num(d.Period)))
		d.spent = num(0)
	}
	return d
}

func (s mSigners) find(number uint32) (mDelegate, bool) {
	for _, d := range s.delegates {
		if d.number == number {
			return d, true
		}
	}
	return mDelegate{}, false
}

// with returns the signers with a delegate changed.
func (s mSigners) with(d mDelegate) mSigners {
	s.delegates = slices.Clone(s.delegates)
	for i := range s.delegates {
		if s.delegates[i].number == d.number {
			s.delegates[i] = d
		}
	}
	return s
}

// mayAct tells whether a delegate may say the transaction and pay its fee.
func (m *model) mayAct(t *tx.Transaction, ops []mOperation, fee *big.Int) bool {
	if t.Signer == 0 {
		return true
	}
	d, ok := m.accounts[t.Account].signers.find(t.Signer)
	if !ok || !less(m.time, num(d.Until)) {
		return false
	}
	for _, o := range ops {
		if d.Operations>>o.Kind()&1 == 0 {
			return false
		}
	}
	return !less(over(num(d.Limit), d.now(m.accrual).spent), fee)
}

// spendNonce counts a transaction, and its fee against a delegate's limit.
func (m *model) spendNonce(account sig.AccountID, signer uint32, fee *big.Int) {
	a := m.accounts[account]
	if signer == 0 {
		a.nonce++
		a.signed = true
	} else {
		d, _ := a.signers.find(signer)
		d = d.now(m.accrual)
		d.nonce++
		d.spent = add(d.spent, fee)
		a.signers = a.signers.with(d)
	}
	m.accounts[account] = a
}

// leave takes what leaves the sender's balance.
func (r *run) leave(amount *big.Int) chainv1.Reason {
	if less(r.accounts[r.sender].balance, amount) {
		return chainv1.Reason_REASON_BALANCE_TOO_LOW
	}
	if r.signer != 0 {
		a := r.accounts[r.sender]
		d, _ := a.signers.find(r.signer)
		if less(num(d.Limit), add(d.spent, amount)) {
			return chainv1.Reason_REASON_DELEGATE_LIMIT
		}
		d.spent = add(d.spent, amount)
		a.signers = a.signers.with(d)
		r.accounts[r.sender] = a
	}
	r.pay(r.sender, amount)
	return 0
}

func (r *run) setDelegate(o *tx.SetDelegate, out *tx.Outcome) chainv1.Reason {
	a := r.accounts[r.sender]
	if o.Limit == 0 || o.Operations == 0 || !less(r.time, num(o.Until)) || o.Period < minute {
		return chainv1.Reason_REASON_DELEGATE_INVALID
	}
	if o.Number == 0 {
		if len(a.signers.delegates) == 16 {
			return chainv1.Reason_REASON_TOO_MANY_DELEGATES
		}
		a.signers.last++
		a.signers.delegates = append(slices.Clone(a.signers.delegates), mDelegate{
			number: a.signers.last, key: o.Key, Bounds: o.Bounds, window: r.accrual, spent: num(0)})
		out.Delegate = a.signers.last
		r.accounts[r.sender] = a
		return 0
	}
	d, ok := a.signers.find(o.Number)
	if !ok {
		return chainv1.Reason_REASON_DELEGATE_UNKNOWN
	}
	if o.Period != d.Period {
		d = d.now(r.accrual)
		d.window, d.spent = r.accrual, least(d.spent, num(d.Limit))
	}
	d.Bounds = o.Bounds
	a.signers = a.signers.with(d)
	r.accounts[r.sender] = a
	out.Delegate = o.Number
	return 0
}

func (r *run) removeDelegate(o *tx.RemoveDelegate) chainv1.Reason {
	a := r.accounts[r.sender]
	if _, ok := a.signers.find(o.Number); !ok {
		return chainv1.Reason_REASON_DELEGATE_UNKNOWN
	}
	a.signers.delegates = slices.DeleteFunc(slices.Clone(a.signers.delegates),
		func(d mDelegate) bool { return d.number == o.Number })
	r.accounts[r.sender] = a
	return 0
}

func (r *run) setRecovery(o *tx.SetRecovery) chainv1.Reason {
	a := r.accounts[r.sender]
	v := &a.signers.recovery
	switch {
	case o.Keys.IsZero() && v.keys.IsZero():
		return chainv1.Reason_REASON_RECOVERY_NONE
	case !o.Keys.IsZero() && o.Delay < day:
		return chainv1.Reason_REASON_RECOVERY_INVALID
	}
	v.keys, v.delay, v.pending, v.due = o.Keys, o.Delay, sig.KeySet{}, nil
	v.counter++
	r.accounts[r.sender] = a
	return 0
}

func (r *run) recover(o *tx.Recover, signed bool) chainv1.Reason {
	a := r.accounts[o.Intent.Account]
	v := &a.signers.recovery
	switch {
	case v.keys.IsZero():
		return chainv1.Reason_REASON_RECOVERY_NONE
	case o.Intent.Counter != v.counter:
		return chainv1.Reason_REASON_RECOVERY_COUNTER
	case v.due != nil:
		return chainv1.Reason_REASON_RECOVERY_PENDING
	case !signed:
		return chainv1.Reason_REASON_RECOVERY_SIGNATURE
	}
	v.pending, v.due = o.Intent.Keys, add(r.accrual, num(v.delay))
	r.accounts[o.Intent.Account] = a
	return 0
}

// endRecovery ends what is pending; finished says that its delay must be over.
func (r *run) endRecovery(account sig.AccountID, finished bool) chainv1.Reason {
	a := r.accounts[account]
	v := &a.signers.recovery
	switch {
	case v.due == nil:
		return chainv1.Reason_REASON_RECOVERY_NONE
	case finished && less(r.accrual, v.due):
		return chainv1.Reason_REASON_RECOVERY_NOT_DUE
	case finished:
		a.signers.delegates = nil
	}
	v.pending, v.due = sig.KeySet{}, nil
	v.counter++
	r.accounts[account] = a
	return 0
}

// leaf is the state's form of the signers.
func (s mSigners) leaf() tx.AccountSigners {
	out := tx.AccountSigners{Last: s.last}
	for _, d := range s.delegates {
		out.Delegates = append(out.Delegates, tx.Delegate{
			Number: d.number, Key: d.key, Bounds: d.Bounds, Nonce: d.nonce,
			Window: tx.Millis(d.window.Uint64()), Spent: tx.Grains(d.spent.Uint64())})
	}
	v := &s.recovery
	out.Recovery = tx.Recovery{Keys: v.keys, Delay: v.delay, Counter: v.counter,
		Pending: v.pending}
	if v.due != nil {
		out.Recovery.Due = tx.Millis(v.due.Uint64())
	}
	return out
}
