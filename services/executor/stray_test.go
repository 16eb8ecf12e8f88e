package executor_test

import (
	"errors"
	"testing"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
	"github.com/united-containers/ucn/services/executor/fake"
)

// TestStrays: containers that no attempt knows go, and one that the engine does not let go keeps
// the executor from nothing.
func TestStrays(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		driver := w.host.Driver("e")
		for _, name := range []string{"stuck", "gone"} {
			if _, err := driver.Create(t.Context(), executortest.Spec(image, name)); err != nil {
				t.Fatal(err)
			}
		}
		w.setDriver(func(c fake.Call) (f fake.Fault) {
			if c.Method == "Remove" && c.Attempt == "stuck" {
				f.Err = errors.New("podman hangs")
			}
			return f
		})
		agent := w.start()
		list, err := driver.List(t.Context())
		if err != nil || len(list) != 1 || list[0].Info().Attempt != "stuck" {
			t.Errorf("left are %v, %v", list, err)
		}
		ask := w.ask(1, "exit", "0")
		lease := w.lease(agent, ask)
		if o := (&client{w: w}).run(w.task(ask, lease.ID)); o.Reason != executor.EndCompleted {
			t.Errorf("outcome %+v", o)
		}
	})
}
