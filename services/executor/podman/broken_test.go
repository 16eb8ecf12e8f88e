package podman

import (
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// A podman that no longer works keeps nobody from waiting for a program, measuring and ending it.
func TestEngineBreaks(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	c, err := d.Create(t.Context(), executortest.Spec(img.ID, "a", "deaf"))
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
	s, works := d.i.service, d.i.tools.podman
	usePodman := func(path string) {
		s.mu.Lock() // under which it is read
		defer s.mu.Unlock()
		d.i.tools.podman = path
	}
	usePodman("/nowhere/podman")
	engine, ended := s.process()
	if err := engine.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	exits := make(chan executor.Exit, 1)
	go func() {
		e, err := c.Wait(t.Context())
		if err != nil {
			t.Errorf("waiting: %v", err)
		}
		exits <- e
	}()
	if _, err := c.Usage(t.Context()); err != nil {
		t.Errorf("measuring: %v", err)
	}
	select {
	case e := <-exits:
		t.Errorf("it has ended: %+v", e)
	case <-time.After(exitRecheck + exitRecheck/2): // it has looked at the engine once
	}
	if err := c.Stop(t.Context(), 100*time.Millisecond); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if e := <-exits; e.Kind != executor.ExitStopped || !e.Stopped {
		t.Errorf("exit %+v", e)
	}
	usePodman(works)
}
