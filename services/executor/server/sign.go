package server

import (
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/executor"
)

// Signer signs leases and notes with the instance key for one chain. It is immutable.
type Signer struct {
	key    sig.PrivateKey
	anchor sig.Anchor
}

var _ executor.Signer = (*Signer)(nil)

// NewSigner returns a signer for the chain with the anchor.
func NewSigner(key sig.PrivateKey, anchor sig.Anchor) *Signer {
	return &Signer{key: key, anchor: anchor}
}

// SignLease implements executor.Signer.
func (s *Signer) SignLease(l executor.Lease, p executor.Prices) (executor.SignedLease, error) {
	hash, err := canon.Hash(pricesPB(p))
	if err != nil {
		return executor.SignedLease{}, fmt.Errorf("hash prices: %w", err)
	}
	l.PriceHash = hash
	lease := leaseTX(&l)
	return executor.SignedLease{
		Lease: l, ID: executor.LeaseID(lease.ID(s.anchor)),
		Signature: s.key.Sign(lease.Preimage(s.anchor)),
	}, nil
}

// SignNote implements executor.Signer.
func (s *Signer) SignNote(n executor.Note, u executor.Metered) (executor.SignedNote, error) {
	hash, err := canon.Hash(usagePB(u))
	if err != nil {
		return executor.SignedNote{}, fmt.Errorf("hash usage: %w", err)
	}
	n.UsageHash = hash
	note := noteTX(n)
	return executor.SignedNote{Note: n, Signature: s.key.Sign(note.Preimage(s.anchor)), Usage: u}, nil
}

// VerifyAck implements executor.Signer.
func (s *Signer) VerifyAck(l executor.Lease, a executor.Ack) error {
	if uint64(a.Index) >= uint64(len(l.AckKeys)) {
		return fmt.Errorf("the lease has no ack key %d", a.Index)
	}
	note := noteTX(a.Note)
	if !sig.Verify(l.AckKeys[a.Index], note.AckPreimage(s.anchor), a.Signature) {
		return sig.ErrSignature
	}
	return nil
}

func leaseTX(l *executor.Lease) *tx.Lease {
	return &tx.Lease{
		Escrow: tx.EscrowID(l.Escrow), Subject: l.Subject[:], Slot: l.Slot, Epoch: l.Epoch,
		Payee: l.Payee, AgentKey: l.Agent, Upfront: tx.Grains(l.Upfront),
		Rate: tx.GrainsPerHour(l.Rate), Budget: tx.Grains(l.Budget), Trust: tx.Grains(l.Trust),
		Holdback: tx.Grains(l.Holdback), Notice: tx.Millis(l.Notice), AckKeys: l.AckKeys,
		ClaimWindow: tx.Millis(l.ClaimWindow), PriceHash: tx.Hash(l.PriceHash),
		OfferHash: tx.Hash(l.OfferHash), PlaceBy: tx.Millis(l.PlaceBy), Until: tx.Millis(l.Until),
	}
}

func noteTX(n executor.Note) *tx.Note {
	return &tx.Note{
		Lease: tx.LeaseID(n.Lease), Revision: tx.Hash(n.Revision), Upto: tx.Millis(n.Upto),
		Cumulative: tx.Grains(n.Cumulative), UsageHash: tx.Hash(n.UsageHash),
	}
}
