package executor_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/executor"
)

// small makes a question that takes little of the host, so that money and caps decide.
func (w *world) small(n byte) executor.Ask {
	ask := w.ask(n, "exit", "0")
	ask.Spec.Outputs = nil
	ask.Spec.Resources = executor.Resources{CPUMilli: 10, Memory: 8 << 20}
	ask.Terms.Budget = ucn / 10
	return ask
}

// TestPromisesNeedMoney plays a scheduler with one escrow that asks for more than it could place:
// the host holds capacity only for what the escrow has free.
func TestPromisesNeedMoney(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.small(20)
		w.openEscrow(&ask, func(e *executor.Escrow) { e.Free = 3*ask.Terms.Budget + 1 })
		got := 0
		var leases []executor.SignedLease
		for n := range 20 {
			again := ask
			again.Attempt = executor.AttemptID(fmt.Sprintf("%04x", n))
			again.Terms.Slot = uint32(n)
			answer, err := agent.Ask(t.Context(), again)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Lease != nil {
				got++
				leases = append(leases, *answer.Lease)
			} else if answer.Declined.Code != executor.DeclineCapacity {
				t.Errorf("declined %+v, want %s", answer.Declined, executor.DeclineCapacity)
			}
		}
		if got != 3 {
			t.Errorf("%d promises were made on money for 3", got)
		}
		// Placing one reserves its money on the chain: it is not counted twice.
		if err := w.ledger.Place(leases[0]); err != nil {
			t.Fatal(err)
		}
		w.openEscrow(&ask, func(e *executor.Escrow) { e.Free = 3 * ask.Terms.Budget })
		more := ask
		more.Attempt, more.Terms.Slot = "0099", 99
		if answer, err := agent.Ask(t.Context(), more); err != nil || answer.Lease == nil {
			t.Errorf("after one was placed: %+v, %v", answer.Declined, err)
		}
	})
}

// TestPromisesAreCounted plays a scheduler with many rich escrows that places nothing: it never
// holds more than max_unplaced promises, others are served, and what lapsed is given back.
func TestPromisesAreCounted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.MaxUnplaced = 4
		agent := w.start()
		offer := func(n byte) (*executor.Lease, *executor.Decline) {
			ask := w.small(n)
			answer, err := agent.Ask(t.Context(), ask)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Lease != nil {
				return &answer.Lease.Lease, nil
			}
			return nil, answer.Declined
		}
		for n := range byte(4) {
			if _, no := offer(20 + n); no != nil {
				t.Fatalf("promise %d: %+v", n, no)
			}
		}
		if _, no := offer(30); no == nil || no.Code != executor.DeclineCapacity ||
			!strings.Contains(no.Message, "this scheduler") {
			t.Errorf("beyond the cap: %+v", no)
		}
		w.asker.Instance = key(9).Public() // the operator's other scheduler
		for n := range byte(4) {
			if _, no := offer(40 + n); no != nil {
				t.Fatalf("promise %d of the other scheduler: %+v", n, no)
			}
		}
		w.asker.Instance = key(10).Public()
		if _, no := offer(50); no == nil || !strings.Contains(no.Message, "operator") {
			t.Errorf("beyond the operator's cap: %+v", no)
		}
		w.asker = executor.Peer{Instance: key(11).Public(), Operator: sig.AccountID{11}}
		if _, no := offer(60); no != nil {
			t.Errorf("a stranger is not served: %+v", no)
		}
		timer := time.NewTimer(2 * time.Minute) // of the bubble: everything has lapsed by then
		<-timer.C
		synctest.Wait()
		if _, no := offer(61); no != nil {
			t.Errorf("after the promises lapsed: %+v", no)
		}
	})
}

// TestAskWithoutLedger answers nothing while the chain cannot be read.
func TestAskWithoutLedger(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		away := errors.New("the ledger is away")
		w.ledger.SetHook(func(string) (error, error) { return away, nil })
		if answer, err := agent.Ask(t.Context(), ask); !errors.Is(err, away) {
			t.Fatalf("answer %+v, %v", answer, err)
		}
		if o := agent.Offer(); o.Free != o.Total {
			t.Errorf("capacity is held: %+v of %+v", o.Free, o.Total)
		}
		w.ledger.SetHook(nil)
		w.lease(agent, ask)
	})
}

// TestEscrowIsReadAgain refuses a task whose escrow is not what it was when the host was asked.
func TestEscrowIsReadAgain(t *testing.T) {
	for says, spoil := range map[string]func(*executor.Escrow){
		"names another job": func(e *executor.Escrow) { e.Job = executor.JobID{99} },
		"another account":   func(e *executor.Escrow) { e.Owner = sig.AccountID{99} },
	} {
		inWorld(t, func(t *testing.T, w *world) {
			agent := w.start()
			ask := w.ask(1, "exit", "0")
			lease := w.lease(agent, ask)
			w.openEscrow(&ask, spoil)
			o := (&client{w: w}).run(w.task(ask, lease.ID))
			if o.Reason != executor.EndRefused || !strings.Contains(o.Message, says) || o.Amount != 0 {
				t.Errorf("outcome %s %q, %d grains; want refused %q", o.Reason, o.Message, o.Amount, says)
			}
			w.closed(ask.Attempt)
			if got := w.ledger.Read(lease.ID); got.Paid != 0 || !got.Settled {
				t.Errorf("the lease paid %d, settled %v; want 0 and given back", got.Paid, got.Settled)
			}
		})
	}
}
