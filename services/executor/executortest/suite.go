package executortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/services/executor"
)

// Host is a place where a driver keeps its state. Each Open is a new life of the executor on it:
// the driver before was closed, or was killed.
type Host interface {
	Open(t *testing.T) executor.Driver
	// Idle returns when no container of the host runs any more, without a driver.
	Idle(t *testing.T)
}

// patience bounds every wait of the suite.
const patience = 60 * time.Second

// TestDriver runs the contract of executor.Driver. img is the guest image in a form that the
// driver can load; the host does not hold it yet.
func TestDriver(t *testing.T, h Host, img *Image) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"TestImageDigestMismatch", testImageDigestMismatch},
		{"TestCreateNeedsImage", testCreateNeedsImage},
		{"TestImageLoadsOnce", testImageLoadsOnce},
		{"TestImageSources", testImageSources},
		{"TestProbe", testProbe},
		{"TestCreateIsIdempotent", testCreateIsIdempotent},
		{"TestInvalidSpec", testInvalidSpec},
		{"TestCompletes", testCompletes},
		{"TestNonZero", testNonZero},
		{"TestRefusedProgram", testRefusedProgram},
		{"TestOOM", testOOM},
		{"TestNeverEndsIsKilled", testNeverEndsIsKilled},
		{"TestStopAsksFirst", testStopAsksFirst},
		{"TestStopBeforeStart", testStopBeforeStart},
		{"TestNeverStartedTwice", testNeverStartedTwice},
		{"TestFreezeAndThaw", testFreezeAndThaw},
		{"TestFrozenIsRemovable", testFrozenIsRemovable},
		{"TestLogsResume", testLogsResume},
		{"TestLogsFollow", testLogsFollow},
		{"TestUsage", testUsage},
		{"TestOutput", testOutput},
		{"TestReadoptListsRunning", testReadoptListsRunning},
		{"TestExitWhileAway", testExitWhileAway},
		{"TestListIsOwn", testListIsOwn},
		{"TestRemoveIsFinal", testRemoveIsFinal},
		{"TestClosed", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			c.run(t, &bench{t: t, ctx: ctx, host: h, img: img, Driver: open(t, h)})
		})
	}
}

// bench is what one case works with.
type bench struct {
	executor.Driver
	t    *testing.T
	ctx  context.Context
	host Host
	img  *Image
}

func open(t *testing.T, h Host) executor.Driver {
	d := h.Open(t)
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

// reopen closes the driver and begins a new life.
func (b *bench) reopen() {
	b.t.Helper()
	check(b.t, b.Close())
	b.Driver = open(b.t, b.host)
}

// load makes the driver hold the image.
func (b *bench) load() {
	b.t.Helper()
	img, err := b.LoadImage(b.ctx, b.img.ID, "", b.img.Open)
	check(b.t, err)
	if img.ID != b.img.ID || img.Config != b.img.Config {
		b.t.Fatalf("loaded %+v, want id %s config %s", img, b.img.ID, b.img.Config)
	}
}

// Spec returns a spec of the attempt that runs the guest with args.
func Spec(img executor.ImageID, attempt string, args ...string) executor.ContainerSpec {
	return executor.ContainerSpec{
		Attempt: executor.AttemptID(attempt), Image: img, Args: args,
		Isolation: executor.IsolationStandard, Network: executor.NetworkNone,
		Limits: executor.Limits{
			CPUMilli: 2000, MemoryBytes: 64 << 20, PIDs: 64, DiskBytes: 64 << 20, LogBytes: 1 << 20,
		},
	}
}

// create makes a container of the guest with args, named by the test, and removes it at the end.
func (b *bench) create(args ...string) executor.Container {
	b.t.Helper()
	return b.createSpec(Spec(b.img.ID, b.attempt(), args...))
}

func (b *bench) createSpec(s executor.ContainerSpec) executor.Container {
	b.t.Helper()
	b.load()
	c, err := b.Create(b.ctx, s)
	check(b.t, err)
	b.t.Cleanup(func() { b.remove(s.Attempt) })
	return c
}

// attempt names an attempt after the test.
func (b *bench) attempt() string {
	name := []byte(b.t.Name())
	for i, c := range name {
		if c == '/' {
			name[i] = '-'
		}
	}
	return string(name)
}

// remove removes the attempt in whichever life.
func (b *bench) remove(id executor.AttemptID) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if c := b.find(ctx, id); c != nil {
		check(b.t, c.Remove(ctx))
	}
}

func (b *bench) find(ctx context.Context, id executor.AttemptID) executor.Container {
	b.t.Helper()
	list, err := b.List(ctx)
	if errors.Is(err, executor.ErrClosed) {
		d := open(b.t, b.host)
		list, err = d.List(ctx)
	}
	check(b.t, err)
	for _, c := range list {
		if c.Info().Attempt == id {
			return c
		}
	}
	return nil
}

func (b *bench) start(args ...string) executor.Container {
	b.t.Helper()
	c := b.create(args...)
	check(b.t, c.Start(b.ctx))
	return c
}

func (b *bench) run(args ...string) (executor.Container, executor.Exit) {
	b.t.Helper()
	c := b.start(args...)
	e, err := c.Wait(b.ctx)
	check(b.t, err)
	return c, e
}

// wantExit checks what a program's end is told as; times are checked for sense only.
func (b *bench) wantExit(got, want executor.Exit) {
	b.t.Helper()
	if got.Ended.IsZero() || got.Ended.Before(got.Started) {
		b.t.Errorf("started %v, ended %v", got.Started, got.Ended)
	}
	got.Started, got.Ended, got.Detail = time.Time{}, time.Time{}, ""
	if d := cmp.Diff(want, got); d != "" {
		b.t.Errorf("exit (-want +got):\n%s", d)
	}
}

func (b *bench) wantState(c executor.Container, want executor.State) {
	b.t.Helper()
	got, err := c.State(b.ctx)
	check(b.t, err)
	if got != want {
		b.t.Errorf("state %s, want %s", got, want)
	}
}

// logs returns the log from pos on as "stream text" lines.
func (b *bench) logs(c executor.Container, pos executor.LogPos, follow bool) []string {
	b.t.Helper()
	var lines []string
	for e, err := range c.Logs(b.ctx, pos, follow) {
		check(b.t, err)
		lines = append(lines, fmt.Sprintf("%s %s", e.Stream, e.Data))
	}
	return lines
}

// await follows the log until the text comes.
func (b *bench) await(c executor.Container, text string) {
	b.t.Helper()
	for e, err := range c.Logs(b.ctx, executor.LogPos{}, true) {
		check(b.t, err)
		if string(e.Data) == text {
			return
		}
	}
	b.t.Fatalf("the program ended without saying %q", text)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func noLayout(context.Context) (io.ReadCloser, error) {
	return nil, errors.New("the image is held; there is no need to open it")
}

func readFile(t *testing.T, fsys fs.FS, name string) string {
	t.Helper()
	data, err := fs.ReadFile(fsys, name)
	check(t, err)
	return string(data)
}
