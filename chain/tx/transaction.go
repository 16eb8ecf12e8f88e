package tx

import (
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Transaction is a signed list of operations that happen all together or not at all. It is
// immutable once decoded or signed.
type Transaction struct {
	Body
	Signature sig.AccountSignature

	// bytes are the canonical bytes of Body, within the input that was decoded.
	bytes []byte
	// one is the room of the ordinary transaction of one transfer and one signature.
	one struct {
		operation [1]Operation
		transfer  [1]Transfer
		signature [1]sig.IndexedSignature
	}
	// spare is the room of further transfers.
	spare []Transfer
}

// slab is how many further transfers are allocated together.
const slab = 16

// Body is what is signed.
type Body struct {
	// "main" or a UUID in its 36-character lower-case form; not judged by Decode.
	Chain   string
	Account sig.AccountID
	// 0 = the account's key set; n = its delegate n.
	Signer uint32
	Nonce  uint64
	// The most that may be charged.
	Fee Grains
	// Block time after which it is not valid.
	ValidUntil Millis
	// 1 to MaxOperations.
	Operations []Operation
	// At most MaxMemo bytes.
	Memo []byte
}

// Decode reads the canonical bytes of a Transaction. It keeps raw, which must not change, and
// copies neither memo nor body. The error is ErrTooLarge or wraps a *canon.Error that names the
// field; nothing is verified.
func Decode(raw []byte) (*Transaction, error) {
	if len(raw) > MaxTransaction {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(raw))
	}
	t := &Transaction{}
	r := canon.NewReader(raw)
	t.read(&r)
	if err := r.Err(); err != nil {
		return nil, malformed("transaction", err, &chainv1.Transaction{})
	}
	return t, nil
}

// DecodeBody reads the canonical bytes of a TransactionBody, as signers see them.
func DecodeBody(raw []byte) (Body, error) {
	t := &Transaction{}
	r := canon.NewReader(raw)
	t.readBody(&r)
	if len(raw) > MaxBody {
		r.FailField(0, ErrBodySize)
	}
	if err := r.Err(); err != nil {
		return Body{}, malformed("transaction body", err, &chainv1.TransactionBody{})
	}
	return t.Body, nil
}

// BodyBytes returns the canonical bytes that fees are counted on; do not change them.
func (t *Transaction) BodyBytes() []byte { return t.bytes }

// ID returns the transaction's id on the chain with the anchor.
func (t *Transaction) ID(anchor sig.Anchor) ID {
	return ID(sig.Hash(sig.DomainTransaction, anchor[:], t.bytes))
}

// AppendPreimage appends the bytes that the signatures are over. Their SHA-256 is the id.
func (t *Transaction) AppendPreimage(dst []byte, anchor sig.Anchor) []byte {
	return sig.AppendPreimage(dst, sig.DomainTransaction, anchor[:], t.bytes)
}

// Witness returns the hash of the signatures, which the id does not cover.
func (t *Transaction) Witness() Hash {
	var room [256]byte
	return Hash(sig.Hash(sig.DomainWitness, nil, appendSignature(room[:0], &t.Signature)))
}

// Append appends the canonical bytes of the transaction.
func (t *Transaction) Append(dst []byte) []byte {
	dst = canon.AppendBytes(dst, 1, t.bytes)
	dst, mark := canon.Begin(dst, 2)
	return canon.End(appendSignature(dst, &t.Signature), mark)
}

// Append appends the canonical bytes of the body.
func (b *Body) Append(dst []byte) []byte {
	dst = canon.AppendBytes(dst, 1, b.Chain)
	dst = appendID(dst, 2, b.Account)
	dst = canon.AppendUint(dst, 3, uint64(b.Signer))
	dst = canon.AppendUint(dst, 4, b.Nonce)
	dst = canon.AppendUint(dst, 5, uint64(b.Fee))
	dst = canon.AppendUint(dst, 6, uint64(b.ValidUntil))
	for _, operation := range b.Operations {
		dst = appendOperation(dst, 7, operation)
	}
	return canon.AppendBytes(dst, 8, b.Memo)
}

func (t *Transaction) read(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			frame := r.Open("body")
			start := r.Offset()
			t.readBody(r)
			r.Close(frame)
			t.bytes = r.Slice(start)
		case 2:
			frame := r.Open("signature")
			t.Signature.Signatures = t.one.signature[:0]
			readSignature(r, &t.Signature)
			r.Close(frame)
		default:
			r.Unknown()
		}
	}
	if len(t.bytes) == 0 {
		r.FailField(1, ErrMissing)
	}
	if len(t.bytes) > MaxBody {
		r.FailField(1, ErrBodySize)
	}
	if len(t.Signature.Signatures) == 0 {
		r.FailField(2, ErrMissing)
	}
}

func (t *Transaction) readBody(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			t.Chain = chainName(r.Text(MaxChain))
		case 2:
			t.Account = readID[sig.AccountID](r)
		case 3:
			t.Signer = r.Uint32()
		case 4:
			t.Nonce = r.Uint64()
		case 5:
			t.Fee = Grains(r.Uint64())
		case 6:
			t.ValidUntil = Millis(r.Uint64())
		case 7:
			t.readOperation(r)
		case 8:
			t.Memo = r.Bytes(MaxMemo)
		default:
			r.Unknown()
		}
	}
	need(r, 1, t.Chain != "")
	need(r, 2, !t.Account.IsZero())
	if len(t.Operations) == 0 {
		r.FailField(7, ErrOperations)
	}
}

// readOperation reads one more operation.
func (t *Transaction) readOperation(r *canon.Reader) {
	if len(t.Operations) >= MaxOperations {
		r.Fail(ErrOperations)
		return
	}
	if t.Operations == nil {
		t.Operations, t.spare = t.one.operation[:0], t.one.transfer[:]
	}
	if len(t.spare) == 0 {
		t.spare = make([]Transfer, slab)
	}
	frame := r.OpenElement("operations")
	operation := readOperation(r, &t.spare[0])
	if operation == nil {
		r.FailField(0, ErrMissing)
	}
	r.Close(frame)
	if operation != nil && operation.Kind() == KindTransfer {
		t.spare = t.spare[1:]
	}
	t.Operations = append(t.Operations, operation)
}

// chainName avoids an allocation for the most common chain.
func chainName(b []byte) string {
	if string(b) == "main" {
		return "main"
	}
	return string(b)
}
