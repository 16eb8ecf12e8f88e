package podman

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// BenchmarkRun is a no-op container's way from Create to its exit being known. Its removal is off
// the critical path and not counted.
func BenchmarkRun(b *testing.B) {
	img := executortest.GuestImage(b)
	d := loaded(b, img)
	n := 0
	for b.Loop() {
		c, err := d.Create(b.Context(), executortest.Spec(img.ID, fmt.Sprintf("run%d", n), "exit", "0"))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		if e, err := c.Wait(b.Context()); err != nil || e.Kind != executor.ExitCompleted {
			b.Fatal(e, err)
		}
		b.StopTimer()
		if err := c.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		n++
		b.StartTimer()
	}
}

// BenchmarkPodmanRun is "podman run --rm" of the same container in the same instance.
func BenchmarkPodmanRun(b *testing.B) {
	img := executortest.GuestImage(b)
	d := loaded(b, img)
	i := d.i
	config, err := i.config(b.Context(), img.ID)
	if err != nil {
		b.Fatal(err)
	}
	args := []string{
		"--root", i.path("root"), "--runroot", i.runPath("run"), "--tmpdir", i.runPath("tmp"),
		"run", "--rm",
		"--network=none", "--uidmap=0:1879048192:65536", "--cap-drop=all", "--memory=64m",
		"--pids-limit=64", "--cpus=2", "--security-opt=no-new-privileges",
		"--security-opt=seccomp=" + i.path("seccomp.json"), "--ulimit=nproc=1024:1024",
		"--ulimit=nofile=1024:1024", strings.TrimPrefix(config, "sha256:"), "exit", "0",
	}
	for b.Loop() {
		cmd := exec.Command(i.tools.podman, args...)
		cmd.Env = i.service.environment()
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

func BenchmarkUsage(b *testing.B) {
	img := executortest.GuestImage(b)
	d := loaded(b, img)
	c, err := d.Create(b.Context(), executortest.Spec(img.ID, "usage", "forever"))
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Usage(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
