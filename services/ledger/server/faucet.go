package server

import (
	"context"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

const (
	// faucetValid is how long a grant may wait for its block.
	faucetValid = time.Minute
	// maxGrants is how many grants are remembered of which nobody knows yet whether they will be in a
	// block.
	maxGrants = 1024
)

// grants are the signed grants of which nobody knows yet whether they will be in a block. They are
// sent again as they are: another one could be in a block beside them.
type grants map[granted]grant

type granted struct {
	chain   string
	account sig.AccountID
}

type grant struct {
	raw        []byte
	validUntil tx.Millis
}

// RequestFaucet implements the service. Whoever was granted stands in the chain: nothing else is
// kept on disk, so a restart or a lost index grants nothing twice.
func (s *Server) RequestFaucet(ctx context.Context, r *ledgerv1.RequestFaucetRequest) (
	*ledgerv1.RequestFaucetResponse, error,
) {
	if err := rpc.RequireScope(ctx, Scope); err != nil {
		return nil, err
	}
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	caller, _ := rpc.CallerFrom(ctx)
	account := sig.AccountID(caller.Account)
	if err := s.hasFaucet(c); err != nil {
		return nil, err
	}
	s.faucet.Lock()
	defer s.faucet.Unlock()
	of := granted{c.Name(), account}
	done, err := c.Granted(account)
	if err != nil {
		return nil, err
	}
	if done {
		delete(s.grants, of)
		return nil, fault.New(fault.AlreadyExists, ledger.ReasonFaucetUsed,
			"this account has got the faucet's amount before; it is given once")
	}
	// The caller may go away; whether the grant happened must be known before the next one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), faucetValid)
	defer cancel()
	result, err := s.give(ctx, c, of)
	if err != nil {
		return nil, err
	}
	amount := uint64(c.Genesis().FaucetAmount)
	return &ledgerv1.RequestFaucetResponse{Result: result, Amount: amount}, nil
}

func (s *Server) hasFaucet(c *ledger.Chain) error {
	g := c.Genesis()
	if g.Faucet.IsZero() || s.deps.Faucet.IsZero() ||
		sig.AccountOfKey(s.deps.Faucet.Public()) != g.Faucet {
		return fault.New(fault.FailedPrecondition, ledger.ReasonNoFaucet,
			"chain %q has no faucet here: ask somebody for a transfer", c.Name())
	}
	return nil
}

// give sends the grant that may be in a block yet, or if there is none, or it cannot be in one any
// more, a new one.
func (s *Server) give(ctx context.Context, c *ledger.Chain, of granted) (
	*ledgerv1.SubmitResult, error,
) {
	if g, waits := s.grants[of]; waits {
		result, err := s.send(ctx, c, of, g)
		if _, open := s.grants[of]; err != nil || open || result.GetErrorReason() == "" {
			return result, err
		}
	}
	if err := s.roomForGrant(c); err != nil {
		return nil, err
	}
	g, err := s.signGrant(c, of.account)
	if err != nil {
		return nil, err
	}
	s.grants[of] = g
	return s.send(ctx, c, of, g)
}

// send submits a grant, and forgets it once it is in a block, or in none and can come into none: it
// was refused, so it is not in the pool, and nobody else has its bytes.
func (s *Server) send(ctx context.Context, c *ledger.Chain, of granted, g grant) (
	*ledgerv1.SubmitResult, error,
) {
	result, err := s.submit(ctx, c, g.raw, ledger.Committed)
	if err != nil {
		return nil, err
	}
	switch fault.Reason(result.GetErrorReason()) {
	case ledger.ReasonLag, ledger.ReasonPoolFull, ledger.ReasonWaste: // nobody looked it up
	default:
		delete(s.grants, of)
	}
	return result, nil
}

// roomForGrant forgets grants whose time is over and that wait for no block, and fails if too many
// are left.
func (s *Server) roomForGrant(c *ledger.Chain) error {
	if len(s.grants) < maxGrants {
		return nil
	}
	from, now, head := c.Genesis().Faucet, c.Now(), c.Tip().Header.Time
	account, _ := c.State().Account(from)
	idle := c.PendingNonce(from, 0) == account.Nonce
	for of, g := range s.grants {
		if of.chain == c.Name() && now > g.validUntil && (idle || head > g.validUntil) {
			delete(s.grants, of)
		}
	}
	if len(s.grants) < maxGrants {
		return nil
	}
	return fault.New(fault.Unavailable, ledger.ReasonPoolFull,
		"%d grants wait for a block; try again later", len(s.grants)).WithRetry(faucetValid)
}

// signGrant signs the transfer from the faucet.
func (s *Server) signGrant(c *ledger.Chain, to sig.AccountID) (grant, error) {
	from, until := c.Genesis().Faucet, c.Now()+tx.Millis(faucetValid.Milliseconds())
	set := sig.SingleKey(s.deps.Faucet.Public())
	prices := c.State().Prices()
	const room = 4 // times today's fee, for prices that rise meanwhile
	body := tx.Body{
		Chain: c.Name(), Account: from, Nonce: c.PendingNonce(from, 0),
		Fee: room * prices.Fee(1, faucetBytes), ValidUntil: until,
		Operations: []tx.Operation{&tx.Transfer{To: to, Amount: c.Genesis().FaucetAmount}},
	}
	held := c.Keys(from)
	t, err := tx.Sign(body, c.Anchor(), set, held.IsZero(), s.deps.Faucet)
	if err != nil {
		return grant{}, err
	}
	return grant{t.Append(nil), until}, nil
}

// faucetBytes is more than the body of a grant has.
const faucetBytes = 256
