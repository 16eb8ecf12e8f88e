package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// bond tells whether an escrow's money leaves only after notice.
func bond(answer *ledgerv1.GetEscrowResponse) bool { return answer.GetEscrow().GetUnbond() != 0 }

// withdrawable is what the owner of an escrow can take out now.
func withdrawable(answer *ledgerv1.GetEscrowResponse) (amount.Amount, error) {
	if !bond(answer) {
		return amount.Amount(answer.GetUnreserved()), nil
	}
	held, err := tx.EscrowFromPB(answer.GetEscrow())
	if err != nil {
		return 0, fmt.Errorf("the escrow: %w", err)
	}
	return amount.Amount(state.Withdrawable(&held, tx.Millis(answer.GetAccrual()))), nil
}

// bondHeld says why more than free cannot leave a bond: the chain would refuse it for a fee.
func bondHeld(answer *ledgerv1.GetEscrowResponse, free amount.Amount) error {
	unbond := time.Duration(answer.GetEscrow().GetUnbond()) * time.Millisecond
	return fmt.Errorf("a bond lets go only of what notice was given for, %v before (now: %s)",
		unbond, amount.Text(free))
}

// bondCloses refuses to close a bond that still holds what no notice is due for.
func bondCloses(answer *ledgerv1.GetEscrowResponse) error {
	if !bond(answer) {
		return nil
	}
	free, err := withdrawable(answer)
	if err == nil && uint64(free) < answer.GetEscrow().GetBalance() {
		return bondHeld(answer, free)
	}
	return err
}

func (r *escrowResult) printBond(w io.Writer) {
	printf(w, "owner\t%s\npurpose\t%s\nbalance\t%s\n", r.Owner, r.Purpose, amount.Text(r.Balance))
	printf(w, "secures\t%s\n", amount.Text(r.Secured))
	if r.Noticed > 0 {
		printf(w, "notice\tgiven of %s\n", amount.Text(r.Noticed))
	}
	printf(w, "free\t%s\ndeposit\t%s\n", amount.Text(r.Unreserved), amount.Text(r.Lock))
	printf(w, "unbond\t%v after notice\n", time.Duration(r.Unbond)*time.Millisecond)
}
