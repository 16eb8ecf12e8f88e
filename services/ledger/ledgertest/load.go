package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// MaxPresigned bounds what Presign keeps in memory.
const MaxPresigned = 4 << 20

// Presign signs perAccount transfers of every account to others, on all processors, and returns
// them in batches: each batch has at most one of an account, and nonces rise with the batches.
func (n *Network) Presign(perAccount, batch int) ([][][]byte, error) {
	total := len(n.Keys) * perAccount
	if total > MaxPresigned || batch < 1 {
		return nil, fmt.Errorf("%d transfers in batches of %d are not signed beforehand", total, batch)
	}
	all := make([][]byte, total)
	var workers sync.WaitGroup
	step := runtime.GOMAXPROCS(0)
	for w := range step {
		workers.Go(func() {
			for i := w; i < total; i += step {
				from := i % len(n.Keys)
				to := (from*7919 + i/len(n.Keys) + 1) % len(n.Keys)
				all[i] = n.Transfer(from, to, uint64(i/len(n.Keys)), 1000)
			}
		})
	}
	workers.Wait()
	var batches [][][]byte
	for len(all) > 0 {
		size := min(batch, len(all))
		batches = append(batches, all[:size])
		all = all[size:]
	}
	return batches, nil
}

// Drive sends batches over one stream, without waiting for answers in between, and returns once
// every transaction is committed. It fails at the first that is not.
func Drive(ctx context.Context, client ledgerv1.LedgerServiceClient, batches [][][]byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.SubmitStream(ctx)
	if err != nil {
		return fmt.Errorf("open the stream: %w", err)
	}
	sent := make(chan error, 1)
	go func() {
		for _, batch := range batches {
			err := stream.Send(&ledgerv1.SubmitStreamRequest{
				Transactions: batch, OmitReceipts: true,
			})
			if err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	err = receive(stream, batches)
	if err != nil {
		cancel()
	}
	if e := <-sent; err == nil && e != nil {
		err = fmt.Errorf("send: %w", e)
	}
	return err
}

func receive(stream ledgerv1.LedgerService_SubmitStreamClient, batches [][][]byte) error {
	for i := range batches {
		r, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("batch %d: %w", i, err)
		}
		for n, result := range r.GetResults() {
			if result.GetFinality() != ledgerv1.Finality_FINALITY_COMMITTED ||
				result.GetReceipt() != nil { // left out when it succeeded
				return fmt.Errorf("batch %d, transaction %d: %s %s %v", i, n,
					result.GetErrorReason(), result.GetErrorMessage(), result.GetReceipt())
			}
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream did not end: %w", err)
	}
	return nil
}
