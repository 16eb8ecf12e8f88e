package server_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// do has an account's operation committed.
func (f *fountain) do(account int, nonce uint64, o tx.Operation) tx.Receipt {
	f.t.Helper()
	raw := f.n.Sign(account, f.n.Body(account, nonce, o))
	r, _, err := f.chain.Submit(f.t.Context(), [][]byte{raw}, ledger.Committed)
	if err != nil || r[0].Err != nil {
		f.t.Fatal(err, r)
	}
	receipt, err := tx.DecodeReceipt(r[0].Receipt)
	if err != nil || receipt.Status != chainv1.Status_STATUS_OK {
		f.t.Fatalf("%+v, %v", receipt, err)
	}
	return receipt
}

// TestClocksAndWhatABondSecures: after a rest the accrual clock is behind, and both are told; a
// bond secures what it holds less what notice was given for.
func TestClocksAndWhatABondSecures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFountain(t)
		const week = 7 * 24 * time.Hour
		r := f.do(0, 0, &tx.OpenEscrow{Purpose: chainv1.Purpose_PURPOSE_BOND, Amount: block.UCN,
			Subject: make([]byte, 32), Unbond: tx.Millis(week.Milliseconds())})
		bond := r.Outcomes[0].Created
		time.Sleep(6 * week) // nothing accrues, so no block comes
		chain, err := f.s.GetChain(t.Context(), &ledgerv1.GetChainRequest{})
		if err != nil || chain.GetNow() != uint64(time.Now().UnixMilli()) ||
			chain.GetAccrual() != chain.GetHead().GetAccrual()+60_000 {
			t.Errorf("the clocks stand at %d and %d, the head's at %d, %v", chain.GetNow(),
				chain.GetAccrual(), chain.GetHead().GetAccrual(), err)
		}
		secured := func(prove bool, want tx.Grains) {
			t.Helper()
			e, err := f.s.GetEscrow(t.Context(),
				&ledgerv1.GetEscrowRequest{Escrow: bond[:], Prove: prove})
			if err != nil || tx.Grains(e.GetSecured()) != want ||
				e.GetNow() != uint64(time.Now().UnixMilli()) ||
				e.GetAccrual() > e.GetNow()-uint64((5*week).Milliseconds()) {
				t.Errorf("%v, %v", e, err)
			}
		}
		secured(false, block.UCN)
		f.do(0, 1, &tx.Notice{Escrow: tx.EscrowID(bond), Amount: block.UCN / 4})
		secured(false, block.UCN-block.UCN/4)
		secured(true, block.UCN-block.UCN/4)
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}
