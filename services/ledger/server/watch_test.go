package server_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

// places are where the blocks of a stream and their transactions are.
func places(got []*ledgerv1.WatchBlocksResponse) (all []string) {
	for _, b := range got {
		for _, i := range b.GetTransactions() {
			all = append(all, fmt.Sprint(b.GetBlock().GetHeader().GetHeight(), "/", i))
		}
	}
	return all
}

// TestWatchOfAnAccountAndAnEscrow gives what their histories say, without the blocks between, from
// any height, and goes on with what comes.
func TestWatchOfAnAccountAndAnEscrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, &ledgertest.Index{})
		account, escrow := a.n.Accounts[3], a.story.Escrow
		var history []string
		for _, e := range a.history(&ledgerv1.ListTransactionsRequest{Account: account[:],
			Order: ledgerv1.Order_ORDER_OLDEST}) {
			history = append(history, fmt.Sprint(e.GetHeight(), "/", e.GetIndex()))
		}
		var life []string
		events := pages(t, &ledgerv1.ListEscrowEventsRequest{Escrow: escrow[:]},
			a.ListEscrowEvents, (*ledgerv1.ListEscrowEventsResponse).GetEvents)
		for _, e := range events {
			place := fmt.Sprint(e.GetHeight(), "/", e.GetIndex())
			if len(life) == 0 || life[len(life)-1] != place {
				life = append(life, place)
			}
		}
		for name, tt := range map[string]struct {
			ask  *ledgerv1.WatchBlocksRequest
			want []string
		}{
			"account": {&ledgerv1.WatchBlocksRequest{Account: account[:]}, history},
			"escrow":  {&ledgerv1.WatchBlocksRequest{Escrow: escrow[:]}, life},
		} {
			whole := &blocks{ctx: t.Context(), want: len(tt.want)}
			err := a.WatchBlocks(tt.ask, whole)
			if !errors.Is(err, errEnough) || fmt.Sprint(places(whole.got)) != fmt.Sprint(tt.want) {
				t.Errorf("%s: %v, %v, want %v", name, err, places(whole.got), tt.want)
			}
			// From the middle, and then what comes.
			middle := len(tt.want) / 2
			_, _ = fmt.Sscan(tt.want[middle], &tt.ask.From)
			rest := &blocks{ctx: t.Context(), want: len(tt.want) - middle}
			err = a.WatchBlocks(tt.ask, rest)
			if !errors.Is(err, errEnough) ||
				fmt.Sprint(places(rest.got)) != fmt.Sprint(tt.want[middle:]) {
				t.Errorf("%s from %d: %v, %v", name, tt.ask.From, err, places(rest.got))
			}
		}
		next := &blocks{ctx: t.Context(), want: 1}
		ended := make(chan error, 1)
		go func() {
			ended <- a.WatchBlocks(&ledgerv1.WatchBlocksRequest{Account: account[:],
				AfterHead: true}, next)
		}()
		synctest.Wait()
		a.do(6, &tx.Transfer{To: a.n.Accounts[1], Amount: 1}) // not about the account
		a.do(7, &tx.Transfer{To: account, Amount: 1})
		if err := <-ended; !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		want := fmt.Sprint([]string{fmt.Sprint(a.chain.Head().Height, "/", 0)})
		if got := fmt.Sprint(places(next.got)); got != want {
			t.Errorf("after the head came %s, want %s", got, want)
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWatchOfAnAccountNeedsTheIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, nil)
		err := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{Account: a.n.Accounts[0][:]},
			&blocks{ctx: t.Context()})
		if !errors.Is(err, ledger.ReasonNoIndex) {
			t.Errorf("%v", err)
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// stalled is a reader that takes a number of blocks and then none, without leaving.
type stalled struct {
	grpc.ServerStream
	ctx  context.Context
	take int
}

func (s *stalled) Context() context.Context { return s.ctx }

func (s *stalled) Send(*ledgerv1.WatchBlocksResponse) error {
	if s.take--; s.take >= 0 {
		return nil
	}
	<-s.ctx.Done()
	return s.ctx.Err()
}

// TestStalledReaderIsEnded: it holds a place for a while, not for ever, and is told where to go on.
func TestStalledReaderIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, nil)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		began := time.Now()
		err := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{From: 2}, &stalled{ctx: ctx, take: 3})
		f := fault.From(err)
		if !errors.Is(err, ledger.ReasonStalled) || f.Kind() != fault.ResourceExhausted ||
			f.Value("resume") != strconv.Itoa(5) {
			t.Errorf("ended with %v, resume %q", err, f.Value("resume"))
		}
		if waited := time.Since(began); waited < 30*time.Second || waited > time.Minute {
			t.Errorf("it was waited for for %s", waited)
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOneAddressDoesNotTakeAllStreams: however many it opens, another is served.
func TestOneAddressDoesNotTakeAllStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := tellStory(t, nil)
		ctx, leave := context.WithCancel(t.Context())
		at := func(ip byte) context.Context {
			return peer.NewContext(ctx, &peer.Peer{
				Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, ip), Port: 1234},
			})
		}
		idle := &ledgerv1.WatchBlocksRequest{AfterHead: true}
		ended := make(chan error, 2000)
		open := func(n int, ip byte) {
			for range n {
				go func() { ended <- a.WatchBlocks(idle, &blocks{ctx: at(ip)}) }()
			}
			synctest.Wait()
		}
		open(200, 1)
		if refused := len(ended); refused != 200-128 {
			t.Errorf("%d of 200 streams of one address were refused", refused)
		}
		honest := &blocks{ctx: at(2), want: 3}
		if err := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{}, honest); !errors.Is(err, errEnough) {
			t.Errorf("another address: %v", err)
		}
		for ip := byte(3); ip < 10; ip++ { // and with it 1024
			open(128, ip)
		}
		refused := len(ended)
		late := &blocks{ctx: at(10), want: 3}
		if err := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{}, late); !errors.Is(err, errEnough) {
			t.Errorf("beyond all: %v", err)
		}
		synctest.Wait()
		if gone := len(ended) - refused; gone != 1 {
			t.Fatalf("%d gave way to it", gone)
		}
		for ; refused > 0; refused-- {
			<-ended
		}
		err := <-ended
		if f := fault.From(err); !errors.Is(err, ledger.ReasonGaveWay) ||
			f.Kind() != fault.ResourceExhausted || f.Retry() == 0 ||
			f.Value("resume") != strconv.FormatUint(a.chain.Head().Height+1, 10) {
			t.Errorf("who gave way was told %v, %v", err, f.Meta())
		}
		open(64, 20) // until nobody has much more
		if err := a.WatchBlocks(idle, &blocks{ctx: at(3)}); !errors.Is(err,
			ledger.ReasonTooManyWatchers) {
			t.Errorf("who has most, beyond all: %v", err)
		}
		mine := &blocks{ctx: ctx, want: 3}
		if err := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{}, mine); !errors.Is(err, errEnough) {
			t.Errorf("a caller of this process, beyond all: %v", err)
		}
		leave()
		synctest.Wait()
		for range len(ended) {
			err := <-ended
			if !errors.Is(err, ledger.ReasonTooManyWatchers) && !errors.Is(err, context.Canceled) &&
				!errors.Is(err, ledger.ReasonGaveWay) {
				t.Errorf("ended with %v", err)
			}
		}
		again := &blocks{ctx: t.Context(), want: 1}
		if err := a.WatchBlocks(&ledgerv1.WatchBlocksRequest{}, again); !errors.Is(err, errEnough) {
			t.Errorf("after all have left: %v", err)
		}
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}
