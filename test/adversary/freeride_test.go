package adversary

import (
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/scheduler"
)

// run is the program's.
const run = executor.RunID("00000000000000000000000000000001")

// rider is an owner who assigns his leases himself, and has a host of his own, which takes the lane
// and runs nothing.
type rider struct {
	s      *street
	target *resident
	began  time.Time
	ask    executor.Ask           // the newest that was answered by a lease
	leases []executor.SignedLease // that were placed for his program
}

// rideFree has the owner take his own lane away, go on with the program that its host kept as late
// as that allows, let it be paid for ten seconds, and so on. It returns what the program used and
// nobody paid, but for a tenth of what was paid.
func (s *street) rideFree() tx.Grains {
	s.keep = scheduler.KeepOriginal
	r := &rider{s: s, target: s.hosts[s.h.n.Keys[agentKey].Public()], began: time.Now()}
	lease := r.lease(1, "")
	for n := uint64(1); lease != nil && n <= 50; n++ {
		r.place(lease)
		s.pass(10 * time.Second)
		r.takeLane(lease)
		s.pass(4 * time.Minute)
		next := r.lease(1+2*n, r.ask.Attempt)
		if next != nil {
			s.pass(time.Until(time.UnixMilli(int64(next.Lease.PlaceBy))) - time.Second)
		}
		lease = next
	}
	if len(r.leases) < 2 {
		s.h.t.Error("it was not gone on with once, so nothing is shown")
	}
	return r.free()
}

// lease asks the host for one, to be placed as late as it may be; nil when it declines.
func (r *rider) lease(epoch uint64, continues executor.AttemptID) *executor.SignedLease {
	s, now := r.s, time.Now()
	for late := 9 * time.Minute; late > 0; late -= 10 * time.Second {
		id := fmt.Sprintf("%032x", epoch)
		ask := s.h.question("", id, offerIn(s.h.t, r.target.journal), executor.Terms{
			Escrow: executor.EscrowID(s.h.escrow), Subject: subject, Epoch: epoch,
			Budget: uint64(block.UCN / 20), Trust: uint64(block.UCN / 20),
			AckKeys: []sig.PublicKey{s.h.n.Keys[owner].Public()}, PlaceBy: uint64(now.Add(late).UnixMilli()),
			Until: uint64(now.Add(24 * time.Hour).UnixMilli()),
		})
		ask.Run, ask.Spec.KeepOriginal, ask.Continues = run, true, continues
		answer, err := r.target.agent.Ask(s.ctx, ask)
		if err != nil {
			s.h.t.Fatal(err)
		}
		if answer.Lease != nil {
			r.ask = ask
			return answer.Lease
		}
	}
	return nil
}

// place puts a lease on the chain and delivers its task.
func (r *rider) place(l *executor.SignedLease) {
	r.s.h.do(assigner, &tx.PlaceLease{Lease: *l.Lease.TX(), Signature: l.Signature})
	r.leases = append(r.leases, *l)
	task := executor.Task{
		From: r.ask.From, Job: subject, Revision: r.ask.Revision, Run: r.ask.Run,
		Attempt: r.ask.Attempt, Lease: l.ID, StorageToken: "token",
	}
	r.s.tasks.Go(func() {
		_ = r.target.agent.Task(r.s.ctx, task, func(executor.Update) error { return nil })
	})
}

// takeLane places a lease of the owner's own host on the lane.
func (r *rider) takeLane(l *executor.SignedLease) {
	mine, h := *l.Lease.TX(), r.s.h
	mine.AgentKey, mine.Payee = h.n.Keys[neighbour].Public(), h.n.Accounts[neighbour]
	mine.Epoch++
	mine.PlaceBy = tx.Millis(time.Now().Add(time.Minute).UnixMilli())
	h.do(assigner, &tx.PlaceLease{
		Lease: mine, Signature: h.n.Keys[neighbour].Sign(mine.Preimage(h.n.Anchor)),
	})
}

// free waits for the program's end.
func (r *rider) free() tx.Grains {
	h := r.s.h
	h.settledIn(r.target.journal, r.ask.Attempt)
	last := r.leases[len(r.leases)-1]
	ended := r.target.journal.Record(r.ask.Attempt).Changed
	worth, err := price.Accrued(tx.GrainsPerHour(last.Lease.Rate),
		tx.Millis(ended.Sub(r.began).Milliseconds()))
	if err != nil {
		h.t.Fatal(err)
	}
	paid := tx.Grains(0)
	for _, l := range r.leases {
		state, _ := h.chain.State().Lease(tx.LeaseID(l.ID))
		paid += state.Paid
	}
	return gain(paid+paid/10, worth)
}
