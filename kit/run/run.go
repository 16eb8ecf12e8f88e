// Package run starts named components in the order of their dependencies, waits until each is
// ready, and stops them in the reverse order.
//
// Promises: a component's context ends only after every component that depends on it has
// returned; the first component that returns on its own stops all others; Run returns only when
// every component has returned, or has been given up after twice the grace period, in which case
// the error names it. Correctness of services must not depend on the start order (peers reconnect);
// the order is for a quiet start and a clean drain.
//
// It does not restart anything: that is the job of the init system or the orchestrator.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Bounds of a group.
const (
	DefaultGrace = 30 * time.Second // time for all components together to drain
	MaxParts     = 256              // components in one group
)

// ErrStopped is wrapped by the error of Run when a component returned nil although nobody had
// asked it to stop. A service that silently ends is not a success.
var ErrStopped = errors.New("stopped on its own")

// ErrStuck is wrapped by the error of Run when a component did not return although its context
// had ended a grace period ago. Its goroutine is still running: end the process.
var ErrStuck = errors.New("did not stop in time")

// Component is anything that runs until its context ends.
//
// Run calls ready once it can serve, blocks until ctx ends, drains, and then returns nil. It
// returns an error if it cannot start or go on. Whatever goroutines it starts have ended when it
// returns.
type Component interface {
	Run(ctx context.Context, ready func()) error
}

// Func makes a function a Component.
type Func func(ctx context.Context, ready func()) error

// Run calls f.
func (f Func) Run(ctx context.Context, ready func()) error { return f(ctx, ready) }

// Group is a set of components. It is itself a Component, so groups nest. The zero value is an
// empty group with default settings. A Group runs once.
type Group struct {
	// Grace is how long draining may take, all components together. When it is over, every
	// context still alive ends at once, whatever the order. 0 means DefaultGrace.
	Grace time.Duration
	// Log gets one line per component started, stopped and failed. nil logs nothing.
	Log *slog.Logger

	parts []*part
	err   error // the first mistake made in Add
}

var _ Component = (*Group)(nil)

// part is one component and its state. Channels are closed by its own goroutine only.
type part struct {
	name      string
	component Component
	after     []*part
	before    []*part       // those that depend on this one
	ready     chan struct{} // closed when the component said so
	done      chan struct{} // closed when it has returned, or will never start
}

// Add puts a component into the group, to start when all components named in after are ready.
// Those must have been added before, so cycles cannot be written. A mistake (a repeated or unknown
// name, too many parts) is reported by Run before anything starts.
func (g *Group) Add(name string, c Component, after ...string) {
	p := &part{
		name: name, component: c, ready: make(chan struct{}), done: make(chan struct{}),
	}
	switch {
	case g.find(name) != nil:
		g.fail(fmt.Errorf("component %q is added twice", name))
	case c == nil:
		g.fail(fmt.Errorf("component %q is nil", name))
	case len(g.parts) >= MaxParts:
		g.fail(fmt.Errorf("component %q: a group holds at most %d", name, MaxParts))
	}
	for _, other := range after {
		dependency := g.find(other)
		if dependency == nil {
			g.fail(fmt.Errorf("component %q comes after %q, which is not added yet", name, other))
			return
		}
		p.after = append(p.after, dependency)
		dependency.before = append(dependency.before, p)
	}
	g.parts = append(g.parts, p)
}

func (g *Group) fail(err error) {
	if g.err == nil {
		g.err = err
	}
}

func (g *Group) find(name string) *part {
	i := slices.IndexFunc(g.parts, func(p *part) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return g.parts[i]
}

// Run starts all components, calls ready when all are ready, and blocks until ctx ends or the
// first component returns. Then it drains in reverse order. It returns nil if ctx ended and every
// component drained without error, otherwise all errors joined, the first cause first.
func (g *Group) Run(ctx context.Context, ready func()) error {
	if g.err != nil {
		return g.err
	}
	r := &running{
		log: g.Log, parts: g.parts, grace: g.Grace,
		returned: make(chan result, len(g.parts)),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.grace <= 0 {
		r.grace = DefaultGrace
	}
	return r.run(ctx, ready)
}

// failed makes one error of what the components returned.
func failed(name string, err error) error { return fmt.Errorf("%s: %w", name, err) }

// stuck makes the error for components that never returned.
func stuck(names []string) error {
	return fmt.Errorf("%s: %w", strings.Join(names, ", "), ErrStuck)
}
