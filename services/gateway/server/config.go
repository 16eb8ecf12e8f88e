package server

import (
	"net"
	"time"

	"github.com/united-containers/ucn/kit/config"
)

// Config says where the gateway listens and what it bears.
type Config struct {
	// Addr is "host:port"; port 0 takes a free one. Without TLS only loopback addresses are
	// accepted, unless Insecure is set. Default 127.0.0.1:7680.
	Addr string `yaml:"addr"`
	// TLSCert and TLSKey are PEM files, both or neither. They are read again when the
	// certificate changes.
	TLSCert string            `yaml:"tls_cert"`
	TLSKey  config.SecretFile `yaml:"tls_key"`
	// Insecure allows plain HTTP on an address others can reach: whoever sees the traffic can
	// take the tokens. Only behind something that encrypts. Default false.
	Insecure bool `yaml:"insecure"`
	// MaxBody bounds a JSON body. Default 1MiB, at most 4MiB.
	MaxBody config.Size `yaml:"max_body"`
	// MaxBodies bounds the JSON bodies of all calls under way together; one address may have half of
	// them. Default 256MiB, at least twice max_body.
	MaxBodies config.Size `yaml:"max_bodies"`
	// MaxAnswers bounds the bytes of answers and events, of 4KiB and more, that wait for their clients
	// to take them, files apart; one address gets half of what others leave. Default 256MiB, at least
	// 1MiB: a longer answer is refused.
	MaxAnswers config.Size `yaml:"max_answers"`
	// MaxFile bounds a file's bytes in one request. Default 16GiB.
	MaxFile config.Size `yaml:"max_file"`
	// MaxStreams bounds logs, stats and watches under way, all clients together; one address may
	// have half of them, and gives way to one with fewer. Default 1024. Of watches of blocks 120 at
	// most, 15 of one address.
	MaxStreams int `yaml:"max_streams"`
	// MaxTransfers bounds files being sent and received, all clients together; one address may have
	// half of them. Default 256.
	MaxTransfers int `yaml:"max_transfers"`
	// MaxConnections bounds connections; more are closed at once. Default 4096.
	MaxConnections int `yaml:"max_connections"`
	// MaxPerAddress bounds those of one address, loopback apart; an IPv6 address counts as its /64.
	// Behind a load balancer, which is one address, raise it to max_connections. Default 256.
	MaxPerAddress int `yaml:"max_per_address"`
	// MaxTime bounds a call; streams and files may take longer. Default 60s.
	MaxTime time.Duration `yaml:"max_time"`
	// HeaderTime bounds how long the headers of a request may take to arrive. Default 10s.
	HeaderTime time.Duration `yaml:"header_time"`
	// IdleTime is after how long without a request a connection is closed. Default 2m.
	IdleTime time.Duration `yaml:"idle_time"`
	// StallTime is how long a client may neither send nor take a byte of a body. Default 60s.
	StallTime time.Duration `yaml:"stall_time"`
	// KeepAlive is how often a stream of events without news says that it lives. Default 15s.
	KeepAlive time.Duration `yaml:"keep_alive"`
	// Drain is how long calls and files may go on after the gateway was told to stop. Streams end
	// at once, so that their readers go on elsewhere. Default 15s.
	Drain time.Duration `yaml:"drain"`
	// Rates bound requests per account, and per address for those without one. Default: 50 reads and
	// 20 writes a second per account (200 and 100 at once), 500 requests a second per address.
	Rates Rates `yaml:"rates"`
	// CORSOrigins are the web origins whose pages may read answers: "https://app.example.org",
	// "http://localhost:*" for any port, or "*". Default none. At most 64.
	CORSOrigins []string `yaml:"cors_origins"`
	// RatePerSecond bounds requests per client address. 0, the default: no limit.
	RatePerSecond float64 `yaml:"rate_per_second"`
	// RateBurst is how many requests may come at once within the rate. Default 100.
	RateBurst int `yaml:"rate_burst"`
}

var _ config.Validator = Config{}

// Bounds of what a configuration may allow.
const (
	maxMaxBody    = 4 * config.MiB  // a message of kit/rpc
	maxMaxBodies  = 64 * config.GiB // and of answers
	maxHeaders    = 32 << 10        // bytes of headers per request
	maxPerClient  = 128             // concurrent requests on one HTTP/2 connection
	readinessTime = 2 * time.Second
)

// Default returns the configuration of a local network.
func Default() Config {
	return Config{
		Addr: "127.0.0.1:7680", MaxBody: config.MiB, MaxBodies: 256 * config.MiB,
		MaxAnswers: 256 * config.MiB, MaxFile: 16 * config.GiB,
		MaxStreams: 1024, MaxTransfers: 256, MaxConnections: 4096, MaxPerAddress: 256,
		MaxTime:    time.Minute,
		HeaderTime: 10 * time.Second, IdleTime: 2 * time.Minute, StallTime: time.Minute,
		KeepAlive: 15 * time.Second, Drain: 15 * time.Second, RateBurst: 100,
		Rates: Rates{
			Read: Rate{PerSecond: 50, Burst: 200}, Write: Rate{PerSecond: 20, Burst: 100},
			Address: Rate{PerSecond: 500, Burst: 1000},
		},
	}
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return config.Invalid("tls_cert", "tls_cert and tls_key go together: set both or neither")
	case c.MaxBody < 1 || c.MaxBody > maxMaxBody:
		return config.Invalid("max_body", "%s is not between 1B and %s", c.MaxBody, maxMaxBody)
	case c.MaxBodies < 2*c.MaxBody || c.MaxBodies > maxMaxBodies:
		return config.Invalid("max_bodies", "%s is not between twice max_body and %s", c.MaxBodies,
			maxMaxBodies)
	case c.MaxAnswers < config.MiB || c.MaxAnswers > maxMaxBodies:
		return config.Invalid("max_answers", "%s is not between 1MiB and %s", c.MaxAnswers,
			maxMaxBodies)
	case c.MaxFile < 1:
		return config.Invalid("max_file", "%s is not positive", c.MaxFile)
	case c.RatePerSecond < 0 || c.RatePerSecond != c.RatePerSecond:
		return config.Invalid("rate_per_second", "%v is negative", c.RatePerSecond)
	case c.RatePerSecond > 0 && c.RateBurst < 1:
		return config.Invalid("rate_burst", "must be at least 1 when there is a rate")
	}
	if err := c.validateBounds(); err != nil {
		return err
	}
	if err := c.Rates.validate(); err != nil {
		return config.Under("rates", err)
	}
	if err := checkOrigins(c.CORSOrigins); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return config.Invalid("addr", "%q is not host:port", c.Addr)
	}
	if c.TLSCert == "" && !c.Insecure && !loopback(c.Addr) {
		return config.Invalid("addr", "%s can be reached by others and has no TLS: set tls_cert "+
			"and tls_key, listen on 127.0.0.1, or say insecure: true", c.Addr)
	}
	return nil
}

func (c Config) validateBounds() error {
	for _, n := range []struct {
		field string
		value int
	}{
		{"max_streams", c.MaxStreams}, {"max_transfers", c.MaxTransfers},
		{"max_connections", c.MaxConnections}, {"max_per_address", c.MaxPerAddress},
	} {
		if n.value < 1 {
			return config.Invalid(n.field, "must be at least 1")
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"max_time", c.MaxTime}, {"header_time", c.HeaderTime}, {"idle_time", c.IdleTime},
		{"stall_time", c.StallTime}, {"keep_alive", c.KeepAlive}, {"drain", c.Drain},
	} {
		if d.value <= 0 {
			return config.Invalid(d.field, "%s is not positive", d.value)
		}
	}
	return nil
}

// loopback reports whether addr can only be this machine; localhost is trusted to be (RFC 6761).
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
