package doctor_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/cli/doctor"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/network"
)

// machine is one that can be told what it has.
type machine struct {
	programs, paths []string
	files           map[string]string
	free            uint64
	limit           uint64
	taken           []int
	answers, alive  bool
	clock, root     bool
}

func whole() *machine {
	return &machine{
		programs: []string{"podman", "runc", "conmon"},
		paths:    []string{"/sys/fs/cgroup/cgroup.controllers", "/dev/fuse", "/usr/lib/podman/netavark"},
		files: map[string]string{
			"/sys/fs/cgroup/cgroup.controllers":  "cpuset cpu io memory pids\n",
			"/proc/sys/user/max_user_namespaces": "1000\n",
			"/etc/subuid":                        "other:1:1\nme:100000:65536\n",
			"/etc/subgid":                        "me:100000:65536\n",
		},
		free: 8 << 30, limit: 65536, clock: true, alive: true, answers: true,
	}
}

func (m *machine) LookPath(name string) (string, error) {
	if slices.Contains(m.programs, name) {
		return "/usr/bin/" + name, nil
	}
	return "", errors.New("not found")
}

func (m *machine) Output(context.Context, string, ...string) (string, error) {
	return "podman version 4.3.1", nil
}

func (m *machine) ReadFile(path string) ([]byte, error) {
	if text, ok := m.files[path]; ok {
		return []byte(text), nil
	}
	return nil, os.ErrNotExist
}
func (m *machine) Exists(path string) bool                { return slices.Contains(m.paths, path) }
func (m *machine) Free(string) (uint64, error)            { return m.free, nil }
func (m *machine) PortFree(port int) bool                 { return !slices.Contains(m.taken, port) }
func (m *machine) Reachable(context.Context, string) bool { return m.answers }
func (m *machine) Files() (uint64, error)                 { return m.limit, nil }
func (m *machine) ClockSynchronised() (bool, error)       { return m.clock, nil }
func (m *machine) Alive(int) bool                         { return m.alive }
func (m *machine) User() string                           { return "me" }
func (m *machine) Root() bool                             { return m.root }

func TestWholeMachine(t *testing.T) {
	found := doctor.Examine(t.Context(), whole(), "/data", network.Path(t.TempDir()))
	if !doctor.Healthy(found) {
		t.Error("a whole machine is said to lack something")
	}
	var names []string
	for _, f := range found {
		names = append(names, f.Name+" "+string(f.State))
		if (f.Fix == "") != (f.State == doctor.OK) {
			t.Errorf("%s is %s with the fix %q", f.Name, f.State, f.Fix)
		}
	}
	want := []string{
		"podman ok", "runtime ok", "conmon ok", "netavark ok", "cgroups ok", "user namespaces ok",
		"/dev/fuse ok", "disk ok", "open files ok", "clock ok", "network lacking", "ports ok",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsMissing(t *testing.T) {
	without := func(list []string, name string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == name })
	}
	tests := map[string]struct {
		spoil     func(*machine)
		name, fix string
		state     doctor.State
	}{
		"podman": {func(m *machine) { m.programs = without(m.programs, "podman") },
			"podman", "sudo apt-get install -y podman", doctor.Missing},
		"as root": {func(m *machine) { m.root, m.programs = true, nil },
			"podman", "apt-get install -y podman", doctor.Missing},
		"crun with cgroups v1": {func(m *machine) {
			m.programs = []string{"podman", "crun", "conmon"}
			m.paths = []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"}
		}, "runtime", "runc", doctor.Missing},
		"no controllers": {func(m *machine) {
			m.files["/sys/fs/cgroup/cgroup.controllers"] = "cpu memory"
		}, "cgroups", "cgroup", doctor.Missing},
		"no user namespaces": {func(m *machine) {
			m.files["/proc/sys/user/max_user_namespaces"] = "0"
		}, "user namespaces", "sysctl", doctor.Missing},
		"no range": {func(m *machine) { m.files["/etc/subgid"] = "mel:1:1\n" },
			"user namespaces", "usermod", doctor.Missing},
		"no fuse": {func(m *machine) { m.paths = without(m.paths, "/dev/fuse") },
			"/dev/fuse", "modprobe", doctor.Lacking},
		"no room":     {func(m *machine) { m.free = 1 << 20 }, "disk", "room", doctor.Missing},
		"few files":   {func(m *machine) { m.limit = 256 }, "open files", "ulimit", doctor.Missing},
		"clock":       {func(m *machine) { m.clock = false }, "clock", "timedatectl", doctor.Lacking},
		"ports taken": {func(m *machine) { m.taken = []int{7622} }, "ports", "stop it", doctor.Missing},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := whole()
			test.spoil(m)
			found := doctor.Examine(t.Context(), m, "/data", network.Path(t.TempDir()))
			at := slices.IndexFunc(found, func(f doctor.Finding) bool { return f.Name == test.name })
			if at < 0 || found[at].State != test.state || !strings.Contains(found[at].Fix, test.fix) {
				t.Errorf("found %+v", found)
			}
			if doctor.Healthy(found) != (test.state == doctor.Lacking) {
				t.Error("the verdict does not follow")
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	path := network.Path(t.TempDir())
	err := network.Save(path, network.File{
		API: "127.0.0.1:1", Anchor: strings.Repeat("ab", 32), PID: 7,
		Operator: id.Bech32(id.Account, [32]byte{1}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		spoil  func(*machine)
		state  doctor.State
		detail string
	}{
		"answers":    {func(m *machine) { m.taken = []int{7600} }, doctor.OK, "answers"},
		"dead":       {func(m *machine) { m.alive = false }, doctor.Missing, "process 7 is gone"},
		"unanswered": {func(m *machine) { m.answers = false }, doctor.Missing, "does not answer"},
	} {
		m := whole()
		test.spoil(m)
		found := doctor.Examine(t.Context(), m, "/data", path)
		at := slices.IndexFunc(found, func(f doctor.Finding) bool { return f.Name == "network" })
		if found[at].State != test.state || !strings.Contains(found[at].Detail, test.detail) {
			t.Errorf("%s: %+v", name, found[at])
		}
	}
}

// TestHost looks at this machine: whatever it has, looking must work.
func TestHost(t *testing.T) {
	found := doctor.Examine(t.Context(), doctor.Host{}, t.TempDir(), network.Path(t.TempDir()))
	if len(found) < 11 {
		t.Errorf("only %d findings", len(found))
	}
	for _, f := range found {
		if f.Detail == "" {
			t.Errorf("%s says nothing", f.Name)
		}
	}
}
