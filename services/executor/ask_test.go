package executor_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/executor"
)

func TestAskDeclines(t *testing.T) {
	type spoil func(w *world, a *executor.Ask)
	tests := map[string]struct {
		spoil spoil
		code  executor.DeclineCode
		says  string
	}{
		"not served": {func(_ *world, a *executor.Ask) { a.Spec.Unserved = []string{"ports", "wake"} },
			executor.DeclineUnsupported, "ports, wake"},
		"network": {func(_ *world, a *executor.Ask) { a.Spec.Resources.Network = 1 },
			executor.DeclineUnsupported, "resources.network"},
		"chain": {func(_ *world, a *executor.Ask) { a.Spec.Chain = "side" },
			executor.DeclinePolicy, `chain "side"`},
		"isolation": {func(_ *world, a *executor.Ask) { a.Spec.Isolation = "gvisor" },
			executor.DeclineUnsupported, "gvisor"},
		"platform": {func(_ *world, a *executor.Ask) { a.Spec.Platforms = []string{"plan9/mips"} },
			executor.DeclineUnsupported, "placement.platforms"},
		"image": {func(_ *world, a *executor.Ask) { a.Spec.Image = "latest" },
			executor.DeclineInvalid, "latest"},
		"too little memory": {func(_ *world, a *executor.Ask) { a.Spec.Resources.Memory = 1 },
			executor.DeclineInvalid, "memory_bytes"},
		"secret name": {func(_ *world, a *executor.Ask) { a.Spec.Secrets = []string{"a b"} },
			executor.DeclineInvalid, "secrets"},
		"output over the program": {func(_ *world, a *executor.Ask) {
			a.Spec.Outputs = []string{"/usr/x"}
		}, executor.DeclineInvalid, "hide /usr"},
		"no disk for outputs": {func(_ *world, a *executor.Ask) { a.Spec.Resources.Disk = 1 << 20 },
			executor.DeclineInvalid, "resources.disk"},
		"operator denied": {func(w *world, a *executor.Ask) {
			a.Spec.Deny = []sig.AccountID{w.id.Operator}
		}, executor.DeclinePolicy, "placement.operators"},
		"operator not allowed": {func(_ *world, a *executor.Ask) { a.Spec.Allow = []sig.AccountID{{9}} },
			executor.DeclinePolicy, "placement.operators"},
		"holdback": {func(_ *world, a *executor.Ask) { a.Terms.Holdback = a.Terms.Budget / 2 },
			executor.DeclinePolicy, "holdback"},
		"holdback of a huge budget": {func(_ *world, a *executor.Ask) {
			a.Terms.Budget = 1 << 62
			a.Terms.Holdback = a.Terms.Budget / 2
		}, executor.DeclinePolicy, "holdback"},
		"price cap": {func(w *world, a *executor.Ask) {
			most := w.cfg.Prices
			most.CoreHour--
			a.Spec.Cap = &most
		}, executor.DeclinePrice, "core_hour"},
		"price model": {func(w *world, a *executor.Ask) {
			most := w.cfg.Prices
			most.Model = executor.PriceFlat
			a.Spec.Cap = &most
		}, executor.DeclinePrice, "model"},
		"rate": {func(_ *world, a *executor.Ask) { a.Spec.MaxRate = 1 },
			executor.DeclinePrice, "payment.max_rate"},
		"offer": {func(_ *world, a *executor.Ask) { a.Offer[0] ^= 1 }, executor.DeclineOffer, ""},
		"another job": {func(_ *world, a *executor.Ask) { a.Terms.Subject[0] ^= 1 },
			executor.DeclineTerms, "another job"},
		"no escrow": {func(_ *world, a *executor.Ask) { a.Terms.Escrow = executor.EscrowID{} },
			executor.DeclineTerms, "no escrow"},
		"escrow unknown": {func(_ *world, a *executor.Ask) { a.Terms.Escrow = executor.EscrowID{77} },
			executor.DeclineTerms, "no such escrow"},
		"escrow of another job": {func(w *world, a *executor.Ask) {
			w.openEscrow(a, func(e *executor.Escrow) { e.Job = executor.JobID{99} })
		}, executor.DeclineTerms, "names another job"},
		"escrow of another owner": {func(w *world, a *executor.Ask) {
			w.openEscrow(a, func(e *executor.Escrow) { e.Owner = sig.AccountID{99} })
		}, executor.DeclineTerms, "another account"},
		"escrow of another scheduler": {func(w *world, a *executor.Ask) {
			w.openEscrow(a, func(e *executor.Escrow) { e.Assigner = sig.AccountID{99} })
		}, executor.DeclineTerms, "assigner"},
		"escrow without a scheduler": {func(w *world, a *executor.Ask) {
			w.openEscrow(a, func(e *executor.Escrow) { e.Assigner = sig.AccountID{} })
		}, executor.DeclineTerms, "assigner"},
		"escrow too small": {func(w *world, a *executor.Ask) {
			w.openEscrow(a, func(e *executor.Escrow) { e.Free = a.Terms.Budget - 1 })
		}, executor.DeclineTerms, "has free"},
		"place_by over": {func(_ *world, a *executor.Ask) { a.Terms.PlaceBy = 1 },
			executor.DeclineTerms, "place_by"},
		"place_by too far": {func(_ *world, a *executor.Ask) {
			a.Terms.PlaceBy = uint64(time.Now().Add(11 * time.Minute).UnixMilli())
		}, executor.DeclineTerms, "place_by"},
		"until": {func(_ *world, a *executor.Ask) { a.Terms.Until = a.Terms.PlaceBy },
			executor.DeclineTerms, "until"},
		"claim window": {func(_ *world, a *executor.Ask) { a.Terms.ClaimWindow = 1000 },
			executor.DeclineTerms, "claim_window"},
		"claim window huge": {func(_ *world, a *executor.Ask) { a.Terms.ClaimWindow = 1<<64 - 1 },
			executor.DeclineTerms, "claim_window"},
		"no ack key": {func(_ *world, a *executor.Ask) { a.Terms.AckKeys = nil },
			executor.DeclineTerms, "ack keys"},
		"my own key": {func(w *world, a *executor.Ask) {
			a.Terms.AckKeys = []sig.PublicKey{w.id.Key.Public()}
		}, executor.DeclineTerms, "ack key 0"},
		"bad key": {func(_ *world, a *executor.Ask) { a.Terms.AckKeys = []sig.PublicKey{{}} },
			executor.DeclineTerms, "ack key 0"},
		"no trust": {func(_ *world, a *executor.Ask) { a.Terms.Trust = 1 },
			executor.DeclineTerms, "trust"},
		"no budget": {func(_ *world, a *executor.Ask) { a.Terms.Budget = 0 },
			executor.DeclineTerms, "budget"},
		"memory": {func(_ *world, a *executor.Ask) { a.Spec.Resources.Memory = 17 << 30 },
			executor.DeclineCapacity, "free:"},
		"cores": {func(_ *world, a *executor.Ask) { a.Spec.Resources.CPUMilli = 9000 },
			executor.DeclineCapacity, "free:"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				ask := w.ask(1, "exit", "0")
				tt.spoil(w, &ask)
				answer, err := agent.Ask(t.Context(), ask)
				if err != nil || answer.Declined == nil || answer.Lease != nil {
					t.Fatalf("answer %+v, %v, want declined", answer, err)
				}
				if d := answer.Declined; d.Code != tt.code || !strings.Contains(d.Message, tt.says) {
					t.Errorf("declined %s %q, want %s %q", d.Code, d.Message, tt.code, tt.says)
				}
				if list, err := agent.Attempts(t.Context(), time.Time{}, 10); err != nil || len(list) != 0 {
					t.Errorf("%d attempts are written down, %v", len(list), err)
				}
				if o := agent.Offer(); o.Free != o.Total {
					t.Errorf("a declined question holds capacity: %+v of %+v", o.Free, o.Total)
				}
			})
		})
	}
}

// TestAskIsAnsweredOnce repeats a question before and after a restart, and asks another by the
// same attempt.
func TestAskIsAnsweredOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		first := w.lease(agent, ask)
		w.stop()
		agent = w.start()
		again, err := agent.Ask(t.Context(), ask)
		if err != nil || again.Lease == nil {
			t.Fatalf("asked again: %+v, %v", again, err)
		}
		if diff := cmp.Diff(first, *again.Lease); diff != "" {
			t.Errorf("another lease: %s", diff)
		}
		other := ask
		other.Terms.Budget++
		if answer, err := agent.Ask(t.Context(), other); err != nil || answer.Declined == nil {
			t.Errorf("another question by the same attempt: %+v, %v", answer, err)
		}
		(&client{w: w}).run(w.task(ask, first.ID))
		w.closed(ask.Attempt)
		if answer, err := agent.Ask(t.Context(), ask); err != nil || answer.Declined == nil {
			t.Errorf("the question of an attempt that is over: %+v, %v", answer, err)
		}
	})
}

func TestAskDefaults(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		lease := w.lease(agent, w.ask(1, "exit", "0")).Lease
		// 1 core and 64 MiB at the default prices, and a minute of it on trust.
		const rate = 1_000_000_000 + 100_000_000/16
		if lease.Rate != rate || lease.Upfront != 0 || lease.Trust != rate/60 {
			t.Errorf("rate %d, upfront %d, trust %d", lease.Rate, lease.Upfront, lease.Trust)
		}
		if lease.ClaimWindow != 24*3600*1000 || lease.Payee != w.id.Payee {
			t.Errorf("lease %+v", lease)
		}
		detached := w.ask(2, "exit", "0")
		detached.Terms.Trust = detached.Terms.Budget
		if got := w.lease(agent, detached).Lease.Trust; got != detached.Terms.Budget {
			t.Errorf("a trust of %d was asked, %d granted", detached.Terms.Budget, got)
		}
	})
}

// TestAskNotice signs a lease with this host's notice only for an owner who pays for so much.
func TestAskNotice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Notice = executor.MaxOfferNotice
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		ask.Spec.MaxNotice = w.cfg.Notice - 1
		answer, err := agent.Ask(t.Context(), ask)
		if err != nil || answer.Declined == nil || answer.Declined.Code != executor.DeclinePrice ||
			!strings.Contains(answer.Declined.Message, "payment.max_notice") {
			t.Fatalf("answer %+v, %v", answer, err)
		}
		ask.Attempt, ask.Spec.MaxNotice = "ff01", w.cfg.Notice
		if l := w.lease(agent, ask).Lease; l.Notice != 60_000 {
			t.Errorf("notice %d ms", l.Notice)
		}
	})
	cfg := executor.DefaultConfig()
	cfg.Notice = executor.MaxOfferNotice + 1
	if err := cfg.Validate(); err == nil {
		t.Error("a notice that no owner can pay for is a good configuration")
	}
}

// TestAskNotWritten says no lease when it cannot be written down.
func TestAskNotWritten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		full := errors.New("no space left on device")
		w.journal.SetHook(func(string) (error, error) { return full, nil })
		if answer, err := agent.Ask(t.Context(), ask); !errors.Is(err, full) {
			t.Fatalf("answer %+v, %v", answer, err)
		}
		w.journal.SetHook(nil)
		w.lease(agent, ask)
	})
}
