package executor_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

func TestSecrets(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.host = fake.NewHost(fake.Options{AnyImage: true, Hook: w.driverHook,
			Programs: map[string]fake.Program{"/guest": func(p *fake.Process) int {
				p.Print(executor.Stdout, strings.Join(p.Env, " "))
				return 0
			}}})
		agent := w.start()
		ask := w.ask(1)
		ask.Spec.Secrets = []string{"API_KEY"}
		lease := w.lease(agent, ask)
		task := w.task(ask, lease.ID)
		for name, secrets := range map[string]map[string]string{
			"none": nil, "another": {"OTHER": "x"}, "too many": {"API_KEY": "x", "B": "y"},
			"zero byte": {"API_KEY": "a\x00b"}, "too big": {"API_KEY": strings.Repeat("x", 65<<10)},
		} {
			task.Secrets = secrets
			if err := agent.Task(t.Context(), task, nil); !errors.Is(err, executor.ReasonSecrets) {
				t.Errorf("%s: %v", name, err)
			}
		}
		task.Secrets = map[string]string{"API_KEY": "s3cret"}
		forged := task
		forged.From = w.asker
		if err := agent.Task(t.Context(), forged, nil); !errors.Is(err, executor.ReasonSecrets) {
			t.Errorf("secrets of a scheduler: %v", err)
		}
		c := &client{w: w}
		c.run(task)
		if want := []string{"API_KEY=s3cret"}; !slices.Equal(c.lines, want) {
			t.Errorf("the program saw %q", c.lines)
		}
	})
}

func TestTaskOfAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		lease := w.lease(agent, ask)
		good := w.task(ask, lease.ID)
		tests := map[string]struct {
			spoil func(task *executor.Task)
			want  error
		}{
			"stranger": {func(k *executor.Task) { k.From = executor.Peer{Account: sig.AccountID{66}} },
				executor.ErrNotYours},
			"nobody":   {func(k *executor.Task) { k.From = executor.Peer{} }, executor.ErrNotYours},
			"lease":    {func(k *executor.Task) { k.Lease[0] ^= 1 }, executor.ErrOtherTask},
			"revision": {func(k *executor.Task) { k.Revision[0] ^= 1 }, executor.ErrOtherTask},
			"run":      {func(k *executor.Task) { k.Run = "ff" }, executor.ErrOtherTask},
			"attempt":  {func(k *executor.Task) { k.Attempt = "ff" }, executor.ErrNoAttempt},
		}
		for name, tt := range tests {
			task := good
			tt.spoil(&task)
			if err := agent.Task(t.Context(), task, nil); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
		}
		if o := (&client{w: w}).run(good); o.Reason != executor.EndCompleted {
			t.Errorf("outcome %+v", o)
		}
	})
}

// TestLateClientLearnsTheEnd joins when the attempt is over.
func TestLateClientLearnsTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "exit", "5")
		lease := w.lease(agent, ask)
		first := (&client{w: w}).run(w.task(ask, lease.ID))
		w.closed(ask.Attempt)
		late := (&client{w: w, away: true}).run(w.task(ask, lease.ID))
		if diff := cmp.Diff(first, late); diff != "" {
			t.Error(diff)
		}
		task := w.task(ask, lease.ID)
		task.From = executor.Peer{Account: sig.AccountID{66}}
		if err := agent.Task(context.Background(), task, nil); !errors.Is(err, executor.ErrNotYours) {
			t.Errorf("a stranger: %v", err)
		}
	})
}

// TestStorageTokenStaysTheOwners: a scheduler brings a token while the owner brought none, and
// replaces his only when that has ended; what the owner brings counts always. A restart forgets
// none of it.
func TestStorageTokenStaysTheOwners(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "sleep", "2h")
		lease := w.lease(agent, ask)
		deliver := func(from executor.Peer, token string, d time.Duration) {
			t.Helper()
			task := w.task(ask, lease.ID)
			task.From, task.StorageToken, task.TokenUntil = from, token, time.Now().Add(d)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := agent.Task(ctx, task, func(executor.Update) error { return nil })
			if err != nil && ctx.Err() == nil {
				t.Errorf("task with %q: %v", token, err)
			}
		}
		want := func(token string) {
			t.Helper()
			if r, err := w.journal.Get(t.Context(), ask.Attempt); err != nil || r.Token != token {
				t.Errorf("the token is %q, %v; want %q", r.Token, err, token)
			}
		}
		restart := func() { w.stop(); agent = w.start() }
		deliver(w.asker, "scheduler's first", time.Hour)
		want("scheduler's first")
		deliver(w.asker, "scheduler's second", time.Hour)
		want("scheduler's second")
		deliver(w.owner, "owner's", 10*time.Minute)
		want("owner's")
		deliver(w.asker, "scheduler's third", time.Hour)
		want("owner's")
		deliver(w.owner, "", 0)
		want("owner's")
		restart()
		deliver(w.asker, "scheduler's third", time.Hour)
		want("owner's")
		deliver(w.owner, "owner's second", 10*time.Minute)
		want("owner's second")
		restart()
		pass(11 * time.Minute)
		deliver(w.asker, "scheduler's fourth", time.Hour)
		want("scheduler's fourth")
	})
}
