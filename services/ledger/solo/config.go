package solo

import (
	"fmt"
	"time"

	"github.com/united-containers/ucn/services/ledger"
)

// Config says when blocks are made. All limits of the chain's parameters hold as well.
type Config struct {
	// SealIdle makes a block once nothing new has come for so long. Default 0: at once; while one
	// block is made the next fills, so load makes blocks large by itself, and a lone transaction
	// is committed in 0.6 ms instead of 2. More makes fewer blocks where the disk is slow.
	SealIdle time.Duration `yaml:"seal_idle"`
	// SealAfter makes a block once its first transaction has waited so long. Default 20ms.
	SealAfter time.Duration `yaml:"seal_after"`
	// SealOperations makes a block of so many operations. Default 10000.
	SealOperations int `yaml:"seal_operations"`
	// SealBytes makes a block of so many bytes of transactions. Default 4MiB.
	SealBytes int `yaml:"seal_bytes"`
	// Heartbeat makes an empty block after so long, while money accrues. 0, the default: half of
	// the chain's max_step, less a tenth.
	Heartbeat time.Duration `yaml:"heartbeat"`
}

// Default returns the configuration for one machine.
func Default() Config {
	return Config{
		SealIdle: 0, SealAfter: 20 * time.Millisecond,
		SealOperations: 10_000, SealBytes: 4 << 20,
	}
}

// Validate reports the first field that cannot be used.
func (c Config) Validate() error {
	switch {
	case c.SealIdle < 0 || c.SealAfter < c.SealIdle:
		return fmt.Errorf("seal_idle %s must be 0 to seal_after %s", c.SealIdle, c.SealAfter)
	case c.SealAfter > time.Minute:
		return fmt.Errorf("seal_after %s is longer than a minute", c.SealAfter)
	case c.SealOperations < 1 || c.SealBytes < 1 || c.SealBytes > ledger.MaxRecord/2:
		return fmt.Errorf("seal_operations %d and seal_bytes %d must be positive, bytes at most %d",
			c.SealOperations, c.SealBytes, ledger.MaxRecord/2)
	case c.Heartbeat < 0:
		return fmt.Errorf("heartbeat %s is negative", c.Heartbeat)
	}
	return nil
}
