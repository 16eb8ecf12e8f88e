package scheduler

import (
	"context"
	"time"
)

// chore names something that is done about an attempt.
type chore struct {
	attempt AttemptID
	what    string
}

// What is done about attempts.
const (
	findingLease = "find the lease"
	stopping     = "stop"
	looking      = "look after a silent host"
	dismissing   = "tell a host that it was replaced"
	continuing   = "go on with a program that was kept"
	expiring     = "end what waited too long"
	settling     = "settle leases"
	puttingOff   = "put a look off"
	dating       = "read the chain's clock"
)

// later runs fn after a wait, unless the engine goes down first; what was left undone is taken up
// by resume.
func (e *Engine) later(wait time.Duration, fn func(ctx context.Context)) {
	e.tasks.Go(func() {
		if e.pause(e.life, wait) {
			fn(e.life)
		}
	})
}

// once runs fn, unless the same is being done about the attempt already: a peer that hangs holds
// one goroutine per attempt, however often the sweep comes by.
func (e *Engine) once(attempt AttemptID, what string, fn func(ctx context.Context)) {
	key := chore{attempt, what}
	e.choresMu.Lock()
	busy := e.chores[key]
	e.chores[key] = true
	e.choresMu.Unlock()
	if busy {
		return
	}
	e.tasks.Go(func() {
		defer func() {
			e.choresMu.Lock()
			delete(e.chores, key)
			e.choresMu.Unlock()
		}()
		if e.life.Err() == nil {
			fn(e.life)
		}
	})
}

// doing tells whether something is being done about the attempt.
func (e *Engine) doing(attempt AttemptID, what string) bool {
	e.choresMu.Lock()
	defer e.choresMu.Unlock()
	return e.chores[chore{attempt, what}]
}

// pause waits and reports whether ctx still stands.
func (e *Engine) pause(ctx context.Context, wait time.Duration) bool {
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hear notes that some host was heard.
func (e *Engine) hear() { e.heard.Store(e.deps.Now().UnixMilli()) }

// deaf tells whether no host at all was heard for so long that silence says more of the way to
// them than of any of them.
func (e *Engine) deaf(now time.Time) bool {
	return now.Sub(time.UnixMilli(e.heard.Load())) > e.policy.LostAfter
}
