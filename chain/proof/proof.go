package proof

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// MaxSize is the longest proof in bytes that is read.
const MaxSize = 1 << 20

// Why a proof is refused. Verification wraps one of these, or an error of block or trie.
var (
	// ErrMalformed: it is not the canonical bytes of such a proof, or too long.
	ErrMalformed = errors.New("proof is malformed")
	// ErrAnchor: it is of another network or chain.
	ErrAnchor = errors.New("proof is of another chain")
	// ErrValidators: it names validators other than the trusted ones.
	ErrValidators = errors.New("proof names validators that are not trusted")
	// ErrSubject: it proves something else than was asked for.
	ErrSubject = errors.New("proof is about something else")
)

// Trust is what a verifier believes beforehand.
type Trust struct {
	Anchor sig.Anchor
	// The set that signs headers.
	Validators block.ValidatorSet
	// How many of them make a header final, at least 1.
	Need int
	// What the chain began with, for proofs of the state before its first block, whose header
	// nobody signs; nil: such proofs are refused.
	Genesis *block.Genesis
}

// TrustOf returns what follows from a genesis that one trusts.
func TrustOf(g *block.Genesis) Trust {
	return Trust{Anchor: g.Anchor(), Validators: g.Validators, Need: g.Quorum(), Genesis: g}
}

// Certified reads header and certificate and checks that the trusted validators signed the one
// with the other. Errors wrap one of this package or of block.
//
// A header of height 0 has no certificate, and must be that of the trusted genesis.
func (t Trust) Certified(header *chainv1.Header, certificate *chainv1.Certificate) (
	block.Header, error,
) {
	h, err := block.HeaderFromPB(header)
	if err != nil {
		return block.Header{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if h.Version != block.Version || h.RulesVersion != block.RulesVersion {
		return block.Header{}, fmt.Errorf("%w: header version %d, rules version %d",
			ErrMalformed, h.Version, h.RulesVersion)
	}
	if h.Height == 0 {
		return h, t.first(&h)
	}
	c, err := block.CertificateFromPB(certificate)
	if err != nil {
		return block.Header{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := c.Verify(&h, t.Anchor, t.Validators, t.Need); err != nil {
		return block.Header{}, fmt.Errorf("verify certificate of header %d: %w", h.Height, err)
	}
	return h, nil
}

// first checks that a header is the one that follows from the genesis.
func (t Trust) first(h *block.Header) error {
	if t.Genesis == nil || t.Genesis.Anchor() != t.Anchor {
		return fmt.Errorf("%w: the header of height 0 follows from a genesis that is not there",
			ErrAnchor)
	}
	begun, err := state.New(t.Genesis)
	if err != nil {
		return err
	}
	if *h != t.Genesis.Header(tx.Hash(begun.Root())) {
		return fmt.Errorf("%w: the header of height 0 is another", ErrAnchor)
	}
	return nil
}

// read decodes the canonical bytes of a proof.
func read(raw []byte, m proto.Message) error {
	if len(raw) > MaxSize {
		return fmt.Errorf("%w: %d bytes", ErrMalformed, len(raw))
	}
	if err := canon.Unmarshal(raw, m); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}
