package memory_test

import (
	"errors"
	"testing"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/event/memory"
)

func open(s *memory.Store) eventtest.Store[*memory.Tx] {
	return eventtest.Store[*memory.Tx]{
		Outbox: s, Queue: s, History: s, Cursors: s,
		Reopen: func(*testing.T) eventtest.Store[*memory.Tx] { return open(s) },
	}
}

func TestContract(t *testing.T) {
	eventtest.Run(t, func(*testing.T) eventtest.Store[*memory.Tx] { return open(memory.New()) })
}

func TestHooksFailBeforeAndAfter(t *testing.T) {
	for outcome, want := range map[memory.Outcome]int{
		memory.Succeed: 1, memory.FailBefore: 0, memory.FailAfter: 1,
	} {
		s := memory.New()
		s.SetHook(func(step memory.Step) memory.Outcome {
			if step == memory.StepCommit {
				return outcome
			}
			return memory.Succeed
		})
		done := 0
		err := s.Transact(t.Context(), func(tx *memory.Tx) error {
			tx.Do(func() { done++ })
			return s.Append(tx, eventtest.Event(event.TopicJob, 1))
		})
		if errors.Is(err, memory.ErrInjected) != (outcome != memory.Succeed) {
			t.Errorf("outcome %d: error %v", outcome, err)
		}
		p, err := s.Pending(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if done != want || len(p.Drafts) != want {
			t.Errorf("outcome %d: %d effects, %d drafts, want %d", outcome, done, len(p.Drafts), want)
		}
	}
}
