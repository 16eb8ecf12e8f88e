package executor_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// laneHeld has another host's lease hold lane 5 of an escrow with nothing else free. It returns the
// question that would take its place, the lease, and what that surely frees by then.
func (w *world) laneHeld(n byte) (ask executor.Ask, held executor.SignedLease, frees uint64) {
	w.t.Helper()
	ask = w.small(n)
	ask.Terms.Slot = 5
	first := ask
	first.Attempt, first.Terms.Budget = executor.AttemptID(fmt.Sprintf("ff%02x", n)), ucn
	other := newWorld(w.t)
	other.id.Key = key(40)
	defer other.end()
	agent := other.start()
	other.openEscrow(&first, func(*executor.Escrow) {})
	first.Offer = other.offer()
	held = other.lease(agent, first)
	if err := w.ledger.Place(held); err != nil {
		w.t.Fatal(err)
	}
	pass(time.Minute)
	ask.Offer = w.offer()
	ask.Terms.Epoch, ask.Terms.Supersedes = 2, held.ID
	ask.Terms.PlaceBy = uint64(time.Now().Add(time.Minute).UnixMilli())
	w.openEscrow(&ask, func(e *executor.Escrow) { e.Free = 0 })
	l := held.Lease
	span := ask.Terms.PlaceBy - uint64(w.ledger.Read(held.ID).From.UnixMilli()) + l.Notice
	return ask, held, ucn - l.Upfront - l.Rate*span/3_600_000
}

// TestSupersedingMoneyCounts promises what the end of the lane's lease frees, to the grain.
func TestSupersedingMoneyCounts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, _, frees := w.laneHeld(21)
		ask.Terms.Budget = frees + 1
		answer, err := agent.Ask(t.Context(), ask)
		if err != nil || answer.Declined == nil || answer.Declined.Code != executor.DeclineTerms {
			t.Errorf("a grain too much: %+v, %v", answer, err)
		}
		ask.Terms.Budget = frees
		w.lease(agent, ask)
		w.stop() // the answer is the same in another life
		agent = w.start()
		if again, err := agent.Ask(t.Context(), ask); err != nil || again.Lease == nil {
			t.Errorf("asked again: %+v, %v", again.Declined, err)
		}
	})
}

// TestSupersedingFalsely names leases that free nothing for this one.
func TestSupersedingFalsely(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*world, *executor.Ask, executor.SignedLease)
		says  string
	}{
		"of another slot": {func(_ *world, a *executor.Ask, _ executor.SignedLease) {
			a.Terms.Slot = 6
		}, "another escrow or slot"},
		"of another escrow": {func(w *world, a *executor.Ask, _ executor.SignedLease) {
			a.Terms.Escrow[1] = 9
			w.openEscrow(a, func(e *executor.Escrow) { e.Free = a.Terms.Budget })
		}, "another escrow or slot"},
		"of the same epoch": {func(_ *world, a *executor.Ask, _ executor.SignedLease) {
			a.Terms.Epoch = 1
		}, "epoch 1"},
		"not on the chain": {func(_ *world, a *executor.Ask, _ executor.SignedLease) {
			a.Terms.Supersedes[0] ^= 1
		}, "the 0 that the escrow has free"},
		"ended": {func(w *world, _ *executor.Ask, held executor.SignedLease) {
			w.ledger.End(held.ID)
		}, "the 0 that the escrow has free"},
		"not named": {func(_ *world, a *executor.Ask, _ executor.SignedLease) {
			a.Terms.Supersedes = executor.LeaseID{}
		}, "the 0 that the escrow has free"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				ask, held, _ := w.laneHeld(21)
				tt.spoil(w, &ask, held)
				answer, err := agent.Ask(t.Context(), ask)
				if err != nil || answer.Declined == nil || answer.Declined.Code != executor.DeclineTerms ||
					!strings.Contains(answer.Declined.Message, tt.says) {
					t.Errorf("answer %+v %+v, %v; want TERMS %q", answer.Lease, answer.Declined, err, tt.says)
				}
				if o := agent.Offer(); o.Free != o.Total {
					t.Errorf("capacity is held: %+v of %+v", o.Free, o.Total)
				}
			})
		})
	}
}

// TestSupersedingCountsOnce: however many promises name a lease, it frees its money once; and
// nothing is promised while it cannot be read.
func TestSupersedingCountsOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask, _, frees := w.laneHeld(21)
		ask.Terms.Budget = frees/2 + 1
		away := errors.New("the ledger is away")
		w.ledger.SetHook(func(method string) (error, error) {
			if method == "Lease" {
				return away, nil
			}
			return nil, nil
		})
		if answer, err := agent.Ask(t.Context(), ask); !errors.Is(err, away) {
			t.Fatalf("unread: %+v, %v", answer, err)
		}
		w.ledger.SetHook(nil)
		got := 0
		for n := range uint64(4) {
			ask.Attempt, ask.Terms.Epoch = executor.AttemptID(fmt.Sprintf("%04x", n)), 2+n
			answer, err := agent.Ask(t.Context(), ask)
			switch {
			case err != nil:
				t.Fatal(err)
			case answer.Lease != nil:
				got++
			case answer.Declined.Code != executor.DeclineCapacity:
				t.Errorf("declined %+v", answer.Declined)
			}
		}
		if got != 1 {
			t.Errorf("%d promises of more than half of what is freed, want 1", got)
		}
	})
}
