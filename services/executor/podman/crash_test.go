package podman

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// The API service may die at any time: nothing of the containers is lost, and the next call starts
// another.
func TestServiceDies(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	c, err := d.Create(t.Context(), executortest.Spec(img.ID, "a", "trap", "4"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, err := range c.Logs(t.Context(), executor.LogPos{}, true) {
		if err != nil {
			t.Fatal(err)
		}
		break // it is ready
	}
	engine, ended := d.i.service.process()
	if err := engine.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := c.Stop(t.Context(), executor.MaxStopGrace); err != nil {
		t.Fatal(err)
	}
	e, err := c.Wait(t.Context())
	if err != nil || e.Code != 4 || e.Kind != executor.ExitStopped {
		t.Errorf("exit %+v, %v", e, err)
	}
}

// process is the service that was started last, and what tells its end.
func (s *service) process() (*exec.Cmd, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd, s.done
}

// A service outlives the executor that started it, also when it has something to say: it does not
// write into a pipe whose reader is gone.
func TestServiceWritesToNobody(t *testing.T) {
	d := loaded(t, executortest.GuestImage(t))
	if _, err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	engine, _ := d.i.service.process()
	fd := "/proc/" + strconv.Itoa(engine.Process.Pid) + "/fd/"
	for _, n := range []string{"1", "2"} {
		to, err := os.Readlink(fd + n)
		if err != nil || to != d.i.path(wordsFile) {
			t.Errorf("descriptor %s goes to %q, %v; want %s", n, to, err, d.i.path(wordsFile))
		}
	}
}

// A question is asked again when the service ends over it; an order is not, it may have been done.
func TestQuestionsOutliveTheService(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0 // touched by the server alone until it has ended
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			req, err := http.ReadRequest(bufio.NewReader(conn))
			asked++
			if err == nil && req.Method == http.MethodGet && asked%2 == 0 {
				_, err = io.WriteString(conn,
					"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
			}
			if err := errors.Join(err, conn.Close()); err != nil {
				t.Error(err)
			}
		}
	}()
	c := newClient(socket)
	started := 0
	c.ensure = func(context.Context) error { started++; return nil }
	defer c.close()
	if err := c.call(t.Context(), get("/info"), nil, nil); err != nil {
		t.Errorf("a question: %v", err)
	}
	if err := c.call(t.Context(), post("/order"), nil, nil); err == nil {
		t.Error("an order that nobody answered succeeded")
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	<-served
	if asked != 3 || started != 1 {
		t.Errorf("asked %d times, looked after the service %d times; want 3 and 1", asked, started)
	}
}

// When conmon is killed nobody knows the exit code any more; the driver says so and does not wait
// for ever.
func TestConmonDies(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	c, err := d.Create(t.Context(), executortest.Spec(img.ID, "a", "sleep", "200ms", "exit", "3"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pids, err := d.i.groups.Procs(d.i.group("engine"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if err == nil && strings.TrimSpace(string(b)) == "conmon" {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	e, err := c.Wait(t.Context())
	if err != nil || e.Kind != executor.ExitLost {
		t.Errorf("exit %+v, %v; want it lost", e, err)
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// A crash inside Create leaves a directory and perhaps a container; the next life clears it away,
// and the attempt can be created.
func TestHalfMadeIsCleared(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	spec := executortest.Spec(img.ID, "half", "exit", "0")
	c, err := d.handle(spec.Attempt)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.dir.logDir(), 0o711); err != nil {
		t.Fatal(err)
	}
	r := &record{Executor: "exec-1", Spec: spec}
	if err := c.dir.write("attempt.json", r); err != nil {
		t.Fatal(err)
	}
	list, err := d.List(t.Context())
	if err != nil || len(list) != 0 {
		t.Errorf("listed %d, %v", len(list), err)
	}
	if exists(string(c.dir)) {
		t.Error("the directory is still there")
	}
	if _, err := d.Create(t.Context(), spec); err != nil {
		t.Error(err)
	}
}

// Many at once: every one ends as it should, and nothing stays behind.
func TestManyAtOnce(t *testing.T) {
	const many = 8
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	var all sync.WaitGroup
	for n := range many {
		all.Go(func() {
			name := "n" + strconv.Itoa(n)
			c, err := d.Create(t.Context(), executortest.Spec(img.ID, name, "exit", strconv.Itoa(n)))
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.Start(t.Context()); err != nil {
				t.Error(err)
			}
			if e, err := c.Wait(t.Context()); err != nil || e.Code != n {
				t.Errorf("exit %+v, %v; want %d", e, err, n)
			}
			if err := c.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	left, err := os.ReadDir(d.i.path("attempts", "exec-1"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Data directories are often deep, and closed to others.
func TestDeepAndPrivateDirectory(t *testing.T) {
	img := executortest.GuestImage(t)
	cfg := newConfig(t)
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = filepath.Join(cfg.Dir, strings.Repeat("deep/", 20), "executor")
	d, err := New(cfg, "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := wipe(cfg); err != nil {
			t.Error(err)
		}
	})
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := d.LoadImage(t.Context(), img.ID, "", img.Open); err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(cfg.Dir, "in.txt")
	if err := os.WriteFile(in, []byte("given\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := executortest.Spec(img.ID, "a", "read", "/in.txt", "write", "/out/x", "y",
		"read", "/etc/hosts")
	s.Mounts = []executor.Mount{
		{Kind: executor.MountInput, Path: "/in.txt", Source: in},
		{Kind: executor.MountOutput, Path: "/out", Bytes: 4 << 20},
	}
	lines := guest(t, d, s)
	wantLine(t, lines, "given")
	wantLine(t, lines, "write ok")
	wantLine(t, lines, "localhost")
}
