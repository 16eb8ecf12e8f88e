package executor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// TestHeldImageNeedsTheRightToRead: that an image is here already runs it for nobody who may not
// read it.
func TestHeldImageNeedsTheRightToRead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.files.Deny("thief")
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		lease := w.lease(agent, ask)
		task := w.task(ask, lease.ID)
		task.StorageToken = "thief"
		if o := (&client{w: w}).run(task); o.Reason != executor.EndRefused || o.Amount != 0 {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
	})
}

// TestRegistryCredentials: they are bounded, come from the owner alone, are never written down, and
// are waited for when a restart lost them.
func TestRegistryCredentials(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		plain := w.ask(1, "exit", "0")
		lease := w.lease(agent, plain)
		task := w.task(plain, lease.ID)
		task.Registry = []executor.RegistryCredential{{Host: "r.example", Password: "pass-word"}}
		refused(t, agent, task, executor.ReasonCredentials)

		ask := w.ask(2, "exit", "0")
		ask.Spec.Reference = "r.example/a"
		w.setDriver(func(fake.Call) fake.Fault { return fake.Fault{Err: errNoEngine} })
		lease = w.lease(agent, ask)
		good := w.task(ask, lease.ID)
		one := executor.RegistryCredential{Host: "r.example", Username: "u", Password: "pass-word"}
		for _, list := range [][]executor.RegistryCredential{
			{one, one}, {{}}, make([]executor.RegistryCredential, 9),
			{{Host: "a", Password: strings.Repeat("x", 17<<10)}},
		} {
			task = good
			task.Registry = list
			refused(t, agent, task, executor.ReasonCredentials)
		}
		good.Registry = []executor.RegistryCredential{one}
		forged := good
		forged.From = w.asker
		refused(t, agent, forged, executor.ReasonSecrets)

		done := make(chan *executor.Outcome, 1)
		bare := good
		bare.Registry = nil
		go func() { done <- (&client{w: w}).run(good) }()
		timer := time.NewTimer(5 * time.Second)
		<-timer.C
		raw, err := json.Marshal(w.journal.Record(ask.Attempt))
		if err != nil || strings.Contains(string(raw), "pass-word") {
			t.Errorf("the record holds a password, %v", err)
		}
		w.setDriver(nil)
		if o := <-done; o.Reason != executor.EndCompleted {
			t.Errorf("outcome %+v", o)
		}
		if s := fmt.Sprintf("%v %+v %#v", good, good, good.Registry); strings.Contains(s, "pass-word") {
			t.Errorf("a task prints its password: %s", s)
		}
	})
}

var errNoEngine = errors.New("the engine is away")

func refused(t *testing.T, agent *executor.Agent, task executor.Task, reason error) {
	t.Helper()
	if err := agent.Task(t.Context(), task, nil); !errors.Is(err, reason) {
		t.Errorf("error %v, want %v", err, reason)
	}
}

// TestLostCredentials: after a restart an attempt does not try without the credentials it had.
func TestLostCredentials(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		ask.Spec.Reference = "r.example/a"
		lease := w.lease(agent, ask)
		task := w.task(ask, lease.ID)
		task.Registry = []executor.RegistryCredential{{Host: "r.example", Password: "p"}}
		w.setDriver(func(fake.Call) fake.Fault { return fake.Fault{Err: errNoEngine} })
		done := make(chan *executor.Outcome, 1)
		bare := task
		bare.Registry = nil
		go func() {
			_ = agent.Task(t.Context(), task, func(executor.Update) error { return nil })
			done <- (&client{w: w}).run(bare)
		}()
		timer := time.NewTimer(5 * time.Second)
		<-timer.C
		w.kill()
		w.setDriver(nil)
		w.start()
		if o := <-done; o.Reason != executor.EndRefused || !strings.Contains(o.Message, "secrets") {
			t.Errorf("outcome %+v", o)
		}
	})
}
