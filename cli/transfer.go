package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/submit"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// submitted is what became of a transaction, as commands print it.
type submitted struct {
	Transaction string         `json:"transaction"`
	Finality    string         `json:"finality"`
	Block       uint64         `json:"block"`
	Status      string         `json:"status"`
	Reason      string         `json:"reason,omitempty"`
	Fee         amount.Amount  `json:"fee"`
	Amount      *amount.Amount `json:"amount,omitempty"`
	To          string         `json:"to,omitempty"`
	Escrow      string         `json:"escrow,omitempty"`
	Delegate    uint32         `json:"delegate,omitempty"`
}

func submittedOf(id tx.ID, height uint64, receipt *chainv1.Receipt) *submitted {
	s := &submitted{
		Transaction: id.String(), Finality: "committed", Block: height,
		Status: reasonText(receipt.GetStatus().String(), "STATUS_"),
		Fee:    amount.Amount(receipt.GetFee()),
	}
	if r := receipt.GetReason(); r != chainv1.Reason_REASON_UNSPECIFIED {
		s.Reason = reasonText(r.String(), "REASON_")
	}
	return s
}

func (s *submitted) print(w io.Writer) {
	if s.Amount != nil {
		printf(w, "amount\t%s\n", amount.Text(*s.Amount))
	}
	if s.To != "" {
		printf(w, "to\t%s\n", s.To)
	}
	if s.Escrow != "" {
		printf(w, "escrow\t%s\n", s.Escrow)
	}
	if s.Delegate != 0 {
		printf(w, "delegate\t%d\n", s.Delegate)
	}
	status := s.Status
	if s.Reason != "" {
		status += ": " + s.Reason
	}
	printf(w, "transaction\t%s\nstatus\t%s, %s in block %d\nfee\t%s\n", s.Transaction, status,
		s.Finality, s.Block, amount.Text(s.Fee))
}

// printSubmitted prints the ledger's result. One that was refused or failed is an error.
func (a *app) printSubmitted(r *ledgerv1.SubmitResult, more func(*submitted)) error {
	if r.GetErrorReason() != "" {
		return fmt.Errorf("the ledger refuses the transaction: %s (%s)", r.GetErrorMessage(),
			r.GetErrorReason())
	}
	if len(r.GetId()) != len(tx.ID{}) {
		return fmt.Errorf("the ledger names a transaction of %d bytes", len(r.GetId()))
	}
	s := submittedOf(tx.ID(r.GetId()), r.GetHeight(), r.GetReceipt())
	s.Finality = reasonText(r.GetFinality().String(), "FINALITY_")
	if r.GetReceipt() == nil {
		s.Status = "pending"
	}
	if more != nil {
		more(s)
	}
	if err := a.emit(s, s.print); err != nil {
		return err
	}
	if r.GetReceipt().GetStatus() == chainv1.Status_STATUS_FAILED {
		return fmt.Errorf("the transaction failed: %s; only its fee was charged", s.Reason)
	}
	return nil
}

// printSent prints what a sender's transaction became.
func (a *app) printSent(r submit.Result, err error, more func(*submitted)) error {
	if r.Receipt == nil {
		return err
	}
	s := submittedOf(r.ID, r.Height, r.Receipt)
	if more != nil {
		more(s)
	}
	if printErr := a.emit(s, s.print); printErr != nil {
		return printErr
	}
	return err
}

func (a *app) transferCommand() *cobra.Command {
	memo := ""
	cmd := &cobra.Command{
		Use: "transfer TO AMOUNT", Short: "Send money to an account and wait until it is committed",
		Long: `Send AMOUNT UCN, exactly, with up to 9 decimals, from the wallet to an account (ucn1...).
A new account pays its deposit out of what it gets. The receipt can be proven later:
ucn tx get ID --proof -o proof.json; ucn verify proof.json`,
		Example: "  ucn transfer ucn1... 12.5\n  ucn transfer ucn1... 0.000000001 --memo thanks",
		Args:    args(cobra.ExactArgs(2)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			to, err := parseAccount(list[0])
			if err != nil {
				return err
			}
			sum, err := amount.Parse(list[1])
			if err != nil {
				return err
			}
			if sum == 0 {
				return usagef("there is nothing to send: the amount is 0")
			}
			if len(memo) > tx.MaxMemo {
				return usagef("the memo has %d bytes, at most %d", len(memo), tx.MaxMemo)
			}
			if err := l.affords(ctx, tx.Grains(sum)); err != nil {
				return err
			}
			r, err := l.Sender.SendMemo(ctx, []byte(memo), &tx.Transfer{
				To: to, Amount: tx.Grains(sum),
			})
			return a.printSent(r, err, func(s *submitted) { s.To, s.Amount = list[0], &sum })
		}),
	}
	cmd.Flags().StringVar(&memo, "memo", "", "text that goes into the transaction, for all to read")
	return a.byDelegate(cmd)
}

// affords refuses what the chain would refuse for a fee: more than the account has. A ledger that
// does not answer now leaves the question to the chain.
func (l *link) affords(ctx context.Context, sum tx.Grains) error {
	has, err := l.Balance(ctx, l.Sender.Account())
	if err == nil && has < sum {
		return fmt.Errorf("the account holds %s, which is less than %s", amount.Text(has),
			amount.Text(sum))
	}
	return nil
}

// hexID reads a transaction id or hash.
func hexID(what, text string) ([32]byte, error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 32 {
		return [32]byte{}, usagef("%s %.80q is not 64 hexadecimal digits", what, text)
	}
	return [32]byte(raw), nil
}
