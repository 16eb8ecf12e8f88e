package proof

import (
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Source is what a ledger keeps of a block and needs to prove its transactions. Transactions and
// Receipts are the leaf hashes of the block's two lists: block.LeafHash of
// block.TransactionEntry, and of the canonical receipt.
type Source struct {
	Anchor       sig.Anchor
	Header       block.Header
	Certificate  block.Certificate
	Validators   block.ValidatorSet
	Transactions []tx.Hash
	Receipts     []tx.Hash
}

// Transaction proves transaction number index of the block, given its canonical bytes and those
// of its receipt. It panics if there is no such transaction.
func (s *Source) Transaction(index int, raw, receipt []byte) *chainv1.TransactionProof {
	return &chainv1.TransactionProof{
		Header: s.Header.PB(), Certificate: s.Certificate.PB(), Validators: s.Validators.PB(),
		Transaction: raw, Receipt: receipt,
		TransactionProof: block.Prove(s.Transactions, index).PB(),
		ReceiptProof:     block.Prove(s.Receipts, index).PB(),
		Anchor:           s.Anchor[:],
	}
}

// Proven is what a transaction proof proves. The place in the block is not among it: a list's
// root does not commit to its length, so one path can be told as that of two places.
type Proven struct {
	Header      block.Header
	ID          tx.ID
	Transaction *tx.Transaction
	Receipt     tx.Receipt
}

// VerifyTransaction verifies the canonical bytes of a TransactionProof. Whether it is the
// transaction that was asked for shows in the ID.
func VerifyTransaction(raw []byte, trust Trust) (Proven, error) {
	m := &chainv1.TransactionProof{}
	if err := read(raw, m); err != nil {
		return Proven{}, err
	}
	if string(m.GetAnchor()) != string(trust.Anchor[:]) {
		return Proven{}, fmt.Errorf("%w: anchor %x", ErrAnchor, m.GetAnchor())
	}
	set, err := block.ValidatorSetFromPB(m.GetValidators())
	if err != nil {
		return Proven{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if set.Hash() != trust.Validators.Hash() {
		return Proven{}, fmt.Errorf("%w: set %v", ErrValidators, set.Hash())
	}
	header, err := trust.Certified(m.GetHeader(), m.GetCertificate())
	if err != nil {
		return Proven{}, err
	}
	return listed(m, header, trust.Anchor)
}

// listed checks that transaction and receipt stand at the same place of the header's two lists.
func listed(m *chainv1.TransactionProof, h block.Header, anchor sig.Anchor) (Proven, error) {
	t, err := tx.Decode(m.GetTransaction())
	if err != nil {
		return Proven{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	receipt, err := tx.DecodeReceipt(m.GetReceipt())
	if err != nil {
		return Proven{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	id := t.ID(anchor)
	entry := block.TransactionEntry(id, t.Witness())
	place, err := verifyList(m.GetTransactionProof(), entry[:], h.TransactionsRoot)
	if err != nil {
		return Proven{}, fmt.Errorf("verify transaction in block %d: %w", h.Height, err)
	}
	receiptPlace, err := verifyList(m.GetReceiptProof(), m.GetReceipt(), h.ReceiptsRoot)
	if err != nil {
		return Proven{}, fmt.Errorf("verify receipt in block %d: %w", h.Height, err)
	}
	if receipt.Transaction != id || place != receiptPlace {
		return Proven{}, fmt.Errorf("%w: receipt of transaction %v", ErrSubject,
			receipt.Transaction)
	}
	return Proven{h, id, t, receipt}, nil
}

// place is where an entry stands in a list.
type place struct{ index, size uint64 }

func verifyList(m *chainv1.ListProof, entry []byte, root tx.Hash) (place, error) {
	p, err := block.ListProofFromPB(m)
	if err != nil {
		return place{}, err
	}
	return place{p.Index, p.Size}, p.Verify(entry, root)
}
