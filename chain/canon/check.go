package canon

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkMessage reads the fields of the current message to its end.
func checkMessage(r *Reader, of protoreflect.MessageDescriptor, depth int) {
	if depth > MaxDepth {
		r.Fail(ErrDepth)
		return
	}
	if err := admit(of); err != nil {
		r.Fail(ErrDescriptor)
		return
	}
	var oneofs []protoreflect.OneofDescriptor
	for r.Next() {
		field := of.Fields().ByNumber(protoreflect.FieldNumber(r.Field()))
		if field == nil {
			r.Unknown()
			return
		}
		if one := field.ContainingOneof(); one != nil && !r.again {
			for _, other := range oneofs {
				if other.Index() == one.Index() {
					r.Fail(ErrOneof)
				}
			}
			oneofs = append(oneofs, one)
		}
		checkField(r, field, depth)
	}
}

func checkField(r *Reader, field protoreflect.FieldDescriptor, depth int) {
	list, keep := field.IsList(), field.ContainingOneof() != nil
	switch field.Kind() {
	case protoreflect.MessageKind:
		frame := openField(r, field)
		checkMessage(r, field.Message(), depth+1)
		r.Close(frame)
		return
	case protoreflect.StringKind, protoreflect.BytesKind:
		if !list && !r.singular(wireBytes) {
			return
		}
		b := r.Element(MaxSize)
		if !list && !keep && len(b) == 0 {
			r.Fail(ErrDefault)
		}
		if field.Kind() == protoreflect.StringKind && !utf8.Valid(b) {
			r.Fail(ErrUTF8)
		}
		return
	}
	if list {
		checkPacked(r, field.Kind())
		return
	}
	if r.singular(wireOf(field.Kind())) && checkScalar(r, field.Kind()) && !keep {
		r.Fail(ErrDefault)
	}
}

func openField(r *Reader, field protoreflect.FieldDescriptor) Frame {
	name := string(field.Name())
	switch {
	case field.IsList():
		return r.OpenElement(name)
	case field.ContainingOneof() != nil:
		return r.OpenOneof(name)
	}
	return r.Open(name)
}

func checkPacked(r *Reader, kind protoreflect.Kind) {
	if r.err == nil && r.wire == wireOf(kind) {
		r.Fail(ErrNotPacked)
		return
	}
	if !r.singular(wireBytes) {
		return
	}
	outer := r.end
	b := r.take(r.end)
	if r.err != nil {
		return
	}
	if len(b) == 0 {
		r.Fail(ErrDefault)
	}
	r.end = r.pos
	r.pos -= len(b)
	for r.err == nil && r.pos < r.end {
		checkScalar(r, kind)
	}
	r.end = outer
}

// checkScalar reads one scalar and reports whether it is zero.
func checkScalar(r *Reader, kind protoreflect.Kind) (zero bool) {
	switch wireOf(kind) {
	case wireFixed32:
		b := r.raw(4)
		return b != nil && binary.LittleEndian.Uint32(b) == 0
	case wireFixed64:
		b := r.raw(8)
		return b != nil && binary.LittleEndian.Uint64(b) == 0
	}
	v := r.varint()
	if r.err != nil {
		return false
	}
	if !fits(kind, v) {
		r.Fail(ErrOverflow)
	}
	return v == 0
}

// fits reports whether a varint is the one encoding of a value of the kind.
func fits(kind protoreflect.Kind, v uint64) bool {
	switch kind {
	case protoreflect.BoolKind:
		return v <= 1
	case protoreflect.Uint32Kind, protoreflect.Sint32Kind:
		return v <= math.MaxUint32
	case protoreflect.Int32Kind, protoreflect.EnumKind:
		return int64(v) == int64(int32(v))
	}
	return true
}

func (r *Reader) raw(n int) []byte {
	if r.end-r.pos < n {
		r.Fail(ErrTruncated)
		return nil
	}
	r.pos += n
	return r.buf[r.pos-n : r.pos]
}
