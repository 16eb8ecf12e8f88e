package block

import (
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Header commits to a block and the state after it. Zero hashes stand for absent ones.
type Header struct {
	Version uint32
	Chain   string
	// 0 = genesis.
	Height uint64
	Round  uint64
	// Hash of the parent header; zero at height 0.
	Prev tx.Hash
	// The proposer's clock, never before the parent's.
	Time tx.Millis
	// Advances by min(time step, max_step).
	Accrual               tx.Millis
	StateRoot             tx.Hash
	SegmentsRoot          tx.Hash
	TransactionsRoot      tx.Hash
	ReceiptsRoot          tx.Hash
	ExitsRoot             tx.Hash
	HistoryRoot           tx.Hash
	BodyHash              tx.Hash
	BodyLength            uint64
	OperationCount        uint64
	RulesVersion          uint32
	SignersHash           tx.Hash
	NextSignersHash       tx.Hash
	ParentCertificateHash tx.Hash
	// Account that is paid the fees.
	Proposer sig.AccountID
}

// DecodeHeader reads the canonical bytes of a Header.
func DecodeHeader(raw []byte) (Header, error) {
	r := canon.NewReader(raw)
	var h Header
	h.readFrom(&r)
	if err := r.Err(); err != nil {
		return Header{}, malformed("header", err, &chainv1.Header{})
	}
	return h, nil
}

// Hash returns the header's hash on the chain with the anchor.
func (h *Header) Hash(anchor sig.Anchor) tx.Hash {
	var room [512]byte
	return tx.Hash(sig.Hash(sig.DomainHeader, anchor[:], h.Append(room[:0])))
}

// Preimage returns the bytes that validators sign.
func (h *Header) Preimage(anchor sig.Anchor) []byte {
	return sig.Preimage(sig.DomainHeader, anchor[:], h.Append(nil))
}

// CheckLink checks a header against its parent: version, chain, height, hash, both clocks, rules
// version and signing set. maxStep is the accrual cap in force at the parent. A header that breaks
// it is invalid whatever its certificate says.
func CheckLink(parent, h *Header, anchor sig.Anchor, maxStep tx.Millis) error {
	switch {
	case h.Version != Version:
		return fmt.Errorf("%w: %d", ErrVersion, h.Version)
	case h.Chain != parent.Chain:
		return fmt.Errorf("%w: %q, not %q", ErrChain, h.Chain, parent.Chain)
	case parent.Height+1 == 0 || h.Height != parent.Height+1:
		return fmt.Errorf("%w: %d after %d", ErrHeight, h.Height, parent.Height)
	case h.Time < parent.Time:
		return fmt.Errorf("%w: %d ms, parent %d ms", ErrTime, h.Time, parent.Time)
	case h.Accrual != NextAccrual(parent, h.Time, maxStep):
		return fmt.Errorf("%w: %d ms, not %d ms", ErrAccrual, h.Accrual,
			NextAccrual(parent, h.Time, maxStep))
	case h.RulesVersion < parent.RulesVersion:
		return fmt.Errorf("%w: %d, parent %d", ErrRules, h.RulesVersion, parent.RulesVersion)
	case h.SignersHash != parent.NextSignersHash:
		return fmt.Errorf("%w: %s, not %s", ErrSigners, h.SignersHash, parent.NextSignersHash)
	case (h.ParentCertificateHash != tx.Hash{}) != (h.Height > 1):
		return fmt.Errorf("%w: present exactly from height 2 on", ErrParentCertificate)
	}
	if hash := parent.Hash(anchor); h.Prev != hash {
		return fmt.Errorf("%w: %s, not %s", ErrPrev, h.Prev, hash)
	}
	return nil
}

// NextAccrual returns the accrual time of a child of parent at the time given, which is not
// before the parent's.
func NextAccrual(parent *Header, time, maxStep tx.Millis) tx.Millis {
	return parent.Accrual + min(time-parent.Time, maxStep)
}

// CheckBody checks that the body is the one that the header commits to.
func (h *Header) CheckBody(b *Body) error {
	raw := b.Append(nil)
	if h.BodyLength != uint64(len(raw)) || h.BodyHash != BodyHash(raw) {
		return fmt.Errorf("%w: %d bytes of hash %s, not %d of %s", ErrBody, len(raw),
			BodyHash(raw), h.BodyLength, h.BodyHash)
	}
	if hash := b.ParentCertificate.Hash(); hash != h.ParentCertificateHash {
		return fmt.Errorf("%w: %s, not %s", ErrParentCertificate, hash, h.ParentCertificateHash)
	}
	return nil
}

// Append appends the canonical bytes of the header.
func (h *Header) Append(dst []byte) []byte {
	dst = canon.AppendUint(dst, 1, uint64(h.Version))
	dst = canon.AppendBytes(dst, 2, h.Chain)
	dst = canon.AppendUint(dst, 3, h.Height)
	dst = canon.AppendUint(dst, 4, h.Round)
	dst = appendHash(dst, 5, h.Prev)
	dst = canon.AppendUint(dst, 6, uint64(h.Time))
	dst = canon.AppendUint(dst, 7, uint64(h.Accrual))
	dst = appendHash(dst, 8, h.StateRoot)
	dst = appendHash(dst, 9, h.SegmentsRoot)
	dst = appendHash(dst, 10, h.TransactionsRoot)
	dst = appendHash(dst, 11, h.ReceiptsRoot)
	dst = appendHash(dst, 12, h.ExitsRoot)
	dst = appendHash(dst, 13, h.HistoryRoot)
	dst = appendHash(dst, 14, h.BodyHash)
	dst = canon.AppendUint(dst, 15, h.BodyLength)
	dst = canon.AppendUint(dst, 16, h.OperationCount)
	dst = canon.AppendUint(dst, 17, uint64(h.RulesVersion))
	dst = appendHash(dst, 18, h.SignersHash)
	dst = appendHash(dst, 19, h.NextSignersHash)
	dst = appendHash(dst, 20, h.ParentCertificateHash)
	return appendHash(dst, 21, h.Proposer)
}

func (h *Header) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			h.Version = r.Uint32()
		case 2:
			h.Chain = string(r.Text(tx.MaxChain))
		case 3:
			h.Height = r.Uint64()
		case 4:
			h.Round = r.Uint64()
		case 6:
			h.Time = tx.Millis(r.Uint64())
		case 7:
			h.Accrual = tx.Millis(r.Uint64())
		case 15:
			h.BodyLength = r.Uint64()
		case 16:
			h.OperationCount = r.Uint64()
		case 17:
			h.RulesVersion = r.Uint32()
		case 21:
			h.Proposer = readHash[sig.AccountID](r)
		default:
			h.readRoot(r)
		}
	}
}

// readRoot reads one of the header's hashes.
func (h *Header) readRoot(r *canon.Reader) {
	switch r.Field() {
	case 5:
		h.Prev = readHash[tx.Hash](r)
	case 8:
		h.StateRoot = readHash[tx.Hash](r)
	case 9:
		h.SegmentsRoot = readHash[tx.Hash](r)
	case 10:
		h.TransactionsRoot = readHash[tx.Hash](r)
	case 11:
		h.ReceiptsRoot = readHash[tx.Hash](r)
	case 12:
		h.ExitsRoot = readHash[tx.Hash](r)
	case 13:
		h.HistoryRoot = readHash[tx.Hash](r)
	case 14:
		h.BodyHash = readHash[tx.Hash](r)
	case 18:
		h.SignersHash = readHash[tx.Hash](r)
	case 19:
		h.NextSignersHash = readHash[tx.Hash](r)
	case 20:
		h.ParentCertificateHash = readHash[tx.Hash](r)
	default:
		r.Unknown()
	}
}
