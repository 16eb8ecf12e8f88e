package run

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// running is one call of Group.Run.
type running struct {
	log      *slog.Logger
	parts    []*part
	grace    time.Duration
	returned chan result // one per part, buffered so that a late part never blocks
}

// result is how one part ended.
type result struct {
	part *part
	err  error
}

func (r *running) run(ctx context.Context, ready func()) error {
	// Values of ctx reach the components, its end does not: draining is ordered.
	base := context.WithoutCancel(ctx)
	stopping, stop := context.WithCancel(base) // ends when the drain begins
	defer stop()
	force, forceAll := context.WithCancel(base) // ends when the grace period is over
	defer forceAll()
	for _, p := range r.parts {
		go r.serve(p, base, stopping, force)
	}
	allReady := make(chan struct{})
	go func() {
		defer close(allReady)
		for _, p := range r.parts {
			if !either(p.ready, stopping.Done()) {
				return
			}
		}
		ready()
	}()
	errs, pending := r.watch(ctx)
	stop()
	<-allReady // after this, ready is never called
	return errors.Join(append(errs, r.drain(pending, forceAll)...)...)
}

// watch blocks until ctx ends or the first part returns.
func (r *running) watch(ctx context.Context) (errs []error, pending int) {
	pending = len(r.parts)
	select {
	case <-ctx.Done():
		return nil, pending
	case first := <-r.returned:
		if first.err == nil {
			first.err = ErrStopped
		}
		r.log.ErrorContext(ctx, "component failed, stopping all",
			"component", first.part.name, "error", first.err)
		return []error{failed(first.part.name, first.err)}, pending - 1
	}
}

// drain waits for the pending parts, at most twice the grace period.
func (r *running) drain(pending int, forceAll context.CancelFunc) (errs []error) {
	timer := time.NewTimer(r.grace)
	defer timer.Stop()
	forced := false
	for pending > 0 {
		select {
		case next := <-r.returned:
			pending--
			if next.err != nil {
				errs = append(errs, failed(next.part.name, next.err))
			}
		case <-timer.C:
			if forced {
				return append(errs, stuck(r.alive()))
			}
			forced = true
			r.log.Warn("grace period is over, stopping the rest at once", "left", r.alive())
			forceAll()
			timer.Reset(r.grace)
		}
	}
	return errs
}

func (r *running) alive() (names []string) {
	for _, p := range r.parts {
		select {
		case <-p.done:
		default:
			names = append(names, p.name)
		}
	}
	return names
}

// serve is the whole life of one part.
func (r *running) serve(p *part, base, stopping, force context.Context) {
	var err error
	defer func() {
		close(p.done)
		r.returned <- result{p, err}
	}()
	for _, dependency := range p.after {
		if !either(dependency.ready, stopping.Done()) {
			return
		}
	}
	if stopping.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(base)
	var canceller sync.WaitGroup
	canceller.Go(func() { cancelInTurn(cancel, ctx, p, stopping, force) })
	defer canceller.Wait()
	defer cancel()
	began := time.Now()
	err = p.component.Run(ctx, sync.OnceFunc(func() {
		r.log.DebugContext(base, "component ready",
			"component", p.name, "took", time.Since(began))
		close(p.ready)
	}))
	// A part that was asked to stop and says so with the context's error has done as told.
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	r.log.DebugContext(base, "component stopped", "component", p.name)
}

// cancelInTurn ends a part's context once the group stops and all who depend on it are done.
func cancelInTurn(cancel context.CancelFunc, ctx context.Context, p *part,
	stopping, force context.Context,
) {
	defer cancel()
	if !either(stopping.Done(), ctx.Done()) {
		return
	}
	for _, dependent := range p.before {
		select {
		case <-dependent.done:
		case <-force.Done():
			return
		case <-ctx.Done(): // the part has returned already
			return
		}
	}
}

// either waits for one of two channels and reports whether the first is closed.
func either(wanted, other <-chan struct{}) bool {
	select {
	case <-wanted:
		return true
	case <-other:
		select {
		case <-wanted:
			return true
		default:
			return false
		}
	}
}
