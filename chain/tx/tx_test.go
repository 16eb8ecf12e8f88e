package tx_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// payment is a transaction of one transfer, signed by a key that depends on n only.
func payment(t testing.TB, n byte, anchor sig.Anchor) (*tx.Transaction, sig.KeySet) {
	t.Helper()
	key := sig.FromSeed([32]byte{n, 1})
	set := sig.SingleKey(key.Public())
	signed, err := tx.Sign(tx.Body{
		Chain: "main", Account: sig.AccountOf(set), Fee: 50_000, ValidUntil: 1_800_000_000_000,
		Operations: []tx.Operation{&tx.Transfer{To: sig.AccountID{1}, Amount: 1_000_000_000}},
	}, anchor, set, true, key)
	if err != nil {
		t.Fatal(err)
	}
	return signed, set
}

func TestSignAndDecode(t *testing.T) {
	anchor := sig.Anchor{9}
	signed, set := payment(t, 1, anchor)
	raw := signed.Append(nil)
	back, err := tx.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	preimage := back.AppendPreimage(nil, anchor)
	if err := sig.VerifyAccount(back.Account, sig.KeySet{}, preimage, back.Signature); err != nil {
		t.Error(err)
	}
	if back.ID(anchor) != signed.ID(anchor) || back.Witness() != signed.Witness() ||
		!bytes.Equal(back.Append(nil), raw) || !reflect.DeepEqual(back.Body, signed.Body) {
		t.Error("decoding changed the transaction")
	}
	other := back.AppendPreimage(nil, sig.Anchor{8})
	if err := sig.VerifyAccount(back.Account, set, other, sig.AccountSignature{
		Signatures: back.Signature.Signatures,
	}); !errors.Is(err, sig.ErrSignature) {
		t.Errorf("another network whose chain is also main: got %v", err)
	}
}

// TestReasons: a receipt may give every reason that there is.
func TestReasons(t *testing.T) {
	for number, name := range chainv1.Reason_name {
		r := tx.Receipt{Transaction: tx.ID{1}, Status: chainv1.Status_STATUS_FAILED,
			Reason: chainv1.Reason(number)}
		if _, err := tx.DecodeReceipt(r.Append(nil)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVectors pins bytes and ids: what stands in blocks must never change.
func TestVectors(t *testing.T) {
	anchor := sig.Anchor{9}
	signed, _ := payment(t, 1, anchor)
	lease := newSampler(1).lease()
	lease.SessionKey = sig.PublicKey{} // came later: without one a lease has the id it always had
	vectors := []struct{ name, got, want string }{
		{"account", hex.EncodeToString(signed.Account[:]), accountVector},
		{"body", hex.EncodeToString(signed.BodyBytes()), bodyVector},
		{"transaction id", signed.ID(anchor).String(), idVector},
		{"witness", signed.Witness().String(), witnessVector},
		{"escrow id", tx.EscrowIDOf(signed.ID(anchor), 3).String(), escrowVector},
		{"lease id", lease.ID(anchor).String(), leaseVector},
	}
	for _, vector := range vectors {
		if vector.got != vector.want {
			t.Errorf("%s: got %s, want %s", vector.name, vector.got, vector.want)
		}
	}
}

func TestIDIsTheHashOfThePreimage(t *testing.T) {
	anchor := sig.Anchor{3}
	signed, _ := payment(t, 1, anchor)
	body := signed.PB().GetBody()
	raw, err := canon.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if signed.ID(anchor) != tx.ID(sig.Hash(sig.DomainTransaction, anchor[:], raw)) {
		t.Error("id is not over the canonical body")
	}
	lease := newSampler(2).lease()
	if raw, err = canon.Marshal(lease.PB()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(lease.Preimage(anchor), sig.Preimage(sig.DomainLease, anchor[:], raw)) ||
		lease.ID(anchor) != tx.LeaseID(sig.Hash(sig.DomainLease, anchor[:], raw)) {
		t.Error("lease id is not over the canonical lease")
	}
}

// TestDecodeRefusesBytes hands over bytes that are not canonical.
func TestDecodeRefusesBytes(t *testing.T) {
	signed, _ := payment(t, 1, sig.Anchor{})
	raw := signed.Append(nil)
	body, signature := signed.BodyBytes(), raw[len(signed.BodyBytes())+2:]
	with := func(body []byte) []byte {
		return append(canon.AppendBytes(nil, 1, body), signature...)
	}
	tests := []struct {
		name string
		in   []byte
		want error
		text string
	}{
		{"empty", nil, tx.ErrMissing, "body: "},
		{"truncated", raw[:len(raw)-1], canon.ErrTruncated, "signature: bytes"},
		{"body truncated", with(body[:len(body)-1]), canon.ErrTruncated, "body.operations: "},
		{
			"trailing byte", append(bytes.Clone(raw), 0), canon.ErrUnknownField,
			"transaction: unknown field",
		},
		{"unknown field", append(bytes.Clone(raw), 0x18, 1), canon.ErrUnknownField, "field 3"},
		{
			"unknown field in body", with(append(bytes.Clone(body), 0x48, 1)),
			canon.ErrUnknownField, "body.field 9",
		},
		{"fields swapped", append(bytes.Clone(signature), raw[:2+len(body)]...), canon.ErrOrder, "body"},
		{
			"repeated chain", with(append([]byte("\x0a\x04main"), body...)),
			canon.ErrRepeatedField, "body.chain: ",
		},
		{
			"default nonce", with(append(append(bytes.Clone(body[:40]), 0x20, 0), body[40:]...)),
			canon.ErrDefault, "body.nonce: ",
		},
		{
			"non-minimal nonce",
			with(append(append(bytes.Clone(body[:40]), 0x20, 0x81, 0), body[40:]...)),
			canon.ErrNotMinimal, "body.nonce: ",
		},
		{
			"unknown operation", with(append(bytes.Clone(body), 0x3a, 3, 0xfa, 1, 0)),
			canon.ErrUnknownField, "body.operations[1].field 31",
		},
		{
			"two kinds in one operation",
			with(append(bytes.Clone(body), 0x3a, 40, 0x5a, 34, 0x0a, 32, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
				1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0x62, 0, 0x6a, 0)),
			canon.ErrOneof, "body.operations[1].settle",
		},
		{"chain not UTF-8", with(append([]byte{0x0a, 1, 0xff}, body[6:]...)), canon.ErrUTF8, "chain"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := tx.Decode(test.in)
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("got %v, want %v naming %q", err, test.want, test.text)
			}
			if canon.Unmarshal(test.in, &chainv1.Transaction{}) == nil && test.in != nil {
				t.Error("canon accepts it")
			}
		})
	}
}

func TestDecodeRefusesRandomBytes(t *testing.T) {
	const seed = 5
	random := rand.New(rand.NewPCG(seed, 0))
	for range 2_000 {
		raw := make([]byte, random.IntN(300))
		for i := range raw {
			raw[i] = byte(random.Uint32())
		}
		if _, err := tx.Decode(raw); err == nil {
			t.Fatalf("seed %d: accepted %x", seed, raw)
		}
	}
}

func TestDecodeAcceptsTheLimits(t *testing.T) {
	body, signature := newSampler(4).transaction(1)
	body.Chain = "01234567-89ab-8def-8123-456789abcdef"
	body.Memo = make([]byte, tx.MaxMemo)
	body.Operations = nil
	for i := range tx.MaxOperations {
		body.Operations = append(body.Operations,
			&tx.Transfer{To: sig.AccountID{1}, Amount: tx.Grains(i)})
	}
	made, err := tx.Attach(body, signature)
	if err != nil {
		t.Fatal(err)
	}
	back, err := tx.FromPB(made.PB())
	if err != nil || !reflect.DeepEqual(back.Operations, body.Operations) {
		t.Errorf("round trip: %v", err)
	}
	if len(back.BodyBytes()) > tx.MaxBody {
		t.Errorf("body of %d bytes", len(back.BodyBytes()))
	}
}

func TestSignRefuses(t *testing.T) {
	key := sig.FromSeed([32]byte{1})
	set := sig.SingleKey(key.Public())
	body := tx.Body{Chain: "main", Account: sig.AccountOf(set)}
	if _, err := tx.Sign(body, sig.Anchor{}, set, true, key); !errors.Is(err, tx.ErrOperations) {
		t.Errorf("no operations: got %v", err)
	}
	body.Operations = []tx.Operation{&tx.End{Lease: tx.LeaseID{1}}}
	if _, err := tx.Sign(body, sig.Anchor{}, set, true); !errors.Is(err, sig.ErrNotEnoughSigner) {
		t.Errorf("no key: got %v", err)
	}
}

func TestPreimagesDiffer(t *testing.T) {
	note, anchor := newSampler(1).note(), sig.Anchor{1}
	seen := map[string]bool{}
	for _, preimage := range [][]byte{
		note.Preimage(anchor), note.AckPreimage(anchor), note.Preimage(sig.Anchor{2}),
		tx.AcceptPreimage(anchor, note.Lease), tx.RejectPreimage(anchor, note.Lease, tx.Hash{}),
		tx.RejectPreimage(anchor, note.Lease, tx.Hash{1}),
	} {
		seen[string(preimage)] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d preimages of 6 differ", len(seen))
	}
}

func TestConversions(t *testing.T) {
	s := newSampler(6)
	lease, note := s.lease(), s.note()
	if back, err := tx.LeaseFromPB(lease.PB()); err != nil || !reflect.DeepEqual(back, lease) {
		t.Errorf("lease: %v", err)
	}
	if back, err := tx.NoteFromPB(note.PB()); err != nil || back != note {
		t.Errorf("note: %v", err)
	}
	ack := tx.Countersignature{Index: 2, Signature: s.signature()}
	if !proto.Equal(ack.PB(), &chainv1.Countersignature{Index: 2, Signature: ack.Signature[:]}) {
		t.Error("countersignature")
	}
	if (tx.Countersignature{}).PB() != nil {
		t.Error("no countersignature has a message")
	}
}
