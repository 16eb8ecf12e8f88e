package server_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/rpc"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// stream is the server's side of a caller who sends batches and never ends the sending.
type stream struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *ledgerv1.SubmitStreamRequest
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Recv() (*ledgerv1.SubmitStreamRequest, error) {
	select {
	case r := <-s.sent:
		return r, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *stream) Send(*ledgerv1.SubmitStreamResponse) error { return nil }

// TestStreamEndsWhenTheChainStops: a caller who waits for an answer before sending more is told.
func TestStreamEndsWhenTheChainStops(t *testing.T) {
	n, err := ledgertest.NewNetwork(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	disk := &ledgertest.Disk{Next: func(r ledger.Record) ledgertest.Failure {
		if r.Height > 0 {
			return ledgertest.FailBefore
		}
		return ledgertest.FailNot
	}}
	c, _ := ledgertest.Start(t, ledger.Config{Pool: ledger.DefaultPool()}, ledger.Deps{
		Genesis: n.Genesis, Store: disk.Open(),
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			return solo.New(solo.Default(), n.MaxStep(), solo.Deps{Key: n.Proposer, Head: head})
		},
	})
	s, err := server.New(server.Config{}, server.Deps{Chains: []*ledger.Chain{c}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := rpc.WithCaller(t.Context(), rpc.Caller{Scopes: []string{server.Scope}})
	both := &stream{ctx: ctx, sent: make(chan *ledgerv1.SubmitStreamRequest, 1)}
	both.sent <- &ledgerv1.SubmitStreamRequest{Transactions: [][]byte{n.Transfer(0, 1, 0, 5)}}
	ended := make(chan error, 1)
	go func() { ended <- s.SubmitStream(both) }()
	select {
	case err := <-ended:
		if !errors.Is(err, ledger.ReasonChainStopped) {
			t.Errorf("the stream ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the caller waits for ever")
	}
}
