package executor

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/united-containers/ucn/kit/cid"
)

// AttemptID names one attempt of one run, unique for ever on this executor. It is 1 to
// MaxAttemptBytes of letters, digits, '.', '_' and '-', and begins with a letter or digit.
type AttemptID string

// ImageID is the CID of an image: CIDv1, raw, sha2-256 of its manifest (or index) bytes.
type ImageID string

// Digest returns the OCI digest ("sha256:" and 64 hex digits) that id stands for.
func (id ImageID) Digest() (string, error) {
	c, err := cid.Parse(string(id))
	if err != nil {
		return "", fmt.Errorf("%w: image %.140q: %w", ErrInvalid, string(id), err)
	}
	if c.Kind() != cid.OCIBlob {
		return "", fmt.Errorf("%w: %s is a file, not an image", ErrInvalid, id)
	}
	return c.Digest(), nil
}

// Image is an image that is held.
type Image struct {
	ID     ImageID
	Config string // digest of the config blob, "sha256:..."
	Bytes  uint64 // on disk; layers that images share are counted in each
	// Used is when HasImage or LoadImage asked for it last, over restarts. Set by ListImages.
	Used time.Time
}

// Isolation is the class of walls around a container.
type Isolation string

// The isolation classes. Standard: user namespace of its own, capabilities CHOWN DAC_OVERRIDE
// FOWNER SETUID SETGID KILL NET_BIND_SERVICE inside it, no-new-privileges, seccomp, masked paths,
// limits, a writable root. Strict: the same with a read-only root and no capabilities.
const (
	IsolationStandard Isolation = "standard"
	IsolationStrict   Isolation = "strict"
)

// Network is what a container can reach.
type Network string

// NetworkNone is a network namespace with a loopback device only.
const NetworkNone Network = "none"

// ContainerSpec says what to run. It is the whole of it: nothing is inherited from the host.
type ContainerSpec struct {
	Attempt   AttemptID
	Image     ImageID
	Platform  string   // "linux/amd64"; empty is this host's
	Command   []string // replaces the image's entrypoint when not nil
	Args      []string // replaces the image's command when not nil, or when Command is set
	Env       []string // "NAME=value" over the image's; kept on the host's disk in clear
	WorkDir   string   // absolute; empty is the image's
	User      string   // "uid[:gid]" or a name in the image; empty is the image's
	Isolation Isolation
	Network   Network
	Limits    Limits
	Mounts    []Mount
	Labels    map[string]string // the agent's own notes; List returns them
}

// Limits bound a container. Zero is refused where not said otherwise.
type Limits struct {
	CPUMilli    uint64 // thousandths of a core
	MemoryBytes uint64 // with page cache; no swap beyond it
	PIDs        uint64 // processes and threads
	DiskBytes   uint64 // written into the root; see Abilities.RootQuota for who enforces it
	LogBytes    uint64 // kept of the log; the oldest is dropped beyond it
	OpenFiles   uint64 // per process; 0 is the driver's default
}

// MountKind tells what a mount is for.
type MountKind string

// Mount kinds.
const (
	// MountInput shows a file or directory of the host read-only. The container's users are nobody
	// on the host: what they shall read must be readable by others.
	MountInput MountKind = "input"
	// MountOutput is an empty writable directory with a quota that Output reads after the exit.
	MountOutput MountKind = "output"
	// MountScratch is like MountOutput, in memory if the host has nothing better, not collected.
	MountScratch MountKind = "scratch"
)

// Mount is one path of the container that is not of its image.
type Mount struct {
	Kind   MountKind
	Path   string // absolute and clean, inside the container; not "/"
	Source string // absolute, on the host; MountInput only
	Bytes  uint64 // quota; MountOutput and MountScratch only, at least 1 MiB
}

// Info is what Create recorded about a container.
type Info struct {
	Attempt AttemptID
	Image   ImageID
	Labels  map[string]string // the spec's; do not change
	Created time.Time
}

// State is where a container is in its life.
type State string

// States. A container moves created → running ⇄ frozen → exited, or from created to exited.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StateFrozen  State = "frozen"
	StateExited  State = "exited"
)

// ExitKind tells how a container ended.
type ExitKind string

// Exit kinds.
const (
	ExitCompleted ExitKind = "completed" // the program ended by itself; see Code
	ExitOOM       ExitKind = "oom"       // the kernel killed it for its memory limit
	ExitStopped   ExitKind = "stopped"   // it ended after Stop or Kill, whatever its code
	ExitRefused   ExitKind = "refused"   // the program could not be started; see Detail
	ExitLost      ExitKind = "lost"      // the host or its engine died under it; code unknown
)

// Exit tells how a container ended.
type Exit struct {
	Kind    ExitKind
	Code    int       // exit status; 128+n when signal n ended it; -1 for refused and lost
	Stopped bool      // Stop or Kill was asked before the end
	OOM     bool      // the kernel killed at least one of its processes for memory
	Started time.Time // zero if it never ran
	Ended   time.Time
	Detail  string // a sentence for people; may be empty
}

// Stream tells the two outputs of a program apart.
type Stream string

// Streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// LogPos is a place in a log, good over restarts of the executor. Positions of one container
// rise; agents may pack one into 64 bits as File<<40 | Offset.
type LogPos struct {
	File   uint64 // counts from 0 as the log turns over; below 1<<24
	Offset int64  // bytes within the file; below 1<<40
}

// LogEntry is a line, or a part of one.
type LogEntry struct {
	Stream  Stream
	Time    time.Time // when the engine read it from the program
	Data    []byte    // without the newline; valid until the next entry is asked for
	Partial bool      // no newline followed yet
	Gap     bool      // older entries before this one were dropped (Limits.LogBytes)
	Next    LogPos    // where to go on after this entry
}

// Meter names what Usage measures, as bits.
type Meter uint16

// Meters.
const (
	MeterCPU Meter = 1 << iota
	MeterMemory
	MeterMemoryPeak
	MeterNetwork
	MeterDisk
)

// Has tells whether every meter of want is in m.
func (m Meter) Has(want Meter) bool { return m&want == want }

// Usage is one sample of a container's counters. Cumulative ones never fall within one Epoch;
// when Epoch changes (the host restarted) they begin at zero again, and the bill adds them up.
// A field whose meter is not in Measured is zero and must not be billed.
type Usage struct {
	At         time.Time
	Uptime     time.Duration // of the host at that moment, whatever its clock says; 0: not known
	Epoch      string        // equal epochs: one life of the counters
	Measured   Meter         // which fields below are true
	CPU        time.Duration // cumulative, user and system
	Memory     uint64        // bytes now, without page cache that can be dropped
	MemoryPeak uint64        // bytes, highest so far, page cache included
	NetIn      uint64        // bytes, cumulative
	NetOut     uint64        // bytes, cumulative
	Disk       uint64        // bytes now: root's own writes, outputs and scratch
	Uncounted  bool          // Disk is a lower bound: there are more files than a driver counts
}

// Abilities tells what a host can do. Missing lists, for people, what it cannot.
type Abilities struct {
	Engine        string // "podman 4.3.1"
	Runtime       string // "runc 1.1.5"
	Platform      string // "linux/amd64"
	CPUMilli      uint64
	MemoryBytes   uint64
	DiskBytes     uint64 // free where containers and images live
	CgroupVersion int    // 1 or 2
	Isolation     []Isolation
	Networks      []Network
	Meters        Meter
	CPULimit      bool
	MemoryLimit   bool
	PIDsLimit     bool
	Freeze        bool
	RootQuota     bool   // the file system enforces Limits.DiskBytes; else only Usage tells
	VolumeQuota   string // how Mount.Bytes is enforced: "loop", "tmpfs"
	Missing       []Missing
}

// Missing is something a host cannot do.
type Missing struct {
	What string // a sentence: what does not work, and what follows from it
	Fix  string // a command or a step
}

var attemptID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Validate tells what is wrong with the attempt id, as ErrInvalid.
func (a AttemptID) Validate() error {
	if len(a) > MaxAttemptBytes || !attemptID.MatchString(string(a)) {
		return fmt.Errorf("%w: attempt %.140q", ErrInvalid, string(a))
	}
	return nil
}

// minQuota is the smallest quota of a writable mount: below it a file system has no room for
// its own structures.
const minQuota = 1 << 20

// Validate tells the first thing that is wrong with the spec, as ErrInvalid naming the field.
// Every driver calls it first.
func (s *ContainerSpec) Validate() error {
	if err := s.Attempt.Validate(); err != nil {
		return err
	}
	if _, err := s.Image.Digest(); err != nil {
		return err
	}
	switch {
	case s.Isolation != IsolationStandard && s.Isolation != IsolationStrict:
		return fmt.Errorf("%w: isolation %q", ErrInvalid, s.Isolation)
	case s.Network != NetworkNone:
		return fmt.Errorf("%w: network %q", ErrUnsupported, s.Network)
	case s.WorkDir != "" && !path.IsAbs(s.WorkDir):
		return fmt.Errorf("%w: workdir %q is not absolute", ErrInvalid, s.WorkDir)
	}
	for _, check := range []func() error{s.checkArgs, s.checkLabels, s.Limits.check, s.checkMounts} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *ContainerSpec) checkArgs() error {
	if len(s.Env) > MaxEnv {
		return fmt.Errorf("%w: %d env entries, at most %d", ErrInvalid, len(s.Env), MaxEnv)
	}
	size := 0
	for _, list := range [][]string{s.Command, s.Args, s.Env} {
		for _, v := range list {
			size += len(v) + 1
			if strings.IndexByte(v, 0) >= 0 {
				return fmt.Errorf("%w: zero byte in command, args or env", ErrInvalid)
			}
		}
	}
	if size > MaxArgsBytes {
		return fmt.Errorf("%w: command, args and env take %d bytes, at most %d", ErrInvalid, size,
			MaxArgsBytes)
	}
	for _, kv := range s.Env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
			return fmt.Errorf("%w: env %.40q is not NAME=value", ErrInvalid, kv)
		}
	}
	return nil
}

func (s *ContainerSpec) checkLabels() error {
	if len(s.Labels) > MaxLabels {
		return fmt.Errorf("%w: %d labels, at most %d", ErrInvalid, len(s.Labels), MaxLabels)
	}
	for k, v := range s.Labels {
		if k == "" || len(k) > MaxAttemptBytes || len(v) > MaxLabelBytes {
			return fmt.Errorf("%w: label %.140q", ErrInvalid, k)
		}
	}
	return nil
}

func (l *Limits) check() error {
	const most = 1 << 62
	for _, f := range []struct {
		name       string
		v, min, to uint64
	}{
		{"limits.cpu_milli", l.CPUMilli, 10, 1 << 30},
		{"limits.memory_bytes", l.MemoryBytes, 4 << 20, most},
		{"limits.pids", l.PIDs, 1, 1 << 22},
		{"limits.disk_bytes", l.DiskBytes, 1, most},
		{"limits.log_bytes", l.LogBytes, 64 << 10, 1 << 40},
		{"limits.open_files", l.OpenFiles, 0, 1 << 30},
	} {
		if f.v < f.min || f.v > f.to {
			return fmt.Errorf("%w: %s is %d, allowed %d to %d", ErrInvalid, f.name, f.v, f.min, f.to)
		}
	}
	return nil
}

func (s *ContainerSpec) checkMounts() error {
	if len(s.Mounts) > MaxMounts {
		return fmt.Errorf("%w: %d mounts, at most %d", ErrInvalid, len(s.Mounts), MaxMounts)
	}
	seen := make(map[string]bool, len(s.Mounts))
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if err := m.check(); err != nil {
			return err
		}
		if seen[m.Path] {
			return fmt.Errorf("%w: two mounts at %q", ErrInvalid, m.Path)
		}
		seen[m.Path] = true
	}
	return nil
}

func (m *Mount) check() error {
	if !path.IsAbs(m.Path) || path.Clean(m.Path) != m.Path || m.Path == "/" {
		return fmt.Errorf("%w: mount path %q is not absolute and clean", ErrInvalid, m.Path)
	}
	for _, p := range []string{"/proc", "/sys", "/dev"} {
		if m.Path == p || strings.HasPrefix(m.Path, p+"/") {
			return fmt.Errorf("%w: mount path %q covers %s", ErrInvalid, m.Path, p)
		}
	}
	if strings.ContainsAny(m.Path+m.Source, ":,\x00\n") {
		return fmt.Errorf("%w: mount path %q has ':' or ',' in it", ErrInvalid, m.Path)
	}
	switch m.Kind {
	case MountInput:
		if !path.IsAbs(m.Source) || m.Bytes != 0 {
			return fmt.Errorf("%w: input %q needs an absolute source and no quota", ErrInvalid, m.Path)
		}
	case MountOutput, MountScratch:
		if m.Source != "" || m.Bytes < minQuota {
			return fmt.Errorf("%w: %s %q needs a quota of at least %d bytes and no source", ErrInvalid,
				m.Kind, m.Path, minQuota)
		}
	default:
		return fmt.Errorf("%w: mount kind %q", ErrInvalid, m.Kind)
	}
	return nil
}
