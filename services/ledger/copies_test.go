package ledger_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
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

// TestBadCopyStandsForNone: an id does not cover signatures, so whoever knows a transaction can
// make a copy of it with a bad one. Where the two come together, each is judged by its own.
func TestBadCopyStandsForNone(t *testing.T) {
	n := network(t, 1, 3)
	c, _ := ledgertest.Start(t, config(), deps(n, (&ledgertest.Disk{}).Open()))
	until := n.Body(0, 0).ValidUntil
	type one struct {
		from  int
		nonce uint64
		good  bool
	}
	for _, sent := range []([]one){
		{{0, 0, true}, {0, 0, false}},
		{{1, 0, false}, {1, 0, true}},
		{{2, 0, false}, {2, 0, false}, {2, 0, true}, {2, 1, true}, {2, 0, true}},
		{{2, 2, false}, {2, 2, true}, {2, 2, false}, {2, 2, true}}, // its key is known by now
	} {
		var raw [][]byte
		for _, o := range sent {
			body := n.Body(o.from, o.nonce, &tx.Transfer{To: n.Accounts[1], Amount: 5})
			body.ValidUntil = until
			signed := n.Sign(o.from, body)
			if !o.good {
				signed[len(signed)-1] ^= 1
			}
			raw = append(raw, signed)
		}
		results, _, err := c.Submit(t.Context(), raw, ledger.Committed)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			// A bad one may be told what became of a good one that was taken before.
			bad := r.Err != nil && r.Err.Reason() == ledger.ReasonBadSignature
			if r.Err != nil && (!bad || sent[i].good) {
				t.Errorf("%v: %d was judged %v", sent, i, r.Err)
			}
			if alone := len(sent) == 2; alone && !sent[i].good && !bad {
				t.Errorf("%v: %d was not judged by its own signature: %v", sent, i, r)
			}
		}
	}
}

// TestCommittedCopiesAreNotVerified: who sends again what is in a block is told so, whatever the
// signatures of the copy, and none of them is looked at. Another transaction with the same nonce is
// judged as ever.
func TestCommittedCopiesAreNotVerified(t *testing.T) {
	n := network(t, 1, 3)
	d := deps(n, (&ledgertest.Disk{}).Open())
	verified := 0
	d.SetVerifying(func(signatures int) { verified += signatures })
	c, _ := ledgertest.Start(t, config(), d)
	flipped := func(raw []byte) []byte {
		raw = slices.Clone(raw)
		raw[len(raw)-1] ^= 1
		return raw
	}
	all := [][]byte{n.Transfer(0, 1, 0, 5), n.Transfer(0, 1, 1, 5), n.Transfer(2, 1, 0, 5)}
	first := submit(t, c, all...)
	if verified != len(all) {
		t.Errorf("%d signatures of %d are verified", verified, len(all))
	}
	verified = 0
	again := submit(t, c, append(all, all[1], flipped(all[1]), flipped(all[2]))...)
	for i, of := range []int{0, 1, 2, 1, 1, 2} {
		if r := again[i]; r.ID != first[of].ID || r.At != first[of].At ||
			!slices.Equal(r.Receipt, first[of].Receipt) || r.Finality != ledger.Committed {
			t.Errorf("copy %d is answered %+v, the first was %+v", i, r, first[of])
		}
	}
	if verified != 0 {
		t.Errorf("%d signatures of copies are verified", verified)
	}
	other := n.Transfer(0, 2, 1, 7)
	results, _, err := c.Submit(t.Context(), [][]byte{other, flipped(other)}, ledger.Committed)
	if err != nil || !errors.Is(results[0].Err, ledger.ReasonNonceOld) ||
		!errors.Is(results[1].Err, ledger.ReasonBadSignature) || verified != 2 {
		t.Errorf("others of the nonce: %v, %v, %d verified", results, err, verified)
	}
}
