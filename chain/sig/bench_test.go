package sig_test

import (
	"fmt"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
)

// BenchmarkBatch verifies batches of 160-byte preimages and reports ns per signature.
func BenchmarkBatch(b *testing.B) {
	const keys = 4096
	type entry struct {
		key       sig.PublicKey
		preimage  []byte
		signature sig.Signature
	}
	entries := make([]entry, keys)
	for i := range entries {
		private, preimage := key(i), fmt.Appendf(nil, "%160d", i)
		entries[i] = entry{private.Public(), preimage, private.Sign(preimage)}
	}
	for _, size := range []int{64, sig.MinBatch, sig.MaxBatch} {
		for _, cached := range []bool{false, true} {
			b.Run(fmt.Sprintf("size=%d/cached=%v", size, cached), func(b *testing.B) {
				v := sig.NewVerifier(1)
				if cached {
					v = sig.NewVerifier(0)
				}
				batch := v.NewBatch(size)
				for round := range 3 {
					for i := range entries {
						if cached && round < 2 {
							v.Verify(entries[i].key, nil, sig.Signature{})
						}
					}
				}
				next := 0
				for b.Loop() {
					batch.Reset()
					for range size {
						e := &entries[next%keys]
						next++
						batch.Add(e.key, e.preimage, e.signature)
					}
					for i, ok := range batch.Verify() {
						if !ok {
							b.Fatalf("entry %d refused", i)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/sig")
			})
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	private, preimage := key(1), fmt.Appendf(nil, "%160d", 1)
	signature := private.Sign(preimage)
	v := sig.NewVerifier(0)
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			sig.Verify(private.Public(), preimage, signature)
		}
	})
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			v.Verify(private.Public(), preimage, signature)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	private, preimage := key(1), fmt.Appendf(nil, "%160d", 1)
	for b.Loop() {
		private.Sign(preimage)
	}
}
