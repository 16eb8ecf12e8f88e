// Package wire builds a broker from a configuration file, for operators who split services over
// machines and do not run nats-server themselves. It is used by `ucn run broker`.
package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/instance"
)

// File is the configuration of a broker in a process of its own.
type File struct {
	// Instance is what all services have: the certificate names the service "broker", and
	// client.peers.ledger answers for key sets that were changed. instance.rpc serves health only.
	Instance instance.Config `yaml:"instance"`
	// Dir is where streams are kept. One process at a time. Needed.
	Dir string `yaml:"dir"`
	// Listen is host:port for services and clients. Off loopback TLS is needed. Default
	// 127.0.0.1:7622.
	Listen string `yaml:"listen"`
	// Operators are the accounts (ucn1...) whose instances are let in besides our own operator's.
	// Each may fill the streams at EventRate. Nobody has to be trusted with what they say. Default
	// none.
	Operators []string `yaml:"operators"`
	// TLSCert and TLSKey are PEM files, both or neither. They are read at each connection, so
	// certificates can be renewed without a restart.
	TLSCert string            `yaml:"tls_cert"`
	TLSKey  config.SecretFile `yaml:"tls_key"`
	// Disk bounds all streams together; the oldest events go first. Default 2GiB.
	Disk config.Size `yaml:"disk"`
	// EventRate bounds the events of each operator in bytes per second. Default 1MiB.
	EventRate config.Size `yaml:"event_rate"`
	// Consumers bounds what the instances of each operator read from, over all streams. Default 256.
	Consumers int `yaml:"consumers"`
	// Age is how long events are kept. Default a week.
	Age time.Duration `yaml:"age"`
	// SyncAlways writes every event through to the disk before it is acknowledged. Default false.
	SyncAlways bool `yaml:"sync_always"`
	// Connections bounds connections; more are closed at once. Default 1024.
	Connections int `yaml:"connections"`
	// PerAddress bounds those of one address, loopback apart; an IPv6 address counts as its /64.
	// Default 256.
	PerAddress int `yaml:"per_address"`
}

// Default returns the defaults; dir, the files and the ledger of instance are still needed.
func Default() File {
	d := broker.Default()
	const week = 7 * 24 * time.Hour
	return File{
		Instance: instance.Default(), Listen: "127.0.0.1:7622", Disk: config.Size(d.Disk),
		EventRate: config.Size(d.EventRate), Age: week, Connections: d.Connections,
		Consumers: d.Consumers, PerAddress: d.PerAddress,
	}
}

// Common implements instance.FileConfig.
func (f *File) Common() instance.Config { return f.Instance }

// Validate names the field that is wrong.
func (f *File) Validate() error {
	if err := f.Instance.Validate(); err != nil {
		return config.Under("instance", err)
	}
	switch {
	case f.Dir == "":
		return config.Invalid("dir", "say where streams are kept")
	case f.Listen == "":
		return config.Invalid("listen", "say where services and clients connect")
	case (f.TLSCert == "") != (f.TLSKey == ""):
		return config.Invalid("tls_cert", "tls_cert and tls_key go together: set both or neither")
	}
	if _, err := f.operators(); err != nil {
		return err
	}
	if _, has := f.Instance.Client.Peers["ledger"]; !has {
		return config.Invalid("instance.client.peers.ledger",
			"name a ledger: it says which keys of an account are in force")
	}
	return f.config().Validate()
}

// operators returns whose instances are let in besides our own.
func (f *File) operators() (map[sig.AccountID]bool, error) {
	known := map[sig.AccountID]bool{}
	for i, text := range f.Operators {
		account, err := id.ParseBech32(id.Account, text)
		if err != nil {
			return nil, config.Invalid(fmt.Sprintf("operators[%d]", i), "%v", err)
		}
		known[account] = true
	}
	return known, nil
}

func (f *File) config() broker.Config {
	c := broker.Default()
	c.Dir, c.Listen, c.Disk, c.Age = f.Dir, f.Listen, int64(f.Disk), f.Age
	c.SyncAlways, c.Connections, c.PerAddress = f.SyncAlways, f.Connections, f.PerAddress
	c.EventRate, c.Consumers = int64(f.EventRate), f.Consumers
	return c
}

// tls reads the certificate at each connection and once now, so that a wrong one is told at once.
func (f *File) tls() (*tls.Config, error) {
	if f.TLSCert == "" {
		return nil, nil
	}
	load := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f.TLSCert, string(f.TLSKey))
		if err != nil {
			return nil, fmt.Errorf("read the TLS certificate: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: load}, nil
}

// service is a broker as a process of its own sees it: it has no methods but health.
type service struct{ *broker.Broker }

var _ instance.Service = service{}

// Register implements instance.Service.
func (service) Register(grpc.ServiceRegistrar) {}

// PublicMethods implements instance.Service.
func (service) PublicMethods() []string { return nil }

// Main runs a broker in this process and returns the exit code.
func Main(args []string) int {
	file := Default()
	return instance.Main("broker", args, &file,
		func(_ context.Context, i *instance.Instance) (instance.Service, error) {
			return build(&file, i)
		})
}

func build(f *File, i *instance.Instance) (instance.Service, error) {
	if i.Sets == nil {
		return nil, errors.New("broker: no ledger to ask for key sets")
	}
	secure, err := f.tls()
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	operators, err := f.operators()
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	operators[i.Operator()] = true
	b, err := broker.New(f.config(), broker.Deps{
		Tokens: i.Tokens(), Instances: i.Judge(), TLS: secure, Log: i.Telemetry.Log,
		Operators: func(operator sig.AccountID) bool { return operators[operator] },
	})
	if err != nil {
		return nil, err
	}
	return service{b}, nil
}
