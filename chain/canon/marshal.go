package canon

import (
	"cmp"
	"encoding/binary"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func appendMessage(dst []byte, m protoreflect.Message, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, &Error{Offset: -1, Err: ErrDepth}
	}
	if len(m.GetUnknown()) > 0 {
		return nil, &Error{Offset: -1, Err: ErrUnknownField}
	}
	if err := admit(m.Descriptor()); err != nil {
		return nil, err
	}
	var err error
	for _, field := range present(m) {
		if dst, err = appendField(dst, m, field, depth); err != nil {
			if e, ok := err.(*Error); ok {
				e.Path = join(string(field.Name()), e.Path)
			}
			return nil, err
		}
	}
	return dst, nil
}

// present lists the populated fields in ascending order.
func present(m protoreflect.Message) []protoreflect.FieldDescriptor {
	var fields []protoreflect.FieldDescriptor
	m.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields = append(fields, field)
		return true
	})
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int {
		return cmp.Compare(a.Number(), b.Number())
	})
	return fields
}

func appendField(dst []byte, m protoreflect.Message, field protoreflect.FieldDescriptor,
	depth int,
) ([]byte, error) {
	value, number := m.Get(field), int(field.Number())
	if !field.IsList() {
		return appendValue(dst, field, value, field.ContainingOneof() != nil, depth)
	}
	list := value.List()
	if packable(field.Kind()) {
		var mark Mark
		dst, mark = Begin(dst, number)
		for i := range list.Len() {
			dst = appendScalar(dst, field.Kind(), list.Get(i))
		}
		return End(dst, mark), nil
	}
	var err error
	for i := range list.Len() {
		if dst, err = appendValue(dst, field, list.Get(i), true, depth); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// appendValue appends tag and value; keep says whether an empty one stays.
func appendValue(dst []byte, field protoreflect.FieldDescriptor, value protoreflect.Value,
	keep bool, depth int,
) ([]byte, error) {
	number := int(field.Number())
	switch field.Kind() {
	case protoreflect.MessageKind:
		dst, mark := Begin(dst, number)
		dst, err := appendMessage(dst, value.Message(), depth+1)
		if err != nil || !keep {
			return End(dst, mark), err
		}
		return EndElement(dst, mark), nil
	case protoreflect.StringKind:
		if !utf8.ValidString(value.String()) {
			return nil, &Error{Offset: -1, Err: ErrUTF8}
		}
		return AppendElement(dst, number, value.String()), nil
	case protoreflect.BytesKind:
		return AppendElement(dst, number, value.Bytes()), nil
	}
	return appendScalar(appendTag(dst, number, wireOf(field.Kind())), field.Kind(), value), nil
}

func appendScalar(dst []byte, kind protoreflect.Kind, value protoreflect.Value) []byte {
	switch kind {
	case protoreflect.BoolKind:
		return binary.AppendUvarint(dst, protowire.EncodeBool(value.Bool()))
	case protoreflect.EnumKind:
		return binary.AppendUvarint(dst, uint64(int64(value.Enum())))
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return binary.AppendUvarint(dst, uint64(value.Int()))
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return binary.AppendUvarint(dst, protowire.EncodeZigZag(value.Int()))
	case protoreflect.Fixed32Kind:
		return binary.LittleEndian.AppendUint32(dst, uint32(value.Uint()))
	case protoreflect.Fixed64Kind:
		return binary.LittleEndian.AppendUint64(dst, value.Uint())
	case protoreflect.Sfixed32Kind:
		return binary.LittleEndian.AppendUint32(dst, uint32(value.Int()))
	case protoreflect.Sfixed64Kind:
		return binary.LittleEndian.AppendUint64(dst, uint64(value.Int()))
	}
	return binary.AppendUvarint(dst, value.Uint())
}

// wireOf is the wire type of one value of the kind.
func wireOf(kind protoreflect.Kind) uint8 {
	switch kind {
	case protoreflect.MessageKind, protoreflect.StringKind, protoreflect.BytesKind:
		return wireBytes
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		return wireFixed32
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return wireFixed64
	}
	return wireVarint
}

func packable(kind protoreflect.Kind) bool { return wireOf(kind) != wireBytes }
