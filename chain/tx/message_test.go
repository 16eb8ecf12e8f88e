package tx_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// message is a transaction that tests break.
func message(t *testing.T) *chainv1.Transaction {
	t.Helper()
	signed, _ := payment(t, 1, sig.Anchor{})
	return signed.PB()
}

// Ids and signatures of the right length.
var (
	id32 = bytes.Repeat([]byte{1}, 32)
	id64 = bytes.Repeat([]byte{1}, 64)
)

// withOperation adds an operation.
func withOperation(operation *chainv1.Operation) func(*chainv1.Transaction) {
	return func(m *chainv1.Transaction) {
		m.Body.Operations = append(m.Body.Operations, operation)
	}
}

func leaseWithoutPayee() *chainv1.Lease {
	lease := newSampler(1).lease()
	m := lease.PB()
	m.Payee = nil
	return m
}

// messageTests break a transaction in ways that are still canonical.
var messageTests = []struct {
	name   string
	change func(*chainv1.Transaction)
	want   error
	text   string
}{
	{"no body", func(m *chainv1.Transaction) { m.Body = nil }, tx.ErrMissing, "body: "},
	{
		"no signature", func(m *chainv1.Transaction) { m.Signature = nil }, tx.ErrMissing,
		"signature: ",
	},
	{
		"no chain", func(m *chainv1.Transaction) { m.Body.Chain = "" }, tx.ErrMissing,
		"body.chain: ",
	},
	{
		"long chain", func(m *chainv1.Transaction) { m.Body.Chain = strings.Repeat("a", 37) },
		canon.ErrSize, "body.chain: ",
	},
	{
		"short account", func(m *chainv1.Transaction) { m.Body.Account = id32[:31] },
		canon.ErrLength, "body.account: ",
	},
	{
		"zero account", func(m *chainv1.Transaction) { m.Body.Account = make([]byte, 32) },
		tx.ErrZero, "body.account: ",
	},
	{
		"no operations", func(m *chainv1.Transaction) { m.Body.Operations = nil },
		tx.ErrOperations, "body.operations: ",
	},
	{
		"1,001 operations", func(m *chainv1.Transaction) {
			m.Body.Operations = slices.Repeat(m.Body.Operations, tx.MaxOperations+1)
		}, tx.ErrOperations, "body.operations: ",
	},
	{
		"oversize memo", func(m *chainv1.Transaction) {
			m.Body.Memo = make([]byte, tx.MaxMemo+1)
		}, canon.ErrSize, "body.memo: ",
	},
	{
		"oversize body", func(m *chainv1.Transaction) {
			m.Body.Operations = append(m.Body.Operations, &chainv1.Operation{
				Kind: &chainv1.Operation_OpenEscrow{OpenEscrow: &chainv1.OpenEscrow{
					Payees: slices.Repeat([][]byte{id32}, tx.MaxBody/34),
				}},
			})
		}, tx.ErrBodySize, "body: ",
	},
	{
		"oversize transaction", func(m *chainv1.Transaction) {
			m.Body.Memo = make([]byte, tx.MaxTransaction)
		}, tx.ErrTooLarge, "132 KiB",
	},
	{"empty operation", withOperation(&chainv1.Operation{}), tx.ErrMissing, "operations[1]"},
	{
		"17 signatures", func(m *chainv1.Transaction) {
			m.Signature.Signatures = slices.Repeat(m.Signature.Signatures, 17)
		}, tx.ErrSignatures, "signature.signatures: ",
	},
	{
		"17 keys", func(m *chainv1.Transaction) {
			m.Signature.Keys.Keys = slices.Repeat(m.Signature.Keys.Keys, 17)
		}, tx.ErrSignatures, "signature.keys.keys: ",
	},
	{
		"another algorithm", func(m *chainv1.Transaction) {
			m.Signature.Keys.Keys[0].Algorithm = 2
		}, tx.ErrAlgorithm, "signature.keys.keys[0].algorithm: ",
	},
	{
		"short signature", func(m *chainv1.Transaction) {
			m.Signature.Signatures[0].Signature = id32
		}, canon.ErrLength, "signature.signatures[0].signature: ",
	},
	{
		"transfer to nobody", withOperation(&chainv1.Operation{
			Kind: &chainv1.Operation_Transfer{Transfer: &chainv1.Transfer{Amount: 1}},
		}), tx.ErrMissing, "body.operations[1].transfer.to: ",
	},
	{
		"lease without payee", withOperation(&chainv1.Operation{
			Kind: &chainv1.Operation_PlaceLease{PlaceLease: &chainv1.PlaceLease{
				Lease: leaseWithoutPayee(), Signature: id64,
			}},
		}), tx.ErrMissing, "body.operations[1].place_lease.lease.payee: ",
	},
	{
		"charge without note", withOperation(&chainv1.Operation{
			Kind: &chainv1.Operation_Charge{Charge: &chainv1.Charge{
				Signature: id64,
			}},
		}), tx.ErrMissing, "body.operations[1].charge.note: ",
	},
	{
		"countersignature without signature", withOperation(&chainv1.Operation{
			Kind: &chainv1.Operation_Accept{Accept: &chainv1.Accept{
				Lease: id32, Countersignature: &chainv1.Countersignature{Index: 1},
			}},
		}), tx.ErrMissing, "body.operations[1].accept.countersignature.signature: ",
	},
	{
		"settle of nothing", withOperation(&chainv1.Operation{
			Kind: &chainv1.Operation_Settle{Settle: &chainv1.Settle{}},
		}), tx.ErrSettle, "body.operations[1].settle.leases: ",
	},
	{
		"settle of 1,001", withOperation(&chainv1.Operation{
			Kind: &chainv1.Operation_Settle{Settle: &chainv1.Settle{
				Leases: slices.Repeat([][]byte{id32}, tx.MaxSettle+1),
			}},
		}), tx.ErrSettle, "body.operations[1].settle.leases: ",
	},
	{
		"short payee", withOperation(&chainv1.Operation{
			Kind: &chainv1.Operation_OpenEscrow{OpenEscrow: &chainv1.OpenEscrow{
				Payees: [][]byte{id32, id32[:3]},
			}},
		}), canon.ErrLength, "body.operations[1].open_escrow.payees: ",
	},
}

func TestDecodeRefusesMessages(t *testing.T) {
	for _, test := range messageTests {
		t.Run(test.name, func(t *testing.T) {
			m := message(t)
			test.change(m)
			_, err := tx.FromPB(m)
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("got %v, want %v naming %q", err, test.want, test.text)
			}
		})
	}
}
