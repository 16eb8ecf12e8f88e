package cli

import (
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// operationLine words an operation and what came of it: which, about what, how much.
func operationLine(o *chainv1.Operation, out *chainv1.Outcome) string {
	line := operationText(o)
	if about := aboutText(o, out); about != "" {
		line += " " + about
	}
	sum := out.GetAmount()
	switch k := o.GetKind().(type) {
	case *chainv1.Operation_Transfer:
		sum = k.Transfer.GetAmount()
	case *chainv1.Operation_OpenEscrow:
		sum = k.OpenEscrow.GetAmount()
	case *chainv1.Operation_TopUp:
		sum = k.TopUp.GetAmount()
	}
	if sum > 0 {
		line += ", " + amount.Text(amount.Amount(sum))
	}
	if out.GetBound() != 0 {
		line += ", bound by " + reasonText(out.GetBound().String(), "BOUND_")
	}
	return line
}

// aboutText is whom or what an operation is about, empty for the sender alone.
func aboutText(o *chainv1.Operation, out *chainv1.Outcome) string {
	switch k := o.GetKind().(type) {
	case *chainv1.Operation_Transfer:
		return "to " + bytesText(id.Account, k.Transfer.GetTo())
	case *chainv1.Operation_OpenEscrow:
		return bytesText(id.Escrow, out.GetCreated())
	case *chainv1.Operation_TopUp:
		return bytesText(id.Escrow, k.TopUp.GetEscrow())
	case *chainv1.Operation_Withdraw:
		return bytesText(id.Escrow, k.Withdraw.GetEscrow())
	case *chainv1.Operation_SetTerms:
		return bytesText(id.Escrow, k.SetTerms.GetEscrow())
	case *chainv1.Operation_CloseEscrow:
		return bytesText(id.Escrow, k.CloseEscrow.GetEscrow())
	case *chainv1.Operation_PlaceLease:
		return "under " + bytesText(id.Escrow, k.PlaceLease.GetLease().GetEscrow())
	case *chainv1.Operation_Extend:
		return bytesText(id.Lease, k.Extend.GetLease())
	case *chainv1.Operation_Charge:
		return bytesText(id.Lease, k.Charge.GetNote().GetLease())
	case *chainv1.Operation_End:
		return bytesText(id.Lease, k.End.GetLease())
	case *chainv1.Operation_Accept:
		return bytesText(id.Lease, k.Accept.GetLease())
	case *chainv1.Operation_Reject:
		return bytesText(id.Lease, k.Reject.GetLease())
	case *chainv1.Operation_Spend:
		return "to " + bytesText(id.Account, k.Spend.GetOrder().GetTo())
	case *chainv1.Operation_Recover:
		return bytesText(id.Account, k.Recover.GetIntent().GetAccount())
	case *chainv1.Operation_FinishRecovery:
		return bytesText(id.Account, k.FinishRecovery.GetAccount())
	}
	return ""
}
