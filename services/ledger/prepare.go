package ledger

import (
	"errors"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
)

// preparation brings the transactions of one submission to the point where only their
// signatures are open, and then takes the verdicts.
type preparation struct {
	chain  *Chain
	time   tx.Millis
	now    time.Time
	offers []*offer[*candidate]
	claims []claim
	owners []owner                        // of the claims
	peer   *debtor                        // who submits; nil for this process
	seen   map[copyKey]*offer[*candidate] // the first of each
	// sets are the key sets in force after the transactions so far, where these change them.
	sets map[sig.AccountID]left
}

// copyKey tells copies: an id does not cover the signatures, and a copy with a bad one must not
// stand for a good one.
type copyKey struct {
	id      Hash
	witness tx.Hash
}

// left is the key set that a transaction of a nonce leaves behind.
type left struct {
	nonce uint64
	set   sig.KeySet
}

// owner says whose a claim is.
type owner struct {
	offer *offer[*candidate]
	// claim is the index among those of the prepared transaction, or notPrepared.
	claim int
	// account says that the transaction stands and falls with it.
	account bool
}

const notPrepared = -1

func newPreparation(c *Chain, n int) *preparation {
	return &preparation{
		chain: c, time: c.Now(), now: c.clock(),
		offers: make([]*offer[*candidate], n),
		claims: make([]claim, 0, n), owners: make([]owner, 0, n),
		seen: make(map[copyKey]*offer[*candidate], n),
	}
}

// prepare decodes a transaction and checks all that needs no signature.
func (p *preparation) prepare(i int, raw []byte) {
	o := &offer[*candidate]{}
	p.offers[i] = o
	t, err := tx.Decode(raw)
	if errors.Is(err, tx.ErrTooLarge) {
		o.refusal = fault.New(fault.InvalidArgument, ReasonTooLarge,
			"the transaction has %d bytes, at most %d are taken", len(raw), tx.MaxTransaction)
		return
	}
	if err != nil {
		o.refusal = malformed(err)
		return
	}
	keys := p.keysOf(t)
	prepared, err := p.chain.state.Prepare(t)
	c := newCandidate(prepared, raw)
	c.peer = p.peer
	o.entry = &entry[*candidate]{
		id: Hash(prepared.ID), from: signerOf(t), nonce: t.Nonce,
		operations: len(t.Operations), bytes: len(raw), payload: c,
	}
	key := copyKey{o.entry.id, t.Witness()}
	if o.first = p.seen[key]; o.first != nil || p.chain.pool.lookup(o.entry.id) {
		// What it says is known and was verified: the answer is what becomes of that.
		o.repeated = true
		return
	}
	p.seen[key] = o
	// The nonce is judged by the pool, which knows what waits.
	checked := p.chain.state.Check(t, p.time)
	if errors.Is(checked, state.ErrNonceOld) && p.chain.committed(o.entry.id) {
		// It is told what became of it, whatever its signatures are, which costs no look at them.
		o.refusal = p.chain.refusal(checked, t)
		return
	}
	if !errors.Is(checked, state.ErrNonceOld) && !errors.Is(checked, state.ErrNonceFuture) {
		if o.refusal = p.chain.refusal(checked, t); o.refusal != nil {
			return
		}
	}
	if o.refusal = p.chain.onTrust(t, p.now); o.refusal == nil {
		o.refusal = p.sign(o, keys, err)
	}
}

func signerOf(t *tx.Transaction) signer { return signer{Hash(t.Account), t.Signer} }

// sign adds the transaction's signatures to the claims. unfit is why the committed state's key
// set cannot judge it.
func (p *preparation) sign(o *offer[*candidate], keys inForce, unfit error) *fault.Error {
	c := o.entry.payload
	t := c.prepared.Tx
	held, known := keys.held, keys.held.Equal(keys.committed)
	if known && unfit != nil {
		return badSignature(p.chain.name, unfit)
	}
	set := held
	if !known {
		var err error
		if set, err = t.Signature.Check(t.Account, held); err != nil {
			return badSignature(p.chain.name, err)
		}
		p.claimAnew(o, set)
		c.anew = len(t.Signature.Signatures)
	}
	for n := range c.prepared.Claims {
		// The account's own come first, and only if the committed state could judge.
		account := unfit == nil && n < len(t.Signature.Signatures)
		if account && !known {
			continue
		}
		one := &c.prepared.Claims[n]
		p.claims = append(p.claims, claim{
			key: one.Key, preimage: one.Preimage, signature: one.Signature,
		})
		p.owners = append(p.owners, owner{o, n, account})
	}
	p.follow(c, set)
	return nil
}

// claimAnew claims the account's signatures under a set that the committed state does not hold
// yet. Execution will verify them once more: it is the rare case.
func (p *preparation) claimAnew(o *offer[*candidate], set sig.KeySet) {
	t := o.entry.payload.prepared.Tx
	preimage := t.AppendPreimage(nil, p.chain.anchor)
	for _, one := range t.Signature.Signatures {
		p.claims = append(p.claims, claim{
			key: set.Keys[one.Index], preimage: preimage, signature: one.Signature,
		})
		p.owners = append(p.owners, owner{o, notPrepared, true})
	}
}

// inForce is the key set that judges a transaction when its turn comes, and the committed one.
type inForce struct{ held, committed sig.KeySet }

// keysOf returns what the transactions before this one leave, in this submission, in the pool, or
// in the state. What leaves the pool is in the state by then, so the pool is asked first, then the
// state, and Prepare reads the state last: none of them can miss a block that comes between.
func (p *preparation) keysOf(t *tx.Transaction) inForce {
	if t.Signer != 0 { // a delegate's key never changes, and must be in the state
		held, _ := p.chain.state.KeysOf(t.Account, t.Signer) // zero: Check refuses it
		return inForce{held, held}
	}
	last, follows := p.sets[t.Account]
	set := last.set
	// One of the same nonce is another in its place, or a copy whose signature may be bad.
	if follows = follows && last.nonce < t.Nonce; !follows {
		var before *candidate
		if before, follows = p.chain.pool.before(signerOf(t), t.Nonce); follows {
			set = before.after
		}
	}
	committed := p.chain.state.Keys(t.Account)
	if !follows {
		set = committed
	}
	return inForce{set, committed}
}

// follow notes the key set that a transaction leaves behind. set is the one that judges it, or
// zero if that comes with its signature.
func (p *preparation) follow(c *candidate, set sig.KeySet) {
	t := c.prepared.Tx
	changed := !t.Signature.Keys.IsZero()
	c.after = set
	if changed {
		c.after = t.Signature.Keys
	}
	for _, operation := range t.Operations {
		if o, ok := operation.(*tx.SetKeys); ok {
			c.after, changed = o.Keys, true
		}
	}
	if !changed {
		return
	}
	if p.sets == nil {
		p.sets = map[sig.AccountID]left{}
	}
	p.sets[t.Account] = left{t.Nonce, c.after}
}

// judge takes the verdicts: an account's signature must be good; a bad one inside an operation is
// for the execution to judge.
func (p *preparation) judge() {
	for n, w := range p.owners {
		good := p.claims[n].good
		if !p.claims[n].judged && w.offer.refusal == nil {
			w.offer.refusal = wasteful("this submission", wastePause)
		}
		if w.claim != notPrepared {
			w.offer.entry.payload.prepared.Claims[w.claim].OK = good
		}
		if w.account && !good && w.offer.refusal == nil {
			w.offer.refusal = badSignature(p.chain.name, sig.ErrSignature)
		}
	}
}

// refusal names why a transaction cannot stand in a block, nil if it can.
func (c *Chain) refusal(err error, t *tx.Transaction) *fault.Error {
	account, _ := c.state.Account(t.Account)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, state.ErrChain):
		return fault.New(fault.InvalidArgument, ReasonWrongChain,
			"the transaction is for chain %q, this is %q", t.Chain, c.name)
	case errors.Is(err, state.ErrSigner):
		return fault.New(fault.FailedPrecondition, ReasonSigner,
			"the account has no delegate %d, or no longer", t.Signer)
	case errors.Is(err, state.ErrSignerEnded):
		return fault.New(fault.FailedPrecondition, ReasonSignerEnded,
			"the time of delegate %d is over", t.Signer)
	case errors.Is(err, state.ErrNotAllowed):
		return fault.New(fault.PermissionDenied, ReasonNotAllowed,
			"delegate %d may not do one of the operations", t.Signer)
	case errors.Is(err, state.ErrLimit):
		return fault.New(fault.FailedPrecondition, ReasonSignerLimit,
			"the fee is above what the limit of delegate %d leaves in this period", t.Signer)
	case errors.Is(err, state.ErrExpired):
		return fault.New(fault.FailedPrecondition, ReasonExpired,
			"valid_until %d has passed; sign it again with a later one", t.ValidUntil)
	case errors.Is(err, state.ErrTooEarly):
		return fault.New(fault.InvalidArgument, ReasonTooFarAhead,
			"valid_until %d is more than 24 hours ahead", t.ValidUntil)
	case errors.Is(err, state.ErrFeeCap):
		return fault.New(fault.FailedPrecondition, ReasonFeeTooLow,
			"the fee cap of %d grains is below the fee of %d that the next block charges", t.Fee,
			c.state.Prices().Fee(len(t.Operations), len(t.BodyBytes())))
	case errors.Is(err, state.ErrCannotPay):
		return fault.New(fault.FailedPrecondition, ReasonCannotPay,
			"the account holds %d grains and cannot pay the fee", account.Balance)
	case errors.Is(err, state.ErrNonceOld):
		return nonceOld(t.Nonce, c.state.Nonce(t.Account, t.Signer))
	case errors.Is(err, state.ErrNonceFuture):
		return nonceFuture(t.Nonce, c.state.Nonce(t.Account, t.Signer))
	}
	return badSignature(c.name, err)
}
