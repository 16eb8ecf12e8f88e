package adversary

import (
	"github.com/united-containers/ucn/chain/tx"
)

const (
	millFee   tx.Grains = 50_000
	millTotal           = 5*millFee + 1
)

// millLeases has the scheduler place one lease after the other, each of which supersedes the last,
// with a host that is in with it: for all that it may take for each, for more, and for what is
// left, also many in one transaction, and after the owner has lowered what he grants. It returns
// what the escrow paid in fees.
func (w *world) millLeases() tx.Grains {
	w.t.Helper()
	terms := w.terms()
	terms.LeaseFee, terms.LeaseFeeTotal = millFee, millTotal
	w.must(w.owner, &tx.SetTerms{Escrow: w.escrow, Terms: terms})
	epoch := uint64(0)
	place := func(fee tx.Grains) *tx.PlaceLease {
		epoch++
		l := w.lease(func(l *tx.Lease) { l.Epoch, l.Trust = epoch, 0 })
		return &tx.PlaceLease{Lease: l, Signature: w.agent.key.Sign(l.Preimage(w.anchor)), Fee: fee}
	}
	w.must(w.scheduler, place(millFee))
	for _, fee := range []tx.Grains{millFee + 1, millTotal, 1<<64 - 1} {
		w.try(w.scheduler, place(fee))
	}
	for range 2 {
		w.try(w.scheduler, place(millFee), place(millFee), place(millFee), place(millFee))
	}
	for range 10 {
		w.try(w.scheduler, place(millFee))
		w.try(w.scheduler, place(1))
	}
	terms.LeaseFee, terms.LeaseFeeTotal = 1, 1
	w.must(w.owner, &tx.SetTerms{Escrow: w.escrow, Terms: terms})
	w.try(w.scheduler, place(1))
	e, ok := w.s.Escrow(w.escrow)
	if !ok || e.LeaseFees != millTotal {
		w.t.Errorf("the escrow paid %d in fees, a scheduler can take %d", e.LeaseFees, millTotal)
	}
	return e.LeaseFees
}
