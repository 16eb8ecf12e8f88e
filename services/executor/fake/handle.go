package fake

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

var _ executor.Container = (*handle)(nil)

// handle is a container as one life of an executor sees it.
type handle struct {
	d *Driver
	c *container
}

// do runs f under the host's lock, as the hook wants it, on a container that is there.
func (h *handle) do(ctx context.Context, method string, f func(c *container) error) error {
	return h.d.call(ctx, method, h.c.key.attempt, func() error {
		h.d.h.mu.Lock()
		defer h.d.h.mu.Unlock()
		if h.c.gone {
			return fmt.Errorf("%w: %s", executor.ErrNotFound, h.c.key.attempt)
		}
		return f(h.c)
	})
}

// Info implements executor.Container.
func (h *handle) Info() executor.Info {
	c := h.c
	return executor.Info{
		Attempt: c.key.attempt, Image: c.spec.Image, Labels: c.spec.Labels, Created: c.created,
	}
}

// State implements executor.Container.
func (h *handle) State(ctx context.Context) (s executor.State, err error) {
	err = h.do(ctx, "State", func(c *container) error {
		s = c.state
		return nil
	})
	return s, err
}

// Start implements executor.Container.
func (h *handle) Start(ctx context.Context) error {
	return h.do(ctx, "Start", func(c *container) error {
		c.start()
		return nil
	})
}

// Stop implements executor.Container.
func (h *handle) Stop(ctx context.Context, grace time.Duration) error {
	if grace < 0 || grace > executor.MaxStopGrace {
		return fmt.Errorf("%w: grace %s", executor.ErrInvalid, grace)
	}
	return h.d.call(ctx, "Stop", h.c.key.attempt, func() error { return h.stop(ctx, grace) })
}

// Kill implements executor.Container.
func (h *handle) Kill(ctx context.Context) error {
	return h.d.call(ctx, "Kill", h.c.key.attempt, func() error { return h.stop(ctx, 0) })
}

func (h *handle) stop(ctx context.Context, grace time.Duration) error {
	if over, err := h.ask(); err != nil || over {
		return err
	}
	if grace > 0 {
		wait, cancel := context.WithTimeout(ctx, grace)
		_, err := h.wait(wait)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	h.d.h.mu.Lock()
	defer h.d.h.mu.Unlock()
	h.c.end(killed())
	return nil
}

// killed is the end of a program by SIGKILL.
func killed() executor.Exit { return executor.Exit{Kind: executor.ExitCompleted, Code: 137} }

// ask writes down that the program is to stop, and asks it to.
func (h *handle) ask() (over bool, err error) {
	h.d.h.mu.Lock()
	defer h.d.h.mu.Unlock()
	c := h.c
	switch {
	case c.gone:
		return true, fmt.Errorf("%w: %s", executor.ErrNotFound, c.key.attempt)
	case c.state == executor.StateExited:
		return true, nil
	}
	c.stopped = true
	if c.state == executor.StateCreated {
		c.end(executor.Exit{Kind: executor.ExitStopped, Code: -1})
		return true, nil
	}
	c.thaw()
	c.once.Do(func() { close(c.term) })
	return false, nil
}

// Remove implements executor.Container.
func (h *handle) Remove(ctx context.Context) error {
	return h.d.call(ctx, "Remove", h.c.key.attempt, func() error {
		h.d.h.mu.Lock()
		defer h.d.h.mu.Unlock()
		c := h.c
		if c.gone {
			return nil
		}
		c.stopped = true
		c.end(killed())
		c.gone = true
		c.tell()
		delete(h.d.h.containers, c.key)
		return nil
	})
}

// Freeze implements executor.Container.
func (h *handle) Freeze(ctx context.Context) error {
	return h.do(ctx, "Freeze", func(c *container) error {
		if !c.running() {
			return fmt.Errorf("%w: %s is %s", executor.ErrNotRunning, c.key.attempt, c.state)
		}
		c.settle()
		c.state = executor.StateFrozen
		return nil
	})
}

// Thaw implements executor.Container.
func (h *handle) Thaw(ctx context.Context) error {
	return h.do(ctx, "Thaw", func(c *container) error {
		c.thaw()
		return nil
	})
}

func (c *container) thaw() {
	if c.state == executor.StateFrozen {
		c.state, c.since = executor.StateRunning, time.Now()
		c.tell()
	}
}

// Wait implements executor.Container.
func (h *handle) Wait(ctx context.Context) (e executor.Exit, err error) {
	err = h.d.call(ctx, "Wait", h.c.key.attempt, func() error {
		e, err = h.wait(ctx)
		return err
	})
	return e, err
}

func (h *handle) wait(ctx context.Context) (executor.Exit, error) {
	for {
		h.d.h.mu.Lock()
		e, over, gone, changed := h.c.exit, h.c.state == executor.StateExited, h.c.gone, h.c.changed
		h.d.h.mu.Unlock()
		switch {
		case gone:
			return executor.Exit{}, fmt.Errorf("%w: %s", executor.ErrNotFound, h.c.key.attempt)
		case over:
			return e, nil
		}
		select {
		case <-ctx.Done():
			return executor.Exit{}, ctx.Err()
		case <-h.d.done:
			return executor.Exit{}, executor.ErrClosed
		case <-changed:
		}
	}
}

// Logs implements executor.Container.
func (h *handle) Logs(ctx context.Context, from executor.LogPos, follow bool,
) iter.Seq2[executor.LogEntry, error] {
	return func(yield func(executor.LogEntry, error) bool) {
		err := h.d.call(ctx, "Logs", h.c.key.attempt, func() error {
			return h.read(ctx, from, follow, yield)
		})
		if err != nil {
			yield(executor.LogEntry{}, err)
		}
	}
}

func (h *handle) read(ctx context.Context, pos executor.LogPos, follow bool,
	yield func(executor.LogEntry, error) bool,
) error {
	for {
		h.d.h.mu.Lock()
		e, ok, err := h.c.entry(pos)
		over, gone, changed := h.c.state == executor.StateExited, h.c.gone, h.c.changed
		h.d.h.mu.Unlock()
		switch {
		case gone:
			return fmt.Errorf("%w: %s", executor.ErrNotFound, h.c.key.attempt)
		case err != nil:
			return err
		case ok:
			if !yield(e, nil) {
				return nil
			}
			pos = e.Next
			continue
		case over || !follow:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.d.done:
			return executor.ErrClosed
		case <-changed:
		}
	}
}

// Usage implements executor.Container.
func (h *handle) Usage(ctx context.Context) (u executor.Usage, err error) {
	err = h.do(ctx, "Usage", func(c *container) error {
		c.settle()
		u = c.usage
		u.At = time.Now().UTC()
		return nil
	})
	return u, err
}

// Output implements executor.Container.
func (h *handle) Output(ctx context.Context, path string) (fsys fs.FS, err error) {
	err = h.do(ctx, "Output", func(c *container) error {
		files, ok := c.files[path]
		switch {
		case !ok:
			return fmt.Errorf("%w: no writable mount at %q", executor.ErrInvalid, path)
		case c.state != executor.StateExited:
			return fmt.Errorf("%w: %s", executor.ErrRunning, c.key.attempt)
		}
		fsys = maps.Clone(files)
		return nil
	})
	return fsys, err
}
