// Package wire builds a ledger from its configuration: block logs in segment files, an index in
// Pebble, the solo orderer, and the gRPC service. It is used by the ledger's own main and by
// whoever runs several services in one process.
package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/clock"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/telemetry"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/pebble"
	"github.com/united-containers/ucn/services/ledger/segment"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// Deps are what a ledger needs from its process.
type Deps struct {
	// Telemetry is the service's. Needed.
	Telemetry *telemetry.Service
	// Health is told when a chain stops because of a failure; nil for nobody.
	Health func(service string, serving bool)
	// Elapsed replaces the machine's count of the time that passes, for tests that simulate it.
	Elapsed func() time.Duration
}

// Ledger is a ledger that holds its files and is ready to run.
type Ledger struct {
	server *server.Server
	chains []*opened
}

// opened is a chain with what it keeps open.
type opened struct {
	chain *ledger.Chain
	log   *segment.Log
	index *pebble.Index
}

// New opens all chains: it locks their folders, verifies their logs and brings up their states.
// Run lets go of them; call Close if Run is never called.
func New(ctx context.Context, c Config, deps Deps) (*Ledger, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l := &Ledger{}
	in := server.Deps{
		Log: deps.Telemetry.Log, Tracers: deps.Telemetry.Tracers, Meters: deps.Telemetry.Meters,
		Health: deps.Health,
	}
	for _, one := range c.Chains {
		o, err := open(ctx, c, one, deps)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("ledger: %w", err), l.Close())
		}
		l.chains = append(l.chains, o)
		in.Chains = append(in.Chains, o.chain)
		if one.FaucetKey != "" {
			if in.Faucet, err = loadKey(one.FaucetKey); err != nil {
				return nil, errors.Join(fmt.Errorf("ledger: %w", err), l.Close())
			}
		}
	}
	var err error
	if l.server, err = server.New(server.Config{}, in); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// open opens one chain.
func open(ctx context.Context, c Config, one ChainConfig, deps Deps) (*opened, error) {
	genesis, err := ReadGenesis(one.Genesis)
	if err != nil {
		return nil, err
	}
	key, err := loadKey(one.ProposerKey)
	if err != nil {
		return nil, err
	}
	if genesis.Validators.Validators[0].Key != key.Public() {
		return nil, fmt.Errorf("key %s is not the proposer of chain %q", one.ProposerKey,
			genesis.Chain)
	}
	dir := filepath.Join(c.Dir, genesis.Chain)
	log, anchor := deps.Telemetry.Log, ledger.Hash(genesis.Anchor())
	o := &opened{}
	o.log, err = segment.Open(segment.Config{
		Dir: dir, Anchor: anchor, SegmentBytes: int64(c.Segment), Log: log,
	})
	if err != nil {
		return nil, err
	}
	head, _ := o.log.Head()
	o.index, err = pebble.Open(pebble.Config{
		Dir: filepath.Join(dir, "index"), Anchor: anchor, Head: head, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	observer, err := server.NewObserver(deps.Telemetry.Meters, genesis.Chain)
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	// One clock for what is taken in and for what blocks say: a jump of the wall clock must neither
	// stall the chain nor make it refuse what it would include.
	steady := clock.New(clock.Deps{Log: log, Elapsed: deps.Elapsed})
	o.chain, err = ledger.Open(ctx, ledger.Config{
		Pool: c.pool(), CachedKeys: c.CachedKeys, SnapshotEvery: c.SnapshotEvery,
	}, ledger.Deps{
		Genesis: genesis, Store: o.log, Index: o.index, Snapshots: segment.OpenSnapshots(dir),
		Log: log, Observe: observer.Block, Clock: steady.Now,
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			steady.Raise(time.UnixMilli(int64(head.Time)))
			step := time.Duration(genesis.Params.MaxStep) * time.Millisecond
			return solo.New(c.Solo, step, solo.Deps{Key: key, Head: head, Clock: steady.Now})
		},
	})
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

func (o *opened) close() error {
	var err error
	if o.index != nil {
		err = o.index.Close()
	}
	return errors.Join(err, o.log.Close())
}

// Register adds the ledger's service to a gRPC server.
func (l *Ledger) Register(r grpc.ServiceRegistrar) { l.server.Register(r) }

// Sets answers which key sets are in force on the ledger's chains, without a call.
func (l *Ledger) Sets() keys.Sets { return l.server }

// Chain returns a chain by name, nil if the ledger does not hold it.
func (l *Ledger) Chain(name string) *ledger.Chain {
	for _, o := range l.chains {
		if o.chain.Name() == name {
			return o.chain
		}
	}
	return nil
}

// Run makes blocks until ctx ends, then closes the files.
func (l *Ledger) Run(ctx context.Context, ready func()) error {
	var group run.Group
	var names []string
	for _, o := range l.chains {
		names = append(names, "chain "+o.chain.Name())
		group.Add("chain "+o.chain.Name(), run.Func(o.chain.Run))
	}
	group.Add("server", run.Func(l.server.Run), names...)
	return errors.Join(group.Run(ctx, ready), l.Close())
}

// Close lets go of the files. It must not be called while Run goes on.
func (l *Ledger) Close() error {
	var all []error
	for _, o := range l.chains {
		all = append(all, o.close())
	}
	l.chains = nil
	return errors.Join(all...)
}

// ReadGenesis reads a genesis from a file of its canonical bytes.
func ReadGenesis(path string) (*block.Genesis, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read genesis: %w", err)
	}
	g, err := block.DecodeGenesis(raw)
	if err != nil {
		return nil, fmt.Errorf("genesis %s: %w", path, err)
	}
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("genesis %s: %w", path, err)
	}
	return g, nil
}

func loadKey(path string) (sig.PrivateKey, error) {
	stored, err := keys.Read(path)
	if err != nil {
		return sig.PrivateKey{}, fmt.Errorf("read key %s: %w", path, err)
	}
	key, err := stored.Signing(nil)
	if err != nil {
		return sig.PrivateKey{}, fmt.Errorf("key %s: %w", path, err)
	}
	return key, nil
}
