package tx

import (
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Lease is the right to charge an escrow, signed by the agent key.
type Lease struct {
	Escrow  EscrowID
	Subject []byte
	// Lane of the job.
	Slot uint32
	// Rises with every new lease of the same (subject, slot).
	Epoch uint64
	// Account that is paid.
	Payee    sig.AccountID
	AgentKey sig.PublicKey
	Upfront  Grains
	Rate     GrainsPerHour
	Budget   Grains
	Trust    Grains
	Holdback Grains
	// Time whose rate is added when owner or assigner ends the lease.
	Notice Millis
	// Copied from the escrow.
	AckKeys []sig.PublicKey
	// Accrual time after the end in which charges still count.
	ClaimWindow Millis
	PriceHash   Hash
	OfferHash   Hash
	// Block times.
	PlaceBy Millis
	Until   Millis
	// May spend the job's budgets while the lease lives; zero = none.
	SessionKey sig.PublicKey
}

// Note is signed usage, cumulative.
type Note struct {
	Lease LeaseID
	// Hash of the job revision that ran.
	Revision Hash
	// Block time up to which usage is counted.
	Upto Millis
	// Due since the lease began.
	Cumulative Grains
	UsageHash  Hash
}

// Countersignature is an ack key's signature; the zero value stands for none.
type Countersignature struct {
	// Index into the lease's ack keys.
	Index     uint32
	Signature sig.Signature
}

// IsZero reports whether there is no countersignature.
func (c Countersignature) IsZero() bool { return c.Signature == sig.Signature{} }

// DecodeLease reads the canonical bytes of a Lease. It keeps raw.
func DecodeLease(raw []byte) (Lease, error) {
	r := canon.NewReader(raw)
	var l Lease
	l.readFrom(&r)
	if err := r.Err(); err != nil {
		return Lease{}, malformed("lease", err, &chainv1.Lease{})
	}
	return l, nil
}

// DecodeNote reads the canonical bytes of a Note.
func DecodeNote(raw []byte) (Note, error) {
	r := canon.NewReader(raw)
	var n Note
	n.readFrom(&r)
	if err := r.Err(); err != nil {
		return Note{}, malformed("note", err, &chainv1.Note{})
	}
	return n, nil
}

// Preimage returns the bytes that the agent key signs.
func (l *Lease) Preimage(anchor sig.Anchor) []byte {
	return sig.Preimage(sig.DomainLease, anchor[:], l.Append(nil))
}

// ID returns the lease's id on the chain with the anchor.
func (l *Lease) ID(anchor sig.Anchor) LeaseID {
	return LeaseID(sig.Hash(sig.DomainLease, anchor[:], l.Append(nil)))
}

// Preimage returns the bytes that the agent key signs.
func (n *Note) Preimage(anchor sig.Anchor) []byte {
	return sig.Preimage(sig.DomainNote, anchor[:], n.Append(nil))
}

// AckPreimage returns the bytes that an ack key signs.
func (n *Note) AckPreimage(anchor sig.Anchor) []byte {
	return sig.Preimage(sig.DomainNoteAck, anchor[:], n.Append(nil))
}

// AcceptPreimage returns the bytes that an ack key signs to release the lease's holdback.
func AcceptPreimage(anchor sig.Anchor, lease LeaseID) []byte {
	return sig.Preimage(sig.DomainAccept, anchor[:], lease[:])
}

// RejectPreimage returns the bytes that an ack key signs to burn the lease's holdback.
func RejectPreimage(anchor sig.Anchor, lease LeaseID, evidence Hash) []byte {
	return sig.Preimage(sig.DomainReject, anchor[:], append(lease[:], evidence[:]...))
}

// Append appends the canonical bytes of the lease.
func (l *Lease) Append(dst []byte) []byte {
	dst = appendID(dst, 1, l.Escrow)
	dst = canon.AppendBytes(dst, 2, l.Subject)
	dst = canon.AppendUint(dst, 3, uint64(l.Slot))
	dst = canon.AppendUint(dst, 4, l.Epoch)
	dst = appendID(dst, 5, l.Payee)
	dst = appendID(dst, 6, l.AgentKey)
	dst = canon.AppendUint(dst, 7, uint64(l.Upfront))
	dst = canon.AppendUint(dst, 8, uint64(l.Rate))
	dst = canon.AppendUint(dst, 9, uint64(l.Budget))
	dst = canon.AppendUint(dst, 10, uint64(l.Trust))
	dst = canon.AppendUint(dst, 11, uint64(l.Holdback))
	dst = canon.AppendUint(dst, 12, uint64(l.Notice))
	dst = appendIDs(dst, 13, l.AckKeys)
	dst = canon.AppendUint(dst, 14, uint64(l.ClaimWindow))
	dst = appendID(dst, 15, l.PriceHash)
	dst = appendID(dst, 16, l.OfferHash)
	dst = canon.AppendUint(dst, 17, uint64(l.PlaceBy))
	dst = canon.AppendUint(dst, 18, uint64(l.Until))
	return appendID(dst, 19, l.SessionKey)
}

// Append appends the canonical bytes of the note.
func (n *Note) Append(dst []byte) []byte {
	dst = appendID(dst, 1, n.Lease)
	dst = appendID(dst, 2, n.Revision)
	dst = canon.AppendUint(dst, 3, uint64(n.Upto))
	dst = canon.AppendUint(dst, 4, uint64(n.Cumulative))
	return appendID(dst, 5, n.UsageHash)
}

func (l *Lease) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			l.Escrow = readID[EscrowID](r)
		case 2:
			l.Subject = r.Bytes(MaxSubject)
		case 3:
			l.Slot = r.Uint32()
		case 4:
			l.Epoch = r.Uint64()
		case 5:
			l.Payee = readID[sig.AccountID](r)
		case 6:
			l.AgentKey = readID[sig.PublicKey](r)
		case 7:
			l.Upfront = Grains(r.Uint64())
		case 8:
			l.Rate = GrainsPerHour(r.Uint64())
		case 9:
			l.Budget = Grains(r.Uint64())
		default:
			l.readRest(r)
		}
	}
	need(r, 1, l.Escrow != EscrowID{})
	need(r, 5, !l.Payee.IsZero())
	need(r, 6, l.AgentKey != sig.PublicKey{})
}

func (l *Lease) readRest(r *canon.Reader) {
	switch r.Field() {
	case 10:
		l.Trust = Grains(r.Uint64())
	case 11:
		l.Holdback = Grains(r.Uint64())
	case 12:
		l.Notice = Millis(r.Uint64())
	case 13:
		l.AckKeys = append(l.AckKeys, readElement[sig.PublicKey](r))
	case 14:
		l.ClaimWindow = Millis(r.Uint64())
	case 15:
		l.PriceHash = readID[Hash](r)
	case 16:
		l.OfferHash = readID[Hash](r)
	case 17:
		l.PlaceBy = Millis(r.Uint64())
	case 18:
		l.Until = Millis(r.Uint64())
	case 19:
		l.SessionKey = readID[sig.PublicKey](r)
	default:
		r.Unknown()
	}
}

func (n *Note) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			n.Lease = readID[LeaseID](r)
		case 2:
			n.Revision = readID[Hash](r)
		case 3:
			n.Upto = Millis(r.Uint64())
		case 4:
			n.Cumulative = Grains(r.Uint64())
		case 5:
			n.UsageHash = readID[Hash](r)
		default:
			r.Unknown()
		}
	}
	need(r, 1, n.Lease != LeaseID{})
}
