package proof

import (
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// NewHistory proves that the block with header ancestor stands before the certified header h.
// hashes are those of all headers from height 0 to at least h.Height-1, in order. It costs a pass
// over them. Errors: ErrSubject when the ancestor's height is not below h's, or hashes are too few.
func NewHistory(h *block.Header, c block.Certificate, ancestor *block.Header,
	hashes []tx.Hash) (*chainv1.HistoryProof, error) {
	if ancestor.Height >= h.Height || uint64(len(hashes)) < h.Height {
		return nil, fmt.Errorf("%w: block %d before block %d, of %d hashes", ErrSubject,
			ancestor.Height, h.Height, len(hashes))
	}
	leaves := make([]tx.Hash, h.Height)
	for i := range leaves {
		leaves[i] = block.LeafHash(hashes[i][:])
	}
	return &chainv1.HistoryProof{
		Header: h.PB(), Certificate: c.PB(), Ancestor: ancestor.PB(),
		Proof: block.Prove(leaves, int(ancestor.Height)).PB(),
	}, nil
}

// Ancestor is what a history proof proves: the block with header Header and hash Hash is an
// ancestor of the certified block with header Head.
type Ancestor struct {
	Head   block.Header
	Header block.Header
	Hash   tx.Hash
}

// VerifyHistory verifies the canonical bytes of a HistoryProof. Whether the ancestor is the one
// that was asked for shows in its height or hash. The ancestor needs no certificate of its own,
// and what its state root commits to is proven with it.
func VerifyHistory(raw []byte, trust Trust) (Ancestor, error) {
	m := &chainv1.HistoryProof{}
	if err := read(raw, m); err != nil {
		return Ancestor{}, err
	}
	head, err := trust.Certified(m.GetHeader(), m.GetCertificate())
	if err != nil {
		return Ancestor{}, err
	}
	ancestor, err := block.HeaderFromPB(m.GetAncestor())
	if err != nil {
		return Ancestor{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	hash := ancestor.Hash(trust.Anchor)
	at, err := verifyList(m.GetProof(), hash[:], head.HistoryRoot)
	if err != nil {
		return Ancestor{}, fmt.Errorf("verify block %d before block %d: %w", ancestor.Height,
			head.Height, err)
	}
	// The list's length and order follow from heights: a place of another size is a lie.
	if at.size != head.Height || at.index != ancestor.Height {
		return Ancestor{}, fmt.Errorf("%w: place %d of %d", ErrSubject, at.index, at.size)
	}
	return Ancestor{head, ancestor, tx.Hash(hash)}, nil
}
