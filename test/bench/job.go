package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/test/stage"
)

// Rounds of the job benchmark, each a job and a podman run.
const (
	jobWarmups = 3
	jobRounds  = 25
)

// noopJobs compares a container that does nothing, run as a job through the whole network, with
// podman running it with the same flags in the same instance. Both alternate, so that what else
// the machine does hits both.
func noopJobs(ctx context.Context, dir string) (_ []figure, err error) {
	n, err := stage.AllInOne(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	owner, err := n.Owner(ctx, 1000*stage.UCN)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, owner.Close()) }()
	image, err := pushNoop(ctx, owner, dir)
	if err != nil {
		return nil, err
	}
	job := noopJob(image)
	var jobs, plain []time.Duration
	for i := range jobWarmups + jobRounds {
		viaNetwork, err := runJob(ctx, owner, job)
		if err != nil {
			return nil, err
		}
		direct, err := runPodman(ctx, n.Engines[0], &job)
		if err != nil {
			return nil, err
		}
		if i >= jobWarmups {
			jobs, plain = append(jobs, viaNetwork), append(plain, direct)
		}
	}
	a, b := median(jobs), median(plain)
	return []figure{
		{"job.noop_overhead_ms_p50", a - b, "ms"}, {"job.noop_ms_p50", a, "ms"},
		{"job.podman_run_ms_p50", b, "ms"},
	}, nil
}

func noopJob(image string) jobfile.File {
	f := jobfile.Default()
	f.Name, f.Image = "noop", image
	f.Resources.CPU, f.Resources.Memory, f.Resources.Disk = 1000, 64*config.MiB, 16*config.MiB
	return f
}

// pushNoop builds the program that does nothing, packs and pushes it.
func pushNoop(ctx context.Context, owner *stage.Owner, dir string) (string, error) {
	program, archive := filepath.Join(dir, "noop"), filepath.Join(dir, "noop.tar")
	const module = "github.com/united-containers/ucn/"
	for _, args := range [][]string{
		{"build", "-trimpath", "-ldflags=-s -w", "-o", program, module + "test/bench/noop"},
		{"run", module + "examples/render/pack", "-program", program, "-out", archive},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", args[0], err, out)
		}
	}
	image, err := oci.OpenArchive(ctx, archive, oci.Options{})
	if err != nil {
		return "", err
	}
	var pushed string
	err = blob.New(owner.Storage).Push(ctx, image, "noop", func(_ oci.Part, s blob.Stored) {
		pushed = s.CID.String() // the manifest comes last
	})
	return pushed, errors.Join(err, image.Close())
}

// runJob returns the time from the first signature to the news that the job has ended. The bill is
// waited for but not counted.
func runJob(
	ctx context.Context, owner *stage.Owner, job jobfile.File,
) (took time.Duration, err error) {
	began := time.Now()
	over := &ending{}
	runner := jobrun.Runner{Session: owner.Session, View: over}
	report, err := runner.Run(ctx, jobrun.Request{File: job})
	if err != nil {
		return 0, err
	}
	if !report.Completed() || over.at.IsZero() {
		return 0, fmt.Errorf("the job ended %q: %s", report.Result, report.Reason)
	}
	return over.at.Sub(began), nil
}

// ending notes when a job was said to have ended.
type ending struct{ at time.Time }

// Event implements jobrun.View.
func (v *ending) Event(e jobrun.Event) {
	if e.Kind == jobrun.KindState && e.State == "completed" && v.at.IsZero() {
		v.at = time.Now()
	}
}

// runPodman runs the image with podman as the executor has it run: in the same storage, with the
// same runtime, limits and isolation.
func runPodman(ctx context.Context, engine string, job *jobfile.File) (time.Duration, error) {
	run := filepath.Join("/run/ucn", fmt.Sprintf("%x", sha256.Sum256([]byte(engine)))[:12])
	global := []string{
		"--root", filepath.Join(engine, "root"), "--runroot", filepath.Join(run, "run"),
		"--tmpdir", filepath.Join(run, "tmp"),
	}
	const ids = "0:2147418112:65536" // the last of the engine's range: no job has it
	args := append(global, "run", "--rm", "--network=none", "--uidmap="+ids, "--gidmap="+ids,
		"--cap-drop=all", "--cap-add=CHOWN,DAC_OVERRIDE,FOWNER,SETUID,SETGID,KILL,NET_BIND_SERVICE",
		"--security-opt=no-new-privileges",
		"--security-opt=seccomp="+filepath.Join(engine, "seccomp.json"),
		fmt.Sprintf("--memory=%d", job.Resources.Memory),
		fmt.Sprintf("--memory-swap=%d", job.Resources.Memory),
		"--cpus="+job.Resources.CPU.String(), "--pids-limit=1024",
		"--ulimit=core=0:0", "--ulimit=nproc=1024:1024", "--ulimit=nofile=1024:1024",
		"--cgroupns=private", "--log-driver=k8s-file")
	image, err := imageID(ctx, engine, global)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	_, err = podman(ctx, engine, append(args, image)...)
	return time.Since(began), err
}

func imageID(ctx context.Context, engine string, global []string) (string, error) {
	out, err := podman(ctx, engine, append(slices.Clone(global), "images", "-aq", "--no-trunc")...)
	if err != nil {
		return "", err
	}
	fields := strings.Fields(out)
	if len(fields) != 1 {
		return "", fmt.Errorf("the engine holds images %q, want one", fields)
	}
	return strings.TrimPrefix(fields[0], "sha256:"), nil
}

// podman runs it with the engine's own configuration.
func podman(ctx context.Context, engine string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "podman", args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(engine, "home"),
		"TMPDIR=" + filepath.Join(engine, "scratch"),
		"CONTAINERS_CONF=" + filepath.Join(engine, "containers.conf"),
		"CONTAINERS_STORAGE_CONF=" + filepath.Join(engine, "storage.conf"),
		"CONTAINERS_REGISTRIES_CONF=" + filepath.Join(engine, "registries.conf"),
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("podman: %w\n%s", err, out)
	}
	return string(out), nil
}

// median in milliseconds.
func median(list []time.Duration) float64 {
	slices.Sort(list)
	middle := (list[(len(list)-1)/2] + list[len(list)/2]) / 2
	return float64(middle) / float64(time.Millisecond)
}
