package executor_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	"github.com/united-containers/ucn/services/executor"
)

// declines asks and tells the rule that declined, "" when the host said yes.
func (w *world) declines(agent *executor.Agent, ask executor.Ask) string {
	w.t.Helper()
	answer, err := agent.Ask(w.t.Context(), ask)
	if err != nil {
		w.t.Fatal(err)
	}
	if no := answer.Declined; no != nil {
		if no.Code != executor.DeclinePolicy {
			w.t.Errorf("declined %+v", no)
		}
		return no.Message
	}
	return ""
}

// policies lists the changes that events told of.
func (w *world) policies() (list []*executorv1.PolicyChanged) {
	w.t.Helper()
	for _, e := range w.journal.Events() {
		if e.Type != executor.TypePolicyChanged {
			continue
		}
		m := &executorv1.PolicyChanged{}
		if err := canon.Unmarshal(e.Payload, m); err != nil || e.Topic != event.TopicOperator {
			w.t.Fatalf("event %+v: %v", e, err)
		}
		list = append(list, m)
	}
	return list
}

// TestPolicyByCommand: it counts at once and after restarts, touches nothing that runs, and neither
// draining nor undraining forgets it.
func TestPolicyByCommand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		me := id.Bech32(id.Account, w.owner.Account)
		long := w.ask(1, "sleep", "10m")
		lease := w.lease(agent, long)
		done := make(chan *executor.Outcome, 1)
		go func() { done <- (&client{w: w}).run(w.task(long, lease.ID)) }()
		synctest.Wait()
		deny := executor.Policy{DenyOwners: []string{me}}
		set, against, err := agent.SetPolicy(t.Context(), deny, 0, "spam")
		if err != nil || set.Version != 1 || against != 1 {
			t.Fatalf("set %+v, %d against it, %v", set, against, err)
		}
		for n, again := range []func(){
			func() {}, func() { w.stop(); agent = w.start() }, func() { w.kill(); agent = w.start() },
			func() {
				if _, err := agent.Drain(t.Context(), "", 0); err != nil {
					t.Fatal(err)
				}
				if err := agent.Undrain(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
		} {
			again()
			if got := w.declines(agent, w.ask(byte(2+n), "exit", "0")); !strings.Contains(got, "owner") {
				t.Errorf("%d: a denied owner is told %q", n, got)
			}
			have := agent.State().Set
			if have == nil || have.Version != 1 || have.Reason != "spam" {
				t.Errorf("%d: the host says %+v", n, have)
			}
		}
		if o := <-done; o.Reason != executor.EndCompleted {
			t.Errorf("what ran ended as %+v", o)
		}
		set, against, err = agent.SetPolicy(t.Context(), executor.Policy{}, 1, "")
		if err != nil || set.Version != 2 || against != 0 {
			t.Fatalf("lifted as %+v, %d against it, %v", set, against, err)
		}
		w.lease(agent, w.ask(9, "exit", "0"))
		told := w.policies()
		if len(told) != 2 || told[0].Version != 1 || told[0].Entries != 1 || told[1].Version != 2 ||
			told[1].Entries != 0 || len(told[0].Hash) != 32 {
			t.Errorf("events %v", told)
		}
	})
}

// TestPolicyIsNotGuessed: the event's hash is under a random key that the host keeps, so nobody
// else can try what the policy may say.
func TestPolicyIsNotGuessed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		deny := executor.Policy{DenyOwners: []string{id.Bech32(id.Account, w.owner.Account)}}
		for base := range uint64(2) {
			if _, _, err := agent.SetPolicy(t.Context(), deny, base, ""); err != nil {
				t.Fatal(err)
			}
			if salt := agent.State().Set.Salt; len(salt) != 32 {
				t.Errorf("the host keeps %d bytes of salt", len(salt))
			}
		}
		synctest.Wait()
		told := w.policies()
		if len(told) != 2 || string(told[0].GetHash()) == string(told[1].GetHash()) {
			t.Errorf("two events of one policy: %v", told)
		}
	})
}

// TestFilePolicyIsNotLifted: whoever has the operator's token cannot take what the file forbids.
func TestFilePolicyIsNotLifted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		me := id.Bech32(id.Account, w.owner.Account)
		other := id.Bech32(id.Account, w.asker.Operator)
		w.cfg.Policy = executor.Policy{AllowOwners: []string{other}, MaxRunTime: time.Hour}
		agent := w.start()
		wide := executor.Policy{AllowOwners: []string{me}, MaxRunTime: 10 * time.Hour}
		if _, _, err := agent.SetPolicy(t.Context(), wide, 0, ""); err != nil {
			t.Fatal(err)
		}
		ask := w.ask(1, "exit", "0")
		ask.Spec.RunTime = time.Minute
		if got := w.declines(agent, ask); !strings.Contains(got, "owner") {
			t.Errorf("an owner whom the file does not allow is told %q", got)
		}
		w.stop()
		w.cfg.Policy = executor.Policy{MaxRunTime: time.Hour}
		agent = w.start()
		ask = w.ask(2, "exit", "0")
		ask.Spec.RunTime = 2 * time.Hour
		if got := w.declines(agent, ask); !strings.Contains(got, "1h0m0s") {
			t.Errorf("a longer run than the file allows is told %q", got)
		}
	})
}

// TestPolicyVersions: a change that is based on another version than the one in force is refused,
// so that two people do not undo each other's; a repeated one is success.
func TestPolicyVersions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		one, two := executor.Policy{MaxRunTime: time.Hour}, executor.Policy{MaxRunTime: time.Minute}
		set := func(p executor.Policy, base uint64) (executor.PolicySet, error) {
			got, _, err := agent.SetPolicy(t.Context(), p, base, "r")
			return got, err
		}
		if _, err := set(one, 1); !errors.Is(err, executor.ReasonPolicyChanged) {
			t.Errorf("based on a version that never was: %v", err)
		}
		first, err := set(one, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // also in another life
			pass(time.Second)
			again, err := set(one, 0)
			if diff := cmp.Diff(first, again); err != nil || diff != "" {
				t.Errorf("repeated: %v, %s", err, diff)
			}
			w.stop()
			agent = w.start()
		}
		if _, err := set(two, 0); !errors.Is(err, executor.ReasonPolicyChanged) ||
			fault.KindOf(err) != fault.FailedPrecondition {
			t.Errorf("another change of the same version: %v", err)
		}
		if got, err := set(two, 1); err != nil || got.Version != 2 {
			t.Errorf("the next: %+v, %v", got, err)
		}
		if n := len(w.policies()); n != 2 {
			t.Errorf("%d events of two changes", n)
		}
	})
}

// TestBadPolicies: nothing of a policy that cannot be read is set.
func TestBadPolicies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		for name, tt := range map[string]struct {
			policy executor.Policy
			reason string
			says   string
		}{
			"no owner":     {executor.Policy{DenyOwners: []string{"bob"}}, "", "deny_owners"},
			"no image":     {executor.Policy{DenyImages: []string{"debian"}}, "", "deny_images"},
			"a long list":  {executor.Policy{DenyImages: make([]string, 1001)}, "", "1001"},
			"no time":      {executor.Policy{MaxRunTime: -1}, "", "max_run_time"},
			"a long story": {executor.Policy{}, strings.Repeat("x", 201), "reason"},
		} {
			_, _, err := agent.SetPolicy(t.Context(), tt.policy, 0, tt.reason)
			if fault.KindOf(err) != fault.InvalidArgument || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if set := agent.State().Set; set != nil || len(w.policies()) != 0 {
			t.Errorf("there is %+v", set)
		}
	})
}

// TestKilledWhileAPolicyIsSet: at each side of the write the next life has the old policy or the
// new one, never a part, and repeating the change sets it once.
func TestKilledWhileAPolicyIsSet(t *testing.T) {
	for name, written := range map[string]bool{"before the write": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				w.journal.SetHook(func(op string) (before, after error) {
					if op != "SaveHost" {
						return nil, nil
					}
					if written {
						return nil, errKilled
					}
					return errKilled, nil
				})
				deny := executor.Policy{DenyOwners: []string{id.Bech32(id.Account, w.owner.Account)}}
				if _, _, err := agent.SetPolicy(t.Context(), deny, 0, ""); !errors.Is(err, errKilled) {
					t.Fatalf("set: %v", err)
				}
				w.kill()
				w.journal.SetHook(func(string) (error, error) { return w.killed(), nil })
				agent = w.start()
				if got := w.declines(agent, w.ask(1, "exit", "0")); (got != "") != written {
					t.Errorf("the next life declines with %q", got)
				}
				if (len(w.policies()) != 0) != written {
					t.Errorf("%d events", len(w.policies()))
				}
				set, _, err := agent.SetPolicy(t.Context(), deny, 0, "")
				if err != nil || set.Version != 1 || len(w.policies()) != 1 {
					t.Errorf("repeated: %+v, %v, %d events", set, err, len(w.policies()))
				}
				if got := w.declines(agent, w.ask(2, "exit", "0")); got == "" {
					t.Error("it is not in force")
				}
			})
		})
	}
}
