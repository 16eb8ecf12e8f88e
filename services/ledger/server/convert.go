package server

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// message reads canonical bytes of this ledger's own.
func message[M proto.Message](raw []byte, into M) (M, error) {
	if err := proto.Unmarshal(raw, into); err != nil {
		return into, fmt.Errorf("read own %s: %w", into.ProtoReflect().Descriptor().Name(), err)
	}
	return into, nil
}

func finality(f ledger.Finality) ledgerv1.Finality {
	switch f {
	case ledger.Accepted:
		return ledgerv1.Finality_FINALITY_ACCEPTED
	case ledger.Committed:
		return ledgerv1.Finality_FINALITY_COMMITTED
	}
	return ledgerv1.Finality_FINALITY_UNSPECIFIED
}

// waitFor reads what a caller waits for; unspecified is committed.
func waitFor(f ledgerv1.Finality) ledger.Finality {
	if f == ledgerv1.Finality_FINALITY_ACCEPTED {
		return ledger.Accepted
	}
	return ledger.Committed
}

// fill writes a result into a message. The receipt is left out if it says no more than that the
// transaction succeeded and the caller does not want that.
func fill(into *ledgerv1.SubmitResult, r *ledger.Result, omit bool) error {
	if r.ID != (ledger.Hash{}) {
		into.Id = r.ID[:]
	}
	into.Finality = finality(r.Finality)
	if r.Err != nil {
		into.ErrorReason, into.ErrorMessage = string(r.Err.Reason()), r.Err.Message()
		into.ErrorCode = uint32(r.Err.Kind())
		return nil
	}
	into.Height, into.Index = r.At.Height, uint64(r.At.Index)
	if r.Receipt == nil || omit && succeeded(r.Receipt) {
		return nil
	}
	receipt, err := message(r.Receipt, &chainv1.Receipt{})
	into.Receipt = receipt
	return err
}

// succeeded tells by the canonical bytes whether a receipt's status is ok: the status follows the
// transaction's id of 34 bytes.
func succeeded(receipt []byte) bool {
	const statusAt, statusTag = 34, 2 << 3
	return len(receipt) > statusAt+1 && receipt[statusAt] == statusTag &&
		receipt[statusAt+1] == byte(chainv1.Status_STATUS_OK)
}

// results makes the messages of a batch in two allocations.
func results(all []ledger.Result, omit bool) ([]*ledgerv1.SubmitResult, error) {
	room := make([]ledgerv1.SubmitResult, len(all))
	out := make([]*ledgerv1.SubmitResult, len(all))
	for i := range all {
		if err := fill(&room[i], &all[i], omit); err != nil {
			return nil, err
		}
		out[i] = &room[i]
	}
	return out, nil
}
