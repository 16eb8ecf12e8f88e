package tx_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// transfers is a transaction of count transfers.
func transfers(b *testing.B, count int) *tx.Transaction {
	b.Helper()
	body, signature := newSampler(1).transaction(1)
	body.Operations, body.Memo = nil, nil
	for i := range count {
		body.Operations = append(body.Operations,
			&tx.Transfer{To: sig.AccountID{byte(i), 1}, Amount: 1_000_000_000})
	}
	t, err := tx.Attach(body, signature)
	if err != nil {
		b.Fatal(err)
	}
	return t
}

func BenchmarkDecode(b *testing.B) {
	for _, count := range []int{1, 100} {
		raw := transfers(b, count).Append(nil)
		b.Run(fmt.Sprintf("operations=%d", count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tx.Decode(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("operations=%d/generated", count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := proto.Unmarshal(raw, &chainv1.Transaction{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, count := range []int{1, 100} {
		t := transfers(b, count)
		room := make([]byte, 0, tx.MaxTransaction)
		b.Run(fmt.Sprintf("operations=%d", count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t.Body.Append(room)
			}
		})
	}
}

func BenchmarkID(b *testing.B) {
	t := transfers(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		t.ID(sig.Anchor{1})
	}
}

func BenchmarkAccountLeaf(b *testing.B) {
	account := newSampler(1).account()
	account.Keys.Keys = account.Keys.Keys[:1]
	room := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		account.Append(room)
	}
}
