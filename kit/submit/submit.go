package submit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Bounds of a Sender.
const (
	MaxGathered = 256     // transactions of one submission; more wait for the next
	MaxWaiting  = 1 << 14 // calls that wait for their submission; more are refused
	maxBytes    = 1 << 20 // bytes of one submission, the transaction that passes it included last
	maxSigned   = 4       // how often one operation list is signed
	maxSends    = 6       // how often the same bytes are sent
	sendTimeout = 20 * time.Second
	firstPause  = 200 * time.Millisecond // before the same is sent again; doubles
	// feeHeadroom multiplies the fee of the moment: prices rise with fullness, and what is charged
	// is never more than the price.
	feeHeadroom = 4
)

// Reasons that this package refuses with.
const (
	ReasonContended  fault.Reason = "SUBMIT_CONTENDED"
	ReasonOperations fault.Reason = "BAD_OPERATIONS"
	ReasonBusy       fault.Reason = "SUBMIT_BUSY"
	ReasonClosed     fault.Reason = "SUBMIT_CLOSED"
	ReasonChainTime  fault.Reason = "CHAIN_TIME_TOO_FAR"
)

// ValidFor is how long after its signing a transaction may still come into a block.
const ValidFor = 10 * time.Minute

// MaxAhead is how far the last block may be ahead of the own clock. By what a ledger says nothing
// is signed that could come into a block much later than the own clock tells.
const MaxAhead = 24 * time.Hour

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
	// Signer is 0 for the account's key set, n when the key is that of its delegate n, which has a
	// nonce of its own: a sender for each signer of an account is in nobody's way.
	Signer uint32
	Chain  string
	Anchor sig.Anchor
	Now    func() time.Time
	// HeadTime is told the last block's time when that was read; nil for nobody.
	HeadTime func(time.Time)
}

// Sender acts for one account as one of its signers. Only one Sender should act as the same signer
// at a time; two work, but each makes the other sign again. Safe for concurrent use.
type Sender struct {
	cfg Config

	// life ends with Close: what is under way is given up.
	life context.Context
	end  context.CancelFunc
	// leader counts the goroutine that submits, of which there is at most one.
	leader sync.WaitGroup

	committed atomic.Bool // something of it came into a block

	// mu guards waiting, leading and closed: whoever finds nobody leading starts the leader.
	mu      sync.Mutex
	waiting []*call
	leading bool
	closed  bool

	// What only the leader touches.
	known     bool // the fields below are read from the ledger
	nonce     uint64
	first     bool // the account has no key set on the chain: the next transaction brings it
	operation uint64
	byteFee   uint64
	head      time.Time // the last block's: what is signed must be valid after it
}

// call is one Send. Its fields belong to the leader until done is closed.
type call struct {
	ctx        context.Context
	operations []tx.Operation
	memo       []byte
	signed     *tx.Transaction
	signs      int // how often it was signed, or sent again because it could not be
	// lost: bytes with the signed nonce may have reached the ledger, or may yet, although no answer
	// came. While it stands nothing is signed with another nonce: both could come into blocks.
	lost    bool
	earlier []tx.ID // that were signed with the same nonce before, and lost
	err     error
	result  Result
	done    chan struct{}
}

// New returns a Sender. A zero account in the config means the key's own.
func New(cfg Config) *Sender {
	if cfg.Account.IsZero() {
		cfg.Account = sig.AccountOfKey(cfg.Key.Public())
	}
	life, end := context.WithCancel(context.Background())
	return &Sender{cfg: cfg, life: life, end: end}
}

// Account returns whom the sender acts for.
func (s *Sender) Account() sig.AccountID { return s.cfg.Account }

// Committed reports whether a transaction of this sender came into a block, failed or not.
func (s *Sender) Committed() bool { return s.committed.Load() }

// Send signs the operations as one transaction and waits until it is committed. Calls made at the
// same time keep the order in which they came.
//
// Errors: *FailedError when it is in a block and failed; ErrUnknown; ctx's own, after which it may
// still be committed; any other, such as a *fault.Error with the ledger's reason, when it is in no
// block and will be in none.
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
	c := &call{ctx: ctx, operations: operations, memo: memo, done: make(chan struct{})}
	if err := s.enter(c); err != nil {
		return Result{}, err
	}
	select {
	case <-c.done:
		return c.result, c.err
	case <-ctx.Done():
		s.leave(c)
		return Result{}, ctx.Err()
	}
}

// Close gives up what is under way, of which ErrUnknown tells where it matters, and waits for it.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.leader.Wait()
}

// enter puts a call in the line and sees to it that somebody leads.
func (s *Sender) enter(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed()
	case len(s.waiting) >= MaxWaiting:
		return fault.New(fault.ResourceExhausted, ReasonBusy,
			"%d transactions of this account wait already; try again later", MaxWaiting)
	}
	s.waiting = append(s.waiting, c)
	if !s.leading {
		s.leading = true
		s.leader.Go(s.lead)
	}
	return nil
}

// leave takes a call out of the line whose caller went away, if its turn has not come.
func (s *Sender) leave(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *call) bool { return other == c })
}

func errClosed() error {
	return fault.New(fault.Unavailable, ReasonClosed, "this process is stopping")
}

// lead submits what waits until nothing does.
func (s *Sender) lead() {
	for {
		s.mu.Lock()
		n := min(len(s.waiting), MaxGathered)
		if n == 0 {
			s.leading, s.waiting = false, nil
			s.mu.Unlock()
			return
		}
		batch := slices.Clone(s.waiting[:n])
		s.waiting = slices.Delete(s.waiting, 0, n)
		s.mu.Unlock()
		s.submit(batch)
	}
}

// submit settles every call of the batch. It works under the trace of the first, but goes on when
// that one's caller leaves.
func (s *Sender) submit(batch []*call) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(batch[0].ctx))
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	for len(batch) > 0 {
		if s.life.Err() != nil {
			s.settleAll(batch, errClosed())
			return
		}
		if err := s.refresh(ctx); err != nil {
			s.settleAll(batch, err)
			return
		}
		now := batch
		if s.first { // the account's first transaction brings its key set: alone
			now = batch[:1]
		}
		now = s.signAll(now)
		rest := batch[len(now):]
		signed := slices.DeleteFunc(slices.Clone(now), (*call).settled)
		batch = append(s.attempt(ctx, signed), rest...)
	}
}

// signAll signs calls until they fill a submission and returns those it came to. Calls that cannot
// be signed, or have been too often, are settled.
func (s *Sender) signAll(calls []*call) []*call {
	size := 0
	for i, c := range calls {
		if size >= maxBytes {
			return calls[:i]
		}
		if err := s.sign(c); err != nil {
			c.settle(Result{}, err)
			continue
		}
		size += len(c.signed.Append(nil))
	}
	return calls
}

// attempt sends signed calls, and returns those that must be signed again.
func (s *Sender) attempt(ctx context.Context, calls []*call) (again []*call) {
	if len(calls) == 0 {
		return nil
	}
	results, err := s.send(ctx, calls)
	if err != nil {
		s.known = false
		for _, c := range calls {
			s.unanswered(c, err)
		}
		return nil
	}
	for i, c := range calls {
		if !s.judge(ctx, c, results[i]) {
			again = append(again, c)
		}
	}
	if len(again) > 0 {
		s.known = false
		if wait := pauseFor(again); wait > 0 {
			pause(ctx, wait)
		}
	}
	return again
}

// pauseFor is how long calls are better not sent again at once: the pool is full, or what has the
// nonce of a lost one must first come into a block.
func pauseFor(calls []*call) (wait time.Duration) {
	for _, c := range calls {
		if c.lost {
			wait = max(wait, firstPause<<c.signs)
			continue
		}
		switch fault.ReasonOf(c.err) {
		case reasonPoolFull:
			wait = max(wait, firstPause)
		case reasonLag:
			wait = max(wait, firstPause<<c.signs)
		}
	}
	return wait
}

// unanswered settles a call whose sending failed for good.
func (s *Sender) unanswered(c *call, err error) {
	c.settle(Result{ID: c.signed.ID(s.cfg.Anchor)}, c.unless(err, s.cfg.Anchor))
}

// unless returns err, as ErrUnknown if the call is lost.
func (c *call) unless(err error, anchor sig.Anchor) error {
	if !c.lost {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrUnknown, c.signed.ID(anchor), err)
}

// Why the same may be sent again a little later.
const (
	// reasonPoolFull: too many transactions wait at the ledger.
	reasonPoolFull fault.Reason = "POOL_FULL"
	// reasonLag: the ledger refuses and cannot look up now whether the same is in a block.
	reasonLag fault.Reason = "INDEX_LAGS"
)

// mendable tells whether signing anew may help against a refusal.
func (s *Sender) mendable(reason string) bool {
	switch reason {
	case "NONCE_OLD", "NONCE_FUTURE", "NONCE_TAKEN", "FEE_TOO_LOW", "EXPIRED", "DROPPED",
		string(reasonPoolFull), string(reasonLag):
		return true
	case "BAD_SIGNATURE":
		return s.first // the set came into force meanwhile
	}
	return false
}

// judge settles a call by what the ledger said, unless it must be signed again.
func (s *Sender) judge(ctx context.Context, c *call, r *ledgerv1.SubmitResult) (settled bool) {
	refusal := r.GetErrorReason()
	if refusal == "" {
		s.first = false
		s.commit(c, c.signed.ID(s.cfg.Anchor), r)
		return true
	}
	c.err = fault.New(fault.FailedPrecondition, reasonOf(refusal), "%s", r.GetErrorMessage())
	if c.lost && s.found(ctx, c, refusal) {
		return true
	}
	if s.mendable(refusal) && c.ctx.Err() == nil {
		return false
	}
	s.known = false
	s.unanswered(c, c.err)
	return true
}

// found settles a lost call if an earlier sending is in a block, or nobody can say. If none is and
// the refusal means that none will be, the call is no longer lost.
func (s *Sender) found(ctx context.Context, c *call, refusal string) bool {
	for _, id := range append(c.earlier, c.signed.ID(s.cfg.Anchor)) {
		known, err := s.lookUp(ctx, id)
		if err != nil {
			s.known = false
			s.unanswered(c, err)
			return true
		}
		if known != nil {
			s.first = false
			s.commit(c, id, known)
			return true
		}
	}
	switch refusal {
	case "NONCE_OLD", "EXPIRED": // the nonce is used up by a block, or the time is over
		c.lost, c.earlier = false, nil
	}
	return false
}

// reasonOf takes a peer's reason as ours if it is one.
func reasonOf(text string) fault.Reason {
	if r := fault.Reason(text); r.Valid() {
		return r
	}
	return "LEDGER_REFUSED"
}

// commit settles a call that is in a block.
func (s *Sender) commit(c *call, id tx.ID, r *ledgerv1.SubmitResult) {
	s.committed.Store(true)
	result := Result{ID: id, Height: r.GetHeight(), Receipt: r.GetReceipt()}
	if r.GetReceipt().GetStatus() != chainv1.Status_STATUS_OK {
		c.settle(result, &FailedError{ID: id, Receipt: r.GetReceipt()})
		return
	}
	c.settle(result, nil)
}

func (c *call) settle(r Result, err error) {
	c.result, c.err = r, err
	close(c.done)
}

func (c *call) settled() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// settleAll ends calls that will not be sent again: each with what the ledger said of it, else with
// err. What is lost may still come to the ledger, as in sign.
func (s *Sender) settleAll(calls []*call, err error) {
	for _, c := range calls {
		said := err
		if c.err != nil {
			said = c.err
		}
		if c.signed == nil {
			c.settle(Result{}, said)
			continue
		}
		s.unanswered(c, said)
	}
}

// now is the own time, or the chain's when that is ahead: by the chain's it is judged.
func (s *Sender) now() time.Time {
	if now := s.cfg.Now(); now.After(s.head) {
		return now
	}
	return s.head
}

// sign signs a call with the next nonce. While it is lost it is signed with the nonce it has, which
// one block takes once; if that is not the next one, its bytes are sent again as they are and the
// answer tells who has the nonce.
func (s *Sender) sign(c *call) error {
	if c.signs >= maxSigned {
		err := fault.New(fault.Aborted, ReasonContended,
			"signed %d times and refused each time; another process may be using this account",
			maxSigned).Because(c.err)
		return c.unless(err, s.cfg.Anchor)
	}
	if c.lost && s.nonce != c.signed.Nonce {
		if s.nonce < c.signed.Nonce {
			return c.unless(c.err, s.cfg.Anchor)
		}
		c.signs++
		return nil
	}
	body := tx.Body{
		Chain: s.cfg.Chain, Account: s.cfg.Account, Signer: s.cfg.Signer, Nonce: s.nonce,
		ValidUntil: tx.Millis(s.now().Add(ValidFor).UnixMilli()),
		Operations: c.operations, Memo: c.memo,
		Fee: 1<<63 - 1, // the widest, so that the length below is an upper bound
	}
	size := uint64(len(body.Append(nil)))
	body.Fee = tx.Grains(feeHeadroom * (uint64(len(c.operations))*s.operation + size*s.byteFee))
	set := sig.SingleKey(s.cfg.Key.Public())
	signed, err := tx.Sign(body, s.cfg.Anchor, set, s.first, s.cfg.Key)
	if err != nil {
		return fault.New(fault.InvalidArgument, ReasonOperations, "%v", err)
	}
	if c.lost {
		c.earlier = append(c.earlier, c.signed.ID(s.cfg.Anchor))
	}
	c.signed = signed
	c.signs++
	s.nonce++
	return nil
}
