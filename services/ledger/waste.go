package ledger

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
)

// Waste is work that comes to nothing and that no fee stands for: signatures that must be verified
// one by one because they are bad or could not be verified beforehand, and charges that were taken
// in on trust and could not pay their fee. Its unit is the verification of one signature, about
// 50 us. Who causes it runs into debt, which passes with time; who has too much of it is refused
// what would, or might, be wasted too, and nothing else.
const (
	// wasteRoom is from how much debt on an account or peer is refused: 0.1 s of one core.
	wasteRoom = 2048
	// wastePause is how long a unit of an account's or peer's debt takes to pass: half a percent
	// of one core.
	wastePause = 10 * time.Millisecond
	// All accounts' wasted signatures together: 0.4 s of one core at once, then 5 % of it.
	wasteAllRoom  = 8192
	wasteAllPause = time.Millisecond
	// maxDebtors is how many debts are remembered. Beyond it, one of the others is forgotten.
	maxDebtors = 1 << 16
)

// debtor is an account that signs transactions, or a peer that submits them.
type debtor struct {
	id   Hash
	peer bool
}

// everyone is whose debt all signatures' are.
var everyone = debtor{}

// debts are who has wasted how much. Those who waste nothing are not in it.
type debts struct {
	mu    sync.Mutex
	until map[debtor]time.Time // when all of the debt will have passed
}

func newDebts() *debts { return &debts{until: map[debtor]time.Time{}} }

func pause(d debtor) (each, room time.Duration) {
	if d == everyone {
		return wasteAllPause, wasteAllRoom * wasteAllPause
	}
	return wastePause, wasteRoom * wastePause
}

// add runs a debtor into so many units of debt more.
func (d *debts) add(who debtor, units int, now time.Time) {
	if units == 0 {
		return
	}
	each, _ := pause(who)
	d.mu.Lock()
	defer d.mu.Unlock()
	until, known := d.until[who]
	if !known && len(d.until) >= maxDebtors {
		d.forget(now)
	}
	if until.Before(now) {
		until = now
	}
	d.until[who] = until.Add(time.Duration(units) * each)
}

// forget makes room for one more: those whose debt has passed, else any. mu is held.
func (d *debts) forget(now time.Time) {
	for who, until := range d.until {
		if !until.After(now) {
			delete(d.until, who)
		}
	}
	for who := range d.until {
		if len(d.until) < maxDebtors {
			return
		}
		if who != everyone {
			delete(d.until, who)
		}
	}
}

// owes tells whether a debtor has any debt, and how long until it is let in again, 0 for at once.
func (d *debts) owes(who debtor, now time.Time) (any bool, wait time.Duration) {
	_, room := pause(who)
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.until[who].Sub(now)
	if left <= 0 {
		delete(d.until, who)
		return false, 0
	}
	return true, max(0, left-room)
}

func wasteful(whose string, wait time.Duration) *fault.Error {
	return fault.New(fault.ResourceExhausted, ReasonWaste,
		"%s wasted too much of this ledger's time by bad signatures or by charges that pay "+
			"nothing; try again in %s", whose, wait.Round(time.Millisecond)).WithRetry(wait)
}

type peerKey struct{}

// WithPeer returns ctx for submissions by an account, as proven by its token: what they waste is
// put down to it. Without a peer, only the transactions' accounts answer for it.
func WithPeer(ctx context.Context, account Hash) context.Context {
	return context.WithValue(ctx, peerKey{}, account)
}

// peer returns whose debt a submission's waste is; false when it came from this process. Accounts
// that are not on the chain cost nothing, so all of them are one.
func (c *Chain) peer(ctx context.Context) (debtor, bool) {
	id, ok := ctx.Value(peerKey{}).(Hash)
	if !ok {
		return debtor{}, false
	}
	if _, exists := c.state.Account(sig.AccountID(id)); !exists {
		id = Hash{}
	}
	return debtor{id, true}, true
}

// blame puts waste down to an account, and to the peer that submitted it, if any.
func (c *Chain) blame(account Hash, by *debtor, units int) {
	now := c.clock()
	c.waste.add(debtor{id: account}, units, now)
	if by != nil {
		c.waste.add(*by, units, now)
	}
}

// onTrust refuses a transaction that could pay its fee from its proceeds alone, when too many of
// its account came to nothing.
func (c *Chain) onTrust(t *tx.Transaction, now time.Time) *fault.Error {
	_, wait := c.waste.owes(debtor{id: Hash(t.Account)}, now)
	if wait == 0 {
		return nil
	}
	account, _ := c.state.Account(t.Account)
	if account.Balance >= c.state.Prices().Fee(len(t.Operations), len(t.BodyBytes())) {
		return nil
	}
	return wasteful("the account", wait)
}

// unpaid puts down what a transaction cost that was executed and could not pay its fee.
func (c *Chain) unpaid(p *candidate, err error) {
	if errors.Is(err, state.ErrCannotPay) {
		c.blame(Hash(p.prepared.Tx.Account), p.peer, len(p.prepared.Tx.Operations))
	}
}

// limit refuses transactions that would cost the execution signatures, when their account's
// limit, or everyone's, has come, and puts down what the others do cost.
func (p *preparation) limit() {
	now := p.chain.clock()
	for _, o := range p.offers {
		if o.refusal != nil || o.repeated {
			continue
		}
		lone := o.entry.payload.lone()
		if lone == 0 {
			continue
		}
		account := debtor{id: o.entry.from.account}
		_, wait := p.chain.waste.owes(account, now)
		_, all := p.chain.waste.owes(everyone, now)
		switch {
		case wait > 0:
			o.refusal = wasteful("the account", wait)
		case all > 0:
			o.refusal = wasteful("many accounts together", all)
		default:
			p.chain.waste.add(account, lone, now)
			p.chain.waste.add(everyone, lone, now)
		}
	}
}
