package submit_test

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

var errBroken = fault.New(fault.Unavailable, "PEER_UNAVAILABLE", "the connection broke")

// chain is a ledger of one account in memory, with hooks that break it.
type chain struct {
	ledgerv1.LedgerServiceClient

	// open, before and after are asked for each submission, counted from 1: a connection that does
	// not come to be, one that breaks before the ledger read, or after it did its work.
	open, before, after func(n int) error
	// judge may refuse a transaction, counted over all; "" lets it through.
	judge func(n int, t *tx.Transaction) string
	// reading is asked before each read of account, prices or a transaction.
	reading func(method string) error

	mu        sync.Mutex
	nonce     uint64
	delegates map[uint32]uint64 // their nonces
	keyed     bool
	byteFee   uint64
	head      uint64 // time of the last block, ms
	sends     int
	judged    int
	batches   []int // transactions of each submission that was read
	committed []*tx.Transaction
	results   map[tx.ID]*ledgerv1.SubmitResult
}

func newChain() *chain {
	return &chain{
		results: map[tx.ID]*ledgerv1.SubmitResult{}, delegates: map[uint32]uint64{},
	}
}

// next returns a signer's next nonce.
func (c *chain) next(signer uint32) uint64 {
	if signer == 0 {
		return c.nonce
	}
	return c.delegates[signer]
}

// memos returns the memos of what is in blocks, in order.
func (c *chain) memos() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, t := range c.committed {
		list = append(list, string(t.Memo))
	}
	return list
}

// use spends the account's next nonce as another process would.
func (c *chain) use() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nonce++
}

func (c *chain) read(method string) error {
	if c.reading != nil {
		return c.reading(method)
	}
	return nil
}

func (c *chain) GetChain(
	context.Context, *ledgerv1.GetChainRequest, ...grpc.CallOption,
) (*ledgerv1.GetChainResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &ledgerv1.GetChainResponse{
		OperationFee: 10, ByteFee: c.byteFee, Head: &chainv1.Header{Time: c.head},
	}, c.read("GetChain")
}

func (c *chain) GetAccount(
	_ context.Context, r *ledgerv1.GetAccountRequest, _ ...grpc.CallOption,
) (*ledgerv1.GetAccountResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	account := &chainv1.Account{}
	if c.keyed {
		account.Keys = &chainv1.KeySet{}
	}
	return &ledgerv1.GetAccountResponse{Account: account, PendingNonce: c.next(r.GetSigner())},
		c.read("GetAccount")
}

func (c *chain) GetTransaction(
	_ context.Context, r *ledgerv1.GetTransactionRequest, _ ...grpc.CallOption,
) (*ledgerv1.GetTransactionResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read("GetTransaction"); err != nil {
		return nil, err
	}
	if known := c.results[tx.ID(r.GetId())]; known != nil {
		return &ledgerv1.GetTransactionResponse{Result: known}, nil
	}
	return nil, fault.New(fault.NotFound, "LEDGER_NOT_FOUND", "no such transaction")
}

func (c *chain) SubmitStream(
	ctx context.Context, _ ...grpc.CallOption,
) (grpc.BidiStreamingClient[ledgerv1.SubmitStreamRequest, ledgerv1.SubmitStreamResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends++
	if c.open != nil {
		if err := c.open(c.sends); err != nil {
			return nil, err
		}
	}
	return &stream{ctx: ctx, chain: c, number: c.sends}, nil
}

type stream struct {
	grpc.BidiStreamingClient[ledgerv1.SubmitStreamRequest, ledgerv1.SubmitStreamResponse]
	ctx     context.Context
	chain   *chain
	number  int
	request *ledgerv1.SubmitStreamRequest
}

func (s *stream) Send(r *ledgerv1.SubmitStreamRequest) error {
	s.request = r
	return nil
}

func (s *stream) CloseSend() error { return nil }

func (s *stream) Recv() (*ledgerv1.SubmitStreamResponse, error) {
	c := s.chain
	if s.request == nil {
		return nil, io.EOF
	}
	if c.before != nil {
		if err := c.before(s.number); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	out := &ledgerv1.SubmitStreamResponse{}
	c.batches = append(c.batches, len(s.request.GetTransactions()))
	for _, raw := range s.request.GetTransactions() {
		out.Results = append(out.Results, c.take(raw))
	}
	c.mu.Unlock()
	if c.after != nil {
		if err := c.after(s.number); err != nil {
			return nil, err
		}
	}
	return out, s.ctx.Err()
}

// take executes one transaction as a ledger does: what is known is answered with what became of it.
func (c *chain) take(raw []byte) *ledgerv1.SubmitResult {
	t, err := tx.Decode(raw)
	if err != nil {
		return refusal("MALFORMED")
	}
	id := t.ID(sig.Anchor{})
	if known := c.results[id]; known != nil {
		return known
	}
	c.judged++
	if c.judge != nil {
		if reason := c.judge(c.judged, t); reason != "" {
			return refusal(reason)
		}
	}
	hasKeys := len(t.Signature.Keys.Keys) > 0
	switch next := c.next(t.Signer); {
	case t.Nonce < next:
		return refusal("NONCE_OLD")
	case t.Nonce > next:
		return refusal("NONCE_FUTURE")
	case t.Signer == 0 && hasKeys == c.keyed, t.Signer != 0 && hasKeys:
		return refusal("BAD_SIGNATURE")
	case uint64(t.Fee) < c.byteFee*uint64(len(t.BodyBytes())):
		return refusal("FEE_TOO_LOW")
	}
	if t.Signer == 0 {
		c.nonce, c.keyed = c.nonce+1, true
	} else {
		c.delegates[t.Signer]++
	}
	c.committed = append(c.committed, t)
	c.results[id] = &ledgerv1.SubmitResult{
		Height: uint64(len(c.committed)), Finality: ledgerv1.Finality_FINALITY_COMMITTED,
		Receipt: &chainv1.Receipt{Status: chainv1.Status_STATUS_OK},
	}
	return c.results[id]
}

func refusal(reason string) *ledgerv1.SubmitResult {
	return &ledgerv1.SubmitResult{ErrorReason: reason, ErrorMessage: "refused: " + reason}
}

// times returns a hook that fails the first n times.
func times(n int, err error) func(int) error {
	return func(int) error {
		if n--; n >= 0 {
			return err
		}
		return nil
	}
}

var errAny = errors.New("any error")
