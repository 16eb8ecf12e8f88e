package podman

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// capabilities by number, as /proc/self/status shows them.
const (
	capChown, capDACOverride, capFowner, capKill = 0, 1, 3, 5
	capSetgid, capSetuid, capNetBind             = 6, 7, 10
)

// standardMask is what isolation standard may have.
const standardMask = 1<<capChown | 1<<capDACOverride | 1<<capFowner | 1<<capKill | 1<<capSetgid |
	1<<capSetuid | 1<<capNetBind

// guest runs the guest once and returns what it printed.
func guest(t *testing.T, d executor.Driver, s executor.ContainerSpec) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := d.Create(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for e, err := range c.Logs(ctx, executor.LogPos{}, true) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(e.Data))
	}
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	return lines
}

// loaded opens an instance of its own that holds the image.
func loaded(t testing.TB, img *executortest.Image) *Driver {
	t.Helper()
	d, err := New(newConfig(t), "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := d.LoadImage(t.Context(), img.ID, "", img.Open); err != nil {
		t.Fatal(err)
	}
	return d
}

// fields reads "Name: value" lines.
func fields(lines []string) map[string]string {
	m := make(map[string]string)
	for _, l := range lines {
		if k, v, ok := strings.Cut(l, ":"); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m
}

func wantField(t *testing.T, f map[string]string, name, want string) {
	t.Helper()
	if f[name] != want {
		t.Errorf("%s is %q, want %q", name, f[name], want)
	}
}

func wantLine(t *testing.T, lines []string, want string) {
	t.Helper()
	for _, l := range lines {
		if strings.Contains(l, want) {
			return
		}
	}
	t.Errorf("no line with %q in %q", want, lines)
}

func TestStandardIsolation(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	status := fields(guest(t, d, executortest.Spec(img.ID, "status", "read", "/proc/self/status")))
	mask := fmt.Sprintf("%016x", standardMask)
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		wantField(t, status, set, mask)
	}
	wantField(t, status, "CapAmb", strings.Repeat("0", 16))
	wantField(t, status, "NoNewPrivs", "1")
	wantField(t, status, "Seccomp", "2")
	idMap := guest(t, d, executortest.Spec(img.ID, "map", "read", "/proc/self/uid_map",
		"read", "/proc/self/gid_map"))
	if len(idMap) != 2 || strings.Join(strings.Fields(idMap[0]), " ") !=
		fmt.Sprintf("0 %d %d", defaultFirstID, idsPerContainer) || idMap[0] != idMap[1] {
		t.Errorf("id maps %q", idMap)
	}
	lines := guest(t, d, executortest.Spec(img.ID, "acts",
		"mount", "unshare", "write", "/etc/hosts", "x", "write", "/proc/sys/kernel/hostname", "x",
		"write", "/written", "x", "fork", "200", "read", "/proc/net/dev", "read", "/proc/self/cgroup"))
	wantLine(t, lines, "mount failed: operation not permitted")
	wantLine(t, lines, "unshare failed: operation not permitted")
	wantLine(t, lines, "write failed: open /etc/hosts: read-only file system")
	wantLine(t, lines, "write failed: open /proc/sys/kernel/hostname: read-only file system")
	wantLine(t, lines, "write ok")
	for _, l := range lines {
		var forked int
		if n, _ := fmt.Sscanf(l, "forked %d", &forked); n == 1 && (forked == 0 || forked > 64) {
			t.Errorf("%s, limit 64", l)
		}
		if dev, _, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(dev) == "eth0" {
			t.Errorf("there is a network device: %s", l)
		}
		if strings.Contains(l, "ucnp") {
			t.Errorf("the host's control groups show: %s", l)
		}
	}
}

// Network namespaces do not cover every family of sockets: a vsock reaches the hypervisor of this
// host, and its neighbours, from any of them.
func TestSocketsOfTheNamespaceOnly(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	lines := guest(t, d, executortest.Spec(img.ID, "sockets", "socket", "1", "unix", "socket", "2",
		"inet", "socket", "10", "inet6", "socket", "40", "vsock", "socket", "38", "alg"))
	for _, want := range []string{"unix ok", "inet ok", "inet6 ok", "vsock failed", "alg failed"} {
		wantLine(t, lines, want)
	}
}

func TestStrictIsolation(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	s := executortest.Spec(img.ID, "strict", "read", "/proc/self/status", "write", "/written", "x",
		"write", "/out/written", "x", "mount")
	s.Isolation = executor.IsolationStrict
	s.Mounts = []executor.Mount{{Kind: executor.MountOutput, Path: "/out", Bytes: 4 << 20}}
	lines := guest(t, d, s)
	status := fields(lines)
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"} {
		wantField(t, status, set, strings.Repeat("0", 16))
	}
	wantField(t, status, "NoNewPrivs", "1")
	wantField(t, status, "Seccomp", "2")
	wantLine(t, lines, "write failed: open /written: read-only file system")
	wantLine(t, lines, "write ok")
	wantLine(t, lines, "mount failed: operation not permitted")
}

func TestInputsAreReadOnly(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	in := filepath.Join(t.TempDir(), "in.txt")
	if err := os.WriteFile(in, []byte("given\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := executortest.Spec(img.ID, "in", "read", "/data/in.txt", "write", "/data/in.txt", "x")
	s.Mounts = []executor.Mount{{Kind: executor.MountInput, Path: "/data/in.txt", Source: in}}
	lines := guest(t, d, s)
	wantLine(t, lines, "given")
	wantLine(t, lines, "write failed: open /data/in.txt: read-only file system")
}

// Two executors of two operators side by side, and two that share an instance.
func TestTwoInstances(t *testing.T) {
	img := executortest.GuestImage(t)
	cfg := newConfig(t)
	shared, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = shared.Close() }() // the test is over
	other := newConfigBeside(t, &cfg)
	alone, err := New(other, "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = alone.Close() }() // the test is over
	drivers := map[string]executor.Driver{"alone": alone}
	for _, name := range []string{"exec-1", "exec-2"} {
		if drivers[name], err = shared.Driver(name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := drivers["exec-1"].LoadImage(t.Context(), img.ID, "", img.Open); err != nil {
		t.Fatal(err)
	}
	if held, err := drivers["exec-2"].HasImage(t.Context(), img.ID); err != nil || !held {
		t.Errorf("the shared image is held: %v, %v", held, err)
	}
	if held, err := alone.HasImage(t.Context(), img.ID); err != nil || held {
		t.Errorf("the other instance holds the image: %v, %v", held, err)
	}
	if _, err := alone.LoadImage(t.Context(), img.ID, "", img.Open); err != nil {
		t.Fatal(err)
	}
	maps := make(map[string]string)
	for name, d := range drivers {
		maps[startAndMap(t, d, img)] = name
	}
	if len(maps) != len(drivers) {
		t.Errorf("containers share user ids: %v", maps)
	}
	for name, d := range drivers {
		list, err := d.List(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("%s lists %d containers, %v; want its own", name, len(list), err)
		}
		if err := list[0].Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	_, err = Open(cfg)
	if !errors.Is(err, executor.ErrUnavailable) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a directory was opened twice: %v", err)
	}
}

// startAndMap starts attempt "a1", which goes on, and returns its user id map.
func startAndMap(t *testing.T, d executor.Driver, img *executortest.Image) string {
	t.Helper()
	c, err := d.Create(t.Context(), executortest.Spec(img.ID, "a1", "read", "/proc/self/uid_map",
		"forever"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for e, err := range c.Logs(t.Context(), executor.LogPos{}, true) {
		if err != nil {
			t.Fatal(err)
		}
		return string(e.Data)
	}
	t.Fatal("no log")
	return ""
}

func TestPodmanMissing(t *testing.T) {
	_, err := Open(Config{Dir: t.TempDir(), Podman: "/no/such/podman"})
	if !errors.Is(err, executor.ErrUnavailable) || !strings.Contains(err.Error(), Install) {
		t.Errorf("error %v, want it to name %q", err, Install)
	}
}

// A log that turns over: nothing is told twice, what was dropped is told, and positions rise.
func TestLogsTurnOver(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	s := executortest.Spec(img.ID, "turn", "lines", "20000")
	s.Limits.LogBytes = 64 << 10
	c, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	read := func(from executor.LogPos) (lines []string, last executor.LogPos, gap bool) {
		for e, err := range c.Logs(t.Context(), from, true) {
			if err != nil {
				t.Fatal(err)
			}
			lines, last, gap = append(lines, string(e.Data)), e.Next, gap || e.Gap
		}
		return lines, last, gap
	}
	lines, last, _ := read(executor.LogPos{})
	if len(lines) == 0 || len(lines) >= 20000 {
		t.Fatalf("%d lines are left", len(lines))
	}
	if more, _, _ := read(last); len(more) != 0 {
		t.Errorf("%d lines after the last", len(more))
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
}
