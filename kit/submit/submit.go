package submit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Bounds of a Sender.
const (
	MaxGathered = 256 // transactions of one submission; more wait for the next
	maxSigned   = 4   // how often one operation list is signed
	maxSends    = 6   // how often the same bytes are sent
	validFor    = 10 * time.Minute
	sendTimeout = 20 * time.Second
	// feeHeadroom multiplies the fee of the moment: prices rise with fullness, and what is charged
	// is never more than the price.
	feeHeadroom = 4
)

// ErrUnknown: the ledger did not say what became of a transaction. It may be in a block later, or
// never; the transaction's id is in the text.
var ErrUnknown = errors.New("the ledger did not say what became of the transaction")

// FailedError: the transaction is in a block and did nothing but cost its fee.
type FailedError struct {
	ID      tx.ID
	Receipt *chainv1.Receipt
}

// Error implements error.
func (e *FailedError) Error() string {
	return fmt.Sprintf("transaction %s failed at operation %d: %s", e.ID,
		e.Receipt.GetFailedOperation(), e.Receipt.GetReason())
}

// Result is a committed transaction.
type Result struct {
	ID      tx.ID
	Height  uint64
	Receipt *chainv1.Receipt
}

// Config is what a Sender stands on.
type Config struct {
	Ledger ledgerv1.LedgerServiceClient
	Key    sig.PrivateKey
	// Account is the key's unless the account's key set was rotated to this key.
	Account sig.AccountID
	Chain   string
	Anchor  sig.Anchor
	Now     func() time.Time
}

// Sender acts for one account. Only one Sender should act for an account at a time; two work, but
// each makes the other sign again. Safe for concurrent use.
type Sender struct {
	cfg Config

	// mu guards waiting and leading: whoever finds nobody leading submits for all.
	mu      sync.Mutex
	waiting []*call
	leading bool

	// What only the leader touches.
	known     bool // the fields below are read from the ledger
	nonce     uint64
	first     bool
	operation uint64
	byteFee   uint64
}

type call struct {
	operations []tx.Operation
	memo       []byte
	signed     *tx.Transaction
	result     Result
	err        error
	done       chan struct{}
}

// New returns a Sender. A zero account in the config means the key's own.
func New(cfg Config) *Sender {
	if cfg.Account.IsZero() {
		cfg.Account = sig.AccountOfKey(cfg.Key.Public())
	}
	return &Sender{cfg: cfg}
}

// Account returns whom the sender acts for.
func (s *Sender) Account() sig.AccountID { return s.cfg.Account }

// Send signs the operations as one transaction and waits until it is committed.
//
// Errors: *FailedError when it is in a block and failed; ErrUnknown; a *fault.Error when the
// ledger refused it for what it says; ctx's own.
func (s *Sender) Send(ctx context.Context, operations ...tx.Operation) (Result, error) {
	return s.SendMemo(ctx, nil, operations...)
}

// SendMemo is Send with a memo of at most tx.MaxMemo bytes.
func (s *Sender) SendMemo(
	ctx context.Context, memo []byte, operations ...tx.Operation,
) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	c := &call{operations: operations, memo: memo, done: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, c)
	lead := !s.leading
	if lead {
		s.leading = true
	}
	s.mu.Unlock()
	if lead {
		s.lead(ctx)
	}
	select {
	case <-c.done:
		return c.result, c.err
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// lead submits what waits until nothing does. It goes on for others when its own ctx ends.
func (s *Sender) lead(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for {
		s.mu.Lock()
		n := min(len(s.waiting), MaxGathered)
		if n == 0 {
			s.leading = false
			s.mu.Unlock()
			return
		}
		batch := s.waiting[:n:n]
		s.waiting = s.waiting[n:]
		s.mu.Unlock()
		s.submit(ctx, batch)
	}
}

// submit settles every call of the batch.
func (s *Sender) submit(ctx context.Context, batch []*call) {
	for range maxSigned {
		if len(batch) == 0 {
			return
		}
		if err := s.refresh(ctx); err != nil {
			settleAll(batch, err)
			return
		}
		now := batch
		if s.first { // the account's first transaction brings its key set: alone
			now = batch[:1]
		}
		again := s.attempt(ctx, now)
		batch = append(again, batch[len(now):]...)
	}
	settleAll(batch, fault.New(fault.Aborted, "SUBMIT_CONTENDED",
		"another process keeps using this account's nonces; stop it or use another account"))
}

// attempt signs and sends the calls, and returns those that must be signed again.
func (s *Sender) attempt(ctx context.Context, calls []*call) (again []*call) {
	signed := calls[:0:0]
	for _, c := range calls {
		if err := s.sign(c); err != nil {
			c.settle(Result{}, err)
			continue
		}
		signed = append(signed, c)
	}
	if len(signed) == 0 {
		return nil
	}
	results, err := s.send(ctx, signed)
	if err != nil {
		s.known = false
		for _, c := range signed {
			id := c.signed.ID(s.cfg.Anchor)
			c.settle(Result{ID: id}, fmt.Errorf("%w: %s: %w", ErrUnknown, id, err))
		}
		return nil
	}
	for i, c := range signed {
		if !s.judge(c, results[i]) {
			again = append(again, c)
		}
	}
	if len(again) > 0 {
		s.known = false
	} else {
		s.first = false
	}
	return again
}

// judge settles a call by what the ledger said, unless it must be signed again.
func (s *Sender) judge(c *call, r *ledgerv1.SubmitResult) (settled bool) {
	id := c.signed.ID(s.cfg.Anchor)
	switch r.GetErrorReason() {
	case "":
		result := Result{ID: id, Height: r.GetHeight(), Receipt: r.GetReceipt()}
		if r.GetReceipt().GetStatus() != chainv1.Status_STATUS_OK {
			c.settle(result, &FailedError{ID: id, Receipt: r.GetReceipt()})
		} else {
			c.settle(result, nil)
		}
		return true
	case "NONCE_OLD", "NONCE_FUTURE", "NONCE_TAKEN", "FEE_TOO_LOW", "EXPIRED", "DROPPED",
		"BAD_SIGNATURE": // the last: the set came into force meanwhile
		if r.GetErrorReason() != "BAD_SIGNATURE" || s.first {
			c.err = fault.New(fault.Aborted, fault.Reason(r.GetErrorReason()), "%s",
				r.GetErrorMessage())
			return false
		}
	}
	s.known = false
	c.settle(Result{ID: id}, fault.New(fault.FailedPrecondition,
		fault.Reason(r.GetErrorReason()), "%s", r.GetErrorMessage()))
	return true
}

func (c *call) settle(r Result, err error) {
	c.result, c.err = r, err
	close(c.done)
}

func settleAll(calls []*call, err error) {
	for _, c := range calls {
		if c.err != nil {
			err = c.err
		}
		c.settle(Result{}, err)
	}
}

// refresh reads nonce, key set and prices when they are not known.
func (s *Sender) refresh(ctx context.Context) error {
	if s.known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	chain, err := s.cfg.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: s.cfg.Chain})
	if err != nil {
		return fmt.Errorf("read the chain's prices: %w", err)
	}
	account, err := s.cfg.Ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{
		Chain: s.cfg.Chain, Account: s.cfg.Account[:],
	})
	if err != nil {
		return fmt.Errorf("read the account: %w", err)
	}
	s.operation, s.byteFee = chain.GetOperationFee(), chain.GetByteFee()
	s.nonce = account.GetPendingNonce()
	s.first = account.GetAccount().GetKeys() == nil
	s.known = true
	return nil
}

func (s *Sender) sign(c *call) error {
	body := tx.Body{
		Chain: s.cfg.Chain, Account: s.cfg.Account, Nonce: s.nonce,
		ValidUntil: tx.Millis(s.cfg.Now().Add(validFor).UnixMilli()),
		Operations: c.operations, Memo: c.memo,
		Fee: 1<<63 - 1, // the widest, so that the length below is an upper bound
	}
	size := uint64(len(body.Append(nil)))
	body.Fee = tx.Grains(feeHeadroom * (uint64(len(c.operations))*s.operation + size*s.byteFee))
	set := sig.SingleKey(s.cfg.Key.Public())
	signed, err := tx.Sign(body, s.cfg.Anchor, set, s.first, s.cfg.Key)
	if err != nil {
		return fault.New(fault.InvalidArgument, "BAD_OPERATIONS", "%v", err)
	}
	c.signed = signed
	s.nonce++
	return nil
}

// send brings the transactions to the ledger in their order and returns its answers. It sends the
// same bytes again while the connection breaks.
func (s *Sender) send(ctx context.Context, calls []*call) ([]*ledgerv1.SubmitResult, error) {
	request := &ledgerv1.SubmitStreamRequest{
		Chain: s.cfg.Chain, Wait: ledgerv1.Finality_FINALITY_COMMITTED,
	}
	for _, c := range calls {
		request.Transactions = append(request.Transactions, c.signed.Append(nil))
	}
	var err error
	for try := range maxSends {
		if try > 0 {
			pause(ctx, 100*time.Millisecond<<try)
		}
		var results []*ledgerv1.SubmitResult
		if results, err = s.sendOnce(ctx, request); err == nil {
			return results, nil
		}
		if kind := fault.KindOf(err); kind == fault.InvalidArgument ||
			kind == fault.PermissionDenied || kind == fault.Unauthenticated {
			return nil, err
		}
	}
	return nil, err
}

func (s *Sender) sendOnce(
	ctx context.Context, request *ledgerv1.SubmitStreamRequest,
) ([]*ledgerv1.SubmitResult, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	stream, err := s.cfg.Ledger.SubmitStream(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(request); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	response, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if got, want := len(response.GetResults()), len(request.GetTransactions()); got != want {
		return nil, fmt.Errorf("the ledger answered %d of %d transactions", got, want)
	}
	return response.GetResults(), nil
}

func pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
