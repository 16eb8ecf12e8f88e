package ledger_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/ledger"
)

// TestCopiesWasteOnce: the same transaction many times in one submission is executed once, and
// counted once. Copies are answered like the first.
func TestCopiesWasteOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		m.place()
		for _, from := range []int{4, 5, 3, 1, 2} { // their keys are known from now on
			m.do(from, &tx.Transfer{To: m.n.Accounts[1], Amount: 5})
		}
		for _, from := range []int{4, 5, 3, 1} {
			copies := slices.Repeat([][]byte{
				m.n.Sign(from, m.n.Body(from, m.nonces[from], m.recoveries(from, from, 16, 30)...)),
			}, 50)
			results, _, err := m.c.Submit(t.Context(), copies, ledger.Committed)
			if err != nil {
				t.Fatal(err)
			}
			m.nonces[from]++
			for i, r := range results {
				if r.Err != nil || r.ID != results[0].ID {
					t.Fatalf("copy %d: %+v, the first %+v", i, r, results[0])
				}
			}
		}
		late := m.n.Sign(4, m.n.Body(4, m.nonces[4]+7, m.recoveries(4, 4, 1, 1)...))
		results, _, err := m.c.Submit(t.Context(), [][]byte{late, late}, ledger.Committed)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Err.Reason() != ledger.ReasonNonceFuture {
				t.Errorf("copy %d of a refused one: %v", i, r.Err)
			}
		}
		honest := m.n.Sign(2, m.n.Body(2, m.nonces[2], m.recoveries(2, 9, 1, 1)...))
		results, _, err = m.c.Submit(t.Context(), [][]byte{honest}, ledger.Committed)
		if err != nil || results[0].Err != nil {
			t.Errorf("an honest account's: %v, %v", results, err)
		}
	})
}
