package executor_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/services/executor"
)

// TestDrain: a host that drains takes nothing new and says so in its offer, also after a restart;
// what runs goes on.
func TestDrain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		if _, err := agent.Drain(t.Context(), strings.Repeat("x", 201), 0); err == nil {
			t.Error("a reason of 201 bytes is taken")
		}
		long := w.ask(1, "sleep", "10m")
		lease := w.lease(agent, long)
		done := make(chan *executor.Outcome, 1)
		go func() { done <- (&client{w: w}).run(w.task(long, lease.ID)) }()
		synctest.Wait()
		left, err := agent.Drain(t.Context(), "new disks", 0)
		pass(time.Second)
		if err != nil || left != 1 || !agent.Offer().Draining {
			t.Errorf("%d left, %v, offer %v", left, err, agent.Offer().Draining)
		}
		for range 2 {
			answer, err := agent.Ask(t.Context(), w.ask(2, "exit", "0"))
			if err != nil || answer.Declined == nil ||
				answer.Declined.Code != executor.DeclineDraining ||
				!strings.Contains(answer.Declined.Message, "new disks") {
				t.Errorf("answer %+v, %v", answer, err)
			}
			w.stop()
			agent = w.start()
		}
		if o := <-done; o.Reason != executor.EndCompleted {
			t.Errorf("what ran ended as %+v", o)
		}
		err = agent.Undrain(t.Context())
		pass(time.Second)
		if err != nil || agent.Offer().Draining {
			t.Errorf("undrained: %v, offer %v", err, agent.Offer().Draining)
		}
		w.lease(agent, w.ask(3, "exit", "0"))
	})
}

// TestOperatorPolicy: what an operator does not want is declined with the rule that says so.
func TestOperatorPolicy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		me := id.Bech32(id.Account, w.owner.Account)
		other := id.Bech32(id.Account, w.asker.Operator)
		digest, err := executor.ImageID(image).Digest()
		if err != nil {
			t.Fatal(err)
		}
		n := byte(0)
		for name, tt := range map[string]struct {
			policy executor.Policy
			says   string
		}{
			"allowed owners": {executor.Policy{AllowOwners: []string{other}}, "owner"},
			"denied owner":   {executor.Policy{DenyOwners: []string{me}}, "owner"},
			"shouted owner":  {executor.Policy{DenyOwners: []string{strings.ToUpper(me)}}, "owner"},
			"shouted me":     {executor.Policy{AllowOwners: []string{strings.ToUpper(me)}}, ""},
			"denied image":   {executor.Policy{DenyImages: []string{image}}, "image"},
			"denied digest":  {executor.Policy{DenyImages: []string{digest}}, "image"},
			"no run time":    {executor.Policy{MaxRunTime: time.Hour}, "limits.run_time_ms"},
			"me":             {executor.Policy{AllowOwners: []string{me}}, ""},
		} {
			w.cfg.Policy = tt.policy
			agent := w.start()
			n++
			answer, err := agent.Ask(t.Context(), w.ask(n, "exit", "0"))
			switch no := answer.Declined; {
			case err != nil:
				t.Error(name, err)
			case tt.says == "" && no != nil:
				t.Errorf("%s: declined %+v", name, no)
			case tt.says != "" && (no == nil || no.Code != executor.DeclinePolicy ||
				!strings.HasPrefix(no.Message, tt.says)):
				t.Errorf("%s: %+v", name, no)
			}
			w.stop()
		}
		for name, policy := range map[string]executor.Policy{
			"no account":        {DenyOwners: []string{"nobody"}},
			"no account either": {AllowOwners: []string{id.Bech32(id.Job, w.owner.Account)}},
			"no image":          {DenyImages: []string{"nonsense"}},
			"an odd digest":     {DenyImages: []string{strings.ToUpper(digest)}},
			"half a digest":     {DenyImages: []string{digest[:20]}},
			"an odd CID":        {DenyImages: []string{strings.ToUpper(image)}},
			"a space":           {DenyImages: []string{" " + image}},
			"a file":            {DenyImages: []string{cid.OfFile([32]byte{}).String()}},
			"a negative time":   {MaxRunTime: -1},
		} {
			w.cfg.Policy = policy
			if err := w.cfg.Validate(); err == nil {
				t.Errorf("%s is taken", name)
			}
		}
	})
}
