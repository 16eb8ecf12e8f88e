package rpc

import (
	"net"
	"strings"
	"time"

	"github.com/united-containers/ucn/kit/config"
)

// ServerConfig is the rpc section of a service's configuration.
type ServerConfig struct {
	// Addr is "host:port", or "unix:/path/to.sock". Port 0 takes a free one. Without TLS only
	// loopback addresses and unix sockets are accepted, unless Insecure is set.
	Addr string `yaml:"addr"`
	// TLSCert and TLSKey are PEM files, both or neither. They are read again when they change,
	// so certificates can be renewed without a restart.
	TLSCert string            `yaml:"tls_cert"`
	TLSKey  config.SecretFile `yaml:"tls_key"`
	// Insecure allows plaintext on an address others can reach: whoever sees the traffic can
	// take the tokens. Only behind something that encrypts. Default false.
	Insecure bool `yaml:"insecure"`
	// MaxMessage bounds one message, either way. Default 4MiB, at most 64MiB.
	MaxMessage config.Size `yaml:"max_message"`
	// MaxStreams bounds concurrent calls per connection. Default 1024.
	MaxStreams uint32 `yaml:"max_streams"`
	// MaxCalls bounds open calls of all connections, and MaxCallsOfOne those of one address (that of
	// a gateway's caller, where the gateway is believed). Half of all are for calls whose token is
	// proven, an eighth while tokens are judged, an eighth for health watches and reflection, the rest
	// for what needs no token. When all of a kind are taken, the newest of the network (an address,
	// or IPv6 /48) with most ends for one that has fewer. Default 8192 and 1024.
	MaxCalls      int `yaml:"max_calls"`
	MaxCallsOfOne int `yaml:"max_calls_of_one"`
	// MaxRequests bounds the bytes of requests that take longer than 2s to come, all clients
	// together: of so many as would fit if all had max_message. When they are too many, the newest of
	// the address with most end. Default 256MiB, at least max_message.
	MaxRequests config.Size `yaml:"max_requests"`
	// MaxAnswers bounds the bytes of answers that wait to be read, all clients together; one address
	// gets half of what others leave. Default 256MiB, at least max_message.
	MaxAnswers config.Size `yaml:"max_answers"`
	// AnswerTime is how long a client may leave an answer, and each MiB of it, unread; when bytes
	// run short, connections with an older one are closed. Default 20s.
	AnswerTime time.Duration `yaml:"answer_time"`
	// MaxConnections bounds connections, and MaxPerAddress those of one address other than this
	// machine's; more are closed at once. Default 4096 and 256.
	MaxConnections int `yaml:"max_connections"`
	MaxPerAddress  int `yaml:"max_per_address"`
	// MaxTime bounds a unary call; a client may ask for less. Default 60s.
	MaxTime time.Duration `yaml:"max_time"`
	// Drain is how long calls may go on after the server was told to stop. Streams are told to
	// reconnect elsewhere after a third of it. Default 15s.
	Drain time.Duration `yaml:"drain"`
	// RatePerSecond bounds calls per account (per address without one). 0, the default: no limit.
	RatePerSecond float64 `yaml:"rate_per_second"`
	// RateBurst is how many calls may come at once within the rate. Default 100.
	RateBurst int `yaml:"rate_burst"`
}

var _ config.Validator = ServerConfig{}

// DefaultServer returns the configuration of a local service on a free loopback port.
func DefaultServer() ServerConfig {
	return ServerConfig{
		Addr: "127.0.0.1:0", MaxMessage: DefaultMessage, MaxStreams: 1024,
		MaxCalls: 8192, MaxCallsOfOne: 1024, MaxRequests: 256 * config.MiB,
		MaxAnswers: 256 * config.MiB, AnswerTime: 20 * time.Second,
		MaxConnections: 4096, MaxPerAddress: 256,
		MaxTime: time.Minute, Drain: 15 * time.Second, RateBurst: 100,
	}
}

// Validate reports the first field that cannot be used.
func (c ServerConfig) Validate() error {
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return config.Invalid("tls_cert", "tls_cert and tls_key go together: set both or neither")
	case c.MaxMessage < 1 || c.MaxMessage > MaxMessage:
		return config.Invalid("max_message", "%s is not between 1B and %s", c.MaxMessage,
			MaxMessage)
	case c.MaxStreams < 1:
		return config.Invalid("max_streams", "must be at least 1")
	case c.MaxCalls < 1:
		return config.Invalid("max_calls", "must be at least 1")
	case c.MaxCallsOfOne < 1:
		return config.Invalid("max_calls_of_one", "must be at least 1")
	case c.MaxRequests < c.MaxMessage:
		return config.Invalid("max_requests", "%s is less than max_message, %s", c.MaxRequests,
			c.MaxMessage)
	case c.MaxAnswers < c.MaxMessage:
		return config.Invalid("max_answers", "%s is less than max_message, %s", c.MaxAnswers,
			c.MaxMessage)
	case c.AnswerTime <= 0:
		return config.Invalid("answer_time", "%s is not positive", c.AnswerTime)
	case c.MaxConnections < 1:
		return config.Invalid("max_connections", "must be at least 1")
	case c.MaxPerAddress < 1:
		return config.Invalid("max_per_address", "must be at least 1")
	case c.MaxTime <= 0:
		return config.Invalid("max_time", "%s is not positive", c.MaxTime)
	case c.Drain <= 0:
		return config.Invalid("drain", "%s is not positive", c.Drain)
	case c.RatePerSecond < 0 || c.RatePerSecond != c.RatePerSecond:
		return config.Invalid("rate_per_second", "%v is negative", c.RatePerSecond)
	case c.RatePerSecond > 0 && c.RateBurst < 1:
		return config.Invalid("rate_burst", "must be at least 1 when there is a rate")
	}
	return c.validateAddr()
}

func (c ServerConfig) validateAddr() error {
	if path, isUnix := strings.CutPrefix(c.Addr, "unix:"); isUnix {
		if path == "" {
			return config.Invalid("addr", "unix: needs a path")
		}
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return config.Invalid("addr", "%q is neither host:port nor unix:/path", c.Addr)
	}
	if c.TLSCert == "" && !c.Insecure && !loopback(c.Addr) {
		return config.Invalid("addr", "%s can be reached by others and has no TLS: set tls_cert "+
			"and tls_key, listen on 127.0.0.1, or say insecure: true", c.Addr)
	}
	return nil
}

// ClientConfig says where a service's peers are.
type ClientConfig struct {
	// Peers maps service names to where they are.
	Peers map[string]Peer `yaml:"peers"`
	// MaxMessage bounds one message, either way. Default 4MiB, at most 64MiB.
	MaxMessage config.Size `yaml:"max_message"`
}

// Peer is one service elsewhere.
type Peer struct {
	// Addr is "host:port" or "unix:/path/to.sock".
	Addr string `yaml:"addr"`
	// TLS encrypts and checks the peer's certificate. Needed off loopback unless Insecure.
	TLS bool `yaml:"tls"`
	// CA is a PEM file of authorities to trust instead of the system's.
	CA string `yaml:"ca"`
	// ServerName is the name to expect in the certificate when it is not the host of Addr.
	ServerName string `yaml:"server_name"`
	// Insecure allows plaintext to another machine: whoever sees the traffic can take the
	// tokens. Default false.
	Insecure bool `yaml:"insecure"`
}

var _ config.Validator = ClientConfig{}

// DefaultClient returns a configuration without peers.
func DefaultClient() ClientConfig { return ClientConfig{MaxMessage: DefaultMessage} }

// Validate reports the first field that cannot be used.
func (c ClientConfig) Validate() error {
	if c.MaxMessage < 1 || c.MaxMessage > MaxMessage {
		return config.Invalid("max_message", "%s is not between 1B and %s", c.MaxMessage,
			MaxMessage)
	}
	for name, p := range c.Peers {
		if err := p.Validate(); err != nil {
			return config.Under("peers."+name, err)
		}
	}
	return nil
}

// Validate reports the first field that cannot be used.
func (p Peer) Validate() error {
	if strings.HasPrefix(p.Addr, "unix:") {
		return nil
	}
	host, _, err := net.SplitHostPort(p.Addr)
	if err != nil || host == "" {
		return config.Invalid("addr", "%q is neither host:port nor unix:/path", p.Addr)
	}
	if !p.TLS && !p.Insecure && !loopback(p.Addr) {
		return config.Invalid("addr", "%s is another machine: set tls: true, or insecure: true "+
			"if something else encrypts", p.Addr)
	}
	if !p.TLS && (p.CA != "" || p.ServerName != "") {
		return config.Invalid("tls", "ca and server_name mean nothing without tls: true")
	}
	return nil
}

// loopback reports whether addr can only be this machine. Host names other than localhost are not
// looked up: an answer may change. localhost is trusted to be local (RFC 6761).
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
