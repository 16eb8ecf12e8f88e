package wire

import (
	"fmt"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/telemetry"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/segment"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// Config is the configuration of a ledger.
type Config struct {
	// Dir holds a folder per chain: block log, snapshots, index. One process at a time. Needed.
	Dir string `yaml:"dir"`
	// Operator is the account (ucn1...) whose ledger this is: the audience of its tokens. Needed
	// when it runs alone.
	Operator string `yaml:"operator"`
	// Chains are what it holds. At least one.
	Chains []ChainConfig `yaml:"chains"`
	// Solo says when blocks are made.
	Solo solo.Config `yaml:"solo"`
	// PoolTransactions and PoolBytes bound what waits for a block, per chain. Default 131072 and
	// 256MiB.
	PoolTransactions int         `yaml:"pool_transactions"`
	PoolBytes        config.Size `yaml:"pool_bytes"`
	// PoolLine bounds what waits per account. Default 4096.
	PoolLine int `yaml:"pool_line"`
	// CachedKeys is how many senders' keys are kept expanded, 1.6 KiB each. Default 65536.
	CachedKeys int `yaml:"cached_keys"`
	// SnapshotEvery is after how many transactions the state is written down, so that a start need
	// not execute more. Default 1000000, negative never.
	SnapshotEvery int `yaml:"snapshot_every"`
	// Segment is the size of a block log file. Default 64MiB.
	Segment config.Size `yaml:"segment"`
	// RPC is where it listens when it runs alone.
	RPC rpc.ServerConfig `yaml:"rpc"`
	// Telemetry says where traces, metrics and logs go when it runs alone.
	Telemetry telemetry.Config `yaml:"telemetry"`
}

// ChainConfig is one chain.
type ChainConfig struct {
	// Genesis is the path of the chain's genesis, canonical bytes.
	Genesis string `yaml:"genesis"`
	// ProposerKey is the file of the key that signs its blocks: the genesis's validator.
	ProposerKey string `yaml:"proposer_key"`
	// FaucetKey is the file of the faucet account's key; empty for no faucet. Never outside a
	// network for trying things out.
	FaucetKey string `yaml:"faucet_key"`
}

// Default returns the defaults; dir and chains are still needed.
func Default() Config {
	pool := ledger.DefaultPool()
	return Config{
		Solo: solo.Default(), PoolTransactions: pool.Transactions,
		PoolBytes: config.Size(pool.Bytes), PoolLine: pool.Line, CachedKeys: 1 << 16,
		SnapshotEvery: ledger.DefaultSnapshotEvery, Segment: segment.DefaultSegment,
		RPC: rpc.DefaultServer(), Telemetry: telemetry.Default(),
	}
}

// Validate reports the first field that cannot be used.
func (c Config) Validate() error {
	if c.Dir == "" {
		return config.Invalid("dir", "say where the blocks are kept")
	}
	if len(c.Chains) == 0 {
		return config.Invalid("chains", "name at least one genesis")
	}
	for i, one := range c.Chains {
		if one.Genesis == "" || one.ProposerKey == "" {
			return config.Invalid(fmt.Sprintf("chains[%d]", i),
				"genesis and proposer_key are both needed")
		}
	}
	if err := c.Solo.Validate(); err != nil {
		return config.Under("solo", err)
	}
	if err := c.pool().Validate(); err != nil {
		return config.Invalid("pool_transactions", "%v", err)
	}
	return config.Under("rpc", c.RPC.Validate())
}

func (c Config) pool() ledger.PoolLimits {
	return ledger.PoolLimits{
		Transactions: c.PoolTransactions, Bytes: int(c.PoolBytes), Line: c.PoolLine,
	}
}
