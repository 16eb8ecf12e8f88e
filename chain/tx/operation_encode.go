package tx

import "github.com/united-containers/ucn/chain/canon"

// appendOperation appends the operation as an element of a repeated field.
func appendOperation(dst []byte, field int, operation Operation) []byte {
	dst, outer := canon.Begin(dst, field)
	dst, inner := canon.Begin(dst, int(operation.Kind()))
	dst = canon.EndElement(operation.appendTo(dst), inner)
	return canon.EndElement(dst, outer)
}

func (o *Transfer) appendTo(dst []byte) []byte {
	dst = appendID(dst, 1, o.To)
	return canon.AppendUint(dst, 2, uint64(o.Amount))
}

func (o *SetKeys) appendTo(dst []byte) []byte { return appendKeySet(dst, 1, o.Keys) }

func (o *OpenEscrow) appendTo(dst []byte) []byte {
	dst = canon.AppendUint(dst, 1, uint64(o.Purpose))
	dst = canon.AppendBytes(dst, 2, o.Subject)
	dst = canon.AppendUint(dst, 3, uint64(o.Amount))
	dst = appendTerms(dst, 4, &o.Terms)
	dst = appendIDs(dst, 5, o.Payees)
	dst = appendID(dst, 6, o.PayeeRoot)
	dst = canon.AppendBool(dst, 7, o.Renew)
	dst = canon.AppendUint(dst, 8, uint64(o.BurnRate))
	return canon.AppendUint(dst, 9, uint64(o.Unbond))
}

func appendTerms(dst []byte, field int, terms *Terms) []byte {
	dst, mark := canon.Begin(dst, field)
	dst = canon.AppendUint(dst, 1, uint64(terms.MaxRate))
	dst = canon.AppendUint(dst, 2, uint64(terms.MaxTotal))
	dst = canon.AppendUint(dst, 3, uint64(terms.Trust))
	dst = appendIDs(dst, 4, terms.AckKeys)
	dst = appendID(dst, 5, terms.Assigner)
	dst = canon.AppendUint(dst, 6, uint64(terms.Floor))
	dst = canon.AppendUint(dst, 7, uint64(terms.Expires))
	dst = canon.AppendUint(dst, 8, uint64(terms.LeaseFee))
	dst = canon.AppendUint(dst, 9, uint64(terms.LeaseFeeTotal))
	return canon.End(dst, mark)
}

func (o *TopUp) appendTo(dst []byte) []byte {
	return canon.AppendUint(appendID(dst, 1, o.Escrow), 2, uint64(o.Amount))
}

func (o *Withdraw) appendTo(dst []byte) []byte {
	return canon.AppendUint(appendID(dst, 1, o.Escrow), 2, uint64(o.Amount))
}

func (o *Notice) appendTo(dst []byte) []byte {
	return canon.AppendUint(appendID(dst, 1, o.Escrow), 2, uint64(o.Amount))
}

func (o *SetTerms) appendTo(dst []byte) []byte {
	return appendTerms(appendID(dst, 1, o.Escrow), 2, &o.Terms)
}

func (o *CloseEscrow) appendTo(dst []byte) []byte { return appendID(dst, 1, o.Escrow) }

func (o *PlaceLease) appendTo(dst []byte) []byte {
	dst, mark := canon.Begin(dst, 1)
	dst = canon.End(o.Lease.Append(dst), mark)
	dst = appendSig(dst, 2, o.Signature)
	return canon.AppendUint(dst, 3, uint64(o.Fee))
}

func (o *Extend) appendTo(dst []byte) []byte {
	dst = appendID(dst, 1, o.Lease)
	dst = canon.AppendUint(dst, 2, uint64(o.Budget))
	return canon.AppendUint(dst, 3, uint64(o.Until))
}

func (o *Charge) appendTo(dst []byte) []byte {
	dst, mark := canon.Begin(dst, 1)
	dst = canon.End(o.Note.Append(dst), mark)
	dst = appendSig(dst, 2, o.Signature)
	dst = appendCountersignature(dst, 3, o.Countersignature)
	return canon.AppendBool(dst, 4, o.Final)
}

func (o *End) appendTo(dst []byte) []byte { return appendID(dst, 1, o.Lease) }

func (o *Settle) appendTo(dst []byte) []byte { return appendIDs(dst, 1, o.Leases) }

func (o *Accept) appendTo(dst []byte) []byte {
	return appendCountersignature(appendID(dst, 1, o.Lease), 2, o.Countersignature)
}

func (o *Reject) appendTo(dst []byte) []byte {
	dst = appendID(dst, 1, o.Lease)
	dst = appendID(dst, 2, o.Evidence)
	return appendCountersignature(dst, 3, o.Countersignature)
}

func appendCountersignature(dst []byte, field int, c Countersignature) []byte {
	dst, mark := canon.Begin(dst, field)
	dst = canon.AppendUint(dst, 1, uint64(c.Index))
	dst = appendSig(dst, 2, c.Signature)
	return canon.End(dst, mark)
}
