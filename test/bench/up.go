package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/test/stage"
)

const (
	upWithin = 60 * time.Second
	upPoll   = 2 * time.Millisecond
	idleFor  = time.Minute
	mib      = 1 << 20
)

// upAndIdle measures `ucn up` on an empty folder: the time until clients may come, and the memory
// that it and its children hold some time later when nobody came.
func upAndIdle(ctx context.Context, dir string) (_ []figure, err error) {
	program, err := stage.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	const anyPort = "127.0.0.1:0"
	cmd := exec.Command(program, "up", "--data", data, "--listen-api", anyPort,
		"--listen-rest", anyPort, "--listen-bus", anyPort)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the network: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process, which is stopped below
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), <-ended)
	}()
	if err := awaitUp(ctx, data, ended); err != nil {
		return nil, err
	}
	ready := time.Since(began)
	if !pause(ctx, idleFor) {
		return nil, ctx.Err()
	}
	own, err := rss(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	children, err := rssOfChildren(cmd.Process.Pid)
	return []figure{
		{"up.ready_s", ready.Seconds(), "s"}, {"up.idle_mib", float64(own) / mib, "MiB"},
		{"up.idle_children_mib", float64(children) / mib, "MiB"},
	}, err
}

// awaitUp waits for the file that tells clients where the network is.
func awaitUp(ctx context.Context, data string, ended chan error) error {
	ctx, cancel := context.WithTimeout(ctx, upWithin)
	defer cancel()
	for {
		if _, err := network.Load(network.Path(data)); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			ended <- nil
			return fmt.Errorf("the network ended: %w", errors.Join(err))
		default:
		}
		if !pause(ctx, upPoll) {
			return fmt.Errorf("the network is not up: %w", ctx.Err())
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// rss is a process's resident memory in bytes, shared pages included.
func rss(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("read a process's memory: %w", err)
	}
	fields := strings.Fields(string(text))
	const resident = 1
	if len(fields) <= resident {
		return 0, fmt.Errorf("read a process's memory: %q", text)
	}
	pages, err := strconv.Atoi(fields[resident])
	return pages * os.Getpagesize(), err
}

// rssOfChildren adds up what a process's children and theirs hold.
func rssOfChildren(pid int) (total int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			own, err := rss(child)
			if err != nil {
				continue // it has ended
			}
			below, err := rssOfChildren(child)
			if err != nil {
				return 0, err
			}
			total += own + below
		}
	}
	return total, nil
}
