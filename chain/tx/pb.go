package tx

import (
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// The PB methods and FromPB functions convert through canonical bytes: slow, short, and unable to
// disagree with the encoders.

// PB returns the message form.
func (t *Transaction) PB() *chainv1.Transaction { return message(t, &chainv1.Transaction{}) }

// PB returns the message form.
func (b *Body) PB() *chainv1.TransactionBody { return message(b, &chainv1.TransactionBody{}) }

// PB returns the message form.
func (l *Lease) PB() *chainv1.Lease { return message(l, &chainv1.Lease{}) }

// PB returns the message form.
func (n *Note) PB() *chainv1.Note { return message(n, &chainv1.Note{}) }

// PB returns the message form.
func (a *Account) PB() *chainv1.Account { return message(a, &chainv1.Account{}) }

// PB returns the message form.
func (e *Escrow) PB() *chainv1.Escrow { return message(e, &chainv1.Escrow{}) }

// PB returns the message form.
func (l *LeaseState) PB() *chainv1.LeaseState { return message(l, &chainv1.LeaseState{}) }

// PB returns the message form.
func (l *LaneState) PB() *chainv1.LaneState { return message(l, &chainv1.LaneState{}) }

// PB returns the message form.
func (a *AccountSigners) PB() *chainv1.AccountSigners {
	return message(a, &chainv1.AccountSigners{})
}

// PB returns the message form.
func (r *Receipt) PB() *chainv1.Receipt { return message(r, &chainv1.Receipt{}) }

// PB returns the message form; nil for none.
func (c Countersignature) PB() *chainv1.Countersignature {
	if c.IsZero() {
		return nil
	}
	return &chainv1.Countersignature{Index: c.Index, Signature: c.Signature[:]}
}

// FromPB reads the message form. Errors: those of Decode and canon.Marshal.
func FromPB(m *chainv1.Transaction) (*Transaction, error) { return parse(m, Decode) }

// BodyFromPB reads the message form.
func BodyFromPB(m *chainv1.TransactionBody) (Body, error) { return parse(m, DecodeBody) }

// LeaseFromPB reads the message form.
func LeaseFromPB(m *chainv1.Lease) (Lease, error) { return parse(m, DecodeLease) }

// NoteFromPB reads the message form.
func NoteFromPB(m *chainv1.Note) (Note, error) { return parse(m, DecodeNote) }

// AccountFromPB reads the message form.
func AccountFromPB(m *chainv1.Account) (Account, error) { return parse(m, DecodeAccount) }

// PB returns the message form.
func (r *RecoveryIntent) PB() *chainv1.RecoveryIntent {
	return message(r, &chainv1.RecoveryIntent{})
}

// IntentFromPB reads the message form.
func IntentFromPB(m *chainv1.RecoveryIntent) (RecoveryIntent, error) {
	return parse(m, DecodeIntent)
}

// PB returns the message form.
func (o *SpendOrder) PB() *chainv1.SpendOrder { return message(o, &chainv1.SpendOrder{}) }

// SignersFromPB reads the message form.
func SignersFromPB(m *chainv1.AccountSigners) (AccountSigners, error) {
	return parse(m, DecodeSigners)
}

// EscrowFromPB reads the message form.
func EscrowFromPB(m *chainv1.Escrow) (Escrow, error) { return parse(m, DecodeEscrow) }

// LeaseStateFromPB reads the message form.
func LeaseStateFromPB(m *chainv1.LeaseState) (LeaseState, error) {
	return parse(m, DecodeLeaseState)
}

// ReceiptFromPB reads the message form.
func ReceiptFromPB(m *chainv1.Receipt) (Receipt, error) { return parse(m, DecodeReceipt) }

// message panics only if an encoder of this package wrote bytes that are not protobuf, or if text
// that Decode would refuse was put into a value.
func message[M proto.Message](from interface{ Append(dst []byte) []byte }, to M) M {
	if err := proto.Unmarshal(from.Append(nil), to); err != nil {
		panic("tx: own bytes: " + err.Error())
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
