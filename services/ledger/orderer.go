package ledger

import (
	"context"
	"errors"

	"github.com/united-containers/ucn/chain/sig"
)

// ErrNothing is returned by Build when there is nothing to make a block of. It is no failure.
var ErrNothing = errors.New("nothing to make a block of")

// Orderer owns order and finality, and nothing else: which block comes next, and when it is
// certified. It knows no transaction and no state. Implementations: solo; later others, with the
// same contract (ledgertest.TestOrderer).
type Orderer interface {
	// Submit tells of transactions that the App's pool has taken. It never waits for a block. An
	// orderer whose proposer is elsewhere carries them there. It fails only when ctx has ended.
	// Safe for concurrent use, also before Run and after it.
	Submit(ctx context.Context, b Batch) error
	// Run drives the App from one goroutine until ctx ends, then returns nil. It returns the
	// error of the App, after which nothing is certain until a new start. It is called once.
	Run(ctx context.Context, app App) error
	// Finality tells of committed blocks, in order of height. A receiver that does not keep up
	// misses some, never the order. The channel closes when Run has returned.
	Finality() <-chan Final
}

// App is what an orderer drives: one chain's execution. All calls come from one goroutine.
type App interface {
	// Build makes the block after parent, within max and at max.Time. It is pure in (parent state,
	// pool, time): nothing changes until Commit, so what was built may be thrown away. It returns
	// ErrNothing when there is nothing to put into one and, if max.Empty, no need for an empty one.
	Build(ctx context.Context, parent Header, max Limits) (Block, error)
	// Verify re-executes a block that another proposer made, and fails if anything in it is not
	// what it must be. Nothing changes.
	Verify(ctx context.Context, parent Header, b Block) error
	// Commit makes the block final: durable before it returns, then answered for. An error is
	// fatal: the caller makes no further call. A block that was neither built nor verified here
	// is verified first.
	Commit(ctx context.Context, b Block, c Certificate) error
}

// Batch is a number of transactions, or only how many and how large they are.
type Batch struct {
	Transactions int
	Operations   int
	Bytes        int
	// Raw are their canonical bytes in order; absent where only sums are meant.
	Raw [][]byte
}

// Limits bound the block to build. The chain's own parameters hold as well.
type Limits struct {
	// Time is the block's time, ms since 1970, never before the parent's.
	Time       uint64
	Operations int
	Bytes      int
	// Empty asks for a block without transactions where the chain needs one (money accrues).
	Empty bool
}

// Header is what an orderer needs to know of a block's header.
type Header struct {
	Height uint64
	Round  uint64
	Time   uint64 // ms since 1970
	Hash   Hash
	Prev   Hash
	// Preimage is what certificates sign; Hash is its SHA-256.
	Preimage []byte
}

// Block is a block without its certificate.
type Block struct {
	Header Header
	// Batch is what the block took: sums only.
	Batch Batch
	// Bytes are the canonical bytes of header and body, what other validators are sent.
	Bytes []byte
}

// Signature is one validator's signature of a header.
type Signature struct {
	Key       sig.PublicKey
	Signature sig.Signature
}

// Certificate makes a block final: signatures of its header's preimage, ascending by key.
type Certificate []Signature

// Final says that a block is committed.
type Final struct {
	Height      uint64
	Hash        Hash
	Certificate Certificate
}
