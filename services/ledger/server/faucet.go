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

// faucetValid is how long a grant may wait for its block.
const faucetValid = time.Minute

// RequestFaucet implements the service. Whoever was granted stands in the chain: nothing else is
// kept, so a restart or a lost index grants nothing twice.
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
	granted, err := c.Granted(account)
	if err != nil {
		return nil, err
	}
	if granted {
		return nil, fault.New(fault.AlreadyExists, ledger.ReasonFaucetUsed,
			"this account has got the faucet's amount before; it is given once")
	}
	raw, err := s.grant(c, account)
	if err != nil {
		return nil, err
	}
	// The caller may go away; whether the grant happened must be known before the next one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), faucetValid)
	defer cancel()
	result, err := s.submit(ctx, c, raw, ledger.Committed)
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

// grant signs the transfer from the faucet.
func (s *Server) grant(c *ledger.Chain, to sig.AccountID) ([]byte, error) {
	from := c.Genesis().Faucet
	set := sig.SingleKey(s.deps.Faucet.Public())
	prices := c.State().Prices()
	const room = 4 // times today's fee, for prices that rise meanwhile
	body := tx.Body{
		Chain: c.Name(), Account: from, Nonce: c.PendingNonce(from, 0),
		Fee:        room * prices.Fee(1, faucetBytes),
		ValidUntil: c.Now() + tx.Millis(faucetValid.Milliseconds()),
		Operations: []tx.Operation{&tx.Transfer{To: to, Amount: c.Genesis().FaucetAmount}},
	}
	held := c.Keys(from)
	t, err := tx.Sign(body, c.Anchor(), set, held.IsZero(), s.deps.Faucet)
	if err != nil {
		return nil, err
	}
	return t.Append(nil), nil
}

// faucetBytes is more than the body of a grant has.
const faucetBytes = 256
