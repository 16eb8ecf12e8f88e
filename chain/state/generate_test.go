package state_test

import (
	"pgregory.net/rapid"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// transaction draws a transaction whose own signature and nonce are good.
func (d *duel) transaction() (*tx.Transaction, []mOperation) {
	if len(d.next) > 0 {
		from, o := d.next[0]()
		d.next = d.next[1:]
		return d.signed(from, 1_000_000, []mOperation{o})
	}
	from := pick(d.t, "sender", d.people...)
	if d.focus && rapid.Bool().Draw(d.t, "the owner") {
		from = owner() // of what furnish opened
	}
	ops := make([]mOperation, 0, 3)
	charging := len(d.leases) > 0 && rapid.IntRange(0, 3).Draw(d.t, "charging") == 0
	if charging {
		from = pick(d.t, "who charges", agent(), host(), newcomer())
	}
	for range rapid.IntRange(1, 3).Draw(d.t, "operations") {
		if charging {
			ops = append(ops, d.charge(pick(d.t, "charged lease", d.leases...)))
		} else {
			ops = append(ops, d.operation())
		}
	}
	most := pick(d.t, "cap", tx.Grains(1_000_000), 1_000_000, 1_000_000, 100)
	return d.signed(from, most, ops)
}

// signed signs operations as one of the sender's signers.
func (d *duel) signed(from person, most tx.Grains, ops []mOperation) (
	*tx.Transaction, []mOperation,
) {
	account := d.model.accounts[from.id]
	number, nonce := d.signerOf(from.id)
	body := tx.Body{Chain: block.Main, Account: from.id, Signer: number, Nonce: nonce,
		Fee:        most,
		ValidUntil: d.ctx.Time + hour}
	for _, o := range ops {
		body.Operations = append(body.Operations, o.Operation)
	}
	set, key := from.set, from.key
	if number != 0 {
		key = delegateKey()
		set = sig.SingleKey(key.Public())
	}
	t, err := tx.Sign(body, d.g.Anchor(), set, number == 0 && !account.signed, key)
	if err != nil {
		d.t.Fatal(err)
	}
	return t, ops
}

func (d *duel) operation() mOperation {
	if d.sweep && len(d.leases) > 0 {
		d.sweep = false
		return mOperation{Operation: &tx.Settle{Leases: d.leases}}
	}
	kind := rapid.IntRange(0, 30).Draw(d.t, "kind")
	amount := pick(d.t, "amount", tx.Grains(0), 1, lock-1, lock, 5_000, 100_000, 1<<64-1)
	switch {
	case kind > 27 || d.focus && kind > 10:
		return d.signerOperation()
	case kind > 24 || d.focus && kind > 3:
		return d.purposeOperation(amount)
	case kind < 2:
		return mOperation{Operation: &tx.Transfer{To: d.someone().id, Amount: amount}}
	case kind < 4 || len(d.escrows) == 0:
		return mOperation{Operation: d.open()}
	case kind < 5:
		return mOperation{Operation: &tx.TopUp{Escrow: d.escrow(), Amount: amount}}
	case kind < 6:
		return mOperation{Operation: &tx.Withdraw{Escrow: d.escrow(), Amount: amount}}
	case kind < 7:
		return mOperation{Operation: &tx.SetTerms{Escrow: d.escrow(), Terms: d.terms()}}
	case kind < 8:
		return mOperation{Operation: &tx.CloseEscrow{Escrow: d.escrow()}}
	case kind < 12 || len(d.leases) == 0:
		return d.place()
	}
	return d.leaseOperation(kind)
}

func (d *duel) leaseOperation(kind int) mOperation {
	id := pick(d.t, "lease", d.leases...)
	l := d.model.leases[id]
	switch {
	case kind < 14:
		e := &tx.Extend{Lease: id, Budget: pick(d.t, "budget", tx.Grains(1), 0, 50_000, 1<<62),
			Until: pick(d.t, "until", tx.Millis(0), minute, 2*hour)}
		if l.budget != nil {
			e.Budget += tx.Grains(l.budget.Uint64())
			e.Until += tx.Millis(l.until.Uint64())
		}
		return mOperation{Operation: e}
	case kind < 19:
		return d.charge(id)
	case kind < 20:
		return mOperation{Operation: &tx.End{Lease: id}}
	case kind < 22:
		return mOperation{Operation: &tx.Settle{Leases: []tx.LeaseID{
			id, pick(d.t, "second lease", d.leases...)}}}
	case kind < 23:
		c, good := d.countersignature(tx.AcceptPreimage(d.g.Anchor(), id))
		return mOperation{&tx.Accept{Lease: id, Countersignature: c}, false, good}
	default:
		c, good := d.countersignature(tx.RejectPreimage(d.g.Anchor(), id, tx.Hash{1}))
		return mOperation{&tx.Reject{Lease: id, Evidence: tx.Hash{1}, Countersignature: c},
			false, good}
	}
}

func (d *duel) someone() person { return pick(d.t, "person", append(d.people, newPerson(50))...) }

// escrow and lease ids are mostly of those made last.
func (d *duel) escrow() tx.EscrowID {
	recent := d.escrows[max(0, len(d.escrows)-2):]
	return pick(d.t, "escrow", append([]tx.EscrowID{d.escrows[0]}, recent...)...)
}

func (d *duel) terms() tx.Terms {
	return tx.Terms{
		MaxRate:  usually(d.t, "max_rate", tx.GrainsPerHour(1<<64-1), 10_000_000, 3_600_000),
		MaxTotal: usually(d.t, "max_total", tx.Grains(1<<64-1), 1_000_000, 100_000),
		Trust:    usually(d.t, "trust", tx.Grains(1<<64-1), 1_000_000, 60_000),
		AckKeys:  []sig.PublicKey{acker().key.Public()},
		Assigner: usually(d.t, "assigner", assigner().id, assigner().id, sig.AccountID{}),
		Floor:    usually(d.t, "floor", tx.Grains(0), 0, 50_000),
		Expires: d.ctx.Time + usually(d.t, "expires", 1000*day, 1000*day, 26*hour, 2*day,
			-d.ctx.Time, ago(minute)),
		LeaseFee:      usually(d.t, "lease fee", tx.Grains(3_000), 0, 1<<64-1),
		LeaseFeeTotal: usually(d.t, "lease fees", tx.Grains(7_000), 3_000, 0, 1<<64-1),
	}
}

func (d *duel) open() *tx.OpenEscrow {
	o := &tx.OpenEscrow{Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: jobID[:],
		Amount: usually(d.t, "escrowed", tx.Grains(500_000), 500_000, 5_000_000, 1_000, 1<<64-1),
		Terms:  d.terms(), Renew: rapid.Bool().Draw(d.t, "renew"),
		BurnRate: usually(d.t, "burn", tx.GrainsPerHour(0), 0, 1_001, 400_000),
	}
	if rapid.IntRange(0, 4).Draw(d.t, "payees") == 0 {
		o.Payees = []sig.AccountID{host().id}
	}
	return o
}

func (d *duel) place() mOperation {
	now := d.ctx.Time
	l := tx.Lease{
		Escrow: d.escrow(), Subject: jobID[:], Slot: rapid.Uint32Range(1, 2).Draw(d.t, "slot"),
		Epoch:       usually(d.t, "epoch", uint64(len(d.blocks)), 0, 1, 99),
		Payee:       usually(d.t, "payee", host(), newcomer(), newPerson(60), agent()).id,
		AgentKey:    agent().key.Public(),
		Rate:        usually(d.t, "rate", tx.GrainsPerHour(3_600_000), 1_000, 0, 1<<63),
		Budget:      usually(d.t, "budget", tx.Grains(100_000), 60_000, 2_000, 0),
		Upfront:     usually(d.t, "upfront", tx.Grains(0), 0, 1_500, 1<<40),
		Trust:       usually(d.t, "lease trust", tx.Grains(60_000), 2_000, 0, 1<<64-1),
		Holdback:    usually(d.t, "holdback", tx.Grains(500), 0, 30_000),
		Notice:      usually(d.t, "notice", tx.Millis(0), 30*second, 1<<62),
		AckKeys:     []sig.PublicKey{acker().key.Public()},
		ClaimWindow: usually(d.t, "window", day, 25*hour),
		PriceHash:   tx.Hash{1}, OfferHash: tx.Hash{2},
		PlaceBy: now + usually(d.t, "place by", minute, 0, ago(second)),
		Until:   now + usually(d.t, "until", hour, minute, 3*hour, 0),

		SessionKey: session().key.Public(),
	}
	by, good := d.signer("agent", agent())
	s := by.key.Sign(l.Preimage(d.g.Anchor()))
	fee := usually(d.t, "fee", tx.Grains(3_000), 0, 1, 3_001, 400_000, 1<<64-1)
	return mOperation{&tx.PlaceLease{Lease: l, Signature: s, Fee: fee}, good, false}
}

// usually draws the first value three times in four, so that most of what is drawn works.
func usually[T any](t *rapid.T, name string, first T, rest ...T) T {
	if rapid.IntRange(0, 3).Draw(t, name+" as usual") > 0 {
		return first
	}
	return pick(t, name, rest...)
}

// signer is mostly the right one.
func (d *duel) signer(name string, right person) (person, bool) {
	if rapid.IntRange(0, 15).Draw(d.t, name+" signs wrongly") == 0 {
		return owner(), false
	}
	return right, true
}

func (d *duel) charge(id tx.LeaseID) mOperation {
	n := tx.Note{Lease: id, Upto: d.ctx.Time + pick(d.t, "upto", tx.Millis(0), 0, ago(minute), hour),
		Cumulative: pick(d.t, "cumulative", tx.Grains(0), 700, 1_500, 30_000, 59_000, 90_000,
			200_000, 1<<64-1)}
	by, agentGood := d.signer("agent", agent())
	c := &tx.Charge{Note: n, Signature: by.key.Sign(n.Preimage(d.g.Anchor())),
		Final: rapid.IntRange(0, 5).Draw(d.t, "final") == 0}
	var ackGood bool
	c.Countersignature, ackGood = d.countersignature(n.AckPreimage(d.g.Anchor()))
	return mOperation{c, agentGood, ackGood}
}

func (d *duel) countersignature(preimage []byte) (c tx.Countersignature, good bool) {
	if rapid.Bool().Draw(d.t, "no countersignature") {
		return c, false
	}
	by, good := d.signer("ack key", acker())
	c.Signature = by.key.Sign(preimage)
	if rapid.IntRange(0, 15).Draw(d.t, "ack index wrong") == 0 {
		c.Index, good = 1, false
	}
	return c, good
}

// ago is what to add to a time for one before it.
func ago(d tx.Millis) tx.Millis { return -d }
