package ledger_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// snapshots keeps the newest snapshot in memory.
type snapshots struct {
	mu      sync.Mutex
	height  uint64
	content []byte
}

func (s *snapshots) Save(_ context.Context, h uint64, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.height, s.content = h, b.Bytes()
	return nil
}

func (s *snapshots) Load(_ context.Context, most uint64,
	read func(uint64, io.Reader) error,
) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.content == nil || s.height > most {
		return false, nil
	}
	err := read(s.height, bytes.NewReader(s.content))
	return err == nil, err
}

func TestFailedStorageStopsTheChainAndLosesNothing(t *testing.T) {
	for name, failure := range map[string]ledgertest.Failure{
		"lost": ledgertest.FailBefore, "persisted": ledgertest.FailAfter,
	} {
		t.Run(name, func(t *testing.T) {
			n := network(t, 1, 4)
			disk := &ledgertest.Disk{Next: func(r ledger.Record) ledgertest.Failure {
				if r.Height == 3 {
					return failure
				}
				return ledgertest.FailNot
			}}
			c, stop := ledgertest.Start(t, config(), deps(n, disk.Open()))
			kept := append(submit(t, c, n.Transfer(0, 1, 0, 5)),
				submit(t, c, n.Transfer(1, 2, 0, 5))...)
			last := n.Transfer(2, 3, 0, 5)
			_, _, err := c.Submit(t.Context(), [][]byte{last}, ledger.Committed)
			if !errors.Is(err, ledger.ReasonChainStopped) {
				t.Fatalf("submit on a failing disk: %v", err)
			}
			failed(t, c)
			_, _, err = c.Submit(t.Context(), [][]byte{n.Transfer(3, 0, 0, 5)}, ledger.Accepted)
			if !errors.Is(err, ledger.ReasonChainStopped) || c.Err() == nil {
				t.Errorf("submit after the failure: %v, state %v", err, c.Err())
			}
			if h := c.Tip().Header.Height; h != 2 {
				t.Errorf("the head is shown at %d", h)
			}
			if err := ledgertest.Conserved(n, c); err != nil {
				t.Error(err)
			}
			if err := stop(); !errors.Is(err, ledgertest.ErrInjected) {
				t.Errorf("run ended with %v", err)
			}
			disk.Next = nil
			c, _ = ledgertest.Start(t, config(), deps(n, disk.Open()))
			for _, r := range kept {
				if known, err := c.Transaction(t.Context(), r.ID); err != nil || known.At != r.At {
					t.Errorf("acknowledged at %v, found %v, %v", r.At, known, err)
				}
			}
			submit(t, c, last) // whether it was persisted or not: once
			if account, _ := c.State().Account(n.Accounts[2]); account.Nonce != 1 {
				t.Errorf("nonce %d after one transaction", account.Nonce)
			}
		})
	}
}

// TestGoesOnOnceTheDiskHasRoom: refused by name meanwhile, read meanwhile, and nothing that was
// told to be unknown happens unasked later.
func TestGoesOnOnceTheDiskHasRoom(t *testing.T) {
	for name, c := range map[string]struct {
		failure ledgertest.Failure
		reason  error
	}{
		"full":      {ledgertest.FailFull, ledger.ReasonDiskFull},
		"lost":      {ledgertest.FailBefore, ledger.ReasonChainStopped},
		"persisted": {ledgertest.FailAfter, ledger.ReasonChainStopped},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { goesOn(t, c.failure, c.reason) })
		})
	}
}

func goesOn(t *testing.T, failure ledgertest.Failure, reason error) {
	n := network(t, 1, 4)
	tries := make(chan time.Time, 100)
	var broken atomic.Bool
	disk := &ledgertest.Disk{
		Next: func(r ledger.Record) ledgertest.Failure {
			if r.Height == 2 && broken.Load() {
				return failure
			}
			return ledgertest.FailNot
		},
		Mending: func() error {
			if tries <- time.Now(); broken.Load() {
				return ledgertest.ErrInjected
			}
			return nil
		},
	}
	broken.Store(true)
	c, stop := ledgertest.Start(t, config(), deps(n, disk.Open()))
	first := n.Transfer(0, 1, 0, 5)
	kept := submit(t, c, first)[0]
	unknown := n.Transfer(2, 3, 0, 5)
	began := time.Now()
	for _, raw := range [][]byte{unknown, n.Transfer(1, 0, 0, 5)} { // under way, and refused at once
		_, _, err := c.Submit(t.Context(), [][]byte{raw}, ledger.Committed)
		if !errors.Is(err, reason) || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("submit on a failing disk: %v, want %v", err, reason)
		}
	}
	if known, err := c.Transaction(t.Context(), kept.ID); err != nil || known.At != kept.At {
		t.Errorf("what was acknowledged is at %v, %v", known.At, err)
	}
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	tried, early := len(tries), (<-tries).Sub(began)
	if tried > 5*2+6 || tried < 8 || early > 2*time.Second {
		t.Errorf("%d tries to mend in 5 minutes, the first after %v", tried, early)
	}
	broken.Store(false)
	changed, _ := c.Failure()
	<-changed
	if err := c.Err(); err != nil {
		t.Fatalf("after the mending: %v", err)
	}
	submit(t, c, n.Transfer(1, 0, 0, 5))
	if account, _ := c.State().Account(n.Accounts[2]); account.Nonce != 0 {
		t.Error("a transaction whose sender was told that nothing is known came into a block")
	}
	submit(t, c, unknown)
	if again := submit(t, c, first)[0]; again.At != kept.At {
		t.Errorf("at %v, and then at %v", kept.At, again.At)
	}
	if err := ledgertest.Conserved(n, c); err != nil {
		t.Error(err)
	}
	tip := c.Tip()
	if err := stop(); err != nil {
		t.Errorf("the chain ended with %v", err)
	}
	again, err := ledger.Open(t.Context(), config(), deps(n, disk.Open()))
	if err != nil || again.Tip().Hash != tip.Hash {
		t.Errorf("the log leads to another head: %v", err)
	}
}

// failed waits until the chain has failed.
func failed(t *testing.T, c *ledger.Chain) {
	t.Helper()
	for {
		changed, err := c.Failure()
		if err != nil {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("the chain does not fail")
		}
	}
}

func TestStartsFromASnapshot(t *testing.T) {
	n := network(t, 1, 4)
	disk, kept := &ledgertest.Disk{}, &snapshots{}
	d := deps(n, disk.Open())
	d.Snapshots = kept
	c, stop := ledgertest.Start(t, config(), d)
	for nonce := range uint64(5) {
		submit(t, c, n.Transfer(0, 1, nonce, 5))
	}
	tip := c.Tip()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if kept.height != tip.Header.Height {
		t.Fatalf("snapshot of height %d, the head is at %d", kept.height, tip.Header.Height)
	}
	for name, content := range map[string][]byte{
		"good":      kept.content,
		"damaged":   append(bytes.Clone(kept.content[:40]), 1, 2, 3),
		"truncated": kept.content[:len(kept.content)/2],
		"empty":     {},
		"clock set": clockSet(kept.content),
	} {
		t.Run(name, func(t *testing.T) {
			d := deps(n, disk.Open())
			d.Snapshots = &snapshots{height: kept.height, content: content}
			c, err := ledger.Open(t.Context(), config(), d)
			if err != nil {
				t.Fatal(err)
			}
			if c.Tip().Hash != tip.Hash {
				t.Errorf("head %x, want %x", c.Tip().Hash, tip.Hash)
			}
			if h := c.State().Head(); h.Time != tip.Header.Time || h.Accrual != tip.Header.Accrual {
				t.Errorf("clocks %+v, the head's are %d and %d", h, tip.Header.Time,
					tip.Header.Accrual)
			}
		})
	}
	d = deps(n, disk.Open())
	d.Snapshots = kept
	c, _ = ledgertest.Start(t, config(), d)
	submit(t, c, n.Transfer(0, 1, 5, 5), n.Transfer(1, 2, 0, 7))
	if err := ledgertest.Conserved(n, c); err != nil {
		t.Error(err)
	}
}

// clockSet changes the accrual clock of a snapshot, which its state root does not cover, and makes
// the checksum right again.
func clockSet(content []byte) []byte {
	state := bytes.Clone(content)
	at := bytes.Index(state, []byte("ucn/state/v1\n"))
	const accrualEnd = 13 + 32 + 3*8
	state[at+accrualEnd-4] ^= 1
	body := state[at : len(state)-sha256.Size]
	sum := sha256.Sum256(body)
	return append(state[:len(state)-sha256.Size], sum[:]...)
}

func TestTamperedLogIsRefused(t *testing.T) {
	n := network(t, 1, 4)
	disk := &ledgertest.Disk{}
	c, stop := ledgertest.Start(t, config(), deps(n, disk.Open()))
	submit(t, c, n.Transfer(0, 1, 0, 5))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	record, err := disk.Open().Read(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	genesis, err := disk.Open().Read(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for at := -1; at < len(record.Bytes); at += 13 {
		changed := record
		changed.Bytes = bytes.Clone(record.Bytes)
		if at < 0 {
			changed.Hash[7] ^= 4
		} else {
			changed.Bytes[at] ^= 4
		}
		other := (&ledgertest.Disk{}).Open()
		for _, r := range []ledger.Record{genesis, changed} {
			if err := other.Append(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ledger.Open(t.Context(), config(), deps(n, other)); err == nil {
			t.Errorf("a log with byte %d of block 1 changed was accepted", at)
		}
	}
}

func TestPipelinedTransactionsFollowTheirKeySets(t *testing.T) {
	n := network(t, 1, 4)
	c, _ := ledgertest.Start(t, config(), deps(n, (&ledgertest.Disk{}).Open()))
	old, fresh := n.Keys[0], n.Keys[3]
	with := func(nonce uint64, key sig.PrivateKey, first bool, o tx.Operation) []byte {
		signed, err := tx.Sign(n.Body(0, nonce, o), n.Anchor, sig.SingleKey(key.Public()), first, key)
		if err != nil {
			t.Fatal(err)
		}
		return signed.Append(nil)
	}
	pay := &tx.Transfer{To: n.Accounts[1], Amount: 9}
	rotate := &tx.SetKeys{Keys: sig.SingleKey(fresh.Public())}
	// All of them in one call: the state holds no set for the account yet.
	submit(t, c, with(0, old, true, pay), with(1, old, false, rotate), with(2, fresh, false, pay))
	results, _, err := c.Submit(t.Context(), [][]byte{with(3, old, false, pay)}, ledger.Committed)
	if err != nil || results[0].Err == nil ||
		results[0].Err.Reason() != ledger.ReasonBadSignature {
		t.Errorf("the old key still counts: %+v, %v", results, err)
	}
	submit(t, c, with(3, fresh, false, pay))
}

func TestVerifyRefusesABlockThatIsNotWhatItSays(t *testing.T) {
	n := network(t, 1, 4)
	maker := opened(t, n)
	built := build(t, n, maker)
	follower := opened(t, n)
	if err := follower.Verify(t.Context(), follower.Head(), built); err != nil {
		t.Fatalf("a good block: %v", err)
	}
	for name, change := range map[string]func(*block.Block){
		"state root":    func(b *block.Block) { b.Header.StateRoot[0] ^= 1 },
		"receipts root": func(b *block.Block) { b.Header.ReceiptsRoot[0] ^= 1 },
		"proposer":      func(b *block.Block) { b.Header.Proposer = n.Accounts[0] },
		"far ahead":     func(b *block.Block) { b.Header.Time += 60_000; b.Header.Accrual += 60_000 },
		"repeated transaction": func(b *block.Block) {
			b.Body.Transactions = append(b.Body.Transactions, b.Body.Transactions[0])
			body := b.Body.Append(nil)
			b.Header.BodyHash, b.Header.BodyLength = block.BodyHash(body), uint64(len(body))
		},
	} {
		b, err := block.Decode(bytes.Clone(built.Bytes))
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		wrong := ledger.Block{Header: built.Header, Bytes: b.Append(nil)}
		err = follower.Verify(t.Context(), follower.Head(), wrong)
		if !errors.Is(err, ledger.ErrInvalidBlock) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A certificate of somebody else makes nothing final, the proposer's does.
	preimage := built.Header.Preimage
	stranger := ledger.Certificate{{Key: n.Keys[0].Public(), Signature: n.Keys[0].Sign(preimage)}}
	if err := follower.Commit(t.Context(), built, stranger); err == nil {
		t.Error("a stranger's certificate was accepted")
	}
	proposer := ledger.Certificate{
		{Key: n.Proposer.Public(), Signature: n.Proposer.Sign(preimage)},
	}
	if err := follower.Commit(t.Context(), built, proposer); err != nil {
		t.Errorf("the proposer's certificate: %v", err)
	}
	if follower.Head().Hash != built.Header.Hash {
		t.Error("the follower did not come to the block")
	}
}

// opened is a chain that nobody drives.
func opened(t *testing.T, n *ledgertest.Network) *ledger.Chain {
	t.Helper()
	c, err := ledger.Open(t.Context(), config(), deps(n, (&ledgertest.Disk{}).Open()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// build returns block 1 of the network, with one transfer, as another chain c may verify it.
func build(t *testing.T, n *ledgertest.Network, c *ledger.Chain) ledger.Block {
	t.Helper()
	other, _ := ledgertest.Start(t, config(), deps(n, (&ledgertest.Disk{}).Open()))
	r := submit(t, other, n.Transfer(0, 1, 0, 5))
	found, err := other.Block(t.Context(), r[0].At.Height)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := block.Block{Header: found.Block.Header, Body: found.Block.Body}
	h := &found.Block.Header
	return ledger.Block{Bytes: unsigned.Append(nil), Header: ledger.Header{
		Height: h.Height, Time: uint64(h.Time), Hash: found.Hash, Prev: c.Head().Hash,
		Preimage: h.Preimage(n.Anchor),
	}}
}

func TestBeatsWhileMoneyAccrues(t *testing.T) {
	n := network(t, 1, 4)
	c := opened(t, n)
	now := c.Head().Time + 1
	_, err := c.Build(t.Context(), c.Head(), ledger.Limits{Time: now, Operations: 10, Bytes: 1 << 20,
		Empty: true})
	if !errors.Is(err, ledger.ErrNothing) {
		t.Errorf("an idle chain builds: %v", err)
	}
	running, stop := ledgertest.Start(t, config(), deps(n, (&ledgertest.Disk{}).Open()))
	submit(t, running, n.Sign(0, n.Body(0, 0, burning(n))))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b, err := running.Build(t.Context(), running.Head(), ledger.Limits{
		Time: running.Head().Time + 30_000, Operations: 10, Bytes: 1 << 20, Empty: true,
	})
	if err != nil || b.Batch.Transactions != 0 || b.Header.Height != running.Head().Height+1 {
		t.Errorf("an accruing chain builds %+v, %v", b.Header, err)
	}
}

// burning opens an escrow that burns.
func burning(n *ledgertest.Network) tx.Operation {
	return &tx.OpenEscrow{
		Purpose: 1, Subject: bytes.Repeat([]byte{5}, 32), Amount: block.UCN, BurnRate: 1000,
		Terms: tx.Terms{
			MaxRate: 1, MaxTotal: block.UCN, Trust: 1, AckKeys: []sig.PublicKey{n.Keys[0].Public()},
			Expires: tx.Millis(n.Now().UnixMilli()) + 86_400_000,
		},
	}
}

func TestFullPoolRefusesByName(t *testing.T) {
	n := network(t, 1, 4)
	slow := solo.Config{SealIdle: 1e9, SealAfter: 1e9, SealOperations: 1000, SealBytes: 1 << 20}
	d := deps(n, (&ledgertest.Disk{}).Open())
	d.Orderer = func(head ledger.Header) (ledger.Orderer, error) {
		return solo.New(slow, n.MaxStep(), solo.Deps{Key: n.Proposer, Head: head})
	}
	small := config()
	small.Pool.Transactions = 2
	c, _ := ledgertest.Start(t, small, d)
	results, _, err := c.Submit(t.Context(), [][]byte{
		n.Transfer(0, 1, 0, 5), n.Transfer(1, 2, 0, 5), n.Transfer(2, 3, 0, 5),
	}, ledger.Accepted)
	if err != nil {
		t.Fatal(err)
	}
	if results[1].Finality != ledger.Accepted || results[2].Err == nil ||
		results[2].Err.Reason() != ledger.ReasonPoolFull || results[2].Err.Retry() == 0 {
		t.Errorf("results %+v", results)
	}
}
