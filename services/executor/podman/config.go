package podman

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// Config says where an instance lives and what it uses of the host.
type Config struct {
	// Dir holds everything of the instance: images, containers, logs, configuration. It must be
	// absolute, on a disk that overlay can stand on (ext4, XFS, not overlay itself), and is used by
	// one process at a time.
	Dir string
	// Podman is the program; empty looks it up in PATH.
	Podman string
	// Runtime is "runc" or "crun"; empty chooses the one that works here.
	Runtime string
	// RunDir holds what is worth nothing after a reboot: sockets and the engine's run state, and who
	// uses which user ids. Empty is /run/ucn. All instances of a machine must have the same. It is
	// outside of Dir because podman takes no run directory of more than 50 bytes: at most 30 here.
	RunDir string
	// FirstID and IDCount are the user and group ids of the host that containers are mapped to,
	// 65,536 each. Zero is 1,879,048,192 and 268,369,920: a range that nothing else hands out.
	FirstID, IDCount uint32
	// Cgroup is the control group that everything goes under. Empty is "/ucn".
	Cgroup string
	// IdleStop ends the API service after so long without a call; the next one starts it again, which
	// takes some 0.1 s. Zero is 30 seconds.
	IdleStop time.Duration
	// MaxUnpacked bounds what the layers of an image unpack to, in bytes, each as often as it is
	// named, wherever the image comes from. Zero is 64 GiB.
	MaxUnpacked int64
	// StartTimeout bounds the start of the API service. Zero is 20 seconds.
	StartTimeout time.Duration
	// Log receives what the service complains about. Nil drops it.
	Log *slog.Logger
}

// Defaults of Config.
const (
	defaultRunDir       = "/run/ucn"
	maxRunDirLength     = 30
	defaultFirstID      = 0x7000_0000
	defaultIDCount      = 4095 * idsPerContainer
	defaultCgroup       = "/ucn"
	defaultIdleStop     = 30 * time.Second
	defaultStartTimeout = 20 * time.Second
	defaultMaxUnpacked  = 64 << 30
	maxDirLength        = 1000
)

func (c *Config) setDefaults() error {
	if !filepath.IsAbs(c.Dir) || len(c.Dir) > maxDirLength {
		return fmt.Errorf("podman instance: dir %.100q is not absolute", c.Dir)
	}
	c.Dir = filepath.Clean(c.Dir)
	if c.RunDir == "" {
		c.RunDir = defaultRunDir
	}
	if !filepath.IsAbs(c.RunDir) || len(c.RunDir) > maxRunDirLength {
		return fmt.Errorf("podman instance: run_dir %.100q is not absolute, or longer than %d bytes",
			c.RunDir, maxRunDirLength)
	}
	if c.FirstID == 0 {
		c.FirstID, c.IDCount = defaultFirstID, defaultIDCount
	}
	if c.IDCount < idsPerContainer {
		return fmt.Errorf("podman instance: id_count %d is less than %d", c.IDCount, idsPerContainer)
	}
	if c.Cgroup == "" {
		c.Cgroup = defaultCgroup
	}
	if c.IdleStop == 0 {
		c.IdleStop = defaultIdleStop
	}
	if c.MaxUnpacked < 0 {
		return fmt.Errorf("podman instance: max_unpacked %d is negative", c.MaxUnpacked)
	}
	if c.MaxUnpacked == 0 {
		c.MaxUnpacked = defaultMaxUnpacked
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
