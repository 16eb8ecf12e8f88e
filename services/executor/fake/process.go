package fake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"testing/fstest"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// Program is what a container runs. Its result is the exit status. It must end soon after Context
// is done; what it does then is not seen any more.
type Program func(p *Process) int

// Process is a running program's view of its container.
type Process struct {
	Args []string
	Env  []string

	c   *container
	ctx context.Context
}

// exitNow unwinds a program that ends from within.
type exitNow struct{ exit executor.Exit }

// run runs the program to its end.
func (p *Process) run(program Program) {
	exit := func() (e executor.Exit) {
		defer func() {
			if r := recover(); r != nil {
				now, ok := r.(exitNow)
				if !ok {
					panic(r)
				}
				e = now.exit
			}
		}()
		return executor.Exit{Kind: executor.ExitCompleted, Code: program(p)}
	}()
	p.gate()
	p.c.h.mu.Lock()
	defer p.c.h.mu.Unlock()
	p.c.end(exit)
}

// Context is done when the program is killed.
func (p *Process) Context() context.Context { return p.ctx }

// Term is closed when the program is asked to stop.
func (p *Process) Term() <-chan struct{} { return p.c.term }

// gate blocks while the container is frozen.
func (p *Process) gate() {
	for {
		p.c.h.mu.Lock()
		frozen, changed := p.c.state == executor.StateFrozen, p.c.changed
		p.c.h.mu.Unlock()
		if !frozen {
			return
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
			return
		}
	}
}

// act does something to the container, once it is not frozen, if it still runs.
func (p *Process) act(f func(c *container)) {
	p.gate()
	p.c.h.mu.Lock()
	defer p.c.h.mu.Unlock()
	if p.c.state != executor.StateExited {
		f(p.c)
	}
}

// Exit ends the program from anywhere in it.
func (p *Process) Exit(code int) {
	panic(exitNow{executor.Exit{Kind: executor.ExitCompleted, Code: code}})
}

// Print writes a line.
func (p *Process) Print(to executor.Stream, line string) {
	p.act(func(c *container) { c.log(to, line) })
}

// Sleep waits; false means that the program was killed.
func (p *Process) Sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		p.gate()
		return true
	case <-p.ctx.Done():
		return false
	}
}

// Spin uses that much CPU time at once.
func (p *Process) Spin(d time.Duration) { p.act(func(c *container) { c.usage.CPU += d }) }

// Use makes the program use so many thousandths of a core from now on.
func (p *Process) Use(milli uint64) {
	p.act(func(c *container) {
		c.settle()
		c.rate = min(milli, c.spec.Limits.CPUMilli)
	})
}

// Eat allocates memory. At the limit the program dies.
func (p *Process) Eat(bytes uint64) {
	over := false
	p.act(func(c *container) {
		c.usage.Memory += bytes
		over = c.usage.Memory > c.spec.Limits.MemoryBytes
		c.usage.MemoryPeak = min(max(c.usage.MemoryPeak, c.usage.Memory), c.spec.Limits.MemoryBytes)
	})
	if over {
		panic(exitNow{executor.Exit{Kind: executor.ExitOOM, Code: 137, OOM: true,
			Detail: "killed at its memory limit"}})
	}
}

// errFull and errNoFile are what a program sees.
var (
	errFull   = errors.New("no space left on device")
	errNoFile = errors.New("no such file or directory")
)

// Write makes a file. Outside of writable mounts it is forgotten.
func (p *Process) Write(name string, data []byte) (err error) {
	p.act(func(c *container) {
		for _, m := range c.spec.Mounts {
			rel, ok := strings.CutPrefix(name, m.Path+"/")
			if !ok || m.Kind == executor.MountInput {
				continue
			}
			if used(c.files[m.Path])+uint64(len(data)) > m.Bytes {
				err = fmt.Errorf("write %s: %w", name, errFull)
				return
			}
			c.files[m.Path][path.Clean(rel)] = &fstest.MapFile{Data: data, Mode: 0o644}
			c.usage.Disk += uint64(len(data))
		}
	})
	return err
}

func used(files fstest.MapFS) uint64 {
	var sum uint64
	for _, f := range files {
		sum += uint64(len(f.Data))
	}
	return sum
}

// Read reads a file of an input mount, or one that the program wrote.
func (p *Process) Read(name string) (data []byte, err error) {
	err = fmt.Errorf("open %s: %w", name, errNoFile)
	p.act(func(c *container) {
		for _, m := range c.spec.Mounts {
			rel := strings.TrimPrefix(strings.TrimPrefix(name, m.Path), "/")
			switch {
			case name != m.Path && !strings.HasPrefix(name, m.Path+"/"):
			case m.Kind == executor.MountInput:
				data, err = os.ReadFile(path.Join(m.Source, rel))
			case c.files[m.Path][rel] != nil:
				data, err = c.files[m.Path][rel].Data, nil
			}
		}
	})
	return data, err
}

// Uncounted makes more files on the root than a driver counts.
func (p *Process) Uncounted() { p.act(func(c *container) { c.usage.Uncounted = true }) }
