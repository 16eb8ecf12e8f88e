package submit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

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
		Chain: s.cfg.Chain, Account: s.cfg.Account[:], Signer: s.cfg.Signer,
	})
	if err != nil {
		return fmt.Errorf("read the account: %w", err)
	}
	head := time.UnixMilli(int64(min(chain.GetHead().GetTime(), math.MaxInt64)))
	if now := s.cfg.Now(); head.Sub(now) > MaxAhead {
		return fault.New(fault.FailedPrecondition, ReasonChainTime,
			"the ledger says that the last block is of %s, by the clock here it is %s: more than %v "+
				"apart, so either of them is wrong and nothing is signed",
			head.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), MaxAhead)
	}
	s.operation, s.byteFee = chain.GetOperationFee(), chain.GetByteFee()
	s.head = head
	if s.cfg.HeadTime != nil {
		s.cfg.HeadTime(s.head)
	}
	s.nonce = account.GetPendingNonce()
	s.first = s.cfg.Signer == 0 && account.GetAccount().GetKeys() == nil
	s.known = true
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
		if try > 0 && !pause(ctx, firstPause<<try) {
			return nil, err
		}
		var results []*ledgerv1.SubmitResult
		var sent bool
		if results, sent, err = s.sendOnce(ctx, request); err == nil {
			return results, nil
		}
		if refused(err) {
			return nil, err
		}
		for _, c := range calls {
			c.lost = c.lost || sent
		}
	}
	return nil, err
}

// reasonWaste: this caller has wasted too much of the ledger's time; nothing was looked at.
const reasonWaste fault.Reason = "WASTE_LIMIT"

// refused tells whether the ledger refused a whole submission for what it says, before it looked
// at any transaction. A token that expires ends a submission that is under way, too.
func refused(err error) bool {
	if fault.ReasonOf(err) == reasonWaste {
		return true
	}
	switch fault.KindOf(err) {
	case fault.InvalidArgument, fault.PermissionDenied, fault.NotFound, fault.Unimplemented:
		return true
	case fault.Unauthenticated:
		return fault.ReasonOf(err) != rpc.ReasonTokenExpired
	}
	return false
}

// sendOnce makes one submission; sent tells whether the ledger may have heard of it.
func (s *Sender) sendOnce(
	ctx context.Context, request *ledgerv1.SubmitStreamRequest,
) (results []*ledgerv1.SubmitResult, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	stream, err := s.cfg.Ledger.SubmitStream(ctx)
	if err != nil {
		return nil, false, err
	}
	if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
		return nil, true, err
	} // after io.EOF the reason is in Recv
	if err := stream.CloseSend(); err != nil {
		return nil, true, err
	}
	response, err := stream.Recv()
	if err != nil {
		return nil, true, err
	}
	if got, want := len(response.GetResults()), len(request.GetTransactions()); got != want {
		return nil, true, fmt.Errorf("the ledger answered %d of %d transactions", got, want)
	}
	return response.GetResults(), true, nil
}

// pause waits and reports whether ctx still stands.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lookUp asks whether a transaction is in a block; nil means that it is not.
func (s *Sender) lookUp(ctx context.Context, id tx.ID) (*ledgerv1.SubmitResult, error) {
	var err error
	for try := range maxSends {
		if try > 0 && !pause(ctx, firstPause<<try) {
			break
		}
		callCtx, cancel := context.WithTimeout(ctx, sendTimeout)
		var r *ledgerv1.GetTransactionResponse
		r, err = s.cfg.Ledger.GetTransaction(callCtx, &ledgerv1.GetTransactionRequest{
			Chain: s.cfg.Chain, Id: id[:],
		})
		cancel()
		switch {
		case err == nil:
			return r.GetResult(), nil
		case fault.KindOf(err) == fault.NotFound:
			return nil, nil
		}
	}
	return nil, fmt.Errorf("look the transaction up: %w", err)
}
