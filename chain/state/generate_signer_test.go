package state_test

import (
	"slices"

	"pgregory.net/rapid"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// delegateKey is the key of every delegate of the duel; friendKey the one of every recovery set.
func delegateKey() sig.PrivateKey { return newPerson(81).key }
func friendKey() sig.PrivateKey   { return newPerson(82).key }

// signerOf draws who signs for an account: its key set, or one of its delegates.
func (d *duel) signerOf(account sig.AccountID) (number uint32, nonce uint64) {
	a := d.model.accounts[account]
	if len(a.signers.delegates) == 0 || rapid.Bool().Draw(d.t, "by the key set") {
		return 0, a.nonce
	}
	one := rapid.SampledFrom(a.signers.delegates).Draw(d.t, "delegate")
	return one.number, one.nonce
}

// signerOperation draws what is about who may sign.
func (d *duel) signerOperation() mOperation {
	switch kind := rapid.IntRange(0, 11).Draw(d.t, "signer kind"); {
	case kind < 3:
		return mOperation{Operation: d.setDelegate()}
	case kind < 4:
		return mOperation{Operation: &tx.RemoveDelegate{
			Number: rapid.Uint32Range(0, 3).Draw(d.t, "removed")}}
	case kind < 6:
		o := &tx.SetRecovery{Keys: sig.SingleKey(friendKey().Public()),
			Delay: usually(d.t, "delay", day, 2*day, hour)}
		if rapid.IntRange(0, 7).Draw(d.t, "end it") == 0 {
			*o = tx.SetRecovery{}
		}
		return mOperation{Operation: o}
	case kind < 8:
		return d.recover()
	case kind < 10:
		return mOperation{Operation: &tx.FinishRecovery{Account: d.recovering(
			func(s mSigners) bool { return s.recovery.due != nil }).id}}
	}
	return mOperation{Operation: &tx.CancelRecovery{}}
}

// furnish opens one escrow of each purpose, with a lease that lives long and may spend.
func (d *duel) furnish() {
	open := func(o *tx.OpenEscrow) func() (person, mOperation) {
		return func() (person, mOperation) { return owner(), mOperation{Operation: o} }
	}
	job, budget, bond := openJob(), openBudget(), openBond(chainv1.Purpose_PURPOSE_BOND)
	for _, o := range []*tx.OpenEscrow{job, budget} {
		o.Terms.Expires = genesisTime + 1000*day
	}
	d.next = append(d.next, open(job), open(budget), open(bond),
		func() (person, mOperation) {
			l := tx.Lease{
				Escrow: d.escrows[0], Subject: jobID[:], Slot: 7, Epoch: 1, Payee: host().id,
				AgentKey: agent().key.Public(), Rate: 1, Budget: 1_000,
				AckKeys: job.Terms.AckKeys, ClaimWindow: day, PriceHash: tx.Hash{1},
				OfferHash: tx.Hash{2}, PlaceBy: d.ctx.Time + minute, Until: d.ctx.Time + 400*day,
				SessionKey: session().key.Public(),
			}
			s := agent().key.Sign(l.Preimage(d.g.Anchor()))
			return assigner(), mOperation{&tx.PlaceLease{Lease: l, Signature: s}, true, false}
		})
	d.play(second, len(d.next))
}

// purposeOperation draws what is about bonds and budgets, or gives a budget a lease to be spent by.
func (d *duel) purposeOperation(amount tx.Grains) mOperation {
	bonds := d.of(chainv1.Purpose_PURPOSE_BOND, chainv1.Purpose_PURPOSE_GUARANTEE)
	budgets := d.of(chainv1.Purpose_PURPOSE_BUDGET)
	switch kind := rapid.IntRange(0, 11).Draw(d.t, "purpose kind"); {
	case kind < 2:
		return mOperation{Operation: d.openOther()}
	case kind < 3:
		return mOperation{Operation: d.open()}
	case kind < 5 && len(d.escrows) > 0:
		return d.place()
	case kind < 6 && len(bonds) > 0:
		return mOperation{Operation: &tx.Withdraw{Escrow: pick(d.t, "bond", bonds...),
			Amount: amount}}
	case kind < 7 && len(bonds) > 0:
		return mOperation{Operation: &tx.CloseEscrow{Escrow: pick(d.t, "bond", bonds...)}}
	case kind < 9 && len(bonds) > 0:
		return mOperation{Operation: &tx.Notice{Escrow: pick(d.t, "bond", bonds...),
			Amount: usually(d.t, "noticed", 1_000, amount, 500_000)}}
	case len(d.leases) > 0 && len(budgets) > 0:
		return d.spend(usually(d.t, "spending lease", d.leases[0], d.leases...),
			pick(d.t, "budget", budgets...))
	case len(d.leases) > 0:
		return d.spend(pick(d.t, "spending lease", d.leases...), d.escrow())
	}
	return mOperation{Operation: d.openOther()}
}

// of lists the escrows of the purposes.
func (d *duel) of(purposes ...chainv1.Purpose) (ids []tx.EscrowID) {
	for _, id := range d.escrows {
		if e, ok := d.model.escrows[id]; ok && slices.Contains(purposes, e.open.Purpose) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (d *duel) setDelegate() *tx.SetDelegate {
	all := ^tx.OperationsOf(tx.KindSetKeys, tx.KindSetDelegate, tx.KindRemoveDelegate,
		tx.KindSetRecovery, tx.KindRecover, tx.KindFinishRecovery, tx.KindCancelRecovery) &
		(1<<(tx.KindSpend+1) - 2)
	return &tx.SetDelegate{
		Number: usually(d.t, "number", 0, uint32(1), 2), Key: delegateKey().Public(),
		Bounds: tx.Bounds{
			Operations: usually(d.t, "allowed", all, tx.OperationsOf(tx.KindTransfer)),
			Limit:      usually(d.t, "limit", tx.Grains(1_000_000), 2_000, 20_000, 0, 1<<64-1),
			Period:     usually(d.t, "period", hour, minute, day, second),
			Until:      d.ctx.Time + usually(d.t, "until", 30*day, hour, 0),
		},
	}
}

// recovering draws a person for whom something is so, mostly, or anyone.
func (d *duel) recovering(is func(mSigners) bool) person {
	for _, p := range d.people {
		if is(d.model.accounts[p.id].signers) && rapid.Bool().Draw(d.t, "this one") {
			return p
		}
	}
	return pick(d.t, "recovering", d.people...)
}

// recover draws an intent that puts the account's own set in force, so that the duel can go on.
func (d *duel) recover() mOperation {
	p := d.recovering(func(s mSigners) bool { return !s.recovery.keys.IsZero() })
	o := &tx.Recover{Intent: tx.RecoveryIntent{Account: p.id, Keys: p.set,
		Counter: d.model.accounts[p.id].signers.recovery.counter}}
	if rapid.IntRange(0, 7).Draw(d.t, "old intent") == 0 {
		o.Intent.Counter--
	}
	by, good := friendKey(), true
	if rapid.IntRange(0, 7).Draw(d.t, "recovery signed wrongly") == 0 {
		by, good = owner().key, false
	}
	o.Signatures = []sig.IndexedSignature{{Signature: by.Sign(o.Intent.Preimage(d.g.Anchor()))}}
	return mOperation{o, false, good}
}

// openOther draws a bond, a guarantee or a budget.
func (d *duel) openOther() *tx.OpenEscrow {
	o := &tx.OpenEscrow{Purpose: chainv1.Purpose_PURPOSE_BUDGET, Subject: jobID[:],
		Amount: usually(d.t, "held", tx.Grains(500_000), 1_000)}
	if rapid.Bool().Draw(d.t, "bond") {
		o.Purpose = pick(d.t, "purpose", chainv1.Purpose_PURPOSE_BOND,
			chainv1.Purpose_PURPOSE_GUARANTEE)
		o.Unbond = usually(d.t, "unbond", 7*day, 8*day, day)
		return o
	}
	o.Terms = tx.Terms{
		MaxRate:  usually(d.t, "spend rate", tx.GrainsPerHour(100_000), 1, 1<<63),
		MaxTotal: usually(d.t, "spend total", tx.Grains(1<<64-1), 200_000),
		Floor:    usually(d.t, "spend floor", tx.Grains(0), 400_000),
		Expires:  d.ctx.Time + usually(d.t, "budget expires", 1000*day, hour, -d.ctx.Time),
	}
	return o
}

// spend draws an order.
func (d *duel) spend(lease tx.LeaseID, budget tx.EscrowID) mOperation {
	o := tx.SpendOrder{Escrow: budget, Lease: lease, To: d.someone().id,
		Amount:   pick(d.t, "spent", tx.Grains(1_000), 20_000, 90_000, 0, 1<<64-1),
		Sequence: d.model.leases[lease].spends}
	if rapid.IntRange(0, 9).Draw(d.t, "order ahead") == 0 {
		o.Sequence++
	}
	by, good := d.signer("session", session())
	return mOperation{&tx.Spend{Order: o, Signature: by.key.Sign(o.Preimage(d.g.Anchor()))},
		false, good}
}
