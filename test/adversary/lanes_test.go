package adversary

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// rented is a lease as the chain's blocks tell of it.
type rented struct {
	tx.Lease
	from, end tx.Millis
	notice    bool // ended by its assigner
	paid      tx.Grains
}

// rentals executes every block again, as anyone may, and returns the leases in the order of their
// placing. State roots and sums must hold.
func (s *street) rentals() (list []*rented) {
	s.h.t.Helper()
	again, err := state.New(s.h.n.Genesis)
	if err != nil {
		s.h.t.Fatal(err)
	}
	byID := map[tx.LeaseID]*rented{}
	var signers []sig.AccountID
	for height := uint64(1); height <= s.h.chain.Tip().Header.Height; height++ {
		found, err := s.h.chain.Block(s.h.t.Context(), height)
		if err != nil {
			s.h.t.Fatal(err)
		}
		b := found.Block
		x, err := again.Begin(state.Context{
			Head: again.Next(b.Header.Time), Proposer: b.Header.Proposer, CoSigners: signers,
		})
		if err != nil {
			s.h.t.Fatal(err)
		}
		for _, raw := range b.Body.Transactions {
			list = append(list, s.rental(x, again, raw, b.Header.Time, byID)...)
		}
		x.Finish()
		x.Commit()
		if tx.Hash(again.Root()) != b.Header.StateRoot {
			s.h.t.Fatalf("block %d, executed again, leads to another state", height)
		}
		signers = nil
		for _, one := range b.Certificate.Signatures {
			if v, ok := s.h.n.Genesis.Validators.Find(one.Key); ok {
				signers = append(signers, v.Account)
			}
		}
	}
	again.Recount() // panics when a sum is not what the records come to
	return list
}

// rental executes a transaction and notes what it does to leases; it returns those it placed.
func (s *street) rental(
	x *state.Execution, on *state.State, raw []byte, at tx.Millis, byID map[tx.LeaseID]*rented,
) (placed []*rented) {
	t, err := tx.Decode(raw)
	if err != nil {
		s.h.t.Fatal(err)
	}
	prepared, err := on.Prepare(t)
	if err != nil {
		s.h.t.Fatal(err)
	}
	receipt, err := x.Apply(prepared)
	if err != nil {
		s.h.t.Fatal(err)
	}
	if receipt.Status != chainv1.Status_STATUS_OK {
		return nil
	}
	for k, o := range t.Body.Operations {
		switch o := o.(type) {
		case *tx.PlaceLease:
			r := &rented{Lease: o.Lease, from: at, end: o.Lease.Until}
			byID[o.Lease.ID(s.h.n.Anchor)] = r
			placed = append(placed, r)
		case *tx.End:
			r := byID[o.Lease]
			r.notice = r.notice || t.Body.Account == s.h.n.Accounts[assigner]
			r.end = min(r.end, at)
		case *tx.Charge:
			if r := byID[o.Note.Lease]; r != nil {
				r.paid += receipt.Outcomes[k].Amount
			}
		}
	}
	return placed
}

// checkLanes tests that each lease of a lane was paid no more than the time until its end, or until
// the next one began, and the lane no more than the time that went by; and that the sums hold.
func (s *street) checkLanes(list []*rented) {
	t := s.h.t
	t.Helper()
	slices.SortStableFunc(list, func(a, b *rented) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.from, b.from))
	})
	var paid, lane, most tx.Grains
	for i, r := range list {
		if paid += r.paid; i == 0 || list[i-1].Slot != r.Slot {
			lane, most = 0, 0
		}
		if i+1 < len(list) && list[i+1].Slot == r.Slot {
			if next := list[i+1]; next.Epoch <= r.Epoch {
				t.Errorf("lane %d: epoch %d is followed by %d", r.Slot, r.Epoch, next.Epoch)
			} else {
				r.end = min(r.end, next.from)
			}
		}
		r.end = min(r.end, s.h.chain.Tip().Header.Time)
		due, err := price.Accrued(r.Rate, r.end-r.from)
		if err != nil {
			t.Fatal(err)
		}
		if due += r.Upfront; r.notice {
			after, err := price.Accrued(r.Rate, r.Notice)
			if err != nil {
				t.Fatal(err)
			}
			due += after
		}
		lane, most = lane+r.paid, most+due
		if r.paid > due || lane > most {
			t.Errorf("lane %d, epoch %d: paid %d for %d ms, which are worth %d; the lane %d of %d",
				r.Slot, r.Epoch, r.paid, r.end-r.from, due, lane, most)
		}
	}
	e, ok := s.h.chain.State().Escrow(s.h.escrow)
	fees := tx.Grains(len(list)) * scheduler.DefaultLeaseFee
	if !ok || e.Paid != paid || e.LeaseFees != fees || e.Paid+fees+e.Balance != escrowAmount {
		t.Errorf("the escrow paid %d, %d in fees, and holds %d of %d, its %d leases got %d", e.Paid,
			e.LeaseFees, e.Balance, escrowAmount, len(list), paid)
	}
}

// TestPaidIntervalsOnARealChain drives lanes on real hosts, scheduler and ledger through silences,
// returns, evictions with notice and without, ends that a host tells of what goes on, updates and
// restarts of the scheduler, and cancels in the end. Whoever believes what: no time of a lane is
// paid twice, and the chain's sums hold. -run 'Chain/seed_N' repeats one.
func TestPaidIntervalsOnARealChain(t *testing.T) {
	placed := 0
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStreet(t)
				defer s.h.close()
				s.unrest(rand.New(rand.NewPCG(seed, 1)))
				list := s.rentals()
				s.checkLanes(list)
				placed += len(list)
				t.Logf("%d leases", len(list))
			})
		})
	}
	if placed < 8*4 {
		t.Errorf("%d leases were placed: too little happens", placed)
	}
}

// unrest lets an hour of trouble pass, then everybody is well and the job is cancelled.
func (s *street) unrest(r *rand.Rand) {
	s.h.t.Helper()
	s.submit(func(spec *scheduler.Spec) {
		spec.Lanes, spec.LostAfter = 2, time.Minute
		spec.Keep = scheduler.Keep(r.IntN(3))
	})
	keys, lied := s.keys(), false
	for range 60 {
		lied = s.trouble(r, s.hosts[keys[r.IntN(len(keys))]]) || lied
		s.pass(time.Duration(1+r.IntN(120)) * time.Second)
	}
	s.calm(lied)
}

// keys are those of the hosts, in order.
func (s *street) keys() (keys []sig.PublicKey) {
	for key := range s.hosts {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b sig.PublicKey) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// calm lets everybody be well, cancels the job and waits for its end, and that of its leases unless
// a host lied.
func (s *street) calm(lied bool) {
	s.h.t.Helper()
	for _, r := range s.hosts {
		r.setGone(false)
	}
	if _, err := s.engine().Cancel(s.h.t.Context(), s.job(), "enough"); err != nil {
		s.h.t.Fatal(err)
	}
	for range 30 * 60 {
		if state, _, _ := s.job().State(); state == scheduler.Ended && (lied || s.idle()) {
			return
		}
		s.pass(time.Second)
	}
	state, _, why := s.job().State()
	s.h.t.Fatalf("half an hour after it was cancelled the job is %s: %s", state, why)
}

// TestOriginalsOnARealChain lets hosts fall silent and return with what they kept, while the
// scheduler goes and comes too. Originals go on, no time of a lane is paid twice, and in the end
// nothing is left anywhere.
func TestOriginalsOnARealChain(t *testing.T) {
	continued := map[scheduler.AttemptID]bool{}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStreet(t)
				defer s.h.close()
				s.flicker(rand.New(rand.NewPCG(seed, 2)), continued)
				s.checkLanes(s.rentals())
			})
		})
	}
	if len(continued) < 4*3 && !t.Failed() {
		t.Errorf("%d programs were gone on with: too little happens", len(continued))
	}
}

// flicker lets one host after the other fall silent and return, for an hour or two.
func (s *street) flicker(r *rand.Rand, continued map[scheduler.AttemptID]bool) {
	s.submit(func(spec *scheduler.Spec) {
		spec.Lanes, spec.LostAfter, spec.Keep = 2, 20*time.Second, scheduler.KeepOriginal
	})
	keys := s.keys()
	s.pass(time.Minute)
	for range 20 {
		at := s.hosts[keys[r.IntN(len(keys))]]
		at.setGone(true)
		s.pass(time.Duration(10+r.IntN(240)) * time.Second)
		if r.IntN(4) == 0 {
			synctest.Wait()
			s.stop()
			s.pass(time.Duration(r.IntN(60)) * time.Second)
			s.begin()
		}
		at.setGone(false)
		s.pass(time.Duration(10+r.IntN(240)) * time.Second)
		for _, run := range s.job().Runs {
			for _, a := range run.Attempts {
				if a.Continues != (scheduler.AttemptID{}) && a.Began {
					continued[a.ID] = true
				}
			}
		}
	}
	s.calm(false)
}

func (s *street) job() *scheduler.Job {
	s.h.t.Helper()
	j, err := s.engine().Job(s.h.t.Context(), s.h.n.Accounts[owner], subject)
	if err != nil {
		s.h.t.Fatal(err)
	}
	return j
}

// idle tells that the escrow promises nothing any more.
func (s *street) idle() bool {
	e, _ := s.h.chain.State().Escrow(s.h.escrow)
	return e.Reserved == 0
}

// trouble is something that happens to a host, or to the scheduler. It tells whether a host lied:
// it may then go on in a lease that nobody ends before its time, at the risk that the owner took.
func (s *street) trouble(r *rand.Rand, at *resident) (lied bool) {
	s.h.t.Helper()
	j := s.job()
	a := j.Runs[r.IntN(len(j.Runs))].Current()
	switch what := r.IntN(8); {
	case what < 2:
		at.setGone(r.IntN(3) > 0)
	case what == 2:
		synctest.Wait()
		s.stop()
		s.pass(time.Duration(r.IntN(90)) * time.Second)
		s.begin()
	case what == 3:
		to := j.Spec
		to.Lanes = uint32(1 + r.IntN(3))
		revision := fmt.Appendf(nil, "%d", r.Uint64())
		if _, err := s.engine().Update(s.h.t.Context(), j, to, revision); err != nil {
			s.h.t.Logf("update: %v", err)
		}
	case a == nil || a.State == scheduler.Ended:
	case what == 4: // the host says so, and goes on
		err := s.engine().Report(s.h.t.Context(), scheduler.Report{
			Job: subject, Run: runOf(j, a), Attempt: a.ID, Executor: a.Host.Executor,
			State: scheduler.Ended, End: scheduler.Failed, Reason: "failed", Time: time.Now(), Ran: true,
		})
		if err != nil {
			s.h.t.Error(err)
		}
		return true
	case what > 4:
		notice := time.Duration(max(0, r.IntN(20)-8)) * time.Minute
		if _, err := s.of(*a).agent.Evict(s.h.t.Context(), idOf(*a), notice, "a fan"); err != nil {
			s.h.t.Logf("evict: %v", err) // it is over there
		}
	}
	return false
}

func runOf(j *scheduler.Job, a *scheduler.Attempt) scheduler.RunID {
	r, _ := j.Attempt(a.ID)
	return r.ID
}
