package ledger

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/united-containers/ucn/kit/fault"
)

func poolEntry(account byte, nonce uint64, variant byte) *entry[int] {
	e := &entry[int]{from: signer{account: Hash{account}}, nonce: nonce, operations: 1, bytes: 100}
	e.id = Hash{account, variant}
	binary.BigEndian.PutUint64(e.id[8:], nonce)
	return e
}

// put offers one entry and returns the reason it was refused for, and its ticket.
func put(p *pool[int], e *entry[int], next uint64) (fault.Reason, *ticket) {
	t := newTicket(1)
	o := &offer[int]{entry: e, at: place{t, 0}}
	goesOn, committed := func() error { return nil }, func(signer) uint64 { return next }
	if _, _, _, err := p.add(goesOn, []*offer[int]{o}, committed); err != nil {
		return ReasonChainStopped, t
	}
	if o.refusal != nil {
		return o.refusal.Reason(), t
	}
	return "", t
}

func mustPut(t *testing.T, p *pool[int], e *entry[int]) {
	t.Helper()
	if reason, _ := put(p, e, 0); reason != "" {
		t.Fatalf("nonce %d is refused for %s", e.nonce, reason)
	}
}

func TestPoolKeepsNonceLines(t *testing.T) {
	p := newPool[int](PoolLimits{Transactions: 6, Bytes: 1000, Line: 4})
	steps := []struct {
		account, variant byte
		nonce            uint64
		want             fault.Reason
	}{
		{1, 0, 5, ReasonNonceFuture},
		{1, 0, 3, ""},
		{1, 0, 4, ""},
		{1, 0, 4, ""}, // the same once more
		{1, 1, 4, ReasonNonceTaken},
		{1, 0, 6, ReasonNonceFuture},
		{1, 0, 2, ReasonNonceOld},
		{1, 0, 5, ""},
		{1, 0, 6, ""},
		{1, 0, 7, ReasonPoolFull}, // of the line
		{2, 0, 3, ""},
		{3, 0, 3, ""},
		{4, 0, 3, ReasonPoolFull}, // altogether
	}
	for i, s := range steps {
		if got, _ := put(p, poolEntry(s.account, s.nonce, s.variant), 3); got != s.want {
			t.Errorf("step %d: refused for %q, want %q", i, got, s.want)
		}
	}
	if n, bytes := p.size(); n != 6 || bytes != 600 {
		t.Errorf("pool holds %d transactions of %d bytes", n, bytes)
	}
	if next, ok := p.pending(signer{account: Hash{1}}); next != 7 || !ok {
		t.Errorf("pending nonce %d, %v", next, ok)
	}
}

func TestPoolBoundsBytes(t *testing.T) {
	p := newPool[int](PoolLimits{Transactions: 100, Bytes: 250, Line: 100})
	for nonce, want := range []fault.Reason{"", "", ReasonPoolFull} {
		if got, _ := put(p, poolEntry(1, uint64(nonce), 0), 0); got != want {
			t.Errorf("nonce %d: %q, want %q", nonce, got, want)
		}
	}
}

func TestPoolDropTakesFollowersAlong(t *testing.T) {
	p := newPool[int](DefaultPool())
	for nonce := range uint64(4) {
		mustPut(t, p, poolEntry(1, nonce, 0))
	}
	mustPut(t, p, poolEntry(2, 0, 0))
	var dropped []uint64
	for _, e := range p.drop(p.front(10, 1000)[1]) {
		dropped = append(dropped, e.nonce)
	}
	if d := cmp.Diff([]uint64{1, 2, 3}, dropped); d != "" {
		t.Errorf("dropped (-want +got)\n%s", d)
	}
	p.remove(p.front(10, 1000))
	if n, bytes := p.size(); n != 0 || bytes != 0 || len(p.lines) != 0 || len(p.queue) != 0 {
		t.Errorf("left: %d transactions, %d bytes, %d lines", n, bytes, len(p.lines))
	}
}

func TestPoolFrontKeepsWithinLimits(t *testing.T) {
	p := newPool[int](DefaultPool())
	for nonce := range uint64(10) {
		mustPut(t, p, poolEntry(1, nonce, 0))
	}
	if n := len(p.front(4, 1<<20)); n != 4 {
		t.Errorf("%d within 4 operations", n)
	}
	if n := len(p.front(100, 250)); n != 2 {
		t.Errorf("%d within 250 bytes", n)
	}
	if n := len(p.front(4, 1)); n != 1 {
		t.Errorf("%d where even the first is too large: nothing would ever be committed", n)
	}
}

// TestPoolFrontIsExecutable compares the pool with a model while it is filled and emptied at
// random: what it gives is in nonce order, and nothing is lost or given twice.
func TestPoolFrontIsExecutable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPool[int](PoolLimits{Transactions: 40, Bytes: 1 << 20, Line: 10})
		state := map[Hash]uint64{}
		inPool := 0
		add := func(t *rapid.T) {
			account := byte(rapid.IntRange(1, 4).Draw(t, "account"))
			next := state[Hash{account}]
			nonce := next + uint64(rapid.IntRange(0, 12).Draw(t, "ahead"))
			before, _ := p.size()
			reason, _ := put(p, poolEntry(account, nonce, 0), next)
			after, _ := p.size()
			if (reason != "") && after != before {
				t.Fatalf("refused for %s and taken in", reason)
			}
			inPool += after - before
		}
		commit := func(t *rapid.T) {
			taken := p.front(rapid.IntRange(1, 20).Draw(t, "operations"), 1<<20)
			for _, e := range taken {
				if e.nonce != state[e.from.account] {
					t.Fatalf("nonce %d of account %d, want %d", e.nonce, e.from.account[0],
						state[e.from.account])
				}
				state[e.from.account]++
			}
			p.remove(taken)
			inPool -= len(taken)
		}
		drop := func(t *rapid.T) {
			if taken := p.front(20, 1<<20); len(taken) > 0 {
				inPool -= len(p.drop(taken[rapid.IntRange(0, len(taken)-1).Draw(t, "which")]))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": add, "commit": commit, "drop": drop,
			"": func(t *rapid.T) {
				if n, _ := p.size(); n != inPool {
					t.Fatalf("pool holds %d, want %d", n, inPool)
				}
			},
		})
	})
}

// TestPoolOfAnEndedSession: a submission that was verified while its session ended must not come
// into the pool of the next one: its sender was told that nothing is known.
func TestPoolOfAnEndedSession(t *testing.T) {
	p := newPool[int](DefaultPool())
	mustPut(t, p, poolEntry(1, 0, 0))
	p.clear()
	late := &offer[int]{entry: poolEntry(2, 0, 0), at: place{newTicket(1), 0}}
	n, _, _, err := p.add(func() error { return errEnded }, []*offer[int]{late},
		func(signer) uint64 { return 0 })
	if size, bytes := p.size(); err == nil || n+size+bytes != 0 || len(p.front(10, 1000)) != 0 {
		t.Errorf("%d taken, %v; %d wait", n, err, size)
	}
	mustPut(t, p, poolEntry(1, 0, 0)) // what was cleared may come again
}
