package executor

import (
	"context"
	"fmt"
	"time"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/fault"
)

// HostState is what an operator said to a running executor; it outlives restarts.
type HostState struct {
	Draining bool
	EvictAt  time.Time  // when what still runs is to go; zero: never
	Reason   string     // for the owners, at most MaxDrainReason bytes
	Since    time.Time  // of the newest word about draining
	Set      *PolicySet // nil: no policy was set by command
}

// MaxDrainReason bounds what an operator tells the owners, in bytes.
const MaxDrainReason = 200

// Drain takes no new work. What runs goes on, and is evicted at the deadline, of which it is told
// at once; 0 is never. It is on disk when it returns, and tells how many attempts are here still. A
// question whose answer is being written down may still be answered yes.
func (a *Agent) Drain(ctx context.Context, reason string, evict time.Duration) (int, error) {
	switch {
	case len(reason) > MaxDrainReason:
		return 0, badReason(reason)
	case evict < 0 || evict > MaxDrain:
		return 0, fault.New(fault.InvalidArgument, ReasonBadArgument,
			"the deadline is in %v, allowed 0 to %v", evict, MaxDrain)
	}
	left, err := a.setState(ctx, func(s *HostState) ([]event.Event, error) {
		*s = HostState{Draining: true, Reason: reason, Since: a.deps.Now(), Set: s.Set}
		if evict > 0 {
			s.EvictAt = s.Since.Add(evict)
		}
		return nil, nil
	})
	if err != nil {
		return 0, err
	}
	if _, err := a.evictTurn(context.WithoutCancel(ctx)); err != nil { // tried again by the loop
		a.deps.Log.WarnContext(ctx, "cannot write an eviction down", "error", err)
	}
	return left, nil
}

// Undrain takes new work again. What was told to go still goes.
func (a *Agent) Undrain(ctx context.Context) error {
	_, err := a.setState(ctx, func(s *HostState) ([]event.Event, error) {
		*s = HostState{Since: a.deps.Now(), Set: s.Set}
		return nil, nil
	})
	return err
}

// setState changes what the operator said: writes it down, with the events that tell of it, and
// then acts on it. It tells how many attempts are here.
func (a *Agent) setState(
	ctx context.Context, change func(*HostState) ([]event.Event, error),
) (int, error) {
	a.stating.Lock() // the disk and this life have the same last word
	defer a.stating.Unlock()
	a.mu.Lock()
	running, s := a.running != nil, a.state
	a.mu.Unlock()
	if !running {
		return 0, errNotRunning
	}
	events, err := change(&s)
	if err != nil {
		return 0, err
	}
	set, err := s.rules()
	if err != nil {
		return 0, err
	}
	if err := a.deps.Journal.SaveHost(context.WithoutCancel(ctx), s, events...); err != nil {
		return 0, fmt.Errorf("write it down: %w", err)
	}
	a.mu.Lock()
	a.state, a.set = s, set
	left := len(a.attempts)
	a.mu.Unlock()
	wake(a.evicting)
	a.offerChanged()
	return left, nil
}

// State returns what the operator said last.
func (a *Agent) State() HostState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// recall reads what the operator said in an earlier life.
func (a *Agent) recall(ctx context.Context) error {
	s, err := a.deps.Journal.Host(ctx)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	set, err := s.rules()
	if err != nil {
		return fmt.Errorf("read what was set by command: %w", err)
	}
	a.mu.Lock()
	a.state, a.set = s, set
	a.mu.Unlock()
	return nil
}

// checkDraining declines while no new work is taken. The caller holds the agent's mutex.
func (a *Agent) checkDraining() *Decline {
	switch {
	case !a.state.Draining:
		return nil
	case a.state.Reason == "":
		return declined(DeclineDraining, "this host takes no new work")
	}
	return declined(DeclineDraining, "this host takes no new work: %s", a.state.Reason)
}
