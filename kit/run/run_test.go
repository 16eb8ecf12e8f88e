package run_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/run"
)

// journal records what components do, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// service returns a component that starts and stops in the given time and writes it down.
func (j *journal) service(name string, start, stop time.Duration) run.Func {
	return func(ctx context.Context, ready func()) error {
		time.Sleep(start)
		j.add("start " + name)
		ready()
		<-ctx.Done()
		time.Sleep(stop)
		j.add("stop " + name)
		return nil
	}
}

func TestStartsInOrderAndDrainsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var g run.Group
		g.Add("store", j.service("store", 3*time.Second, 0))
		g.Add("events", j.service("events", time.Second, 0))
		g.Add("server", j.service("server", time.Second, 2*time.Second), "store", "events")
		g.Add("gateway", j.service("gateway", 0, time.Second), "server")
		ctx, cancel := context.WithCancel(t.Context())
		err := g.Run(ctx, func() { j.add("all ready"); cancel() })
		if err != nil {
			t.Fatal(err)
		}
		// store and events stop at the same instant, in either order.
		slices.Sort(j.lines[len(j.lines)-2:])
		want := []string{
			"start events", "start store", "start server", "start gateway", "all ready",
			"stop gateway", "stop server", "stop events", "stop store",
		}
		if d := cmp.Diff(want, j.lines); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

func TestFirstErrorStopsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var g run.Group
		g.Add("store", j.service("store", 0, time.Second))
		g.Add("server", run.Func(func(_ context.Context, ready func()) error {
			ready()
			time.Sleep(time.Minute)
			return io.ErrUnexpectedEOF
		}), "store")
		err := g.Run(t.Context(), func() { j.add("all ready") })
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "server: ") {
			t.Errorf("error %v, want the server's", err)
		}
		if d := cmp.Diff([]string{"start store", "all ready", "stop store"}, j.lines); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

func TestFailedStartNeverStartsDependents(t *testing.T) {
	var g run.Group
	g.Add("store", run.Func(func(context.Context, func()) error { return io.ErrClosedPipe }))
	g.Add("server", run.Func(func(context.Context, func()) error {
		t.Error("the server was started")
		return nil
	}), "store")
	err := g.Run(t.Context(), func() { t.Error("the group said ready") })
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

func TestReturningNilUnaskedIsAFailure(t *testing.T) {
	var g run.Group
	g.Add("quitter", run.Func(func(_ context.Context, ready func()) error { ready(); return nil }))
	if err := g.Run(t.Context(), func() {}); !errors.Is(err, run.ErrStopped) {
		t.Errorf("error %v, want ErrStopped", err)
	}
}

func TestErrorWhileDrainingIsReported(t *testing.T) {
	var g run.Group
	g.Add("flusher", run.Func(func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		return io.ErrShortWrite
	}))
	g.Add("obedient", run.Func(func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		return ctx.Err()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	err := g.Run(ctx, cancel)
	if !errors.Is(err, io.ErrShortWrite) || errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want only the flusher's", err)
	}
}

func TestGraceOverStopsOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := run.Group{Grace: 10 * time.Second}
		g.Add("store", j.service("store", 0, 0))
		g.Add("slow", j.service("slow", 0, 15*time.Second), "store")
		ctx, cancel := context.WithCancel(t.Context())
		if err := g.Run(ctx, cancel); err != nil {
			t.Fatal(err)
		}
		want := []string{"start store", "start slow", "stop store", "stop slow"}
		if d := cmp.Diff(want, j.lines); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

func TestStuckComponentIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		g := run.Group{Grace: time.Second}
		g.Add("stuck", run.Func(func(_ context.Context, ready func()) error {
			ready()
			<-release
			return nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		err := g.Run(ctx, cancel)
		if !errors.Is(err, run.ErrStuck) || !strings.Contains(err.Error(), "stuck") {
			t.Errorf("error %v, want ErrStuck naming the component", err)
		}
		close(release)
	})
}

func TestValuesReachComponentsAndGroupsNest(t *testing.T) {
	type key struct{}
	inner := &run.Group{}
	inner.Add("leaf", run.Func(func(ctx context.Context, ready func()) error {
		if ctx.Value(key{}) != "trace" {
			t.Error("the context's values are lost")
		}
		ready()
		<-ctx.Done()
		return nil
	}))
	var outer run.Group
	outer.Add("inner", inner)
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "trace"))
	if err := outer.Run(ctx, cancel); err != nil {
		t.Error(err)
	}
}

func TestMistakesInAddAreReported(t *testing.T) {
	nothing := run.Func(func(context.Context, func()) error { return nil })
	cases := []struct {
		name string
		add  func(g *run.Group)
		want string
	}{
		{"twice", func(g *run.Group) { g.Add("a", nothing); g.Add("a", nothing) }, "twice"},
		{"unknown", func(g *run.Group) { g.Add("a", nothing, "b") }, `"b"`},
		{"itself", func(g *run.Group) { g.Add("a", nothing, "a") }, "not added yet"},
		{"nil", func(g *run.Group) { g.Add("a", nil) }, "nil"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var g run.Group
			c.add(&g)
			err := g.Run(t.Context(), func() {})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want it to say %s", err, c.want)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	exited := make(chan int, 1)
	ctx, stop := run.Signals(t.Context(), func(code int) { exited <- code })
	defer stop()
	send(t)
	<-ctx.Done()
	select {
	case code := <-exited:
		t.Fatalf("the first signal exits with %d", code)
	default:
	}
	if code := again(t, exited); code != run.ExitInterrupted {
		t.Errorf("exit status %d, want %d", code, run.ExitInterrupted)
	}
	stop()
	stop()
}

// TestOneRequestToEndIsNotTwo: signals that come together, as those of `timeout` to a process and
// to its group, are one; it takes another one later to leave at once.
func TestOneRequestToEndIsNotTwo(t *testing.T) {
	exited := make(chan int, 1)
	began := time.Now()
	ctx, stop := run.Signals(t.Context(), func(code int) { exited <- code })
	defer stop()
	send(t)
	<-ctx.Done()
	again(t, exited)
	if after := time.Since(began); after < run.SecondAfter {
		t.Errorf("left at once %s after the first signal, want %s", after, run.SecondAfter)
	}
}

// again sends a signal every few milliseconds until the process would have ended.
func again(t *testing.T, exited <-chan int) int {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		send(t)
		select {
		case code := <-exited:
			return code
		case <-tick.C:
		}
	}
}

func send(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}
