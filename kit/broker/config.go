package broker

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/event"
)

// Bounds and defaults.
const (
	DefaultDisk        = 2 << 30 // bytes of all streams together
	MinDisk            = 8 << 20
	DefaultMemory      = 16 << 20 // bytes of streams in memory; ours are on disk
	DefaultEventRate   = 1 << 20  // bytes per second and operator
	MaxEventRate       = 1 << 30
	DefaultConsumers   = 256
	MaxConsumers       = 1 << 16
	DefaultConnections = 1024
	MaxConnections     = 1 << 16
	DefaultPerAddress  = 256
)

// Config says how the broker runs.
type Config struct {
	// Dir is where streams are kept; it is created. Two brokers must not share one.
	Dir string
	// Listen is host:port for clients that are not in this process; empty listens nowhere. Off
	// loopback Deps.TLS is required. Port 0 takes a free one.
	Listen string
	// Disk bounds all streams together, in bytes; the oldest events go first.
	Disk int64
	// Memory bounds what streams hold in memory, in bytes.
	Memory int64
	// EventRate bounds the events of each operator that come over the listener, in bytes per second
	// on average; half a minute of it may come at once. Beyond, events are refused until later. Own
	// services are not bound.
	EventRate int64
	// Consumers bounds what the instances of each operator read from, over all streams. One that
	// nobody reads from counts until it is removed, after twice Age. Own services are not bound.
	Consumers int
	// Age is how long events are kept; 0 means a week.
	Age time.Duration
	// SyncAlways writes every event through to the disk before it is acknowledged. Without it a
	// power failure may lose some minutes of events that publishers believe sent; their outboxes
	// still have them, and consumers see a gap.
	SyncAlways bool
	// Connections bounds clients of the listener. More are closed at once. Own services of this
	// process have room of their own.
	Connections int
	// PerAddress bounds those of one address, loopback apart; an IPv6 address counts as its /64.
	PerAddress int
	// Services are the kinds that get a stream.
	Services []string
}

// Default returns a configuration that lacks only Dir.
func Default() Config {
	return Config{
		Disk: DefaultDisk, Memory: DefaultMemory, EventRate: DefaultEventRate,
		Consumers: DefaultConsumers, Connections: DefaultConnections,
		PerAddress: DefaultPerAddress,
		Services:   []string{"ledger", "scheduler", "executor", "storage", "gateway"},
	}
}

// Validate checks the configuration. Every message says what to change.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("broker: dir must be set")
	case c.Disk < MinDisk:
		return fmt.Errorf("broker: disk must be at least %d bytes", MinDisk)
	case c.Memory <= 0:
		return errors.New("broker: memory must be positive")
	case c.EventRate < event.MaxEnvelope || c.EventRate > MaxEventRate:
		return fmt.Errorf("broker: event rate must be %d to %d bytes per second",
			event.MaxEnvelope, MaxEventRate)
	case c.Consumers < 1 || c.Consumers > MaxConsumers:
		return fmt.Errorf("broker: consumers must be 1 to %d", MaxConsumers)
	case c.Age < 0:
		return errors.New("broker: age must not be negative")
	case c.Connections < 1 || c.Connections > MaxConnections:
		return fmt.Errorf("broker: connections must be 1 to %d", MaxConnections)
	case c.PerAddress < 1 || c.PerAddress > MaxConnections:
		return fmt.Errorf("broker: connections per address must be 1 to %d", MaxConnections)
	}
	for _, service := range c.Services {
		if !subject.ValidService(service) {
			return fmt.Errorf("broker: %q is no service", service)
		}
	}
	if c.Listen == "" {
		return nil
	}
	_, _, err := c.address()
	return err
}

// address splits Listen.
func (c Config) address() (host string, port int, err error) {
	host, text, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", 0, fmt.Errorf("broker: listen %q is not host:port", c.Listen)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("broker: listen %q has no port", c.Listen)
	}
	return host, port, nil
}

// loopback reports whether only this machine can reach the listener.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
