package tx_test

import (
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

func TestSignDecode(t *testing.T) {
	key := sig.FromSeed([32]byte{1})
	set := sig.SingleKey(key.Public())
	anchor := sig.Anchor{9}
	body := tx.Body{
		Chain: "main", Account: sig.AccountOf(set), Fee: 5, ValidUntil: 7,
		Operations: []tx.Operation{&tx.Transfer{To: sig.AccountID{1}, Amount: 3}},
	}
	signed, err := tx.Sign(body, anchor, set, true, key)
	if err != nil {
		t.Fatal(err)
	}
	back, err := tx.Decode(signed.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	err = sig.VerifyAccount(back.Account, sig.KeySet{}, back.AppendPreimage(nil, anchor),
		back.Signature)
	if err != nil {
		t.Fatal(err)
	}
	if back.ID(anchor) != signed.ID(anchor) {
		t.Error("id changed")
	}
}
