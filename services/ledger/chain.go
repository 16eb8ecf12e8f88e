package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
)

// Config bounds what one chain takes.
type Config struct {
	Pool PoolLimits
	// CachedKeys is how many expanded public keys are kept, 1.6 KiB each; 0 means sig.MaxCachedKeys.
	CachedKeys int
	// SnapshotEvery is after how many transactions the state is written down; 0 means
	// DefaultSnapshotEvery, negative never. It bounds how long a start takes.
	SnapshotEvery int
}

// DefaultSnapshotEvery is a start of about ten seconds.
const DefaultSnapshotEvery = 1_000_000

// Deps are what a chain needs from outside.
type Deps struct {
	// Genesis is the chain's; a store that begins otherwise is refused.
	Genesis *block.Genesis
	Store   Store
	// Snapshots and Index may be nil: starts take longer then, and transactions are found only
	// while they are recent.
	Snapshots Snapshots
	Index     Index
	// Orderer makes the orderer that continues after a head.
	Orderer func(head Header) (Orderer, error)
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
	// Log is told of starts, snapshots and failures; nil for nobody.
	Log *slog.Logger
	// Observe is told of every committed block, from the executor's goroutine; nil for nobody.
	Observe func(BlockStats)

	// inForce is called, in tests alone, when a block's state is in force and it is not the head yet.
	inForce func()
	// verifying is called, in tests alone, with how many signatures a submission has verified.
	verifying func(signatures int)
}

// BlockStats says what a block held and how long it took.
type BlockStats struct {
	Height                          uint64
	Transactions, Operations, Bytes int
	// Execute is building or verifying, Durable the log's write, Commit both and what is between.
	Execute, Durable, Commit time.Duration
}

// Chain is one chain of blocks: App of its orderer, and all that users ask about it. Exported
// methods other than those of App may be called at any time from any goroutine.
type Chain struct {
	config  Config
	deps    Deps
	genesis *block.Genesis
	name    string
	anchor  sig.Anchor
	clock   func() time.Time
	log     *slog.Logger

	state   *state.State
	pool    *pool[*candidate]
	ingress *ingress
	recent  *recent
	waste   *debts

	// Of the orderer's goroutine alone: the block that was built and not committed, the list of
	// header hashes with and without the head, and transactions since the last snapshot.
	step       *step
	history    *block.CompactRange
	before     headers
	unsnapped  int
	recordRoom []byte
	// snapping holds a token while a snapshot is written; helpers are Run's goroutines.
	snapping chan struct{}
	helpers  sync.WaitGroup

	// mu guards the head, which changes only after the log has it, and the session.
	mu      sync.RWMutex
	head    Tip
	session *session
	changed chan struct{} // closed, and made anew, when the session fails or another begins
	// moved is closed, and made anew, when the head moves; fullness is of the last blocks.
	moved    chan struct{}
	fullness []Fullness
	supplies supplies
}

var _ App = (*Chain)(nil)

// headers is a list of header hashes as its subtrees' roots.
type headers struct {
	size  uint64
	nodes []tx.Hash
}

// Open brings a chain's state up from its log. It starts nothing. Errors: ErrGenesis, ErrCorrupt,
// or what the store says.
func Open(ctx context.Context, config Config, deps Deps) (*Chain, error) {
	if err := config.Pool.Validate(); err != nil {
		return nil, err
	}
	if config.SnapshotEvery == 0 {
		config.SnapshotEvery = DefaultSnapshotEvery
	}
	if err := deps.Genesis.Validate(); err != nil {
		return nil, fmt.Errorf("open chain: %w", err)
	}
	c := &Chain{
		config: config, deps: deps, genesis: deps.Genesis, name: deps.Genesis.Chain,
		anchor: deps.Genesis.Anchor(), clock: deps.Clock, log: deps.Log,
		pool:   newPool[*candidate](config.Pool),
		recent: newRecent(), waste: newDebts(), changed: make(chan struct{}), moved: make(chan struct{}),
		snapping: make(chan struct{}, 1),
	}
	if c.clock == nil {
		c.clock = time.Now
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.ingress = newIngress(config.CachedKeys, c.waste, c.clock)
	err := c.load(ctx)
	if err == nil {
		err = c.recall(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open chain %q: %w", c.name, err)
	}
	if c.session, err = c.newSession(); err != nil {
		return nil, fmt.Errorf("open chain %q: %w", c.name, err)
	}
	return c, nil
}

// seam is what an orderer sees of a header.
func (c *Chain) seam(h *block.Header, hash Hash) Header {
	return Header{
		Height: h.Height, Round: h.Round, Time: uint64(h.Time), Hash: hash, Prev: Hash(h.Prev),
		Preimage: h.Preimage(c.anchor),
	}
}

// Name returns the chain's id: "main" or a UUID.
func (c *Chain) Name() string { return c.name }

// Finality tells of committed blocks; see Orderer. It closes when the chain stops: one that goes
// on after a failure (Failure) has another.
func (c *Chain) Finality() <-chan Final { return c.current().orderer.Finality() }

// PoolSize returns how many transactions wait, and their bytes.
func (c *Chain) PoolSize() (transactions, bytes int) { return c.pool.size() }
