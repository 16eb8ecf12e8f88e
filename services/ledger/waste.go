package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
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
	// wasteRoom is from how much debt on an account, peer or address is refused: 0.1 s of one core.
	wasteRoom = 2048
	// wastePause is how long a unit of such a debt takes to pass: half a percent of one core.
	wastePause = 10 * time.Millisecond
	// All accounts' wasted signatures together, and those of all strangers: 0.4 s of one core at
	// once, then 5 % of it.
	wasteAllRoom  = 8192
	wasteAllPause = time.Millisecond
	// suspectFor is how long the signatures of who had a bad one are verified apart from others'.
	suspectFor = time.Minute
	// maxDebtors is how many debts are remembered. Beyond it, one of the others is forgotten.
	maxDebtors = 1 << 16
)

// debtor is who runs into debt: an account that signs transactions, a peer that submits them, an
// address that strangers submit from, or many together.
type debtor struct {
	id   Hash
	kind debtorKind
}

type debtorKind uint8

const (
	byAccount debtorKind = iota
	byPeer
	byAddress // of peers that no account stands for
	byMany
)

// The debtors that are many together.
var (
	// everyone is whose debt all signatures' are.
	everyone = debtor{kind: byMany}
	// strangers are all peers that no account stands for, from wherever they come.
	strangers = debtor{kind: byMany, id: Hash{1}}
)

// debt is what somebody wasted.
type debt struct {
	until   time.Time // when all of it will have passed
	suspect time.Time // until when signatures of theirs are verified apart from others'
}

func (d debt) over(now time.Time) bool { return !d.until.After(now) && !d.suspect.After(now) }

// debts are who has wasted how much. Those who waste nothing are not in it.
type debts struct {
	mu sync.Mutex
	of map[debtor]debt
}

func newDebts() *debts { return &debts{of: map[debtor]debt{}} }

func pause(d debtor) (each, room time.Duration) {
	if d.kind == byMany {
		return wasteAllPause, wasteAllRoom * wasteAllPause
	}
	return wastePause, wasteRoom * wastePause
}

// add runs a debtor into so many units of debt more, and with a stranger all of them.
func (d *debts) add(who debtor, units int, now time.Time) {
	if units > 0 {
		d.put(who, units, time.Time{}, now)
	}
}

// spoil is add for who made so many signatures be verified one by one, and makes it a suspect.
func (d *debts) spoil(who debtor, units int, now time.Time) {
	d.put(who, units, now.Add(suspectFor), now)
}

func (d *debts) put(who debtor, units int, suspect, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.putHeld(who, units, suspect, now)
	if who.kind == byAddress {
		d.putHeld(strangers, units, suspect, now)
	}
}

// putHeld is put for one debtor; mu is held.
func (d *debts) putHeld(who debtor, units int, suspect, now time.Time) {
	each, _ := pause(who)
	owed, known := d.of[who]
	if !known && len(d.of) >= maxDebtors {
		d.forget(now)
	}
	if owed.until.Before(now) {
		owed.until = now
	}
	owed.until = owed.until.Add(time.Duration(units) * each)
	if suspect.After(owed.suspect) {
		owed.suspect = suspect
	}
	d.of[who] = owed
}

// waive takes back what add put down.
func (d *debts) waive(who debtor, units int) {
	each, _ := pause(who)
	d.mu.Lock()
	defer d.mu.Unlock()
	if owed, known := d.of[who]; known {
		owed.until = owed.until.Add(-time.Duration(units) * each)
		d.of[who] = owed
	}
}

// forget makes room for one more: those whose debt has passed, else any. mu is held.
func (d *debts) forget(now time.Time) {
	for who, owed := range d.of {
		if owed.over(now) {
			delete(d.of, who)
		}
	}
	for who := range d.of {
		if len(d.of) < maxDebtors {
			return
		}
		if who.kind != byMany {
			delete(d.of, who)
		}
	}
}

// owes tells whether a debtor has any debt or is a suspect, and how long until it is let in again,
// 0 for at once.
func (d *debts) owes(who debtor, now time.Time) (any bool, wait time.Duration) {
	_, room := pause(who)
	d.mu.Lock()
	defer d.mu.Unlock()
	owed, known := d.of[who]
	if !known {
		return false, 0
	}
	if owed.over(now) {
		delete(d.of, who)
		return false, 0
	}
	return true, max(0, owed.until.Sub(now)-room)
}

func wasteful(whose string, wait time.Duration) *fault.Error {
	return fault.New(fault.ResourceExhausted, ReasonWaste,
		"%s wasted too much of this ledger's time by bad signatures or by charges that pay "+
			"nothing; try again in %s", whose, wait.Round(time.Millisecond)).WithRetry(wait)
}

// Peer is who submits transactions.
type Peer struct {
	// Account is whose token it is.
	Account Hash
	// Origin is where the call comes from: an address or network that somebody has as a whole.
	Origin string
}

type peerKey struct{}

// WithPeer returns ctx for submissions by a peer, as proven by its token: what they waste is put
// down to it. Without a peer, only the transactions' accounts answer for it.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// peer returns whose debt a submission's waste is; false when it came from this process. A peer
// that no account stands for cost nothing to make, so those of one address are one.
func (c *Chain) peer(ctx context.Context, raw [][]byte) (debtor, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	if !ok {
		return debtor{}, false
	}
	if _, exists := c.state.Account(sig.AccountID(p.Account)); exists ||
		c.vouched(sig.AccountID(p.Account), raw[0]) {
		return debtor{p.Account, byPeer}, true
	}
	return debtor{sha256.Sum256([]byte(p.Origin)), byAddress}, true
}

// vouched tells whether the first transaction of a submission names an account on the chain that
// stands for the peer, which has none: as its delegate, with a key of its set in force, or with a
// lease that will pay it. To be named so costs a fee, like an account.
func (c *Chain) vouched(peer sig.AccountID, raw []byte) bool {
	t, err := tx.Decode(raw)
	if err != nil {
		return false
	}
	keys, err := c.state.KeysOf(t.Account, t.Signer)
	if err == nil && !keys.IsZero() && isOf(peer, keys) {
		return true
	}
	charge, ok := t.Operations[0].(*tx.Charge)
	if !ok {
		return false
	}
	held, live := c.state.Lease(charge.Note.Lease)
	return live && (held.Lease.Payee == peer || sig.AccountOfKey(held.Lease.AgentKey) == peer)
}

// isOf tells whether an account is that of a key set, or of one of its keys alone.
func isOf(account sig.AccountID, keys sig.KeySet) bool {
	return sig.AccountOf(keys) == account ||
		slices.ContainsFunc(keys.Keys, func(key sig.PublicKey) bool {
			return sig.AccountOfKey(key) == account
		})
}

// suspect tells whether a peer's signatures are verified apart: it has debt or spoiled a batch of
// late, or another stranger did, if it is one.
func (d *debts) suspect(peer debtor, now time.Time) bool {
	owes, _ := d.owes(peer, now)
	if !owes && peer.kind == byAddress {
		owes, _ = d.owes(strangers, now)
	}
	return owes
}

// tooMuch refuses a peer whose debt, or all strangers' if it is one, has come to its limit.
func (d *debts) tooMuch(peer debtor, now time.Time) *fault.Error {
	_, wait := d.owes(peer, now)
	switch {
	case wait > 0 && peer.kind == byAddress:
		return wasteful("callers without an account at this address", wait)
	case wait > 0:
		return wasteful("this caller", wait)
	case peer.kind != byAddress:
		return nil
	}
	if _, wait = d.owes(strangers, now); wait > 0 {
		return wasteful("callers without an account", wait)
	}
	return nil
}

// blame puts waste down to an account, and to the peer that submitted it, if any.
func (c *Chain) blame(account Hash, by *debtor, units int) {
	now := c.clock()
	c.waste.add(debtor{account, byAccount}, units, now)
	if by != nil {
		c.waste.add(*by, units, now)
	}
}

// onTrust refuses a transaction that could pay its fee from its proceeds alone, when too many of
// its account came to nothing.
func (c *Chain) onTrust(t *tx.Transaction, now time.Time) *fault.Error {
	_, wait := c.waste.owes(debtor{Hash(t.Account), byAccount}, now)
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
		account := debtor{o.entry.from.account, byAccount}
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
			o.counted = lone
		}
	}
}

// waive takes back what limit put down for transactions that the pool refused or had already: they
// will not be executed for it, and nobody else must wait because of them.
func (p *preparation) waive() {
	for _, o := range p.offers {
		if o.refusal == nil && !o.repeated || o.counted == 0 {
			continue
		}
		p.chain.waste.waive(debtor{o.entry.from.account, byAccount}, o.counted)
		p.chain.waste.waive(everyone, o.counted)
	}
}
