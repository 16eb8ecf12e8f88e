package executor_test

import (
	"errors"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// TestStats: the owner sees what a program uses and what is due for it at any moment, nobody else
// does, and what ended is told from its last note.
func TestStats(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "500", "eat", "8", "sleep", "2m")
		of := executor.StatsAsk{From: w.owner, Job: ask.Job, Attempt: ask.Attempt}
		if _, err := agent.Stats(t.Context(), of); !errors.Is(err, executor.ErrNoAttempt) {
			t.Errorf("stats of what was never asked: %v", err)
		}
		lease := w.lease(agent, ask)
		s, err := agent.Stats(t.Context(), of)
		if err != nil || s.State != executor.AttemptLeased || s.Amount != 0 || !s.Started.IsZero() {
			t.Errorf("before the task: %+v, %v", s, err)
		}
		c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(w.task(ask, lease.ID)) }()
		pass(61 * time.Second)
		for name, from := range map[string]executor.Peer{
			"the scheduler": w.asker, "a stranger": {Account: [32]byte{9}}, "nobody": {},
		} {
			theirs := of
			theirs.From = from
			if _, err := agent.Stats(t.Context(), theirs); !errors.Is(err, executor.ErrNotYours) {
				t.Errorf("%s reads it: %v", name, err)
			}
		}
		of.Attempt = "" // the newest
		s, err = agent.Stats(t.Context(), of)
		if err != nil || s.Attempt != ask.Attempt || s.Lease != lease.ID || s.Run != ask.Run ||
			s.State != executor.AttemptRunning || s.Reserved != ask.Spec.Resources {
			t.Errorf("stats %+v, %v", s, err)
		}
		if s.Now.CPUMilli < 450 || s.Now.CPUMilli > 550 || s.Now.Memory != 8<<20 {
			t.Errorf("pace %+v, want half a core and 8 MiB", s.Now)
		}
		wall := time.Duration(s.Usage.WallMS) * time.Millisecond
		if wall < time.Minute || wall > 62*time.Second || s.Usage.CPUNS < 29e9 || s.Amount == 0 ||
			s.Amount > s.Budget || s.Rate != lease.Lease.Rate || s.Paid > s.Amount {
			t.Errorf("stats %+v", s)
		}
		o := <-ended
		w.closed(ask.Attempt)
		of.Attempt = ask.Attempt
		s, err = agent.Stats(t.Context(), of)
		if err != nil || s.State != executor.AttemptEnded || s.Amount != o.Amount ||
			s.Paid != o.Amount || s.Usage.WallMS != o.Usage.WallMS || s.Now != (executor.Pace{}) {
			t.Errorf("afterwards %+v, %v, outcome %+v", s, err, o)
		}
	})
}

// TestStatsWithoutCounters: an engine that cannot be read leaves the last reading, not an error.
func TestStatsWithoutCounters(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "500", "sleep", "2m")
		lease := w.lease(agent, ask)
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- (&client{w: w}).run(w.task(ask, lease.ID)) }()
		pass(10 * time.Second)
		w.setDriver(func(c fake.Call) fake.Fault {
			if c.Method == "Usage" {
				return fake.Fault{Err: errors.New("broken")}
			}
			return fake.Fault{}
		})
		pass(3 * time.Second)
		s, err := agent.Stats(t.Context(), executor.StatsAsk{From: w.owner, Job: ask.Job})
		if err != nil || s.Usage.WallMS < 9_000 || s.Usage.WallMS > 11_000 || s.Now.CPUMilli == 0 {
			t.Errorf("stats %+v, %v", s, err)
		}
		if age := time.Since(s.Time); age < 2*time.Second {
			t.Errorf("the reading says it is %v old", age)
		}
		w.setDriver(nil)
		<-ended
	})
}
