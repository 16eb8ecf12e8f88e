package podman

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/united-containers/ucn/services/executor"
)

// The parts of libpod's specgen.SpecGenerator (v4) that we say. Everything else is podman's
// default, which the tests look at from inside a container.
type specgen struct {
	Name           string            `json:"name"`
	Image          string            `json:"image"`
	Entrypoint     []string          `json:"entrypoint,omitempty"`
	Command        []string          `json:"command,omitempty"`
	Env            map[string]string `json:"env,omitempty"`
	UnsetEnv       []string          `json:"unsetenv,omitempty"`
	WorkDir        string            `json:"work_dir,omitempty"`
	User           string            `json:"user,omitempty"`
	Hostname       string            `json:"hostname"`
	Labels         map[string]string `json:"labels"`
	NetNS          namespace         `json:"netns"`
	UserNS         namespace         `json:"userns"`
	CgroupNS       namespace         `json:"cgroupns"`
	IDMappings     idMappings        `json:"idmappings"`
	CapDrop        []string          `json:"cap_drop"`
	CapAdd         []string          `json:"cap_add,omitempty"`
	NoNewPrivs     bool              `json:"no_new_privileges"`
	SeccompProfile string            `json:"seccomp_profile_path"`
	ReadOnly       bool              `json:"read_only_filesystem"`
	ImageVolumes   string            `json:"image_volume_mode"`
	CgroupParent   string            `json:"cgroup_parent"`
	CgroupsMode    string            `json:"cgroups_mode"`
	Log            logConfig         `json:"log_configuration"`
	Resources      resources         `json:"resource_limits"`
	RLimits        []rlimit          `json:"r_limits"`
	Mounts         []mount           `json:"mounts,omitempty"`
	RestartPolicy  string            `json:"restart_policy"`
	ShmSize        uint64            `json:"shm_size"`
	OOMScore       int               `json:"oom_score_adj"`
	Health         health            `json:"healthconfig"`
}

// health is the check of an image's author, in docker's words.
type health struct{ Test []string }

type namespace struct {
	Mode string `json:"nsmode"`
}

type idMappings struct {
	HostUIDMapping, HostGIDMapping bool
	UIDMap, GIDMap                 []idMap
}

type idMap struct {
	ContainerID uint32 `json:"container_id"`
	HostID      uint32 `json:"host_id"`
	Size        uint32 `json:"size"`
}

type logConfig struct {
	Driver string `json:"driver"`
	Path   string `json:"path"`
	Size   uint64 `json:"size"`
}

type resources struct {
	Memory struct {
		Limit uint64 `json:"limit"`
		Swap  uint64 `json:"swap"`
	} `json:"memory"`
	PIDs struct {
		Limit uint64 `json:"limit"`
	} `json:"pids"`
	CPU struct {
		Quota  uint64 `json:"quota"`
		Period uint64 `json:"period"`
		Shares uint64 `json:"shares"`
	} `json:"cpu"`
}

type rlimit struct {
	Type string `json:"type"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

type mount struct {
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Options     []string `json:"options"`
}

// standardCaps is what isolation standard keeps, inside the user namespace.
var standardCaps = []string{
	"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL", "NET_BIND_SERVICE",
}

// Labels that we put on containers.
const (
	labelExecutor = "ucn.executor"
	labelAttempt  = "ucn.attempt"
)

// Sizes that are the same for every container.
const (
	cpuPeriod        = 100_000 // microseconds
	minCPUQuota      = 1_000   // microseconds; the kernel's least
	shmBytes         = 64 << 20
	defaultOpenFiles = 65_536
)

// containerName is unique within the instance.
func containerName(executorName string, id executor.AttemptID) string {
	return executorName + "--" + string(id)
}

// generate says the record in podman's words. config is the image's config digest; own are the
// limits of the engine's process, which no container may exceed.
func (i *Instance) generate(r *record, a attempt, config string, own limits) *specgen {
	s := &r.Spec
	ids := []idMap{{ContainerID: 0, HostID: r.FirstID, Size: idsPerContainer}}
	g := &specgen{
		Name: containerName(r.Executor, s.Attempt), Image: strings.TrimPrefix(config, "sha256:"),
		Entrypoint: s.Command, Command: s.Args, Env: environment(s.Env), WorkDir: s.WorkDir,
		User: s.User, Hostname: hostname, ImageVolumes: "ignore",
		Labels: map[string]string{labelExecutor: r.Executor, labelAttempt: string(s.Attempt)},
		NetNS:  namespace{"none"}, UserNS: namespace{"private"}, CgroupNS: namespace{"private"},
		IDMappings: idMappings{UIDMap: ids, GIDMap: ids},
		CapDrop:    []string{"all"}, CapAdd: standardCaps, NoNewPrivs: true,
		SeccompProfile: i.path("seccomp.json"),
		CgroupParent:   i.group(r.Executor, string(s.Attempt)),
		// Conmon's own use must not be billed: it stays in the engine's group.
		CgroupsMode:   "no-conmon",
		Log:           logConfig{Driver: "k8s-file", Path: a.logFile(), Size: s.Limits.LogBytes / 2},
		RestartPolicy: "no", ShmSize: shmBytes, OOMScore: 500,
		// Podman would run an image's check by timers of the host's systemd, as root and outside of the
		// container's control group.
		Health:    health{Test: []string{"NONE"}},
		Resources: resourceLimits(&s.Limits), RLimits: own.container(&s.Limits),
		Mounts: i.mounts(s, a),
	}
	if s.Isolation == executor.IsolationStrict {
		g.CapAdd, g.ReadOnly = nil, true
	}
	if s.Command != nil && s.Args == nil {
		g.Command = []string{} // the image's arguments belong to the image's entrypoint
	}
	return g
}

func environment(list []string) map[string]string {
	env := make(map[string]string, len(list))
	for _, kv := range list {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	return env
}

func resourceLimits(l *executor.Limits) resources {
	var r resources
	r.Memory.Limit, r.Memory.Swap = l.MemoryBytes, l.MemoryBytes
	r.PIDs.Limit = l.PIDs
	r.CPU.Period = cpuPeriod
	r.CPU.Quota = max(minCPUQuota, l.CPUMilli*cpuPeriod/1000)
	r.CPU.Shares = min(max(2, l.CPUMilli*1024/1000), 262_144)
	return r
}

// mounts are the spec's, and read-only files in place of those that podman would make writable and
// that no quota covers.
func (i *Instance) mounts(s *executor.ContainerSpec, a attempt) []mount {
	list := make([]mount, 0, len(s.Mounts)+3)
	for n := range s.Mounts {
		m := &s.Mounts[n]
		if m.Kind == executor.MountInput {
			list = append(list, bind(m.Source, m.Path, "ro"))
			continue
		}
		list = append(list, bind(a.volume(n), m.Path, "rw"))
	}
	own := map[string]string{
		"/etc/hosts": "etc-hosts", "/etc/hostname": "etc-hostname",
		"/run/.containerenv": "etc-containerenv",
	}
	for _, dst := range slices.Sorted(maps.Keys(own)) {
		if !slices.ContainsFunc(s.Mounts, func(m executor.Mount) bool { return covers(m.Path, dst) }) {
			list = append(list, bind(i.path(own[dst]), dst, "ro"))
		}
	}
	return list
}

// covers tells whether a mount at path hides dst.
func covers(path, dst string) bool {
	return path == dst || strings.HasPrefix(dst, path+"/")
}

func bind(from, to, mode string) mount {
	return mount{
		Type: "bind", Source: from, Destination: to,
		Options: []string{"rbind", mode, "nosuid", "nodev", "rprivate"},
	}
}

// limits are resource limits of a process.
type limits struct{ openFiles, processes uint64 }

// container returns limits that a container may have: not above the engine's.
func (l limits) container(want *executor.Limits) []rlimit {
	files := want.OpenFiles
	if files == 0 {
		files = defaultOpenFiles
	}
	files = min(files, l.openFiles)
	return []rlimit{
		{"nofile", files, files},
		{"nproc", l.processes, l.processes}, // the pids limit binds
		{"core", 0, 0},
	}
}

// readLimits reads the hard limits of a process. Podman sets its own at its start, so they are
// not the executor's.
func readLimits(pid int) (limits, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil {
		return limits{}, fmt.Errorf("reading podman's limits: %w", err)
	}
	var l limits
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[0] != "Max" {
			continue
		}
		hard, err := strconv.ParseUint(f[len(f)-2], 10, 64)
		if err != nil {
			hard = 1 << 20 // unlimited; the kernel has a ceiling of its own for files
		}
		switch f[1] {
		case "processes":
			l.processes = hard
		case "open":
			l.openFiles = hard
		}
	}
	if l.processes == 0 || l.openFiles == 0 {
		return limits{}, fmt.Errorf("reading podman's limits: none found for process %d", pid)
	}
	return l, nil
}
