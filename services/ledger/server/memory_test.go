package server_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// weighed counts the bytes of blocks that are read.
type weighed struct {
	ledger.Store
	read atomic.Int64
}

func (s *weighed) Read(ctx context.Context, height uint64) (ledger.Record, error) {
	r, err := s.Store.Read(ctx, height)
	s.read.Add(int64(len(r.Bytes)))
	return r, err
}

// believing believes where a call says that it comes from.
type believing struct{}

func (believing) Origin(_ context.Context, vouched []byte) (string, error) {
	return string(vouched), nil
}

// from is a context of calls in the name of an address.
func from(ctx context.Context, i int) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "ucn-origin-bin", fmt.Sprint("192.0.2.", i))
}

// library is a ledger that serves a few large blocks with little memory, in simulated time.
type library struct {
	t      *testing.T
	store  *weighed
	chain  *ledger.Chain
	client ledgerv1.LedgerServiceClient
	first  uint64 // height of the first large block
	large  int    // how many there are
	stop   func()
}

const libraryRoom = config.MiB

func openLibrary(t *testing.T) *library {
	t.Helper()
	n, err := ledgertest.NewNetwork(1, 8)
	if err != nil {
		t.Fatal(err)
	}
	l := &library{t: t, store: &weighed{Store: (&ledgertest.Disk{}).Open()}, large: 4}
	var stop func() error
	l.chain, stop = ledgertest.Start(t, ledger.Config{Pool: ledger.DefaultPool()}, ledger.Deps{
		Genesis: n.Genesis, Store: l.store,
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			return solo.New(solo.Default(), n.MaxStep(), solo.Deps{Key: n.Proposer, Head: head})
		},
	})
	l.first = l.chain.Head().Height + 1
	for b := range l.large { // 160 KiB each
		var all [][]byte
		for i := range 40 {
			body := n.Body(i%8, uint64(b*5+i/8), &tx.Transfer{To: n.Accounts[0], Amount: 1})
			body.Memo = make([]byte, tx.MaxMemo)
			all = append(all, n.Sign(i%8, body))
		}
		if _, _, err := l.chain.Submit(t.Context(), all, ledger.Committed); err != nil {
			t.Fatal(err)
		}
	}
	disconnect := l.serve()
	l.stop = func() {
		disconnect()
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	return l
}

// serve makes the chain's server and a client of it.
func (l *library) serve() (disconnect func()) {
	l.t.Helper()
	s, err := server.New(server.Config{}, server.Deps{Chains: []*ledger.Chain{l.chain}})
	if err != nil {
		l.t.Fatal(err)
	}
	var pipe rpc.Pipe
	listener, err := pipe.Listen("ledger")
	if err != nil {
		l.t.Fatal(err)
	}
	cfg := rpc.DefaultServer()
	cfg.MaxMessage, cfg.MaxAnswers = libraryRoom, libraryRoom
	front, err := rpc.NewServer(cfg, rpc.ServerDeps{
		Listener: listener, Public: server.Public(), Origins: believing{},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	s.Register(front)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- front.Run(ctx, func() { close(ready) }) }()
	<-ready
	const window = 64 << 10 // one that does not grow
	conn, err := grpc.NewClient("passthrough:ledger",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return pipe.DialContext(ctx, "ledger")
		}), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window*100))
	if err != nil {
		l.t.Fatal(err)
	}
	l.client = ledgerv1.NewLedgerServiceClient(conn)
	return func() {
		if err := conn.Close(); err != nil {
			l.t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	}
}

// watch opens a stream of the large blocks.
func (l *library) watch(ctx context.Context) ledgerv1.LedgerService_WatchBlocksClient {
	l.t.Helper()
	stream, err := l.client.WatchBlocks(ctx,
		&ledgerv1.WatchBlocksRequest{From: l.first, Bodies: true})
	if err != nil {
		l.t.Fatal(err)
	}
	return stream
}

// take reads a stream until it has so many blocks or ends, and returns the height to go on from.
func (l *library) take(stream ledgerv1.LedgerService_WatchBlocksClient, n int) (uint64, error) {
	next := l.first
	for ; n > 0; n-- {
		m, err := stream.Recv()
		if err != nil {
			return next, err
		}
		if got := m.GetBlock().GetHeader().GetHeight(); got != next {
			l.t.Errorf("block %d comes, not %d", got, next)
		}
		next++
	}
	return next, nil
}

// TestUnreadStreamsHoldLittle: however many streams are open that nobody reads, no more blocks are
// read for them than there is room for; when their clients have left, others are served.
func TestUnreadStreamsHoldLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLibrary(t)
		defer l.stop()
		before := l.store.read.Load()
		ctx, leave := context.WithCancel(t.Context())
		for i := range 200 {
			l.watch(from(ctx, i))
		}
		synctest.Wait()
		held := l.store.read.Load() - before
		if held == 0 || held > int64(libraryRoom) {
			t.Errorf("%d bytes of blocks are read for who takes none", held)
		}
		_, err := l.client.GetBlock(from(t.Context(), 201), &ledgerv1.GetBlockRequest{Height: l.first})
		if err = rpc.Error("ledger", err); !errors.Is(err, rpc.ReasonAnswers) {
			t.Errorf("a block for which there is no room: %v", err)
		}
		if got := l.store.read.Load() - before; got != held {
			t.Errorf("%d bytes are read before it is refused", got-held)
		}
		leave()
		synctest.Wait()
		if _, err := l.take(l.watch(from(t.Context(), 202)), l.large); err != nil {
			t.Errorf("after they have left: %v", err)
		}
		_, err = l.client.GetBlock(from(t.Context(), 201), &ledgerv1.GetBlockRequest{Height: l.first})
		if err != nil {
			t.Errorf("after they have left: %v", err)
		}
	})
}

// TestUnreadStreamIsEnded: a stream that nobody reads, and one that finds no room for long, end and
// say where to go on.
func TestUnreadStreamIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLibrary(t)
		defer l.stop()
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		unread := l.watch(from(ctx, 1))
		synctest.Wait()
		for i := range 20 {
			l.watch(from(ctx, i+2))
		}
		synctest.Wait()
		without := l.watch(from(ctx, 30))
		time.Sleep(5 * time.Minute)
		for _, tt := range []struct {
			stream ledgerv1.LedgerService_WatchBlocksClient
			taken  uint64
			want   error
		}{{unread, 1, ledger.ReasonStalled}, {without, 0, rpc.ReasonAnswers}} {
			next, err := l.take(tt.stream, l.large)
			f := fault.From(rpc.Error("ledger", err))
			if next != l.first+tt.taken || !errors.Is(f, tt.want) ||
				f.Value("resume") != strconv.FormatUint(next, 10) {
				t.Errorf("after %d blocks: %v, resume %q", next-l.first, f, f.Value("resume"))
			}
		}
	})
}

// TestSlowReadersHaveEveryBlock: to wait for room and for readers loses nothing.
func TestSlowReadersHaveEveryBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLibrary(t)
		defer l.stop()
		var readers sync.WaitGroup
		for i := range 30 {
			stream := l.watch(from(t.Context(), i))
			readers.Go(func() {
				for n := range l.large {
					time.Sleep(time.Second)
					m, err := stream.Recv()
					want := l.first + uint64(n)
					if got := m.GetBlock().GetHeader().GetHeight(); err != nil || got != want {
						t.Errorf("stream %d has block %d, not %d: %v", i, got, want, err)
						return
					}
				}
			})
		}
		readers.Wait()
	})
}
