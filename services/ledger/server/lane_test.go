package server_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

// TestLeaseTellsWhatSupersededIt: the newest lease of its lane, nothing while it is that itself.
func TestLeaseTellsWhatSupersededIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArchive(t, &ledgertest.Index{})
		for step := range 3 { // until its first lease is placed
			a.tell(step)
		}
		first := a.story.Leases[0]
		a.supersededBy(first, nil)
		second := a.placeAfter(2, first, 2)
		a.supersededBy(first, second[:])
		a.supersededBy(second, nil)
		third := a.placeAfter(3, first, 3)
		a.supersededBy(first, third[:])
		a.supersededBy(second, third[:])
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func (a *archive) supersededBy(lease tx.LeaseID, want []byte) {
	a.t.Helper()
	r, err := a.GetLease(a.t.Context(), &ledgerv1.GetLeaseRequest{Lease: lease[:]})
	over := r.GetLease().GetEnd() != 0
	if err != nil || !bytes.Equal(r.GetSupersededBy(), want) || over != (want != nil) {
		a.t.Errorf("superseded by %x, end %d, %v; want %x", r.GetSupersededBy(),
			r.GetLease().GetEnd(), err, want)
	}
}

// placeAfter has the owner, at the nonce given, place a lease in the lane of another.
func (a *archive) placeAfter(nonce uint64, old tx.LeaseID, epoch uint64) tx.LeaseID {
	a.t.Helper()
	found, ok := a.chain.State().Lease(old)
	if !ok {
		a.t.Fatal("the lease to follow is not there")
	}
	l := found.Lease
	l.Epoch = epoch
	now := tx.Millis(time.Unix(0, a.clock.Load()).UnixMilli())
	l.PlaceBy, l.Until = now+60_000, now+3_600_000
	l.AckKeys = []sig.PublicKey{a.n.Keys[0].Public()}
	a.do(nonce, &tx.PlaceLease{Lease: l, Signature: a.n.Keys[3].Sign(l.Preimage(a.n.Anchor))})
	return l.ID(a.n.Anchor)
}
