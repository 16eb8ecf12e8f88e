package doctor

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of looking.
const (
	maxRead  = 64 << 10
	lookTime = 5 * time.Second
)

// Host is the machine this process runs on.
type Host struct{}

var _ Machine = Host{}

// LookPath implements Machine.
func (Host) LookPath(name string) (string, error) { return exec.LookPath(name) }

// Output implements Machine.
func (Host) Output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	raw, err := exec.CommandContext(ctx, name, args...).Output()
	line, _, _ := strings.Cut(string(raw), "\n")
	return line, err
}

// ReadFile implements Machine.
func (Host) ReadFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	return io.ReadAll(io.LimitReader(file, maxRead))
}

// Exists implements Machine.
func (Host) Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Free implements Machine.
func (h Host) Free(path string) (uint64, error) {
	for !h.Exists(path) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("statfs: %w", err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// PortFree implements Machine.
func (Host) PortFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = l.Close() // it listened, which is all that was asked
	return true
}

// Reachable implements Machine.
func (Host) Reachable(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	kind := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		kind, address = "unix", path
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, kind, address)
	if err != nil {
		return false
	}
	_ = conn.Close() // it answered, which is all that was asked
	return true
}

// Files implements Machine.
func (Host) Files() (uint64, error) {
	var l unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Cur, err
}

// ClockSynchronised implements Machine.
func (Host) ClockSynchronised() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t) // reads: no mode is set
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
}

// Alive implements Machine.
func (Host) Alive(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || err == unix.EPERM
}

// User implements Machine.
func (Host) User() string {
	u, err := user.Current()
	if err != nil {
		return strconv.Itoa(os.Getuid())
	}
	return u.Username
}

// Root implements Machine.
func (Host) Root() bool { return os.Geteuid() == 0 }
