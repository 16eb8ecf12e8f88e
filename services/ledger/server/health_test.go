package server_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// TestHealthFollowsTheChain: not serving while the disk is full, serving once the chain goes on.
func TestHealthFollowsTheChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := ledgertest.NewNetwork(1, 2)
		if err != nil {
			t.Fatal(err)
		}
		full := true
		disk := &ledgertest.Disk{Next: func(r ledger.Record) ledgertest.Failure {
			if r.Height > 0 && full {
				full = false
				return ledgertest.FailFull
			}
			return ledgertest.FailNot
		}}
		c, _ := ledgertest.Start(t, ledger.Config{Pool: ledger.DefaultPool()}, ledger.Deps{
			Genesis: n.Genesis, Store: disk.Open(),
			Orderer: func(head ledger.Header) (ledger.Orderer, error) {
				return solo.New(solo.Default(), n.MaxStep(), solo.Deps{Key: n.Proposer, Head: head})
			},
		})
		told := make(chan bool, 4)
		s, err := server.New(server.Config{}, server.Deps{
			Chains: []*ledger.Chain{c}, Health: func(_ string, serving bool) { told <- serving },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, func() {}) }()
		raw := [][]byte{n.Transfer(0, 1, 0, 5)}
		if _, _, err := c.Submit(t.Context(), raw, ledger.Committed); err == nil {
			t.Error("committed on a full disk")
		}
		got := []bool{<-told, <-told}
		if _, _, err := c.Submit(t.Context(), raw, ledger.Committed); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !slices.Equal(got, []bool{false, true}) || len(told) > 0 {
			t.Errorf("health was told as %v", got)
		}
	})
}
