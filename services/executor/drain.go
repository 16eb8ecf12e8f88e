package executor

import (
	"context"
	"fmt"
	"time"

	"github.com/united-containers/ucn/kit/fault"
)

// HostState is what an operator said to a running executor; it outlives restarts.
type HostState struct {
	Draining bool
	Reason   string    // for the owners, at most MaxDrainReason bytes
	Since    time.Time // of the newest word
}

// MaxDrainReason bounds what an operator tells the owners, in bytes.
const MaxDrainReason = 200

// Drain takes no new work; what runs goes on. It is on disk when it returns, and tells how many
// attempts are here still. A question whose answer is being written down may still be answered yes.
func (a *Agent) Drain(ctx context.Context, reason string) (int, error) {
	if len(reason) > MaxDrainReason {
		return 0, fault.New(fault.InvalidArgument, ReasonBadArgument,
			"reason has %d bytes, at most %d", len(reason), MaxDrainReason)
	}
	return a.setState(ctx, HostState{Draining: true, Reason: reason, Since: a.deps.Now()})
}

// Undrain takes new work again.
func (a *Agent) Undrain(ctx context.Context) error {
	_, err := a.setState(ctx, HostState{Since: a.deps.Now()})
	return err
}

// setState writes what the operator said down, and then acts on it.
func (a *Agent) setState(ctx context.Context, s HostState) (int, error) {
	a.stating.Lock() // the disk and this life have the same last word
	defer a.stating.Unlock()
	a.mu.Lock()
	running := a.running != nil
	a.mu.Unlock()
	if !running {
		return 0, errNotRunning
	}
	if err := a.deps.Journal.SaveHost(context.WithoutCancel(ctx), s); err != nil {
		return 0, fmt.Errorf("write it down: %w", err)
	}
	a.mu.Lock()
	a.state = s
	left := len(a.attempts)
	a.mu.Unlock()
	a.offerChanged()
	return left, nil
}

// Draining tells whether the host takes no new work.
func (a *Agent) Draining() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Draining
}

// recall reads what the operator said in an earlier life.
func (a *Agent) recall(ctx context.Context) error {
	s, err := a.deps.Journal.Host(ctx)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	a.mu.Lock()
	a.state = s
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
