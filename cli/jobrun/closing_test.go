package jobrun

import (
	"slices"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// TestClosingFits: whatever the number of leases, what closes their escrow goes into transactions.
func TestClosingFits(t *testing.T) {
	key := sig.FromSeed([32]byte{1})
	for _, n := range []int{0, 1, 1000, 2001, 3000, 3900, 65_536} {
		leases := make([]leased, n)
		for i := range leases {
			leases[i].id = tx.LeaseID{1, byte(i), byte(i >> 8)}
		}
		operations, _ := closing(tx.EscrowID{1}, leases, time.Now())
		settled := 0
		for part := range slices.Chunk(operations, SettlesAtOnce) {
			_, err := tx.Sign(tx.Body{
				Chain: "main", Account: sig.AccountOfKey(key.Public()), ValidUntil: 1 << 60,
				Nonce: 1 << 60, Fee: 1<<63 - 1, Memo: make([]byte, tx.MaxMemo), Operations: part,
			}, sig.Anchor{}, sig.SingleKey(key.Public()), true, key)
			if err != nil {
				t.Errorf("%d leases: %v", n, err)
			}
			for _, o := range part {
				if s, ok := o.(*tx.Settle); ok {
					settled += len(s.Leases)
				}
			}
		}
		if _, last := operations[len(operations)-1].(*tx.CloseEscrow); settled != n || !last {
			t.Errorf("%d of %d leases are settled, then closed: %v", settled, n, last)
		}
	}
}
