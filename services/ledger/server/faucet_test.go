package server_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// slowDisk takes a while for the next block.
type slowDisk struct {
	ledger.Store

	mu   sync.Mutex
	wait time.Duration
}

func (d *slowDisk) stall(wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wait = wait
}

func (d *slowDisk) Append(ctx context.Context, r ledger.Record) error {
	d.mu.Lock()
	wait := d.wait
	d.wait = 0
	d.mu.Unlock()
	time.Sleep(wait) // in the bubble
	return d.Store.Append(ctx, r)
}

// fountain is a ledger with a faucet, on a slow disk, in a bubble.
type fountain struct {
	t     *testing.T
	n     *ledgertest.Network
	disk  *slowDisk
	lost  atomic.Bool // whether the next block is lost
	chain *ledger.Chain
	s     *server.Server
	stop  func() error
}

func newFountain(t *testing.T) *fountain {
	n, err := ledgertest.NewNetwork(1, 3)
	if err != nil {
		t.Fatal(err)
	}
	f := &fountain{t: t, n: n}
	f.disk = &slowDisk{Store: (&ledgertest.Disk{Next: func(ledger.Record) ledgertest.Failure {
		if f.lost.CompareAndSwap(true, false) {
			return ledgertest.FailBefore
		}
		return ledgertest.FailNot
	}, Mending: func() error { return nil }}).Open()}
	f.chain, f.stop = ledgertest.Start(t, ledger.Config{Pool: ledger.DefaultPool()}, ledger.Deps{
		Genesis: n.Genesis, Store: f.disk, Index: &ledgertest.Index{}, Clock: time.Now,
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			return solo.New(solo.Default(), n.MaxStep(), solo.Deps{
				Key: n.Proposer, Head: head, Clock: time.Now,
			})
		},
	})
	f.s, err = server.New(server.Config{}, server.Deps{
		Chains: []*ledger.Chain{f.chain}, Faucet: n.Faucet,
	})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // block 0 is indexed
	return f
}

// ask asks the faucet for an account.
func (f *fountain) ask(account int) (*ledgerv1.SubmitResult, error) {
	ctx := rpc.WithCaller(f.t.Context(), rpc.Caller{
		Account: f.n.Accounts[account], Scopes: []string{server.Scope},
	})
	r, err := f.s.RequestFaucet(ctx, &ledgerv1.RequestFaucetRequest{})
	return r.GetResult(), err
}

// got is how much of the faucet an account has.
func (f *fountain) got(account int) tx.Grains {
	a, _ := f.chain.State().Account(f.n.Accounts[account])
	return (a.Balance + a.Lock - ledgertest.Each) / f.n.Genesis.FaucetAmount
}

// TestFaucetGivesOnceWhenABlockIsSlow: a request that was given up may be granted yet, so the next
// one must not be granted beside it.
func TestFaucetGivesOnceWhenABlockIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFountain(t)
		if _, err := f.ask(0); err != nil {
			t.Fatal(err)
		}
		f.disk.stall(150 * time.Second)
		for n := range 2 {
			if _, err := f.ask(1); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("request %d while the block waits: %v", n, err)
			}
		}
		r, err := f.ask(1) // the grant is too old by now, and in the block that waits
		if err != nil || r.GetHeight() != 2 {
			t.Errorf("the third request: %v, %v", r, err)
		}
		if _, err := f.ask(2); err != nil {
			t.Errorf("another account's: %v", err)
		}
		time.Sleep(2 * time.Minute)
		for account := range 3 {
			if got := f.got(account); got != 1 {
				t.Errorf("account %d was granted %d times", account, got)
			}
			if _, err := f.ask(account); fault.ReasonOf(err) != ledger.ReasonFaucetUsed {
				t.Errorf("account %d, once more: %v", account, err)
			}
		}
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestFaucetSignsAnewWhatCannotBeInABlock: a grant that was lost with the pool, and is too old now,
// is not sent for ever.
func TestFaucetSignsAnewWhatCannotBeInABlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFountain(t)
		f.lost.Store(true)
		if _, err := f.ask(0); err == nil {
			t.Fatal("a failing disk made a block")
		}
		time.Sleep(2 * time.Minute)
		if r, err := f.ask(0); err != nil || r.GetErrorReason() != "" || f.got(0) != 1 {
			t.Errorf("later: %v, %v, %d grants", r, err, f.got(0))
		}
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}
