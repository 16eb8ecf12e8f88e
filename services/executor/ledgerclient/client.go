// Package ledgerclient is the chain as an executor sees it: leases, escrows and key sets read from
// a LedgerService, and charges submitted to it from the executor's instance account.
//
// It promises that one instance account has one sender per chain, so that nonces never collide. A
// charge may be submitted again after a crash; being cumulative, it pays nothing twice and costs a
// second fee.
package ledgerclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/submit"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/executor"
)

const (
	keyTime    = 30 * time.Second // a key set read from the chain is believed
	maxKeySets = 4096             // remembered
)

// Client is an executor.Ledger and a keys.Sets over gRPC. Safe for concurrent use.
type Client struct {
	ledger ledgerv1.LedgerServiceClient
	key    sig.PrivateKey
	id     sig.AccountID
	clock  Clock

	mu      sync.Mutex // guards both
	sets    map[account]known
	senders map[string]*submit.Sender // by chain
}

type account struct {
	chain string
	id    sig.AccountID
}

type known struct {
	set   sig.KeySet
	until time.Time
}

var (
	_ executor.Ledger = (*Client)(nil)
	_ keys.Sets       = (*Client)(nil)
)

// Clock is the time by which charges are signed.
type Clock struct {
	Now func() time.Time
	// HeadTime is told the times of blocks; nil for nobody.
	HeadTime func(time.Time)
}

// New returns a client that charges from the instance account of key.
func New(ledger ledgerv1.LedgerServiceClient, key sig.PrivateKey, clock Clock) *Client {
	return &Client{
		ledger: ledger, key: key, id: sig.AccountOfKey(key.Public()), clock: clock,
		sets: map[account]known{}, senders: map[string]*submit.Sender{},
	}
}

// Account returns the instance account, which the operator must give a few UCN for fees.
func (c *Client) Account() sig.AccountID { return c.id }

// Anchor returns the anchor of a chain.
func (c *Client) Anchor(ctx context.Context, chain string) (sig.Anchor, error) {
	m, err := c.ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: chain})
	if err != nil {
		return sig.Anchor{}, fmt.Errorf("read chain %s: %w", chain, err)
	}
	if len(m.GetAnchor()) != sig.AnchorSize {
		return sig.Anchor{}, fmt.Errorf("the ledger's anchor of %s has %d bytes", chain,
			len(m.GetAnchor()))
	}
	return sig.Anchor(m.GetAnchor()), nil
}

// Lease implements executor.Ledger.
func (c *Client) Lease(
	ctx context.Context, chain string, id executor.LeaseID,
) (executor.LeaseState, error) {
	m, err := c.ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{Chain: chain, Lease: id[:]})
	if errors.Is(err, fault.NotFound) || err == nil && m.GetLease() == nil {
		return executor.LeaseState{}, executor.ErrNoLease
	}
	if err != nil {
		return executor.LeaseState{}, fmt.Errorf("read the lease: %w", err)
	}
	l := m.GetLease()
	leaf, err := tx.LeaseStateFromPB(l)
	if err != nil {
		return executor.LeaseState{}, fmt.Errorf("read the lease: %w", err)
	}
	s := executor.LeaseState{
		Leaf: leaf, From: at(l.GetFrom()), Until: at(l.GetUntil()), Budget: l.GetBudget(),
		Paid: l.GetPaid(), Settled: l.GetSettled(), Withheld: l.GetWithheld(),
	}
	if by := m.GetSupersededBy(); len(by) == len(s.SupersededBy) {
		s.SupersededBy = executor.LeaseID(by)
	}
	end := l.GetUntil()
	if l.GetEnd() != 0 {
		s.End = at(l.GetEnd())
		end = min(end, l.GetEnd())
	}
	ran := end - min(end, l.GetFrom())
	s.SilenceOver = at(min(l.GetAccrualFrom(), most) + min(ran, most) + silence)
	return s, nil
}

const (
	// silence accepts what is held back, so long after the end, in ms: docs/domain.md section 3.
	silence = 24 * 3_600_000
	most    = 1 << 53 // ms since 1970: beyond what a chain sees
)

// Time implements executor.Ledger.
func (c *Client) Time(ctx context.Context, chain string) (executor.ChainTime, error) {
	m, err := c.ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: chain})
	if err != nil {
		return executor.ChainTime{}, fmt.Errorf("read chain %s: %w", chain, err)
	}
	var now time.Time
	if m.GetNow() > 0 { // else the ledger does not tell, and the head's may be long ago
		now = at(max(m.GetNow(), m.GetHead().GetTime()))
	}
	head := m.GetHead()
	if head == nil { // before the first block both clocks stand at the genesis
		start := at(m.GetGenesis().GetTime())
		return executor.ChainTime{Block: start, Now: now, Accrual: start}, nil
	}
	return executor.ChainTime{
		Block: at(head.GetTime()), Now: now, Accrual: at(head.GetAccrual()),
	}, nil
}

// AccountOf implements executor.Ledger.
func (c *Client) AccountOf(
	ctx context.Context, chain string, id sig.AccountID,
) (executor.AccountState, error) {
	m, err := c.ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{Chain: chain, Account: id[:]})
	if err != nil && !errors.Is(err, fault.NotFound) {
		return executor.AccountState{}, fmt.Errorf("read the account: %w", err)
	}
	account := m.GetAccount()
	return executor.AccountState{Exists: account != nil, Balance: account.GetBalance()}, nil
}

// Escrow implements executor.Ledger.
func (c *Client) Escrow(
	ctx context.Context, chain string, id executor.EscrowID,
) (executor.Escrow, error) {
	m, err := c.ledger.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{Chain: chain, Escrow: id[:]})
	if errors.Is(err, fault.NotFound) || err == nil && m.GetEscrow() == nil {
		return executor.Escrow{}, executor.ErrNoEscrow
	}
	if err != nil {
		return executor.Escrow{}, fmt.Errorf("read the escrow: %w", err)
	}
	e := m.GetEscrow()
	var s executor.Escrow
	if e.GetPurpose() == chainv1.Purpose_PURPOSE_JOB && len(e.GetSubject()) == len(s.Job) {
		s.Job = executor.JobID(e.GetSubject())
	}
	if len(e.GetOwner()) == len(s.Owner) {
		s.Owner = sig.AccountID(e.GetOwner())
	}
	if assigner := e.GetTerms().GetAssigner(); len(assigner) == len(s.Assigner) {
		s.Assigner = sig.AccountID(assigner)
	}
	s.Free = e.GetBalance() - min(e.GetBalance(), e.GetReserved())
	return s, nil
}

// KeySet implements keys.Sets. What it answers may be half a minute old.
func (c *Client) KeySet(
	ctx context.Context, chain string, id sig.AccountID,
) (sig.KeySet, error) {
	name := account{chain, id}
	c.mu.Lock()
	have, ok := c.sets[name]
	c.mu.Unlock()
	if ok && c.clock.Now().Before(have.until) {
		return have.set, nil
	}
	m, err := c.ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{Chain: chain, Account: id[:]})
	if err != nil && !errors.Is(err, fault.NotFound) {
		return sig.KeySet{}, fmt.Errorf("%w: %w", keys.ErrLookup, err)
	}
	var set sig.KeySet
	if held := m.GetAccount().GetKeys(); held != nil {
		if set, err = sig.ParseKeySet(held); err != nil {
			return sig.KeySet{}, fmt.Errorf("%w: %w", keys.ErrLookup, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sets) >= maxKeySets {
		clear(c.sets)
	}
	c.sets[name] = known{set, c.clock.Now().Add(keyTime)}
	return set, nil
}

func at(ms uint64) time.Time { return time.UnixMilli(int64(min(ms, most))) }
