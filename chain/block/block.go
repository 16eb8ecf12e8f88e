package block

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Body is what a header's body hash covers.
type Body struct {
	// Zero at height 0 and 1.
	ParentCertificate Certificate
	// Canonical bytes of each transaction, in order.
	Transactions [][]byte
}

// Block is a header, its body and the certificate that stands outside both.
type Block struct {
	Header      Header
	Body        Body
	Certificate Certificate
}

// BodyHash returns the hash of the canonical bytes of a body.
func BodyHash(raw []byte) tx.Hash { return tx.Hash(sig.Hash(sig.DomainBody, nil, raw)) }

// DecodeBody reads the canonical bytes of a Body. It keeps raw: transactions are slices of it.
func DecodeBody(raw []byte) (Body, error) {
	if len(raw) > MaxBody {
		return Body{}, fmt.Errorf("body of %d bytes: %w: at most %d", len(raw), ErrTooLarge, MaxBody)
	}
	r := canon.NewReader(raw)
	var b Body
	b.readFrom(&r)
	if err := r.Err(); err != nil {
		return Body{}, malformed("body", err, &chainv1.Body{})
	}
	return b, nil
}

// Append appends the canonical bytes of the body.
func (b *Body) Append(dst []byte) []byte {
	dst, mark := canon.Begin(dst, 1)
	dst = canon.End(b.ParentCertificate.Append(dst), mark)
	for _, transaction := range b.Transactions {
		dst = canon.AppendElement(dst, 2, transaction)
	}
	return dst
}

func (b *Body) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			frame := r.Open("parent_certificate")
			b.ParentCertificate.readFrom(r)
			r.Close(frame)
		case 2:
			if len(b.Transactions) >= MaxTransactions {
				r.Fail(ErrTooMany)
				return
			}
			transaction := r.Element(tx.MaxTransaction)
			if len(transaction) == 0 {
				r.Fail(tx.ErrMissing)
			}
			b.Transactions = append(b.Transactions, transaction)
		default:
			r.Unknown()
		}
	}
}

// Decode reads the canonical bytes of a Block. It keeps raw: transactions are slices of it.
func Decode(raw []byte) (*Block, error) {
	if len(raw) > MaxBody+(128<<10) {
		return nil, fmt.Errorf("block of %d bytes: %w", len(raw), ErrTooLarge)
	}
	r := canon.NewReader(raw)
	b := &Block{}
	for r.Next() {
		switch r.Field() {
		case 1:
			frame := r.Open("header")
			b.Header.readFrom(&r)
			r.Close(frame)
		case 2:
			frame := r.Open("body")
			b.Body.readFrom(&r)
			r.Close(frame)
		case 3:
			frame := r.Open("certificate")
			b.Certificate.readFrom(&r)
			r.Close(frame)
		default:
			r.Unknown()
		}
	}
	if err := r.Err(); err != nil {
		return nil, malformed("block", err, &chainv1.Block{})
	}
	return b, nil
}

// Append appends the canonical bytes of the block.
func (b *Block) Append(dst []byte) []byte {
	dst, mark := canon.Begin(dst, 1)
	dst = canon.End(b.Header.Append(dst), mark)
	dst, mark = canon.Begin(dst, 2)
	dst = canon.End(b.Body.Append(dst), mark)
	dst, mark = canon.Begin(dst, 3)
	return canon.End(b.Certificate.Append(dst), mark)
}

// PB returns the message form.
func (b *Block) PB() *chainv1.Block { return message(b, &chainv1.Block{}) }

// PB returns the message form.
func (h *Header) PB() *chainv1.Header { return message(h, &chainv1.Header{}) }

// PB returns the message form.
func (c Certificate) PB() *chainv1.Certificate { return message(c, &chainv1.Certificate{}) }

// PB returns the message form.
func (s ValidatorSet) PB() *chainv1.ValidatorSet { return message(s, &chainv1.ValidatorSet{}) }

// FromPB reads the message form.
func FromPB(m *chainv1.Block) (*Block, error) { return parse(m, Decode) }

// HeaderFromPB reads the message form.
func HeaderFromPB(m *chainv1.Header) (Header, error) { return parse(m, DecodeHeader) }

// CertificateFromPB reads the message form.
func CertificateFromPB(m *chainv1.Certificate) (Certificate, error) {
	return parse(m, DecodeCertificate)
}

// ValidatorSetFromPB reads the message form.
func ValidatorSetFromPB(m *chainv1.ValidatorSet) (ValidatorSet, error) {
	return parse(m, DecodeValidatorSet)
}

// message panics only if an encoder of this package wrote bytes that are not protobuf.
func message[M proto.Message](from interface{ Append(dst []byte) []byte }, to M) M {
	if err := proto.Unmarshal(from.Append(nil), to); err != nil {
		panic("block: own bytes: " + err.Error())
	}
	return to
}

func parse[M proto.Message, T any](from M, decode func([]byte) (T, error)) (T, error) {
	raw, err := canon.Marshal(from)
	if err != nil {
		var zero T
		return zero, err
	}
	return decode(raw)
}
