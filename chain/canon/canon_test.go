package canon_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/united-containers/ucn/chain/canon"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
)

// signed lists every message of the network that is signed or hashed in canonical form.
var signed = []proto.Message{
	&chainv1.Transaction{}, &chainv1.Block{}, &chainv1.Genesis{}, &chainv1.ChainState{},
	&chainv1.Receipt{}, &chainv1.Account{}, &chainv1.Escrow{}, &chainv1.LeaseState{},
	&chainv1.LaneState{}, &chainv1.Note{}, &identityv1.Token{}, &identityv1.Certificate{},
	&jobv1.SignedRevision{}, &jobv1.SignedNote{}, &jobv1.AttemptStatus{}, &marketv1.Offer{},
	&eventv1.Envelope{}, &busv1.Request{}, &busv1.Reply{},
}

func TestEverySignedMessageHasACanonicalForm(t *testing.T) {
	for _, m := range signed {
		if err := canon.CheckDescriptor(m.ProtoReflect().Descriptor()); err != nil {
			t.Errorf("%T: %v", m, err)
		}
	}
}

func TestCheckDescriptorRefuses(t *testing.T) {
	for name, m := range map[string]proto.Message{
		"map":    &structpb.Struct{},
		"double": &structpb.Value{},
		"proto2": &descriptorpb.FieldDescriptorProto{},
	} {
		if err := canon.CheckDescriptor(m.ProtoReflect().Descriptor()); !errors.Is(err,
			canon.ErrDescriptor) {
			t.Errorf("%s: got %v, want ErrDescriptor", name, err)
		}
		if _, err := canon.Marshal(m); !errors.Is(err, canon.ErrDescriptor) {
			t.Errorf("%s: Marshal: got %v, want ErrDescriptor", name, err)
		}
		err := canon.Unmarshal(nil, m)
		if !errors.Is(err, canon.ErrDescriptor) {
			t.Errorf("%s: Unmarshal: got %v, want ErrDescriptor", name, err)
		}
	}
}

// byteTests are bytes that are not canonical, and where the error says so.
var byteTests = []struct {
	name   string
	of     proto.Message
	in     []byte
	want   error
	offset int
	path   string
}{
	{"truncated tag", &chainv1.Transfer{}, []byte{0x80}, canon.ErrTruncated, 0, ""},
	{"truncated value", &chainv1.Transfer{}, []byte{0x10, 0x80}, canon.ErrTruncated, 0, "amount"},
	{"truncated bytes", &chainv1.Transfer{}, []byte{0x0a, 5, 1}, canon.ErrTruncated, 0, "to"},
	{
		"non-minimal value", &chainv1.Transfer{}, []byte{0x10, 0x81, 0},
		canon.ErrNotMinimal, 0, "amount",
	},
	{"non-minimal tag", &chainv1.Transfer{}, []byte{0x90, 0, 1}, canon.ErrNotMinimal, 0, ""},
	{
		"non-minimal length", &chainv1.Transfer{}, append([]byte{0x0a, 0xa0, 0}, make([]byte, 40)...),
		canon.ErrNotMinimal, 0, "to",
	},
	{
		"over 64 bits", &chainv1.Transfer{},
		append([]byte{0x10}, bytes.Repeat([]byte{0xff}, 10)...), canon.ErrOverflow, 0, "amount",
	},
	{"default number", &chainv1.Transfer{}, []byte{0x10, 0}, canon.ErrDefault, 0, "amount"},
	{"default bytes", &chainv1.Transfer{}, []byte{0x0a, 0}, canon.ErrDefault, 0, "to"},
	{"default bool", &chainv1.Charge{}, []byte{0x20, 0}, canon.ErrDefault, 0, "final"},
	{"bool 2", &chainv1.Charge{}, []byte{0x20, 2}, canon.ErrOverflow, 0, "final"},
	{"default message", &chainv1.Charge{}, []byte{0x0a, 0}, canon.ErrDefault, 0, "note"},
	{
		"uint32 too large", &chainv1.TransactionBody{},
		[]byte{0x18, 0x80, 0x80, 0x80, 0x80, 0x10}, canon.ErrOverflow, 0, "signer",
	},
	{
		"enum not sign-extended", &chainv1.Escrow{},
		[]byte{0x10, 0xff, 0xff, 0xff, 0xff, 0x0f}, canon.ErrOverflow, 0, "purpose",
	},
	{
		"unknown field", &chainv1.Transfer{}, []byte{0x10, 1, 0x18, 1},
		canon.ErrUnknownField, 2, "field 3",
	},
	{"field 0", &chainv1.Transfer{}, []byte{0x00, 1}, canon.ErrUnknownField, 0, ""},
	{"repeated", &chainv1.Transfer{}, []byte{0x10, 1, 0x10, 1}, canon.ErrRepeatedField, 2, "amount"},
	{
		"repeated message", &chainv1.Transaction{}, []byte{0x0a, 2, 0x20, 1, 0x0a, 2, 0x20, 1},
		canon.ErrRepeatedField, 4, "body",
	},
	{"order", &chainv1.Transfer{}, []byte{0x10, 1, 0x0a, 1, 1}, canon.ErrOrder, 2, "to"},
	{"wire type", &chainv1.Transfer{}, []byte{0x15, 1, 0, 0, 0}, canon.ErrWireType, 0, "amount"},
	{"group", &chainv1.Transfer{}, []byte{0x0b, 0x0c}, canon.ErrWireType, 0, "to"},
	{"text", &chainv1.Header{}, []byte{0x12, 1, 0xff}, canon.ErrUTF8, 0, "chain"},
	{
		"two of a oneof", &chainv1.Operation{}, []byte{0x0a, 0, 0x12, 0}, canon.ErrOneof, 2,
		"set_keys",
	},
	{
		"one of a oneof twice", &chainv1.Operation{}, []byte{0x0a, 0, 0x0a, 0},
		canon.ErrRepeatedField, 2, "transfer",
	},
	{
		"nested", &chainv1.Transaction{}, []byte{0x0a, 6, 0x3a, 4, 0x0a, 2, 0x10, 0},
		canon.ErrDefault, 6, "body.operations[0].transfer.amount",
	},
}

func TestUnmarshalRefuses(t *testing.T) {
	for _, test := range byteTests {
		t.Run(test.name, func(t *testing.T) {
			err := canon.Unmarshal(test.in, test.of)
			var e *canon.Error
			if !errors.As(err, &e) || !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			want := fmt.Sprintf("%s: %v (at byte %d)", test.path, test.want, test.offset)
			if got := e.Error(); got != strings.TrimPrefix(want, ": ") {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestMarshalRefuses(t *testing.T) {
	unknown := &chainv1.Transfer{}
	unknown.ProtoReflect().SetUnknown([]byte{0x78, 1})
	tests := map[string]struct {
		m    proto.Message
		want error
	}{
		"unknown field": {unknown, canon.ErrUnknownField},
		"text":          {&chainv1.Header{Chain: "\xff"}, canon.ErrUTF8},
		"size":          {&busv1.Sealed{Data: make([]byte, canon.MaxSize)}, canon.ErrSize},
	}
	for name, test := range tests {
		if _, err := canon.Marshal(test.m); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestEmptyMessageIsLeftOut(t *testing.T) {
	got, err := canon.Marshal(&jobv1.JobSpec{
		Name: "a", Image: &jobv1.Image{}, Inputs: []*jobv1.Input{{}},
		Trigger: &jobv1.Trigger{Kind: &jobv1.Trigger_Once{Once: &jobv1.Once{}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// name, one empty input, and a trigger whose member of the oneof is empty.
	want := []byte{0x22, 1, 'a', 0x5a, 0, 0x82, 0x01, 2, 0x0a, 0}
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// TestAgreesWithProtobuf fills messages at random and compares with the library's own bytes.
func TestAgreesWithProtobuf(t *testing.T) {
	const seed = 7
	random := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		for _, of := range signed {
			m := of.ProtoReflect().New()
			fill(random, m, 1)
			got, err := canon.Marshal(m.Interface())
			if err != nil {
				t.Fatalf("%T: %v", of, err)
			}
			want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%T: canonical %x, protobuf %x (%v)", of, got, want, err)
			}
			back := of.ProtoReflect().New().Interface()
			if err := canon.Unmarshal(got, back); err != nil {
				t.Fatalf("%T: %v", of, err)
			}
			if diff := cmp.Diff(m.Interface(), back, protocmp.Transform()); diff != "" {
				t.Fatalf("%T: %s", of, diff)
			}
		}
	}
}

// fill sets about half the fields to values that are not the default.
func fill(random *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	set := 0
	for i := range fields.Len() {
		field := fields.Get(i)
		if random.IntN(2) == 0 && (set > 0 || i < fields.Len()-1) {
			continue
		}
		set++
		if !field.IsList() {
			m.Set(field, value(random, field, m.NewField(field), depth))
			continue
		}
		list := m.Mutable(field).List()
		for range 1 + random.IntN(3) {
			if field.Message() != nil {
				fill(random, list.AppendMutable().Message(), depth+1)
				continue
			}
			list.Append(value(random, field, protoreflect.Value{}, depth))
		}
	}
}

func value(random *rand.Rand, field protoreflect.FieldDescriptor, empty protoreflect.Value,
	depth int,
) protoreflect.Value {
	number := uint64(1) + random.Uint64()>>(1+random.IntN(62))
	switch field.Kind() {
	case protoreflect.MessageKind:
		fill(random, empty.Message(), depth+1)
		return empty
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.Repeat("é", 1+random.IntN(99)))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(bytes.Repeat([]byte{1}, 1+random.IntN(200)))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(-1 - random.Int32N(9)))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number) | 1)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(-int32(uint32(number) | 1))
	}
	return protoreflect.ValueOfUint64(number)
}

// FuzzUnmarshal checks that what is accepted is what Marshal writes, byte for byte.
func FuzzUnmarshal(f *testing.F) {
	f.Add(uint8(0), []byte{0x0a, 4, 0x3a, 2, 0x0a, 0})
	f.Add(uint8(14), []byte{0x0a, 1, 1})
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		m := signed[int(which)%len(signed)].ProtoReflect().New().Interface()
		if canon.Unmarshal(in, m) != nil {
			return
		}
		out, err := canon.Marshal(m)
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%T: accepted %x, wrote %x (%v)", m, in, out, err)
		}
	})
}
