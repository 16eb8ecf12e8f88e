package executor_test

import (
	"testing"
	"testing/synctest"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/executor"
)

// pullWith is pull with credentials for a registry.
func (w *world) pullWith(agent *executor.Agent, n byte, owner sig.AccountID,
	with []executor.RegistryCredential, change ...func(*executor.Ask),
) *pulling {
	w.t.Helper()
	ask := w.ask(n, "exit", "0")
	ask.Spec.Owner, ask.Spec.Image = owner, w.addImage(n, 1000)
	for _, f := range change {
		f(&ask)
	}
	w.openEscrow(&ask, func(e *executor.Escrow) { e.Owner = owner })
	lease := w.lease(agent, ask)
	task := w.task(ask, lease.ID)
	task.From, task.Registry = executor.Peer{Account: owner}, with
	p := &pulling{ask: ask, gate: w.gates[ask.Spec.Image], client: &client{w: w},
		done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.end = p.client.run(task)
	}()
	synctest.Wait()
	return p
}

// TestOneLoadForAllTags: references that differ in their tag alone share a load; another right at
// the same registry does not, as it may be a wrong one.
func TestOneLoadForAllTags(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 4)
		shared := &gate{open: make(chan struct{})}
		for _, tag := range []string{"", ":1", ":2"} {
			w.gates[executor.ImageID("r.example/a"+tag)] = shared
		}
		pull := func(n byte, reference string, with ...executor.RegistryCredential) *pulling {
			return w.pullWith(agent, n, sig.AccountID{n}, with, func(a *executor.Ask) {
				a.Spec.Image, a.Spec.Reference = w.addImage(1, 1000), reference
			})
		}
		all := []*pulling{pull(1, "r.example/a"), pull(2, "r.example/a:1"), pull(3, "r.example/a:2")}
		if opened, _ := shared.counts(); opened != 1 {
			t.Errorf("three tags of one repository are opened %d times", opened)
		}
		all = append(all, pull(4, "r.example/a:1",
			executor.RegistryCredential{Host: "r.example", Username: "u", Password: "p"}))
		if opened, _ := shared.counts(); opened != 2 {
			t.Errorf("with another right it is opened %d times", opened)
		}
		close(shared.open)
		for _, p := range all {
			<-p.done
			if p.end.Reason != executor.EndCompleted {
				t.Errorf("%s ended %+v", p.ask.Attempt, p.end)
			}
		}
	})
}
