package state_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
)

const benchAccounts = 100_000

// benchSet makes a key set that never has to sign: the benchmarks replay.
func benchSet(n int) sig.KeySet {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return sig.KeySet{Keys: []sig.PublicKey{sha256.Sum256(b[:])}, Threshold: 1}
}

func benchGenesis() (*block.Genesis, []sig.AccountID) {
	g := genesis(proposer())
	g.Params.MaxStep = hour
	ids := make([]sig.AccountID, benchAccounts-1)
	for i := range ids {
		ids[i] = sig.AccountOf(benchSet(i))
		g.Allocations = append(g.Allocations, block.Allocation{Account: ids[i], Amount: wealth})
	}
	slices.SortFunc(g.Allocations, func(a, b block.Allocation) int {
		return bytes.Compare(a.Account[:], b.Account[:])
	})
	return g, ids
}

// benchBlocks makes rounds blocks of size transfers between random accounts.
func benchBlocks(b *testing.B, w *world, ids []sig.AccountID, rounds, size int) [][]state.Prepared {
	nonces := make([]uint64, len(ids))
	random := uint64(1)
	next := func() int {
		random = random*6364136223846793005 + 1442695040888963407
		return int(random>>33) % len(ids)
	}
	blocks := make([][]state.Prepared, rounds)
	for i := range blocks {
		for range size {
			from := next()
			body := tx.Body{Chain: block.Main, Account: ids[from], Nonce: nonces[from],
				Fee: 1_000_000, ValidUntil: genesisTime + hour,
				Operations: []tx.Operation{&tx.Transfer{To: ids[next()], Amount: 1}}}
			s := sig.AccountSignature{Signatures: []sig.IndexedSignature{{Signature: sig.Signature{1}}}}
			if nonces[from] == 0 {
				s.Keys = benchSet(from)
			}
			nonces[from]++
			t, err := tx.Attach(body, s)
			if err != nil {
				b.Fatal(err)
			}
			p, _ := w.s.Prepare(t)
			blocks[i] = append(blocks[i], p)
		}
	}
	return blocks
}

// cpuTime is what all threads of the process have used, in ns: steadier than the wall on a shared
// machine.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkApply is execution and state root of single transfers over 100,000 accounts, without
// signatures.
func BenchmarkApply(b *testing.B) {
	g, ids := benchGenesis()
	for _, size := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w := worldOf(b, g)
			w.ctx.Replay = true
			blocks := benchBlocks(b, w, ids, b.N, size)
			b.ReportAllocs()
			b.ResetTimer()
			start := cpuTime(b)
			for _, prepared := range blocks {
				x := w.begin(1)
				for _, p := range prepared {
					if _, err := x.Apply(p); err != nil {
						b.Fatal(err)
					}
				}
				x.Finish()
				x.Commit()
			}
			b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N*size), "cpu-ns/transfer")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/transfer")
		})
	}
}
