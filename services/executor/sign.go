package executor

import (
	"fmt"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// signer signs leases and notes with the instance key, for the chains whose anchors it has. It is
// immutable.
type signer struct {
	key     sig.PrivateKey
	anchors map[string]sig.Anchor
}

func (s *signer) lease(chain string, l Lease, p Prices) SignedLease {
	l.PriceHash = Hash(p.Rules().Hash())
	m, anchor := l.TX(), s.anchors[chain]
	return SignedLease{
		Lease: l, ID: LeaseID(m.ID(anchor)), Signature: s.key.Sign(m.Preimage(anchor)),
	}
}

func (s *signer) note(chain string, n Note, u Metered) SignedNote {
	n.UsageHash = Hash(u.Hash())
	return SignedNote{Note: n, Signature: s.key.Sign(n.TX().Preimage(s.anchors[chain])), Usage: u}
}

// verifyAck tells whether one of the lease's ack keys countersigned the note.
func (s *signer) verifyAck(chain string, l *Lease, a Ack) error {
	if uint64(a.Index) >= uint64(len(l.AckKeys)) {
		return fmt.Errorf("the lease has no ack key %d", a.Index)
	}
	if !sig.Verify(l.AckKeys[a.Index], a.Note.TX().AckPreimage(s.anchors[chain]), a.Signature) {
		return sig.ErrSignature
	}
	return nil
}

// TX returns the lease as the rules of the chain spell it.
func (l *Lease) TX() *tx.Lease {
	return &tx.Lease{
		Escrow: tx.EscrowID(l.Escrow), Subject: l.Subject[:], Slot: l.Slot, Epoch: l.Epoch,
		Payee: l.Payee, AgentKey: l.Agent, Upfront: tx.Grains(l.Upfront),
		Rate: tx.GrainsPerHour(l.Rate), Budget: tx.Grains(l.Budget), Trust: tx.Grains(l.Trust),
		Holdback: tx.Grains(l.Holdback), Notice: tx.Millis(l.Notice), AckKeys: l.AckKeys,
		ClaimWindow: tx.Millis(l.ClaimWindow), PriceHash: tx.Hash(l.PriceHash),
		OfferHash: tx.Hash(l.OfferHash), PlaceBy: tx.Millis(l.PlaceBy), Until: tx.Millis(l.Until),
	}
}

// TX returns the note as the rules of the chain spell it.
func (n Note) TX() *tx.Note {
	return &tx.Note{
		Lease: tx.LeaseID(n.Lease), Revision: tx.Hash(n.Revision), Upto: tx.Millis(n.Upto),
		Cumulative: tx.Grains(n.Cumulative), UsageHash: tx.Hash(n.UsageHash),
	}
}

// Rules returns the prices as the rules of the chain spell them.
func (p Prices) Rules() price.Prices {
	return price.Prices{
		Model: price.Model(p.Model), WallHour: p.WallHour, CoreHour: p.CoreHour,
		MemoryGiBHour: p.MemoryGiBHour, GiBIn: p.GiBIn, GiBOut: p.GiBOut,
		DiskGiBHour: p.DiskGiBHour, Run: p.Run, CFPSHour: p.CFPSHour,
	}
}

// PricesOf reads prices from how the rules of the chain spell them.
func PricesOf(p price.Prices) Prices {
	return Prices{
		Model: PriceModel(p.Model), WallHour: p.WallHour, CoreHour: p.CoreHour,
		MemoryGiBHour: p.MemoryGiBHour, GiBIn: p.GiBIn, GiBOut: p.GiBOut,
		DiskGiBHour: p.DiskGiBHour, Run: p.Run, CFPSHour: p.CFPSHour,
	}
}

// Rules returns the resources as the rules of the chain spell them.
func (r Resources) Rules() price.Resources {
	return price.Resources{CPUMilli: r.CPUMilli, Memory: r.Memory, Disk: r.Disk, Network: r.Network}
}
