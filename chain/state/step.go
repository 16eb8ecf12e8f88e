package state

import (
	"slices"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// maxAhead is how far valid_until may be ahead of the block's time.
const maxAhead tx.Millis = 24 * hour

// step is the transaction in hand.
type step struct {
	prepared Prepared
	sender   *cell[sig.AccountID, tx.Account]
	// index of the operation in hand; claims is the first claim that may be about it.
	index, claims int
	// burned is the chain's counter before the transaction.
	burned block.Counter
	signing
}

// proceed is what the transaction in hand paid to a payee for whom the sender may act.
type proceed struct {
	payee  *cell[sig.AccountID, tx.Account]
	amount tx.Grains
}

// Check tells cheaply whether a transaction could stand in a block of that time on top of the
// committed state. It verifies no signature, and admits a transaction that would pay its fee
// from its proceeds on trust if it is about a lease that pays its sender. Errors: those of
// exclusion.go but ErrFull.
func (s *State) Check(t *tx.Transaction, time tx.Millis) error {
	if err := s.genesis.admit(t, time); err != nil {
		return err
	}
	account, exists := s.Account(t.Account)
	nonce := account.Nonce
	if t.Signer != 0 {
		signers, _ := s.Signers(t.Account)
		place, _, err := judgeDelegate(&signers, t, s.Prices().of(t), s.Next(time))
		if err != nil {
			return err
		}
		nonce = signers.Delegates[place].Nonce
	}
	fee, err := affordable(t, nonce, s.Prices())
	if err != nil {
		return err
	}
	if (!exists || account.Balance < fee) && !(paysFromProceeds(t) && s.mayEarn(t)) {
		return ErrCannotPay
	}
	return nil
}

// mayEarn tells whether an operation names a committed lease whose payee or agent the sender is.
// Without one nothing comes in: a stranger without money must not keep blocks busy for nothing.
func (s *State) mayEarn(t *tx.Transaction) bool {
	party := func(id tx.LeaseID) bool {
		l, ok := s.Lease(id)
		return ok && (l.Lease.Payee == t.Account || sig.AccountOfKey(l.Lease.AgentKey) == t.Account)
	}
	for _, operation := range t.Operations {
		switch o := operation.(type) {
		case *tx.Charge:
			if party(o.Note.Lease) {
				return true
			}
		case *tx.Settle:
			if slices.ContainsFunc(o.Leases, party) {
				return true
			}
		}
	}
	return false
}

// admit checks what needs no state.
func (r *rules) admit(t *tx.Transaction, time tx.Millis) error {
	switch {
	case t.Chain != r.chain:
		return ErrChain
	case t.ValidUntil < time:
		return ErrExpired
	case t.ValidUntil-time > maxAhead:
		return ErrTooEarly
	}
	return nil
}

// affordable checks nonce and fee cap and returns the fee.
func affordable(t *tx.Transaction, nonce uint64, prices Prices) (tx.Grains, error) {
	fee := prices.of(t)
	switch {
	case t.Nonce < nonce:
		return 0, ErrNonceOld
	case t.Nonce > nonce:
		return 0, ErrNonceFuture
	case fee > t.Fee:
		return 0, ErrFeeCap
	}
	return fee, nil
}

// paysFromProceeds tells whether the fee may come from what the transaction itself earns: it
// holds only charges and settlements, which never fail.
func paysFromProceeds(t *tx.Transaction) bool {
	for _, o := range t.Operations {
		if k := o.Kind(); k != tx.KindCharge && k != tx.KindSettle {
			return false
		}
	}
	return true
}

// applyStep runs the transaction; after an error the caller rolls back.
func (x *Execution) applyStep(p Prepared) (tx.Receipt, error) {
	t := p.Tx
	x.step = step{prepared: p, sender: x.s.accounts.get(t.Account), burned: x.chain.burned}
	x.proceeds = x.proceeds[:0]
	nonce, held, err := x.findSigner(t)
	if err != nil {
		return tx.Receipt{}, err
	}
	fee, err := affordable(t, nonce, x.s.chain.prices)
	if err != nil {
		return tx.Receipt{}, err
	}
	rich := x.sender.live && x.sender.val.Balance >= fee
	if !rich && !paysFromProceeds(t) {
		return tx.Receipt{}, ErrCannotPay
	}
	set, err := x.authorize(held)
	if err != nil {
		return tx.Receipt{}, err
	}
	receipt := tx.Receipt{Transaction: p.ID, Status: chainv1.Status_STATUS_OK, Fee: fee}
	if !rich {
		receipt.Outcomes, _ = x.run()
		return receipt, x.payFromProceeds(fee, set)
	}
	x.pay(fee, set)
	outcomes, reason := x.run()
	if reason == outcomeOK {
		receipt.Outcomes = outcomes
		return receipt, nil
	}
	x.rollback()
	x.pay(fee, set)
	receipt.Status, receipt.Reason = chainv1.Status_STATUS_FAILED, reason
	receipt.FailedOperation = uint32(x.index)
	return receipt, nil
}

// pay takes fee and nonce from the sender and installs its first key set.
func (x *Execution) pay(fee tx.Grains, set sig.KeySet) {
	a := x.s.accounts.edit(x.sender)
	a.Balance -= fee
	if x.signers != nil {
		x.payAsDelegate(fee)
		return
	}
	a.Nonce++
	a.Keys = set
}

// payFromProceeds takes the fee from the sender, and what it lacks from what the transaction
// paid to the payees it acts for, first paid first. The sender's account must exist by now,
// because it holds the nonce that keeps the transaction from being repeated.
func (x *Execution) payFromProceeds(fee tx.Grains, set sig.KeySet) error {
	if !x.sender.live {
		return ErrCannotPay
	}
	own := min(fee, x.sender.val.Balance)
	x.pay(own, set)
	if x.signers != nil { // the limit counts all of the fee, whoever bears it
		x.signers.val.Delegates[x.delegate].Spent += fee - own
	}
	lacking := fee - own
	for _, p := range x.proceeds {
		if p.payee == x.sender || lacking == 0 {
			continue
		}
		take := min(lacking, p.amount, p.payee.val.Balance)
		x.s.accounts.edit(p.payee).Balance -= take
		lacking -= take
	}
	if lacking > 0 {
		return ErrCannotPay
	}
	return nil
}

// run executes the operations until one fails; x.index names it then.
func (x *Execution) run() ([]tx.Outcome, chainv1.Reason) {
	t := x.prepared.Tx
	outcomes := x.takeOutcomes(len(t.Operations))
	for i, o := range t.Operations {
		x.index = i
		if reason := x.operate(o, &outcomes[i]); reason != outcomeOK {
			return nil, reason
		}
	}
	return outcomes, outcomeOK
}

func (x *Execution) operate(operation tx.Operation, out *tx.Outcome) chainv1.Reason {
	switch o := operation.(type) {
	case *tx.Transfer:
		return x.transfer(o, out)
	case *tx.SetKeys:
		return x.setKeys(o)
	case *tx.SetDelegate:
		return x.setDelegate(o, out)
	case *tx.RemoveDelegate:
		return x.removeDelegate(o)
	case *tx.SetRecovery:
		return x.setRecovery(o)
	case *tx.Recover:
		return x.recover(o)
	case *tx.FinishRecovery:
		return x.finishRecovery(o)
	case *tx.CancelRecovery:
		return x.cancelRecovery()
	case *tx.Spend:
		return x.spend(o, out)
	case *tx.OpenEscrow:
		return x.openEscrow(o, out)
	case *tx.TopUp:
		return x.topUp(o, out)
	case *tx.Withdraw:
		return x.withdraw(o, out)
	case *tx.Notice:
		return x.notice(o)
	case *tx.SetTerms:
		return x.setTerms(o)
	case *tx.CloseEscrow:
		return x.closeEscrow(o, out)
	case *tx.PlaceLease:
		return x.placeLease(o, out)
	case *tx.Extend:
		return x.extend(o)
	case *tx.Charge:
		x.charge(o, out)
		return outcomeOK
	case *tx.End:
		return x.end(o)
	case *tx.Settle:
		x.settle(o, out)
		return outcomeOK
	case *tx.Accept:
		return x.accept(o, out)
	case *tx.Reject:
		return x.reject(o)
	}
	panic("state: package tx decoded an operation that these rules do not know")
}

// outcomeSlab is the number of outcomes allocated at a time.
const outcomeSlab = 1024

func (x *Execution) takeOutcomes(n int) []tx.Outcome {
	if n > len(x.outcomes) {
		x.outcomes = make([]tx.Outcome, max(n, outcomeSlab))
	}
	taken := x.outcomes[:n:n]
	x.outcomes = x.outcomes[n:]
	return taken
}
