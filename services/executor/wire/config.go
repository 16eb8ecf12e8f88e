// Package wire builds an executor from its configuration: the agent, its journal in Pebble, podman,
// ledger and storage over gRPC, and its methods on the bus. It is used by the executor's own main
// and by whoever runs several services in one process.
package wire

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/podman"
)

// Config is the configuration of an executor.
type Config struct {
	// Instance is what all services have. Needed when it runs alone.
	Instance instance.Config `yaml:"instance"`
	// Name tells executors apart that share an engine: 1 to 63 of a-z, 0-9 and dashes. Never change
	// it while containers run. Default "executor".
	Name string `yaml:"name"`
	// Dir holds the journal and fetched inputs. One process at a time. Absolute; every folder above
	// it must let others pass (mode o+x), because containers read their inputs as nobody. Needed.
	Dir string `yaml:"dir"`
	// Payee is the account (ucn1...) that is paid. Default is the operator's.
	Payee string `yaml:"payee"`
	// Engine is the podman instance that runs the containers.
	Engine EngineConfig `yaml:"engine"`
	// Registries says which OCI registries images are pulled from.
	Registries RegistryConfig `yaml:"registries"`
	// Agent is what the host sells and how it works.
	Agent executor.Config `yaml:"agent"`

	// Driver replaces the engine of the configuration: executors in one process share one.
	Driver func(name string) (executor.Driver, error) `yaml:"-"`
}

// RegistryConfig bounds where jobs may make this host pull images from. The default is public
// addresses, over TLS.
type RegistryConfig struct {
	// Private allows registries on this host and on private networks: jobs can then make requests
	// to them.
	Private bool `yaml:"private"`
	// Insecure names hosts, with port, that are spoken to without TLS. At most 64.
	Insecure []string `yaml:"insecure"`
	// MaxImage bounds an image as it travels. 0 is 16 GiB.
	MaxImage config.Size `yaml:"max_image"`
	// MaxUnpacked bounds what the layers of an image unpack to, of registries and of the
	// network's storage alike. 0 is 64 GiB.
	MaxUnpacked config.Size `yaml:"max_unpacked"`
}

// Validate names the field that is wrong.
func (c RegistryConfig) Validate() error {
	switch {
	case len(c.Insecure) > maxInsecure:
		return config.Invalid("insecure", "%d hosts, at most %d", len(c.Insecure), maxInsecure)
	case c.MaxImage < 0:
		return config.Invalid("max_image", "is negative")
	case c.MaxUnpacked < 0:
		return config.Invalid("max_unpacked", "is negative")
	}
	return nil
}

const maxInsecure = 64

// EngineConfig is a podman instance of UCN's own; it never touches the user's podman.
type EngineConfig struct {
	// Dir holds images and containers. On ext4 or XFS, not on overlay. Default "engine" in dir.
	Dir string `yaml:"dir"`
	// RunDir holds sockets and run state, at most 30 bytes. Default /run/ucn.
	RunDir string `yaml:"run_dir"`
	// Podman is the program. Default is the one in PATH.
	Podman string `yaml:"podman"`
	// Runtime is "runc" or "crun". Default is the one that works here.
	Runtime string `yaml:"runtime"`
	// MaxUnpacked is registries.max_unpacked.
	MaxUnpacked int64 `yaml:"-"`
}

// Default returns the defaults; dir is still needed.
func Default() Config {
	return Config{Instance: instance.Default(), Name: "executor", Agent: executor.DefaultConfig()}
}

// Validate names the field that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Name == "" || len(c.Name) > 63:
		return config.Invalid("name", "%q has not 1 to 63 characters", c.Name)
	case !filepath.IsAbs(c.Dir):
		return config.Invalid("dir", "say where the journal is kept, as an absolute path")
	}
	if c.Payee != "" {
		if _, err := id.ParseBech32(id.Account, c.Payee); err != nil {
			return config.Invalid("payee", "%v", err)
		}
	}
	if c.Driver != nil && c.Registries.MaxUnpacked != 0 {
		return config.Invalid("registries.max_unpacked", "it belongs to the engine that is shared")
	}
	if err := c.Registries.Validate(); err != nil {
		return config.Under("registries", err)
	}
	if err := c.Agent.Validate(); err != nil {
		return config.Invalid("agent", "%v", err)
	}
	return nil
}

// File is the configuration of an executor in a process of its own.
type File struct {
	Config `yaml:",inline"`
}

// Common implements instance.FileConfig.
func (f *File) Common() instance.Config { return f.Instance }

// Validate also checks what only a process of its own needs.
func (f *File) Validate() error {
	if err := f.Instance.Validate(); err != nil {
		return config.Under("instance", err)
	}
	return f.Config.Validate()
}

// OpenEngine opens the podman instance; executors of one process share it through Config.Driver.
// Close it after the last of them.
func OpenEngine(c EngineConfig, log *slog.Logger) (*podman.Instance, error) {
	engine, err := podman.Open(podman.Config{
		Dir: c.Dir, RunDir: c.RunDir, Podman: c.Podman, Runtime: c.Runtime, Log: log,
		MaxUnpacked: c.MaxUnpacked,
	})
	if err != nil {
		return nil, fmt.Errorf("open the container engine: %w", err)
	}
	return engine, nil
}

// WipeEngine removes an engine that no process has open, with its containers and images.
func WipeEngine(ctx context.Context, c EngineConfig) error {
	return podman.Wipe(ctx, podman.Config{
		Dir: c.Dir, RunDir: c.RunDir, Podman: c.Podman, Runtime: c.Runtime,
	})
}
