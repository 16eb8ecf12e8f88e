package server

import (
	"context"
	"errors"
	"io"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// Submit implements the service.
func (s *Server) Submit(ctx context.Context, r *ledgerv1.SubmitRequest) (
	*ledgerv1.SubmitResponse, error,
) {
	if err := rpc.RequireScope(ctx, Scope); err != nil {
		return nil, err
	}
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	result, err := s.submit(withPeer(ctx), c, r.GetTransaction(), waitFor(r.GetWait()))
	if err != nil {
		return nil, err
	}
	return &ledgerv1.SubmitResponse{Result: result}, nil
}

// withPeer names the caller to the chain.
func withPeer(ctx context.Context) context.Context {
	caller, ok := rpc.CallerFrom(ctx)
	if !ok {
		return ctx
	}
	return ledger.WithPeer(ctx, ledger.Peer{
		Account: caller.Account, Origin: rpc.CallOrigin(ctx),
	})
}

// submit sends one transaction to a chain and waits for what becomes of it.
func (s *Server) submit(ctx context.Context, c *ledger.Chain, raw []byte, wait ledger.Finality) (
	*ledgerv1.SubmitResult, error,
) {
	ctx, span := s.telemetry.submitting(ctx, c.Name(), 1)
	defer span.End()
	all, timing, err := c.Submit(ctx, [][]byte{raw}, wait)
	s.telemetry.submitted(ctx, span, timing, err)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.SubmitResult{}
	return out, fill(out, &all[0], false)
}

// pending is a batch of a stream that was read and not answered.
type pending struct {
	submission *ledger.Submission
	omit       bool
	done       func(ledger.Timing, error)
}

// SubmitStream implements the service. Batches are read while earlier ones wait for their blocks,
// up to the window; beyond it the caller's own flow control makes it wait.
func (s *Server) SubmitStream(stream ledgerv1.LedgerService_SubmitStreamServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	if err := rpc.RequireScope(ctx, Scope); err != nil {
		return err
	}
	waiting := make(chan pending, window)
	ended := make(chan error, 1)
	go func() {
		err := s.read(ctx, stream, waiting)
		close(waiting)
		ended <- err
	}()
	if err := s.answer(ctx, stream, waiting); err != nil {
		// The reading side may wait for room, or for a caller who waits for an answer in turn: it
		// ends when this returns, not before.
		cancel(err)
		go func() {
			for p := range waiting {
				p.done(ledger.Timing{}, err)
			}
		}()
		return err
	}
	return <-ended
}

// read takes batches into the chain until the caller has sent all.
func (s *Server) read(ctx context.Context, stream ledgerv1.LedgerService_SubmitStreamServer,
	waiting chan<- pending,
) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p, err := s.enqueue(ctx, r)
		if err != nil {
			return err
		}
		select {
		case waiting <- p:
		case <-ctx.Done():
			p.done(ledger.Timing{}, ctx.Err())
			return context.Cause(ctx)
		}
	}
}

func (s *Server) enqueue(ctx context.Context, r *ledgerv1.SubmitStreamRequest) (pending, error) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return pending{}, err
	}
	size := 0
	for _, raw := range r.GetTransactions() {
		size += len(raw)
	}
	if size > MaxBatchBytes {
		return pending{}, fault.New(fault.InvalidArgument, ledger.ReasonBatch,
			"%d bytes of transactions in one message; it takes %d", size, MaxBatchBytes)
	}
	ctx, span := s.telemetry.submitting(ctx, c.Name(), len(r.GetTransactions()))
	submission, err := c.Enqueue(withPeer(ctx), r.GetTransactions(), waitFor(r.GetWait()))
	if err != nil {
		s.telemetry.submitted(ctx, span, ledger.Timing{}, err)
		span.End()
		return pending{}, err
	}
	done := func(timing ledger.Timing, err error) {
		s.telemetry.submitted(ctx, span, timing, err)
		span.End()
	}
	return pending{submission: submission, omit: r.GetOmitReceipts(), done: done}, nil
}

// answer sends the results of batches in the order in which they came.
func (s *Server) answer(ctx context.Context, stream ledgerv1.LedgerService_SubmitStreamServer,
	waiting <-chan pending,
) error {
	for p := range waiting {
		all, timing, err := p.submission.Wait(ctx)
		p.done(timing, err)
		if err != nil {
			return err
		}
		out, err := results(all, p.omit)
		if err != nil {
			return err
		}
		if err := stream.Send(&ledgerv1.SubmitStreamResponse{Results: out}); err != nil {
			return err
		}
	}
	return nil
}
