package wiring

import (
	"os"
	"path/filepath"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/telemetry"
	executor "github.com/united-containers/ucn/services/executor/wire"
)

// Config is what can be changed about a local network.
type Config struct {
	// Data is the folder of everything that lasts. One process at a time. Default
	// ~/.local/share/ucn, for root /var/lib/ucn.
	Data string `yaml:"data"`
	// API is the gRPC address of all services. Default 127.0.0.1:7600.
	API string `yaml:"api"`
	// REST is the address of the gateway: REST, console, metrics. Default 127.0.0.1:7680.
	REST string `yaml:"rest"`
	// Bus is the NATS address for clients. Default 127.0.0.1:7622.
	Bus string `yaml:"bus"`
	// CORSOrigins are the web origins whose pages may read what REST answers, such as
	// "http://localhost:*". Default: none.
	CORSOrigins []string `yaml:"cors_origins"`
	// Executors are the hosts of this network.
	Executors []Executor `yaml:"executors"`
	// StorageQuota is how many bytes an account may hold. Default 10GiB.
	StorageQuota config.Size `yaml:"storage_quota"`
	// Registries says which OCI registries the hosts pull images from. Default: public ones, over
	// TLS. For one of your own: private: true, insecure: ["127.0.0.1:5000"].
	Registries executor.RegistryConfig `yaml:"registries"`
	// Telemetry says where traces, metrics and logs go.
	Telemetry telemetry.Config `yaml:"telemetry"`
}

// Executor is one host of a local network. All hosts run on this machine: each sells all its
// cores and an equal share of its memory.
type Executor struct {
	// Name is its folder's and the host's name: 1 to 63 of a-z, 0-9 and dashes.
	Name string `yaml:"name"`
	// Operator is "alpha" or "beta".
	Operator string `yaml:"operator"`
	// CoreHour, MemoryGiBHour, DiskGiBHour and GiB of traffic are prices in grains.
	CoreHour      uint64 `yaml:"core_hour"`
	MemoryGiBHour uint64 `yaml:"memory_gib_hour"`
	DiskGiBHour   uint64 `yaml:"disk_gib_hour"`
	GiB           uint64 `yaml:"gib"`
}

// The two operators of a local network. Alpha runs all services, beta only hosts.
const (
	Alpha = "alpha"
	Beta  = "beta"
)

// maxExecutors bounds the hosts of one process.
const maxExecutors = 64

// Default returns the local network: three hosts, two operators, 1.0 and 1.2 UCN per core hour,
// 0.1 per GiB hour of memory, 0.01 per GiB.
func Default() Config {
	const (
		tenth     = uint64(block.UCN) / 10
		hundredth = uint64(block.UCN) / 100
	)
	host := func(name, operator string, core uint64) Executor {
		return Executor{
			Name: name, Operator: operator, CoreHour: core, MemoryGiBHour: tenth,
			DiskGiBHour: hundredth, GiB: hundredth,
		}
	}
	return Config{
		Data: DefaultData(), API: "127.0.0.1:7600", REST: "127.0.0.1:7680", Bus: "127.0.0.1:7622",
		Executors: []Executor{
			host("alpha-1", Alpha, 10*tenth), host("alpha-2", Alpha, 10*tenth),
			host("beta-1", Beta, 12*tenth),
		},
		StorageQuota: 10 << 30, Telemetry: telemetry.Default(),
	}
}

// DefaultData is where a network keeps its data when nothing is said.
func DefaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/ucn"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ucn")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "/var/lib/ucn"
	}
	return filepath.Join(home, ".local", "share", "ucn")
}

// Validate names the field that is wrong.
func (c Config) Validate() error {
	if !filepath.IsAbs(c.Data) {
		return config.Invalid("data", "%q is not an absolute path", c.Data)
	}
	if len(c.Executors) == 0 || len(c.Executors) > maxExecutors {
		return config.Invalid("executors", "must be 1 to %d", maxExecutors)
	}
	seen := map[string]bool{}
	for _, e := range c.Executors {
		switch {
		case !validName(e.Name) || seen[e.Name]:
			return config.Invalid("executors.name", "%.64q is used twice or not 1 to 63 of "+
				"a-z, 0-9 and dashes", e.Name)
		case e.Operator != Alpha && e.Operator != Beta:
			return config.Invalid("executors.operator", "%.64q is not alpha or beta", e.Operator)
		}
		seen[e.Name] = true
	}
	if err := c.Registries.Validate(); err != nil {
		return config.Under("registries", err)
	}
	return config.Under("telemetry", c.Telemetry.Validate())
}

func validName(s string) bool {
	const most = 63
	if s == "" || len(s) > most {
		return false
	}
	for _, r := range []byte(s) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}
