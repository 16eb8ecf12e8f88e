// Package doctor looks at a machine and says what of UCN it can and cannot do, and how to mend it.
//
// It changes nothing. What it finds is what it saw at that moment; a host that starts checks again
// by itself.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/united-containers/ucn/kit/network"
)

// State of a check.
type State string

// The states.
const (
	OK      State = "ok"
	Missing State = "missing" // and needed
	Lacking State = "lacking" // useful, not needed
)

// Finding is one line of the result.
type Finding struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	// Fix is a command or a sentence; empty when nothing needs mending.
	Fix string `json:"fix,omitempty"`
}

// Machine is what is looked at. Host is the real one.
type Machine interface {
	// LookPath finds a program; Output runs one and returns the first line it prints.
	LookPath(name string) (string, error)
	Output(ctx context.Context, name string, args ...string) (string, error)
	ReadFile(path string) ([]byte, error)
	Exists(path string) bool
	// Free returns the bytes free for this user in the nearest folder that exists.
	Free(path string) (uint64, error)
	// PortFree reports whether 127.0.0.1:port can be listened on; Reachable whether something
	// answers at host:port.
	PortFree(port int) bool
	Reachable(ctx context.Context, address string) bool
	// Files is the soft limit of open files.
	Files() (uint64, error)
	// ClockSynchronised reports whether the kernel's clock is disciplined.
	ClockSynchronised() (bool, error)
	Alive(pid int) bool
	// User is the user's name, Root whether it is root.
	User() string
	Root() bool
}

// What a machine needs.
const (
	minFree  = 2 << 30 // bytes in the data folder
	minFiles = 1024
)

// ports of a local network.
func ports() []int { return []int{7600, 7680, 7622} }

// Examine looks at everything. data is the data folder, file the path of the network file.
func Examine(ctx context.Context, m Machine, data, file string) []Finding {
	e := &examination{m: m}
	e.programs(ctx)
	e.cgroups()
	e.namespaces()
	e.devices()
	e.resources(data)
	e.clock()
	e.network(ctx, file)
	return e.found
}

// Healthy reports whether nothing that is needed is missing.
func Healthy(found []Finding) bool {
	return !slices.ContainsFunc(found, func(f Finding) bool { return f.State == Missing })
}

type examination struct {
	m     Machine
	found []Finding
}

func (e *examination) say(name string, state State, detail, fix string) {
	if state == OK {
		fix = ""
	}
	e.found = append(e.found, Finding{name, state, detail, fix})
}

// apt is the command that installs a package.
func (e *examination) apt(name string) string {
	if e.m.Root() {
		return "apt-get install -y " + name
	}
	return "sudo apt-get install -y " + name
}

func (e *examination) programs(ctx context.Context) {
	if path, err := e.m.LookPath("podman"); err != nil {
		e.say("podman", Missing, "not installed: no container can run here", e.apt("podman"))
	} else if version, err := e.m.Output(ctx, path, "--version"); err != nil {
		e.say("podman", Missing, "does not start: "+err.Error(), e.apt("--reinstall podman"))
	} else {
		e.say("podman", OK, version, "")
	}
	runc, noRunc := e.m.LookPath("runc")
	crun, noCrun := e.m.LookPath("crun")
	switch {
	case noRunc == nil:
		e.say("runtime", OK, "runc: "+runc, "")
	case noCrun == nil && e.unified():
		e.say("runtime", OK, "crun: "+crun, "")
	case noCrun == nil:
		e.say("runtime", Missing, "only crun is here, which refuses limits with cgroups v1",
			e.apt("runc"))
	default:
		e.say("runtime", Missing, "neither runc nor crun is here", e.apt("runc"))
	}
	e.helper("conmon", Missing, "containers would have nobody to watch over them")
	e.helper("netavark", Lacking, "needed once containers get a network")
}

// helper looks for a program that podman keeps in folders of its own.
func (e *examination) helper(name string, without State, why string) {
	if path, err := e.m.LookPath(name); err == nil {
		e.say(name, OK, path, "")
		return
	}
	for _, dir := range []string{"/usr/libexec/podman", "/usr/lib/podman", "/usr/local/lib/podman"} {
		if e.m.Exists(dir + "/" + name) {
			e.say(name, OK, dir+"/"+name, "")
			return
		}
	}
	e.say(name, without, "not installed: "+why, e.apt(name))
}

const cgroupRoot = "/sys/fs/cgroup"

func (e *examination) unified() bool { return e.m.Exists(cgroupRoot + "/cgroup.controllers") }

func (e *examination) cgroups() {
	wanted := []string{"cpu", "memory", "pids"}
	have := func(name string) bool { return e.m.Exists(cgroupRoot + "/" + name) }
	version := "v1"
	if e.unified() {
		version = "v2"
		raw, err := e.m.ReadFile(cgroupRoot + "/cgroup.controllers")
		list := strings.Fields(string(raw))
		have = func(name string) bool { return err == nil && slices.Contains(list, name) }
	}
	var absent []string
	for _, name := range wanted {
		if !have(name) {
			absent = append(absent, name)
		}
	}
	if len(absent) == 0 {
		e.say("cgroups", OK, version+" with "+strings.Join(wanted, ", "), "")
		return
	}
	e.say("cgroups", Missing, fmt.Sprintf("%s without %s: usage cannot be limited or metered",
		version, strings.Join(absent, ", ")),
		"boot with systemd.unified_cgroup_hierarchy=1, or mount the controllers")
}

func (e *examination) namespaces() {
	raw, err := e.m.ReadFile("/proc/sys/user/max_user_namespaces")
	most, parseErr := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil || parseErr != nil || most == 0 {
		e.say("user namespaces", Missing, "the kernel allows none: containers would be root here",
			"sysctl -w user.max_user_namespaces=28633")
		return
	}
	user := e.m.User()
	if e.m.Root() {
		e.say("user namespaces", OK, "allowed; as root any range of ids can be used", "")
		return
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		raw, err := e.m.ReadFile(file)
		if err != nil || !hasRange(string(raw), user) {
			e.say("user namespaces", Missing, fmt.Sprintf("%s has no range for %s", file, user),
				fmt.Sprintf("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
					user))
			return
		}
	}
	e.say("user namespaces", OK, "allowed, with ids for "+user, "")
}

func hasRange(text, user string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, user+":") {
			return true
		}
	}
	return false
}

func (e *examination) devices() {
	if e.m.Exists("/dev/fuse") {
		e.say("/dev/fuse", OK, "present", "")
		return
	}
	e.say("/dev/fuse", Lacking, "absent: needed by hosts without native overlay mounts",
		"modprobe fuse")
}

func (e *examination) resources(data string) {
	free, err := e.m.Free(data)
	switch {
	case err != nil:
		e.say("disk", Missing, fmt.Sprintf("cannot look at %s: %v", data, err),
			"give another folder with --data")
	case free < minFree:
		e.say("disk", Missing, fmt.Sprintf("%d MiB free at %s, wanted are %d", free>>20, data,
			minFree>>20), "make room, or give another folder with --data")
	default:
		e.say("disk", OK, fmt.Sprintf("%.1f GiB free at %s", float64(free)/(1<<30), data), "")
	}
	files, err := e.m.Files()
	if err != nil || files < minFiles {
		e.say("open files", Missing, fmt.Sprintf("the limit is %d, wanted are %d", files, minFiles),
			"ulimit -n 65536")
		return
	}
	e.say("open files", OK, fmt.Sprintf("up to %d", files), "")
}

func (e *examination) clock() {
	synchronised, err := e.m.ClockSynchronised()
	if err == nil && synchronised {
		e.say("clock", OK, "synchronised", "")
		return
	}
	e.say("clock", Lacking, "not known to be synchronised: notes and tokens of others may be "+
		"refused when it is off by seconds", "timedatectl set-ntp true")
}

// network looks for one that runs here, or for room for one.
func (e *examination) network(ctx context.Context, path string) {
	f, err := network.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.say("network", Lacking, "none is running with this data folder", "ucn up --detach")
	case err != nil:
		e.say("network", Missing, err.Error(), "remove the file and start anew: ucn up --detach")
	case f.PID != 0 && !e.m.Alive(f.PID):
		e.say("network", Missing, fmt.Sprintf("its process %d is gone, its file %s is left", f.PID,
			path), "ucn up --detach")
	case !e.m.Reachable(ctx, f.API):
		e.say("network", Missing, f.API+" does not answer", "ucn up --detach, or ask its operator")
	default:
		e.say("network", OK, "answers at "+f.API, "")
		return // its ports are taken, by it
	}
	var taken []string
	for _, port := range ports() {
		if !e.m.PortFree(port) {
			taken = append(taken, strconv.Itoa(port))
		}
	}
	if len(taken) > 0 {
		e.say("ports", Missing, strings.Join(taken, ", ")+" taken on 127.0.0.1 by another program",
			"stop it, or configure other ports for ucn up")
		return
	}
	e.say("ports", OK, "7600, 7680 and 7622 are free", "")
}
