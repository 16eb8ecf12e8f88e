package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// How long a service may take.
const (
	startWithin = 40 * time.Second
	stopWithin  = 30 * time.Second
	pollEvery   = 20 * time.Millisecond
	logTail     = 6 << 10
)

// Service is one service in a process of its own. It may be killed and started again.
type Service struct {
	Name string
	// Addr is where it says that it is healthy; a URL's host for the gateway.
	Addr string

	binary, config, log string
	service             string
	healthy             func(ctx context.Context, addr string) error

	mu    sync.Mutex // guards the process that runs
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has been waited for
	err   error         // what it ended with; read after ended
}

// Start starts the process and waits until it is healthy.
func (s *Service) Start(ctx context.Context) error {
	if err := s.launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		err := s.healthy(ctx, s.Addr)
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pollEvery)
		select {
		case <-s.ended:
			timer.Stop()
			return fmt.Errorf("%s ended at its start: %w\n%s", s.Name, s.err, s.Log())
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s is not healthy: %w\n%s", s.Name, err, s.Log())
		case <-timer.C:
		}
	}
}

func (s *Service) launch() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return fmt.Errorf("%s runs already", s.Name)
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(s.binary, "run", s.service, "-config", s.config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = os.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test alone
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended, s.err = cmd, ended, nil
	go func() { // ends with the process
		err := cmd.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err, s.cmd = err, nil
		close(ended)
	}()
	return nil
}

// PID is the process that runs, 0 if none does.
func (s *Service) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// Kill ends the process with SIGKILL, as a crash would, and waits for its end.
func (s *Service) Kill() error { return s.end(syscall.SIGKILL, stopWithin) }

// Stop ends the process as an operator does, and after a while for good.
func (s *Service) Stop() error {
	err := s.end(syscall.SIGTERM, stopWithin)
	if err == nil {
		return nil
	}
	return errors.Join(err, s.Kill())
}

func (s *Service) end(signal syscall.Signal, within time.Duration) error {
	s.mu.Lock()
	cmd, ended := s.cmd, s.ended
	s.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", s.Name, err)
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s has not ended within %s of %s\n%s", s.Name, within, signal, s.Log())
	}
}

// Log is the end of what the service has logged.
func (s *Service) Log() string {
	raw, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(raw[max(0, len(raw)-logTail):]))
}

// serving asks a gRPC service for its health.
func serving(ctx context.Context, addr string) (err error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("it is %s", r.GetStatus())
	}
	return nil
}
