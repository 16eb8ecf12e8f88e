package bus

import (
	"testing"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/keys"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
)

func FuzzUnseal(f *testing.F) {
	key, err := keys.NewSealKey()
	if err != nil {
		f.Fatal(err)
	}
	good, err := seal(key.Public(), sealRequest, []byte("hello"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		raw, err := unseal(key, sealRequest, sealed)
		if err == nil && (string(raw) != "hello" || string(sealed) != string(good)) {
			t.Error("something opened that was never sealed")
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	receiver := sig.FromSeed([32]byte{1}).Public()
	good, err := canon.Marshal(&busv1.Request{
		Body: &busv1.RequestBody{
			Id: make([]byte, idSize), Receiver: receiver[:], Method: "Echo", NotAfter: 1,
			ReplyTo: subject.Reply(), ReplyKey: make([]byte, 32), Payload: []byte("x"),
		},
		Proof: &busv1.Request_Token{Token: "t"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRequest(raw, receiver)
		if err != nil {
			return
		}
		back, err := canon.Marshal(r)
		if err != nil || string(back) != string(raw) {
			t.Errorf("decoded bytes are not canonical: %v", err)
		}
		if !isControl(r.Body.Method) && !subject.IsReply(r.Body.ReplyTo) {
			t.Errorf("replies would go to %q", r.Body.ReplyTo)
		}
		_ = requestID(r.Body.Id) // panics if the length is wrong
	})
}

func FuzzDecodeReply(f *testing.F) {
	key := sig.FromSeed([32]byte{1})
	b := &busv1.ReplyBody{Request: make([]byte, idSize), Seq: 1, Payload: []byte("x")}
	body, err := canon.Marshal(b)
	if err != nil {
		f.Fatal(err)
	}
	signature := key.Sign(sig.Preimage(sig.DomainReply, nil, body))
	good, err := canon.Marshal(&busv1.Reply{Body: b, Signature: signature[:]})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, err := decodeReply(raw, key.Public(), requestID{})
		if err == nil && string(raw) != string(good) {
			t.Error("a reply was accepted that was never signed")
		}
	})
}

func FuzzDecodeControl(f *testing.F) {
	good, err := control{stream: requestID{1}, read: 7}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := decodeControl(raw)
		if err != nil {
			return
		}
		if back, err := c.encode(); err != nil || string(back) != string(raw) {
			t.Errorf("decoded bytes are not canonical: %v", err)
		}
	})
}
