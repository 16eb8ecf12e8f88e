package podman

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// service runs "podman system service" while it is needed. The service keeps no state, so it may
// end, or be killed, at any time: the next call starts another. One that an earlier life of the
// executor left behind is used as it is.
type service struct {
	i *Instance

	starting sync.Mutex // held while the service is being started, or killed
	mu       sync.Mutex // guards what follows
	cmd      *exec.Cmd
	started  time.Time     // of cmd
	done     chan struct{} // closed when cmd has ended
	stopped  bool
}

func newService(i *Instance) *service { return &service{i: i} }

// startPoll is the pause between two looks whether the service answers.
const startPoll = 3 * time.Millisecond

// ensure returns when somebody answers on the socket.
func (s *service) ensure(ctx context.Context) error {
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.answers(ctx) {
		return nil
	}
	done, err := s.start()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.i.cfg.StartTimeout)
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		if s.answers(ctx) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: podman system service did not answer: %w", executor.ErrUnavailable,
				ctx.Err())
		case <-done:
			return fmt.Errorf("%w: podman system service ended at once: %s",
				executor.ErrUnavailable, s.words())
		case <-tick.C:
		}
	}
}

func (s *service) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	res, err := s.i.api.send(ctx, get("/_ping"), "", nil)
	if err != nil {
		return false
	}
	_, err = answer(res)
	return err == nil
}

// start starts the process, in a control group of its own: conmon inherits it, and stopping the
// executor's group then stops no container.
func (s *service) start() (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, executor.ErrClosed
	}
	i := s.i
	if err := os.Remove(i.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("clearing podman's socket: %w", err)
	}
	s.sweep()
	seconds := strconv.Itoa(max(1, int(i.cfg.IdleStop/time.Second)))
	// The engine reads files of images as root: no device of theirs may open. With a root of its own
	// it takes no options from storage.conf, so this is said here. Conmon's cleaning is told too.
	cmd := exec.Command(i.tools.podman, "--root", i.path("root"), "--runroot", i.runPath("run"),
		"--storage-driver", "overlay", "--storage-opt", "overlay.mountopt=nodev",
		"--tmpdir", i.runPath("tmp"), "--network-config-dir", i.path("networks"),
		"system", "service", "--time="+seconds, "unix://"+i.socket)
	cmd.Env = s.environment()
	cmd.Dir = i.cfg.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is the executor's to handle
	words, err := os.OpenFile(i.path(wordsFile), os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting podman: %w", err)
	}
	cmd.Stdout, cmd.Stderr = words, words
	err = cmd.Start()
	if err := errors.Join(err, words.Close()); err != nil {
		return nil, fmt.Errorf("starting podman: %w", err)
	}
	s.cmd, s.started, s.done = cmd, time.Now(), make(chan struct{})
	go s.attend(cmd, s.done)
	engine := i.group("engine")
	err = errors.Join(i.groups.Create(engine), i.groups.AddProc(engine, cmd.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("%w: %w; run the executor where it may write control groups",
			executor.ErrUnavailable, errors.Join(err, cmd.Process.Kill()))
	}
	return s.done, nil
}

// environment points podman, and what conmon calls later, at the instance's configuration.
func (s *service) environment() []string {
	i := s.i
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + i.path("home"), "TMPDIR=" + i.path("scratch"),
		"CONTAINERS_CONF=" + i.path("containers.conf"),
		"CONTAINERS_STORAGE_CONF=" + i.path("storage.conf"),
		"CONTAINERS_REGISTRIES_CONF=" + i.path("registries.conf"),
		"DISABLE_HC_SYSTEMD=true", // nor any other health check: see generate
	}
}

// What the service says goes to a file of the instance. A pipe to the executor would kill a service
// that outlives it, at its next word, with the calls that another life makes of it.
const (
	wordsFile  = "podman.log"
	wordsMost  = 1 << 20 // bytes of it, looked at every wordsEvery
	wordsEvery = time.Minute
	wordsTold  = 2 << 10 // bytes of its end that an error tells
)

// attend reaps the service.
func (s *service) attend(cmd *exec.Cmd, done chan<- struct{}) {
	defer close(done)
	if err := cmd.Wait(); err != nil {
		s.i.cfg.Log.Debug("podman service ended", slog.Any("error", err),
			slog.String("words", s.words()))
	}
}

// keepWords keeps the file of the service small until the instance closes: also of one that an
// earlier life left, which lives for as long as it is called.
func (s *service) keepWords() {
	tick := time.NewTicker(wordsEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.i.closing.Done():
			return
		case <-tick.C:
		}
		file := s.i.path(wordsFile)
		if info, err := os.Stat(file); err != nil || info.Size() <= wordsMost {
			continue
		}
		if err := os.Truncate(file, 0); err != nil {
			s.i.cfg.Log.Warn("shortening podman's log", slog.Any("error", err))
		}
	}
}

// words returns the end of what the service said.
func (s *service) words() string {
	b, err := os.ReadFile(s.i.path(wordsFile))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-wordsTold):]))
}

// unhang aborts the service if it is one that was there at that time: another call may have done so
// already.
func (s *service) unhang(since time.Time) {
	s.starting.Lock()
	defer s.starting.Unlock()
	s.mu.Lock()
	newer := s.cmd != nil && s.started.After(since)
	s.mu.Unlock()
	if newer {
		return
	}
	s.i.cfg.Log.Warn("podman hangs: ending its service")
	s.end()
}

// abort kills the service with what it is doing, and clears away what it had not finished. The next
// call starts another; containers go on.
func (s *service) abort() {
	s.starting.Lock()
	defer s.starting.Unlock()
	s.end()
}

// end is abort; the caller holds starting, so that none that is new is taken for a stray.
func (s *service) end() {
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill() // else it has ended
		<-done
	}
	if err := s.killStrays(); err != nil {
		s.i.cfg.Log.Warn("ending podman", slog.Any("error", err))
	}
	s.sweep()
}

// sweep removes what a service that is no more has not finished, such as images half loaded.
func (s *service) sweep() {
	left, err := os.ReadDir(s.i.path("scratch"))
	for _, e := range left {
		err = errors.Join(err, os.RemoveAll(s.i.path("scratch", e.Name())))
	}
	if err != nil {
		s.i.cfg.Log.Warn("clearing podman's unfinished work", slog.Any("error", err))
	}
}

// stopGrace is how long the service may take to end before it is killed.
const stopGrace = 3 * time.Second

// stop ends the service for good, ours or one that an earlier life left.
func (s *service) stop() error {
	s.mu.Lock()
	s.stopped = true
	cmd, done := s.cmd, s.done
	s.mu.Unlock()
	if cmd == nil {
		return s.stopStray()
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping podman: %w", err)
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing podman: %w", err)
	}
	<-done
	return nil
}

// strays finds podmans of this instance that are not our child: a service of an earlier life, and
// what conmons call to clean up. They are in the control group of the engine, as conmons are, and
// are told by their command line.
func (s *service) strays(words ...string) ([]int, error) {
	pids, err := s.i.groups.Procs(s.i.group("engine"))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		return err != nil || !slices.ContainsFunc(words, func(w string) bool {
			return strings.Contains(string(b), w)
		})
	}), nil
}

const (
	wordsService = "system\x00service\x00"
	wordsCleanup = "container\x00cleanup\x00"
)

// stopStray asks a service of an earlier life to end.
func (s *service) stopStray() error {
	pids, err := s.strays(wordsService)
	for _, pid := range pids {
		if _, err := s.i.groups.Signal(s.i.group("engine"), pid, syscall.SIGTERM); err != nil {
			return fmt.Errorf("stopping podman: %w", err)
		}
	}
	return err
}

// killStrays kills them, and those that clean up too: either may hold the lock that others wait
// for. It returns when they are gone.
func (s *service) killStrays() error {
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for until := time.Now().Add(stopGrace); time.Now().Before(until); <-tick.C {
		pids, err := s.strays(wordsService, wordsCleanup)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_, err := s.i.groups.Signal(s.i.group("engine"), pid, syscall.SIGKILL)
			if err != nil {
				return err
			}
		}
	}
	return errors.New("a podman that was killed is still there")
}

// limits are the resource limits of the running service.
func (s *service) limits() (limits, error) {
	s.mu.Lock()
	cmd := s.cmd
	s.mu.Unlock()
	if cmd != nil {
		return readLimits(cmd.Process.Pid)
	}
	// The service of an earlier life has our own limits at most; podman lowers processes to pid_max.
	own, err := readLimits(os.Getpid())
	if err != nil {
		return limits{}, err
	}
	b, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return limits{}, fmt.Errorf("reading pid_max: %w", err)
	}
	if most, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
		own.processes = min(own.processes, most)
	}
	return own, nil
}
