package adversary

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
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

// drainTasks is how many tasks an owner has placed to empty the scheduler's account.
const drainTasks = 8

// byTasks are played against the real scheduler: what is gained is what its account lost.
var byTasks = []drain{
	{name: "owner drains the scheduler by many tiny tasks"},
	{name: "owner's host leaves every lease to the scheduler to end", lanes: drainTasks},
}

type drain struct {
	name string
	// lanes: each task has a lane of its own, so that no lease supersedes another, and the host never
	// charges: the scheduler must end and settle each. 0: one lane, and the host charges.
	lanes uint32
}

// playDrain runs an array of tasks that end at once on the owner's own host, and waits until
// nothing is left to settle. It returns what all that cost the scheduler beyond what the leases
// paid it, and how many there were.
func playDrain(t *testing.T, d drain) (lost tx.Grains, leases int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, cheat{})
		defer h.close()
		engine, offer := h.market(nil)
		j := schedulertest.NewJob(1, 1)
		j.ID, j.Owner, j.Escrow, j.Runs = subject, h.n.Accounts[owner], h.escrow, nil
		j.Spec.MaxTotal, j.Spec.Tasks, j.Spec.Lanes = uint64(escrowAmount), drainTasks, max(d.lanes, 1)
		j.Spec.Trust = 1
		before := h.balance(assigner)
		if _, err := engine.Submit(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		for range 2 * drainTasks {
			next := *offer
			next.Posted, next.Expires = time.Now(), time.Now().Add(5*time.Minute)
			engine.Offer(&next)
			passes(15 * time.Second)
			if d.lanes > 0 {
				leases += h.giveUp(engine, j)
			} else if _, charged := h.charged(engine, j, friendly{}); charged {
				leases++
			}
		}
		passes(26 * time.Hour)
		e, ok := h.chain.State().Escrow(h.escrow)
		if !ok || e.Live != 0 || e.LeaseFees != tx.Grains(leases)*scheduler.DefaultLeaseFee {
			t.Errorf("%d leases are left, %d were placed, and %d paid for them", e.Live, leases, e.LeaseFees)
		}
		lost = gain(h.balance(assigner), before)
	})
	return lost, leases
}

// giveUp has the friend give up every attempt and leave the leases to others. It returns how many
// there were.
func (h *house) giveUp(engine *scheduler.Engine, j *scheduler.Job) (leases int) {
	h.t.Helper()
	held, err := engine.Job(h.t.Context(), j.Owner, j.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := range held.Runs {
		r := &held.Runs[i]
		if a := r.Current(); a != nil && a.Placed && a.State != scheduler.Ended {
			h.leave(engine, j, r, a)
			leases++
		}
	}
	return leases
}

// leave has the friend tell that it gave an attempt up.
func (h *house) leave(
	engine *scheduler.Engine, j *scheduler.Job, r *scheduler.Run, a *scheduler.Attempt,
) {
	h.t.Helper()
	err := engine.Report(h.t.Context(), scheduler.Report{
		Job: j.ID, Run: r.ID, Attempt: a.ID, Executor: sig.PublicKey(a.Host.Executor),
		State: scheduler.Ended, End: scheduler.Failed, Reason: "gave up", Time: time.Now(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func passes(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

func (h *house) balance(of int) tx.Grains {
	a, _ := h.chain.State().Account(h.n.Accounts[of])
	return a.Balance
}
