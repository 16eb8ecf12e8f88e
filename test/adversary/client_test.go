package adversary

import (
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/ack"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

var againstTheClient = []attack{
	{"host asks the owner's client for more than it used", nothing, inflate(
		func(n *tx.Note, _ *price.Usage) { n.Cumulative *= 3 })},
	{"host claims three cores on a lease of one", nothing, inflate(
		func(n *tx.Note, u *price.Usage) { u.CPUNS *= 3; n.Cumulative *= 3 })},
	{"host claims an hour that has not passed", nothing, inflate(
		func(n *tx.Note, u *price.Usage) {
			u.WallMS, u.CPUNS = uint64(hour), uint64(time.Hour)
			n.Upto, n.Cumulative = n.Upto+hour, 3600*perSecond
		})},
	{"host puts another bill under a signed note", nothing, inflate(
		func(n *tx.Note, u *price.Usage) { n.UsageHash = tx.Hash{1}; n.Cumulative *= 2 })},
}

// inflate has a host of a job that ran 100 s spoil its note, brings it to the owner's client, and
// charges with what it got for it, without trust.
func inflate(spoil func(*tx.Note, *price.Usage)) func(*world) (tx.Grains, tx.Grains) {
	return func(w *world) (tx.Grains, tx.Grains) {
		const ran = 100
		lease := w.lease(func(l *tx.Lease) { l.Trust = 0 })
		id := w.placed(func(l *tx.Lease) { *l = lease })
		held, _ := w.s.Lease(id)
		w.wait(ran * second)
		checker, err := ack.New(ack.Agreement{
			Anchor: w.anchor, Lease: lease, From: held.From, Budget: lease.Budget, Prices: prices(),
			Revision: tx.Hash{3}, Escrow: w.escrow, Job: subject, Key: w.acker.key,
		}, func() time.Time { return time.UnixMilli(int64(w.now())) })
		if err != nil {
			w.t.Fatal(err)
		}
		usage := price.Usage{WallMS: ran * 1000, CPUNS: uint64(ran * time.Second), Runs: 1}
		honest := ran * perSecond
		note := tx.Note{Lease: id, Revision: tx.Hash{3}, Upto: held.From + ran*second, Cumulative: honest}
		spoil(&note, &usage)
		if note.UsageHash == (tx.Hash{}) {
			note.UsageHash = usage.Hash()
		}
		charge := &tx.Charge{Note: note, Signature: w.agent.key.Sign(note.Preimage(w.anchor))}
		if got, err := checker.Check(signedNote(charge, usage)); err == nil {
			w.t.Error("the owner's client countersigned it")
			charge.Countersignature = got.Countersignature
		}
		w.must(w.agent, charge)
		return gain(honest, w.paid()), 0
	}
}

func signedNote(c *tx.Charge, u price.Usage) *jobv1.SignedNote {
	return &jobv1.SignedNote{
		Note: c.Note.PB(), Signature: c.Signature[:], Usage: u.PB(), Prices: prices().PB(),
	}
}
