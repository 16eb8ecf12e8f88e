package telemetry

import (
	"log/slog"
	"net"

	"github.com/united-containers/ucn/kit/config"
)

// Config is the telemetry section of a program's configuration.
type Config struct {
	// Endpoint is host:port of an OTLP gRPC collector, e.g. "127.0.0.1:4317". Empty (the
	// default) exports nothing; metrics can still be scraped.
	Endpoint string `yaml:"endpoint"`
	// Insecure allows plaintext to a collector that is not on this machine. Default false.
	Insecure bool `yaml:"insecure"`
	// SampleRatio is the share of new traces that is recorded, 0 to 1. Default 1. A trace that
	// another service began follows that service's choice.
	SampleRatio float64 `yaml:"sample_ratio"`
	// LogFormat is "text" (default) or "json".
	LogFormat string `yaml:"log_format"`
	// LogLevel is "debug", "info" (default), "warn" or "error".
	LogLevel slog.Level `yaml:"log_level"`
}

var _ config.Validator = Config{}

// Default returns the configuration of a local network: no collector, text logs at info.
func Default() Config {
	return Config{SampleRatio: 1, LogFormat: "text", LogLevel: slog.LevelInfo}
}

// Validate reports the first field that cannot be used.
func (c Config) Validate() error {
	if c.Endpoint != "" {
		if _, port, err := net.SplitHostPort(c.Endpoint); err != nil || port == "" {
			return config.Invalid("endpoint", "%q is not host:port", c.Endpoint)
		}
	}
	if c.SampleRatio < 0 || c.SampleRatio > 1 || c.SampleRatio != c.SampleRatio {
		return config.Invalid("sample_ratio", "%v is not between 0 and 1", c.SampleRatio)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return config.Invalid("log_format", `%q is neither "text" nor "json"`, c.LogFormat)
	}
	return nil
}

// loopback reports whether the endpoint is on this machine, where plaintext is safe.
func (c Config) loopback() bool {
	host, _, err := net.SplitHostPort(c.Endpoint)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
