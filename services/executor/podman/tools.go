package podman

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/podman/cgroup"
)

// Install is the command that installs what this package needs on Debian and Ubuntu.
const Install = "apt-get install -y podman runc conmon netavark"

// tools are the programs that an instance stands on.
type tools struct {
	podman, conmon, runtime string // paths
	runtimeName             string
	network                 string // "netavark", or "cni" where there is none: no bridge then
}

// helperDirs is where distributions put programs that are not for people.
var helperDirs = []string{"/usr/libexec/podman", "/usr/lib/podman", "/usr/local/libexec/podman"}

// missing is the error for a program or a file that is not there.
func missing(what string) error {
	return fmt.Errorf("%w: %s is missing; install it as root with: %s",
		executor.ErrUnavailable, what, Install)
}

// findTools looks for the programs, and refuses a user who cannot use them.
func findTools(cfg *Config) (tools, error) {
	var t tools
	var ok bool
	if t.podman, ok = find(cfg.Podman, "podman"); !ok {
		return t, missing("podman")
	}
	if t.conmon, ok = find("", "conmon"); !ok {
		return t, missing("conmon")
	}
	names := []string{"crun", "runc"}
	if g, err := cgroup.Detect(cgroup.DefaultMount); err == nil && g.Version() == 1 {
		names = []string{"runc"} // crun refuses limits on version 1
	}
	if cfg.Runtime != "" {
		names = []string{cfg.Runtime}
	}
	for _, t.runtimeName = range names {
		if t.runtime, ok = find("", t.runtimeName); ok {
			break
		}
	}
	if !ok {
		return t, missing("the container runtime " + t.runtimeName)
	}
	t.network = "cni"
	if _, ok := find("", "netavark"); ok {
		t.network = "netavark"
	}
	if os.Geteuid() != 0 {
		return t, fmt.Errorf("%w: containers with a user namespace and limits of their own need root; "+
			"run the executor as root (sudo)", executor.ErrUnavailable)
	}
	return t, nil
}

// find looks for a program: at path if that is set, else in PATH and the helper directories.
func find(path, name string) (string, bool) {
	if path != "" {
		p, err := exec.LookPath(path)
		return p, err == nil
	}
	if p, err := exec.LookPath(name); err == nil {
		return p, true
	}
	for _, d := range append(helperDirs, "/usr/sbin", "/usr/local/sbin", "/sbin") {
		if p, err := exec.LookPath(filepath.Join(d, name)); err == nil {
			return p, true
		}
	}
	return "", false
}
