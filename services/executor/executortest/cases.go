package executortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/services/executor"
)

func testImageDigestMismatch(t *testing.T, b *bench) {
	damaged := bytes.Clone(b.img.Layout)
	at := bytes.Index(damaged, []byte("FROM_IMAGE=yes"))
	if at < 0 {
		t.Fatal("no config in the layout")
	}
	damaged[at] = 'X'
	for name, layout := range map[string][]byte{
		"damaged": damaged, "empty": nil, "cut": b.img.Layout[:len(b.img.Layout)/2],
	} {
		_, err := b.LoadImage(b.ctx, b.img.ID, "", (&Image{Layout: layout}).Open)
		if !errors.Is(err, executor.ErrImageMismatch) {
			t.Errorf("%s layout: %v, want %v", name, err, executor.ErrImageMismatch)
		}
		held, err := b.HasImage(b.ctx, b.img.ID)
		check(t, err)
		if held {
			t.Errorf("%s layout is held", name)
		}
	}
}

func testCreateNeedsImage(t *testing.T, b *bench) {
	_, err := b.Create(b.ctx, Spec(b.img.ID, b.attempt()))
	wantErr(t, err, executor.ErrNoImage)
	if c := b.find(b.ctx, executor.AttemptID(b.attempt())); c != nil {
		t.Error("a refused create left a container")
	}
}

func testImageLoadsOnce(t *testing.T, b *bench) {
	var opened atomic.Int32
	open := func(ctx context.Context) (io.ReadCloser, error) {
		opened.Add(1)
		return b.img.Open(ctx)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := b.LoadImage(b.ctx, b.img.ID, "", open); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := opened.Load(); n != 1 {
		t.Errorf("opened %d times, want 1", n)
	}
	b.reopen()
	_, err := b.LoadImage(b.ctx, b.img.ID, "", noLayout)
	check(t, err)
	list, err := b.ListImages(b.ctx)
	check(t, err)
	if len(list) != 1 || list[0].ID != b.img.ID || list[0].Bytes == 0 || list[0].Used.IsZero() {
		t.Errorf("images held: %+v", list)
	}
}

func testImageSources(t *testing.T, b *bench) {
	check(t, b.RemoveImage(b.ctx, b.img.ID))
	opened, release := make(chan struct{}), make(chan struct{})
	hung := make(chan error, 1)
	go func() {
		_, err := b.LoadImage(b.ctx, b.img.ID, "hangs", func(ctx context.Context) (io.ReadCloser, error) {
			close(opened)
			<-release
			return b.img.Open(ctx)
		})
		hung <- err
	}()
	<-opened
	_, err := b.LoadImage(b.ctx, b.img.ID, "works", b.img.Open)
	close(release)
	check(t, err)
	check(t, <-hung) // held already: made once more, or left as it is
	held, err := b.HasImage(b.ctx, b.img.ID)
	check(t, err)
	if !held {
		t.Error("an image that came from two sources is not held")
	}
}

func testProbe(t *testing.T, b *bench) {
	a, err := b.Probe(b.ctx)
	check(t, err)
	if a.Engine == "" || a.CPUMilli == 0 || a.MemoryBytes == 0 || len(a.Isolation) == 0 {
		t.Errorf("abilities %+v", a)
	}
	for _, m := range a.Missing {
		if m.What == "" || m.Fix == "" {
			t.Errorf("missing ability without a sentence or a fix: %+v", m)
		}
	}
}

func testCreateIsIdempotent(t *testing.T, b *bench) {
	s := Spec(b.img.ID, b.attempt(), "forever")
	s.Labels = map[string]string{"job": "j1"}
	c := b.createSpec(s)
	b.wantState(c, executor.StateCreated)
	check(t, c.Start(b.ctx))
	again, err := b.Create(b.ctx, s)
	check(t, err)
	b.wantState(again, executor.StateRunning)
	s.Args = []string{"exit", "1"}
	_, err = b.Create(b.ctx, s)
	wantErr(t, err, executor.ErrExists)
	b.wantState(c, executor.StateRunning)
	if got := c.Info().Labels["job"]; got != "j1" {
		t.Errorf("label %q", got)
	}
}

func testInvalidSpec(t *testing.T, b *bench) {
	b.load()
	for name, spoil := range map[string]func(*executor.ContainerSpec){
		"attempt":    func(s *executor.ContainerSpec) { s.Attempt = "../x" },
		"image":      func(s *executor.ContainerSpec) { s.Image = "latest" },
		"isolation":  func(s *executor.ContainerSpec) { s.Isolation = "none" },
		"memory":     func(s *executor.ContainerSpec) { s.Limits.MemoryBytes = 0 },
		"env":        func(s *executor.ContainerSpec) { s.Env = []string{"=x"} },
		"mount proc": func(s *executor.ContainerSpec) { s.Mounts = []executor.Mount{out("/proc/x")} },
		"mount root": func(s *executor.ContainerSpec) { s.Mounts = []executor.Mount{out("/")} },
		"two mounts": func(s *executor.ContainerSpec) {
			s.Mounts = []executor.Mount{out("/out"), out("/out")}
		},
		"missing input": func(s *executor.ContainerSpec) {
			s.Mounts = []executor.Mount{{
				Kind: executor.MountInput, Path: "/in", Source: t.TempDir() + "/no",
			}}
		},
	} {
		s := Spec(b.img.ID, b.attempt(), "exit", "0")
		spoil(&s)
		if _, err := b.Create(b.ctx, s); !errors.Is(err, executor.ErrInvalid) {
			t.Errorf("%s: %v, want %v", name, err, executor.ErrInvalid)
		}
	}
	s := Spec(b.img.ID, b.attempt(), "exit", "0")
	s.Network = "internet"
	_, err := b.Create(b.ctx, s)
	wantErr(t, err, executor.ErrUnsupported)
}

func out(path string) executor.Mount {
	return executor.Mount{Kind: executor.MountOutput, Path: path, Bytes: 4 << 20}
}

func testCompletes(t *testing.T, b *bench) {
	c, e := b.run("out", "hello", "err", "oh")
	b.wantExit(e, executor.Exit{Kind: executor.ExitCompleted})
	b.wantState(c, executor.StateExited)
	again, err := c.Wait(b.ctx)
	check(t, err)
	if d := cmp.Diff(e, again); d != "" {
		t.Errorf("the second Wait tells another exit:\n%s", d)
	}
	got := b.logs(c, executor.LogPos{}, false)
	if len(got) != 2 || got[0] == got[1] {
		t.Errorf("log %q", got)
	}
}

func testNonZero(t *testing.T, b *bench) {
	_, e := b.run("exit", "42")
	b.wantExit(e, executor.Exit{Kind: executor.ExitCompleted, Code: 42})
}

func testRefusedProgram(t *testing.T, b *bench) {
	s := Spec(b.img.ID, b.attempt())
	s.Command = []string{"/no/such/program"}
	c := b.createSpec(s)
	check(t, c.Start(b.ctx))
	e, err := c.Wait(b.ctx)
	check(t, err)
	if e.Detail == "" {
		t.Error("no word on why")
	}
	b.wantExit(e, executor.Exit{Kind: executor.ExitRefused, Code: -1})
}

func testOOM(t *testing.T, b *bench) {
	_, e := b.run("eat", "500")
	b.wantExit(e, executor.Exit{Kind: executor.ExitOOM, Code: 137, OOM: true})
}

func testNeverEndsIsKilled(t *testing.T, b *bench) {
	c := b.start("deaf")
	b.await(c, "ready")
	check(t, c.Stop(b.ctx, 50*time.Millisecond))
	e, err := c.Wait(b.ctx)
	check(t, err)
	b.wantExit(e, executor.Exit{Kind: executor.ExitStopped, Code: 137, Stopped: true})
	check(t, c.Kill(b.ctx))
}

func testStopAsksFirst(t *testing.T, b *bench) {
	c := b.start("trap", "7")
	b.await(c, "ready")
	check(t, c.Stop(b.ctx, executor.MaxStopGrace))
	e, err := c.Wait(b.ctx)
	check(t, err)
	b.wantExit(e, executor.Exit{Kind: executor.ExitStopped, Code: 7, Stopped: true})
}

func testStopBeforeStart(t *testing.T, b *bench) {
	c := b.create("out", "never")
	check(t, c.Kill(b.ctx))
	check(t, c.Start(b.ctx))
	e, err := c.Wait(b.ctx)
	check(t, err)
	b.wantExit(e, executor.Exit{Kind: executor.ExitStopped, Code: -1, Stopped: true})
	if got := b.logs(c, executor.LogPos{}, false); len(got) != 0 {
		t.Errorf("it ran: %q", got)
	}
}

func testNeverStartedTwice(t *testing.T, b *bench) {
	c, _ := b.run("out", "once")
	check(t, c.Start(b.ctx))
	b.reopen()
	c = b.find(b.ctx, c.Info().Attempt)
	check(t, c.Start(b.ctx))
	if got := b.logs(c, executor.LogPos{}, true); len(got) != 1 {
		t.Errorf("log %q, want one line", got)
	}
}

func testFreezeAndThaw(t *testing.T, b *bench) {
	c := b.create("forever")
	wantErr(t, c.Freeze(b.ctx), executor.ErrNotRunning)
	check(t, c.Start(b.ctx))
	for range 2 {
		check(t, c.Freeze(b.ctx))
		b.wantState(c, executor.StateFrozen)
	}
	for range 2 {
		check(t, c.Thaw(b.ctx))
		b.wantState(c, executor.StateRunning)
	}
	check(t, c.Freeze(b.ctx))
	check(t, c.Stop(b.ctx, 0))
	b.wantState(c, executor.StateExited)
	wantErr(t, c.Freeze(b.ctx), executor.ErrNotRunning)
}

func testFrozenIsRemovable(t *testing.T, b *bench) {
	c := b.start("forever")
	check(t, c.Freeze(b.ctx))
	b.reopen()
	c = b.find(b.ctx, c.Info().Attempt)
	b.wantState(c, executor.StateFrozen)
	check(t, c.Remove(b.ctx))
	if b.find(b.ctx, c.Info().Attempt) != nil {
		t.Error("still listed")
	}
}

func testLogsResume(t *testing.T, b *bench) {
	const n = 400
	c, _ := b.run("lines", fmt.Sprint(n))
	var first, second []string
	var pos executor.LogPos
	for e, err := range c.Logs(b.ctx, executor.LogPos{}, true) {
		check(t, err)
		if e.Time.IsZero() || e.Gap || e.Partial {
			t.Errorf("entry %+v", e)
		}
		first, pos = append(first, string(e.Data)), e.Next
		if len(first) == n/3 {
			break
		}
	}
	b.reopen()
	c = b.find(b.ctx, c.Info().Attempt)
	for e, err := range c.Logs(b.ctx, pos, true) {
		check(t, err)
		second = append(second, string(e.Data))
	}
	seen := make(map[string]int)
	for _, l := range append(first, second...) {
		seen[l]++
	}
	for i := range n {
		if l := fmt.Sprintf("line %d", i); seen[l] != 1 {
			t.Errorf("%q came %d times", l, seen[l])
		}
	}
}

func testLogsFollow(t *testing.T, b *bench) {
	c := b.start("out", "one", "sleep", "200ms", "out", "two")
	got := b.logs(c, executor.LogPos{}, true)
	if d := cmp.Diff([]string{"stdout one", "stdout two"}, got); d != "" {
		t.Errorf("log (-want +got):\n%s", d)
	}
	b.wantState(c, executor.StateExited)
}

func testUsage(t *testing.T, b *bench) {
	c := b.start("spin", "300ms", "eat", "20", "out", "ready", "forever")
	b.await(c, "ready")
	u, err := c.Usage(b.ctx)
	check(t, err)
	all := executor.MeterCPU | executor.MeterMemory | executor.MeterMemoryPeak
	if !u.Measured.Has(all) {
		t.Fatalf("measured %b, want at least %b", u.Measured, all)
	}
	if u.CPU < 300*time.Millisecond || u.CPU > 3*time.Second {
		t.Errorf("cpu %v, want 300 ms and a little", u.CPU)
	}
	if u.Memory < 20<<20 || u.Memory > 64<<20 || u.MemoryPeak < u.Memory {
		t.Errorf("memory %d, peak %d, want 20 MiB and a little", u.Memory, u.MemoryPeak)
	}
	b.reopen()
	c = b.find(b.ctx, c.Info().Attempt)
	check(t, c.Kill(b.ctx))
	after, err := c.Usage(b.ctx)
	check(t, err)
	if after.Epoch != u.Epoch || after.CPU < u.CPU || after.MemoryPeak < u.MemoryPeak {
		t.Errorf("counters fell: %+v, then %+v", u, after)
	}
}

func testOutput(t *testing.T, b *bench) {
	s := Spec(b.img.ID, b.attempt(), "write", "/out/a.txt", "hello",
		"link", "/etc/passwd", "/out/evil", "fill", "/out/big", "40", "trap", "0")
	s.Mounts = []executor.Mount{out("/out")}
	c := b.createSpec(s)
	check(t, c.Start(b.ctx))
	b.await(c, "ready")
	_, err := c.Output(b.ctx, "/out")
	wantErr(t, err, executor.ErrRunning)
	check(t, c.Stop(b.ctx, time.Minute))
	_, err = c.Output(b.ctx, "/other")
	wantErr(t, err, executor.ErrInvalid)
	fsys, err := c.Output(b.ctx, "/out")
	check(t, err)
	if got := readFile(t, fsys, "a.txt"); got != "hello" {
		t.Errorf("a.txt holds %q", got)
	}
	if _, err := fs.ReadFile(fsys, "evil"); err == nil {
		t.Error("a link led out of the output")
	}
	got := b.logs(c, executor.LogPos{}, false)
	if len(got) != 4 || got[2] != "stdout fill failed: write /out/big: no space left on device" {
		t.Errorf("log %q, want the quota to bind", got)
	}
}

func testReadoptListsRunning(t *testing.T, b *bench) {
	s := Spec(b.img.ID, b.attempt(), "out", "up", "trap", "5")
	s.Labels = map[string]string{"lease": "l1"}
	c := b.createSpec(s)
	check(t, c.Start(b.ctx))
	b.await(c, "ready")
	b.reopen()
	c = b.find(b.ctx, s.Attempt)
	if c == nil {
		t.Fatal("the running container is not listed")
	}
	b.wantState(c, executor.StateRunning)
	if i := c.Info(); i.Labels["lease"] != "l1" || i.Image != b.img.ID || i.Created.IsZero() {
		t.Errorf("info %+v", i)
	}
	again, err := b.Create(b.ctx, s)
	check(t, err)
	b.wantState(again, executor.StateRunning)
	check(t, c.Stop(b.ctx, time.Minute))
	e, err := again.Wait(b.ctx)
	check(t, err)
	b.wantExit(e, executor.Exit{Kind: executor.ExitStopped, Code: 5, Stopped: true})
}

func testExitWhileAway(t *testing.T, b *bench) {
	c := b.start("out", "up", "sleep", "300ms", "exit", "9")
	check(t, b.Close())
	b.host.Idle(t)
	b.Driver = open(t, b.host)
	c = b.find(b.ctx, c.Info().Attempt)
	if c == nil {
		t.Fatal("the container that ended meanwhile is not listed")
	}
	b.wantState(c, executor.StateExited)
	e, err := c.Wait(b.ctx)
	check(t, err)
	b.wantExit(e, executor.Exit{Kind: executor.ExitCompleted, Code: 9})
}

func testListIsOwn(t *testing.T, b *bench) {
	c := b.create("forever")
	check(t, c.Remove(b.ctx))
	list, err := b.List(b.ctx)
	check(t, err)
	for _, l := range list {
		t.Errorf("listed %s, which an earlier case removed", l.Info().Attempt)
	}
}

func testRemoveIsFinal(t *testing.T, b *bench) {
	c := b.start("forever")
	gone := make(chan error, 1)
	go func() {
		_, err := c.Wait(b.ctx)
		gone <- err
	}()
	check(t, c.Remove(b.ctx))
	check(t, c.Remove(b.ctx))
	if err := <-gone; err != nil && !errors.Is(err, executor.ErrNotFound) {
		t.Errorf("a waiter got %v", err)
	}
	wantErr(t, c.Start(b.ctx), executor.ErrNotFound)
	_, err := c.State(b.ctx)
	wantErr(t, err, executor.ErrNotFound)
	_, err = c.Usage(b.ctx)
	wantErr(t, err, executor.ErrNotFound)
	_, err = c.Wait(b.ctx)
	wantErr(t, err, executor.ErrNotFound)
	// The name is free again, and the new container is a new one.
	c = b.create("exit", "3")
	check(t, c.Start(b.ctx))
	e, err := c.Wait(b.ctx)
	check(t, err)
	b.wantExit(e, executor.Exit{Kind: executor.ExitCompleted, Code: 3})
}

func testClosed(t *testing.T, b *bench) {
	c := b.start("forever")
	ended := make(chan error, 1)
	go func() {
		_, err := c.Wait(b.ctx)
		ended <- err
	}()
	check(t, b.Close())
	check(t, b.Close())
	wantErr(t, <-ended, executor.ErrClosed)
	_, err := b.Create(b.ctx, Spec(b.img.ID, "late"))
	wantErr(t, err, executor.ErrClosed)
	b.Driver = open(t, b.host)
	b.wantState(b.find(b.ctx, c.Info().Attempt), executor.StateRunning)
}
