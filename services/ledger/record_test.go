package ledger

import (
	"bytes"
	"testing"

	"github.com/united-containers/ucn/chain/block"
)

// FuzzParseRecord wants every record that is taken to be the one form of what it says.
func FuzzParseRecord(f *testing.F) {
	plain := block.Block{Header: block.Header{Version: 1, Chain: "main", Height: 7}}
	full := plain
	full.Body.Transactions = [][]byte{[]byte("one"), []byte("two")}
	signed := block.Certificate{Signatures: []block.KeySignature{{Key: [32]byte{1},
		Signature: [64]byte{2}}}}
	f.Add(appendRecord(nil, plain.Append(nil), block.Certificate{}, nil))
	f.Add(appendRecord(nil, full.Append(nil), signed, [][]byte{[]byte("a"), []byte("bc")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		parsed, raw, receipts, err := parseRecord(b)
		if err != nil {
			return
		}
		unsigned := block.Block{Header: parsed.Header, Body: parsed.Body}
		again := appendRecord(nil, unsigned.Append(nil), parsed.Certificate, receipts)
		second, same, _, err := parseRecord(again)
		if err != nil || !bytes.Equal(raw, same) || second.Header != parsed.Header {
			t.Errorf("it reads as another block the second time: %v", err)
		}
	})
}
