package bus

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/keys"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
)

// Bounds of what travels, in bytes.
const (
	MaxMessage     = 512 << 10 // canonical bytes of one request or response message
	MaxMethod      = 64
	maxStatus      = 16 << 10 // of a serialised error
	maxSealed      = MaxMessage + 32<<10
	maxTraceparent = 64
	idSize         = 16
)

// What HPKE binds a sealed text to, so that a request never opens as a reply.
const (
	sealRequest = "ucn/request/v1"
	sealReply   = "ucn/reply/v1"
)

// Methods that clients of a stream use and that no handler serves. Their payload is a
// google.protobuf.BytesValue of the stream's request id, for methodKeep followed by the seq, 8
// bytes big-endian, up to which replies were read. They are not answered.
const (
	methodKeep   = "bus.v1/Keep"
	methodCancel = "bus.v1/Cancel"
)

// errWire is wrapped by every error of the decoders: such a message cannot be answered.
var errWire = errors.New("not a message of the bus")

type requestID [idSize]byte

// seal wraps canonical bytes for a receiver.
func seal(to keys.SealPublic, info string, raw []byte) ([]byte, error) {
	data, err := keys.Seal(to, info, raw)
	if err != nil {
		return nil, err
	}
	sealed, err := canon.Marshal(&busv1.Sealed{Data: data})
	if err != nil {
		return nil, fmt.Errorf("encode sealed message: %w", err)
	}
	return sealed, nil
}

func unseal(key keys.SealKey, info string, sealed []byte) ([]byte, error) {
	if len(sealed) > maxSealed {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errWire, len(sealed), maxSealed)
	}
	var m busv1.Sealed
	if err := canon.Unmarshal(sealed, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errWire, err)
	}
	raw, err := keys.Open(key, info, m.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errWire, err)
	}
	return raw, nil
}

// decodeRequest reads an opened request that the given instance received. It checks form and
// receiver; who asks and when are judged elsewhere.
func decodeRequest(raw []byte, receiver sig.PublicKey) (*busv1.Request, error) {
	r := new(busv1.Request)
	if err := canon.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%w: %w", errWire, err)
	}
	b := r.GetBody()
	control := isControl(b.GetMethod())
	switch {
	case len(b.GetId()) != idSize:
		return nil, fmt.Errorf("%w: request id", errWire)
	case string(b.GetReceiver()) != string(receiver[:]):
		return nil, fmt.Errorf("%w: the request is for another instance", errWire)
	case b.GetMethod() == "" || len(b.GetMethod()) > MaxMethod:
		return nil, fmt.Errorf("%w: method", errWire)
	case !control && !subject.IsReply(b.GetReplyTo()):
		return nil, fmt.Errorf("%w: reply subject", errWire)
	case !control && len(b.GetReplyKey()) != len(keys.SealPublic{}):
		return nil, fmt.Errorf("%w: reply key", errWire)
	case len(b.GetPayload()) > MaxMessage || len(b.GetTraceparent()) > maxTraceparent:
		return nil, fmt.Errorf("%w: payload or traceparent is too long", errWire)
	}
	return r, nil
}

func isControl(method string) bool { return method == methodKeep || method == methodCancel }

// decodeReply reads an opened reply and checks that the instance signed it for this request.
func decodeReply(raw []byte, from sig.PublicKey, request requestID) (*busv1.ReplyBody, error) {
	r := new(busv1.Reply)
	if err := canon.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%w: %w", errWire, err)
	}
	b := r.GetBody()
	if string(b.GetRequest()) != string(request[:]) || b.GetSeq() == 0 {
		return nil, fmt.Errorf("%w: the reply is to another request", errWire)
	}
	body, err := canon.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errWire, err)
	}
	signature, err := sig.ParseSignature(r.GetSignature())
	if err != nil || !sig.Verify(from, sig.Preimage(sig.DomainReply, nil, body), signature) {
		return nil, fmt.Errorf("%w: %w", errWire, ErrForged)
	}
	return b, nil
}

// encodeReply signs and seals a reply.
func encodeReply(key sig.PrivateKey, to keys.SealPublic, b *busv1.ReplyBody) ([]byte, error) {
	body, err := canon.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode reply: %w", err)
	}
	signature := key.Sign(sig.Preimage(sig.DomainReply, nil, body))
	raw, err := canon.Marshal(&busv1.Reply{Body: b, Signature: signature[:]})
	if err != nil {
		return nil, fmt.Errorf("encode reply: %w", err)
	}
	return seal(to, sealReply, raw)
}

// control is the payload of methodKeep and methodCancel.
type control struct {
	stream requestID
	read   uint64 // methodKeep only
}

func (c control) encode() ([]byte, error) {
	raw := binary.BigEndian.AppendUint64(c.stream[:], c.read)
	return canon.Marshal(wrapperspb.Bytes(raw))
}

func decodeControl(payload []byte) (control, error) {
	var m wrapperspb.BytesValue
	if err := canon.Unmarshal(payload, &m); err != nil {
		return control{}, fmt.Errorf("%w: %w", errWire, err)
	}
	if len(m.Value) != idSize+8 {
		return control{}, fmt.Errorf("%w: control of %d bytes", errWire, len(m.Value))
	}
	return control{
		stream: requestID(m.Value[:idSize]),
		read:   binary.BigEndian.Uint64(m.Value[idSize:]),
	}, nil
}
