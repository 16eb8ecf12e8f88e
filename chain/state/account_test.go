package state_test

import (
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func TestTransfer(t *testing.T) {
	w := newWorld(t)
	from, to := w.balance(owner()), w.balance(other())
	r := w.must(owner(), &tx.Transfer{To: other().id, Amount: 5_000})
	if got := w.balance(other()); got != to+5_000 {
		t.Errorf("receiver has %d, want %d", got, to+5_000)
	}
	if got := w.balance(owner()); got != from-5_000-r.Fee {
		t.Errorf("sender has %d, want %d", got, from-5_000-r.Fee)
	}
	if r.Outcomes[0].Amount != 5_000 {
		t.Errorf("outcome is %+v", r.Outcomes[0])
	}
}

func TestTransferRefused(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		want chainv1.Reason
		op   *tx.Transfer
	}{
		{chainv1.Reason_REASON_AMOUNT_ZERO, &tx.Transfer{To: other().id}},
		{chainv1.Reason_REASON_BALANCE_TOO_LOW, &tx.Transfer{To: other().id, Amount: wealth}},
		{chainv1.Reason_REASON_BALANCE_TOO_LOW, &tx.Transfer{To: other().id, Amount: 1<<64 - 1}},
		{chainv1.Reason_REASON_BELOW_LOCK, &tx.Transfer{To: newcomer().id, Amount: lock - 1}},
	} {
		w.refused(c.want, owner(), c.op)
	}
}
