package submit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/submit"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// bubble runs a test with a sender and a chain, under a clock that jumps over pauses.
func bubble(t *testing.T, test func(t *testing.T, c *chain, s *submit.Sender)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newChain()
		s := submit.New(submit.Config{
			Ledger: c, Key: sig.FromSeed([32]byte{1}), Chain: "main", Now: time.Now,
		})
		defer s.Close()
		test(t, c, s)
	})
}

func pay() tx.Operation { return &tx.Transfer{To: sig.AccountID{2}, Amount: 1} }

func send(t *testing.T, s *submit.Sender, memo string) {
	t.Helper()
	if r, err := s.SendMemo(t.Context(), []byte(memo), pay()); err != nil || r.Height == 0 {
		t.Errorf("Send %s = %+v, %v, want it committed", memo, r, err)
	}
}

func want(t *testing.T, c *chain, memos ...string) {
	t.Helper()
	if d := cmp.Diff(memos, c.memos()); d != "" {
		t.Errorf("in blocks (-want +got)\n%s", d)
	}
}

// TestOnce breaks the way to the ledger in every place: what was sent is in one block.
func TestOnce(t *testing.T) {
	tests := map[string]func(c *chain){
		"nothing breaks":               func(*chain) {},
		"no connection":                func(c *chain) { c.open = times(2, errBroken) },
		"breaks before the ledger":     func(c *chain) { c.before = times(3, errBroken) },
		"answers are lost":             func(c *chain) { c.after = times(3, errBroken) },
		"token expires under way":      func(c *chain) { c.after = times(1, expired()) },
		"no fault at all":              func(c *chain) { c.after = times(1, errAny) },
		"fees rise":                    func(c *chain) { c.judge = first(1, "FEE_TOO_LOW") },
		"it was dropped":               func(c *chain) { c.judge = first(1, "DROPPED") },
		"the pool is full for a while": func(c *chain) { c.judge = first(3, "POOL_FULL") },
		"the index is away a while":    func(c *chain) { c.judge = first(3, "INDEX_LAGS") },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
				send(t, s, "a")
				c.sends, c.judged = 0, 0
				spoil(c)
				send(t, s, "b")
				want(t, c, "a", "b")
			})
		})
	}
}

func expired() error { return fault.New(fault.Unauthenticated, "TOKEN_EXPIRED", "expired") }

// first refuses the first n transactions that are judged.
func first(n int, reason string) func(int, *tx.Transaction) string {
	return func(judged int, _ *tx.Transaction) string {
		if judged <= n {
			return reason
		}
		return ""
	}
}

// TestLostAnswerThenRefusal: the ledger took the transaction, the answer was lost, and the repeated
// bytes are refused since the ledger's index lags. Signing anew would pay twice.
func TestLostAnswerThenRefusal(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		c.after = func(n int) error {
			if n == 1 {
				c.mu.Lock()
				defer c.mu.Unlock()
				hidden := c.results
				c.results = map[tx.ID]*ledgerv1.SubmitResult{}
				lags := 2
				c.reading = func(method string) error {
					if method != "GetTransaction" {
						return nil
					}
					if lags--; lags > 0 {
						return fault.New(fault.Unavailable, "INDEX_LAGS", "wait")
					}
					c.results = hidden
					return nil
				}
				return errBroken
			}
			return nil
		}
		send(t, s, "a")
		want(t, c, "a")
	})
}

func TestUnknownOnlyWhenUnknown(t *testing.T) {
	away := func(int) error { return errBroken }
	tests := map[string]struct {
		spoil   func(c *chain)
		unknown bool
		is      error
	}{
		"answers never come":       {func(c *chain) { c.after = away }, true, fault.Unavailable},
		"the ledger is away":       {func(c *chain) { c.open = away }, false, fault.Unavailable},
		"the submission is barred": {func(c *chain) { c.before = always(denied()) }, false, denied()},
		"too much was wasted":      {func(c *chain) { c.before = always(wasted()) }, false, wasted()},
		"barred after a lost answer": {func(c *chain) {
			c.before = func(n int) error {
				if n == 2 {
					return errBroken
				}
				return denied()
			}
		}, true, denied()},
		"refused for good": {
			func(c *chain) { c.judge = first(9, "CANNOT_PAY") }, false, fault.Reason("CANNOT_PAY"),
		},
		"refused after a lost answer, and nobody can say": {func(c *chain) {
			c.before, c.judge = times(1, errBroken), first(9, "NONCE_OLD")
			c.reading = func(method string) error {
				if method == "GetTransaction" {
					return errBroken
				}
				return nil
			}
		}, true, fault.Unavailable},
		"refused for now after a lost answer, and then the ledger is away": {func(c *chain) {
			c.before, c.judge = times(1, errBroken), first(9, "POOL_FULL")
			c.reading = func(method string) error {
				if method == "GetAccount" {
					return errBroken
				}
				return nil
			}
		}, true, fault.Reason("POOL_FULL")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
				send(t, s, "a")
				c.judged = 0
				tt.spoil(c)
				_, err := s.Send(t.Context(), pay())
				if errors.Is(err, submit.ErrUnknown) != tt.unknown || !errors.Is(err, tt.is) {
					t.Errorf("Send = %v, want unknown: %v, and %v", err, tt.unknown, tt.is)
				}
				c.open, c.before, c.after, c.judge, c.reading = nil, nil, nil, nil, nil
				send(t, s, "c") // the sender recovers
			})
		})
	}
}

func denied() error { return fault.New(fault.PermissionDenied, "SCOPE_MISSING", "no") }

func wasted() error { return fault.New(fault.ResourceExhausted, "WASTE_LIMIT", "later") }

func always(err error) func(int) error { return func(int) error { return err } }

func TestNonceRace(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		send(t, s, "a")
		c.use() // another process was quicker
		send(t, s, "b")
		want(t, c, "a", "b")
		c.judge = func(int, *tx.Transaction) string { c.nonce++; return "" } // and always is
		_, err := s.Send(t.Context(), pay())
		if !errors.Is(err, submit.ReasonContended) {
			t.Errorf("Send = %v, want %s", err, submit.ReasonContended)
		}
		want(t, c, "a", "b")
	})
}

// TestFirstBringsTheKeySet: calls made together for a new account; the first goes alone with the
// set, the others without it and in the order of the calls.
func TestFirstBringsTheKeySet(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		c.before = slow
		together(t, s, 5)
		want(t, c, "0", "1", "2", "3", "4")
		if !slices.Equal(c.batches, []int{1, 4}) {
			t.Errorf("submissions of %v transactions, want 1, then 4", c.batches)
		}
		for i, t2 := range c.committed {
			if has := len(t2.Signature.Keys.Keys) > 0; has != (i == 0) || t2.Nonce != uint64(i) {
				t.Errorf("transaction %d: nonce %d, key set %v", i, t2.Nonce, has)
			}
		}
	})
}

// slow makes the first submission last until all calls are made.
func slow(n int) error {
	if n == 1 {
		time.Sleep(time.Second)
	}
	return nil
}

// together makes n calls at the same time, in order.
func together(t *testing.T, s *submit.Sender, n int) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			time.Sleep(time.Duration(i)) // of the bubble's clock: before anything is submitted
			if _, err := s.SendMemo(t.Context(), fmt.Append(nil, i), pay()); err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	all.Wait()
}

func TestGathers(t *testing.T) {
	const calls = submit.MaxGathered + 44
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		c.keyed = true
		c.before = slow
		together(t, s, calls+1)
		if !slices.Equal(c.batches, []int{1, submit.MaxGathered, 44}) {
			t.Errorf("submissions of %v transactions", c.batches)
		}
		for i, memo := range c.memos() {
			if memo != fmt.Sprint(i) {
				t.Fatalf("call %s is at place %d: calls keep their order", memo, i)
			}
		}
	})
}

// TestLargeOnesTravelApart: more bytes than one message takes.
func TestLargeOnesTravelApart(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		c.keyed = true
		operations := make([]tx.Operation, 1000)
		for i := range operations {
			operations[i] = &tx.Transfer{To: sig.AccountID{byte(i), 3}, Amount: 1}
		}
		var all sync.WaitGroup
		for range 60 {
			all.Go(func() {
				if _, err := s.Send(t.Context(), operations...); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		size := len(c.committed[0].Append(nil))
		for _, n := range c.batches {
			if n*size > 2<<20 {
				t.Errorf("%d transactions of %d bytes in one submission", n, size)
			}
		}
		if len(c.committed) != 60 {
			t.Errorf("%d are in blocks, want 60", len(c.committed))
		}
	})
}

func TestOneBadOneDoesNotHoldOthers(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		send(t, s, "a")
		var all sync.WaitGroup
		errs := make([]error, 3)
		for i := range errs {
			all.Go(func() {
				time.Sleep(time.Duration(i))
				operations := []tx.Operation{pay()}
				if i == 1 {
					operations = nil
				}
				_, errs[i] = s.SendMemo(t.Context(), fmt.Append(nil, i), operations...)
			})
		}
		all.Wait()
		if errs[0] != nil || errs[2] != nil || !errors.Is(errs[1], submit.ReasonOperations) {
			t.Errorf("errors %v, want only the one without operations refused", errs)
		}
		want(t, c, "a", "0", "2")
	})
}

func TestFailedInABlock(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		c.after = func(int) error {
			for _, r := range c.results {
				r.Receipt = &chainv1.Receipt{
					Status: chainv1.Status_STATUS_FAILED,
					Reason: chainv1.Reason_REASON_BALANCE_TOO_LOW,
				}
			}
			return nil
		}
		r, err := s.Send(t.Context(), pay())
		var failed *submit.FailedError
		if !errors.As(err, &failed) || failed.ID != r.ID || r.Height == 0 ||
			!strings.Contains(err.Error(), "REASON_BALANCE_TOO_LOW") {
			t.Errorf("Send = %+v, %v, want a FailedError that names the reason", r, err)
		}
	})
}

func TestCallersThatLeave(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		c.keyed = true
		gate := make(chan struct{})
		c.before = func(n int) error {
			if n == 1 {
				<-gate
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for i, ctx := range []context.Context{ctx, ctx, t.Context()} {
			all.Go(func() {
				time.Sleep(time.Duration(i))
				_, err := s.SendMemo(ctx, fmt.Append(nil, i), pay())
				if leaves := i < 2; errors.Is(err, context.DeadlineExceeded) != leaves {
					t.Errorf("call %d: %v", i, err)
				}
				if i == 1 {
					close(gate)
				}
			})
		}
		all.Wait()
		want(t, c, "0", "2") // 0 was on its way; 1 never set out
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain()
		s := submit.New(submit.Config{
			Ledger: c, Key: sig.FromSeed([32]byte{1}), Chain: "main", Now: time.Now,
		})
		c.after = func(int) error { return errBroken }
		done := make(chan error)
		go func() {
			_, err := s.Send(t.Context(), pay())
			done <- err
		}()
		synctest.Wait()
		s.Close()
		if err := <-done; !errors.Is(err, submit.ErrUnknown) {
			t.Errorf("Send = %v, want ErrUnknown: it was on its way", err)
		}
		if _, err := s.Send(t.Context(), pay()); !errors.Is(err, submit.ReasonClosed) {
			t.Errorf("Send after Close = %v", err)
		}
	})
}

// TestValidAfterTheLastBlock: by a chain whose time is hours ahead of the own clock, what is signed
// must not be over yet.
func TestValidAfterTheLastBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, ahead := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
			c := newChain()
			head := time.Now().Add(ahead).Truncate(time.Millisecond)
			c.head = uint64(head.UnixMilli())
			var told time.Time
			s := submit.New(submit.Config{
				Ledger: c, Key: sig.FromSeed([32]byte{1}), Chain: "main", Now: time.Now,
				HeadTime: func(at time.Time) { told = at },
			})
			send(t, s, "x")
			s.Close()
			until := time.UnixMilli(int64(c.committed[0].ValidUntil))
			if left := until.Sub(time.Now().Add(max(ahead, 0))); left < time.Minute || left > time.Hour {
				t.Errorf("a block of %v ahead: valid for %v", ahead, left)
			}
			if !told.Equal(head) {
				t.Errorf("told of a block at %v, it is at %v", told, head)
			}
		}
	})
}

// TestNoTimeFarAhead: a ledger cannot have anything signed that is valid for long, nor move the
// clock of whoever listens, by saying that its last block is of another day.
func TestNoTimeFarAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, head := range map[string]uint64{
			"a second more": uint64(time.Now().Add(submit.MaxAhead + time.Second).UnixMilli()),
			"ten years":     uint64(time.Now().AddDate(10, 0, 0).UnixMilli()),
			"the end":       math.MaxInt64,
			"beyond it":     math.MaxUint64,
		} {
			c := newChain()
			c.head = head
			s := submit.New(submit.Config{
				Ledger: c, Key: sig.FromSeed([32]byte{1}), Chain: "main", Now: time.Now,
				HeadTime: func(at time.Time) { t.Errorf("%s: told of %v", name, at) },
			})
			_, err := s.Send(t.Context(), pay())
			if !errors.Is(err, submit.ReasonChainTime) || c.sends != 0 {
				t.Errorf("%s: Send = %v after %d submissions", name, err, c.sends)
			}
			s.Close()
		}
	})
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		c.head = uint64(time.Now().Add(submit.MaxAhead).UnixMilli())
		send(t, s, "just near enough")
	})
}

// TestAsDelegate: two senders act for one account, as its key set and as a delegate, each with
// nonces of its own and without a second signing; a delegate's first transaction brings no keys.
func TestAsDelegate(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, own *submit.Sender) {
		delegate := submit.New(submit.Config{
			Ledger: c, Key: sig.FromSeed([32]byte{2}), Account: own.Account(), Signer: 3,
			Chain: "main", Now: time.Now,
		})
		defer delegate.Close()
		send(t, delegate, "a")
		send(t, own, "b")
		send(t, delegate, "c")
		send(t, own, "d")
		want(t, c, "a", "b", "c", "d")
		if c.judged != 4 || c.delegates[3] != 2 || c.nonce != 2 {
			t.Errorf("judged %d transactions, nonces %d and %v", c.judged, c.nonce, c.delegates)
		}
		for _, one := range c.committed {
			if one.Account != own.Account() {
				t.Errorf("%s is of account %x", one.Memo, one.Account)
			}
		}
	})
}
