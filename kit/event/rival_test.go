package event_test

import (
	"context"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
)

// watch returns a reader that tells the forks it proved.
func watch(t *testing.T, r *reader) <-chan *event.ForkError {
	t.Helper()
	r.Outbox = r.store
	forks := make(chan *event.ForkError, 4)
	r.OnFork = func(_ context.Context, fork *event.ForkError) { forks <- fork }
	return forks
}

func proven(t *testing.T, r *reader, forks <-chan *event.ForkError) {
	t.Helper()
	select {
	case fork := <-forks:
		if _, err := event.VerifyFork(t.Context(), fork.Evidence, offline()); err != nil {
			t.Errorf("the evidence does not stand: %v", err)
		}
		checkNotice(t, r.store, fork.Evidence)
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed the rival")
	}
}

// TestRivalOfAPassedPlace: another event for a place that took effect long ago is equivocation, be
// it in the same batch or later, and the same one again is not. What took effect comes from the
// stream.
func TestRivalOfAPassedPlace(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 6)
	r := newReader(t, js, alice)
	forks := watch(t, r)
	r.run(t)
	put(t, js, alice, line[:4]...)
	r.expect(t, "0", "1", "2", "3")
	put(t, js, alice, line[0], line[1], line[3], line[4])
	r.expect(t, "4")
	if len(forks) != 0 {
		t.Fatal("a repetition was taken for a fork")
	}
	put(t, js, alice, rival(t, alice, headOf(line[0])))
	proven(t, r, forks)
	put(t, js, alice, line[5])
	if len(r.took) != 0 {
		t.Error("a line that ended goes on")
	}
}

func TestRivalInTheSameBatch(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 4)
	put(t, js, alice, append(line[:4:4], rival(t, alice, headOf(line[0])))...)
	r := newReader(t, js, alice)
	forks := watch(t, r)
	r.run(t)
	r.expect(t, "0", "1", "2", "3")
	proven(t, r, forks)
}

// TestRivalAfterARestart: a consumer that started anew remembers no places; the owner's own word
// convicts it, and an owner that repeats the rival convicts itself of nothing.
func TestRivalAfterARestart(t *testing.T) {
	for name, c := range map[string]struct {
		honest bool
	}{"the owner tells what it said": {true}, "the owner tells the rival": {false}} {
		t.Run(name, func(t *testing.T) {
			js := open(t)
			alice := eventtest.NewOperator(1).Instance(t, "executor")
			line := alice.Line(t, event.TopicJob, 4)
			other := rival(t, alice, headOf(line[0]))
			r := newReader(t, js, alice)
			stop := r.run(t)
			put(t, js, alice, line[:3]...)
			r.expect(t, "0", "1", "2")
			stop()
			asked := make(chan struct{}, 8)
			r.OnGap = func(_ context.Context, gap *event.GapError) ([]event.Received, error) {
				if gap.Want != 2 || gap.Got != 3 || gap.Epoch != 1 || gap.Service != "executor" {
					t.Errorf("asked for %d to %d of epoch %d", gap.Want, gap.Got, gap.Epoch)
				}
				asked <- struct{}{}
				told := line[1]
				if !c.honest {
					told = other
				}
				return []event.Received{{Subject: alice.Signer.Subject(told), Data: told.Raw}}, nil
			}
			forks := watch(t, r)
			r.run(t)
			put(t, js, alice, other)
			if c.honest {
				proven(t, r, forks)
				return
			}
			<-asked
			put(t, js, alice, line[3])
			r.expect(t, "3")
			if len(forks) != 0 {
				t.Error("a fork was proven out of one envelope")
			}
		})
	}
}

// TestForgottenPlacesAreBounded: a line that is longer than what is remembered costs no more, and
// its newest places still are.
func TestForgottenPlacesAreBounded(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 2300)
	r := newReader(t, js, alice)
	forks := watch(t, r)
	r.run(t)
	put(t, js, alice, line...)
	for range line {
		<-r.took
	}
	put(t, js, alice, rival(t, alice, headOf(line[1])), rival(t, alice, headOf(line[2000])))
	proven(t, r, forks)
	fork, err := r.store.Cursor(t.Context(), line[0].Line())
	if err != nil || len(fork.Fork) == 0 {
		t.Fatalf("no proof is kept: %v", err)
	}
}
